# SPDX-License-Identifier: MIT
"""Which models a server has, what memory they take, and what is refused before anything is loaded."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.tiny_gguf import tiny_model
from trit.base.errors import UserError, run_main
from trit.engine.confinement import state_bytes
from trit.run import serve
from trit.run.serving import plan
from trit.run.serving.budget import Need, choose_loaded, choose_slots
from trit.run.serving.supervise import Supervisor

# 100 bytes of weights, one for each token; work is half.
SMALL = Need(weights=100, token=1, window=None, work=50, trained=4096)
Run = Callable[[str], int]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Supervisor]:
    """What would have been started."""
    found: list[Supervisor] = []
    monkeypatch.setattr(serve, "engine_binary", lambda name: Path("/engine") / name)
    monkeypatch.setattr(serve, "check_port", lambda host, port: None)
    monkeypatch.setattr(serve, "supervise", lambda supervisor, ready: found.append(supervisor) or 0)
    monkeypatch.setattr(plan, "usable_memory_bytes", lambda: 1 << 40)
    monkeypatch.setattr(plan.batching, "multiply_rate", lambda threads: 1e14 / threads)
    monkeypatch.delenv("LLAMA_API_KEY", raising=False)
    return found


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models a.gguf, b.gguf and v.gguf; the last one gives vectors. It is the current one."""
    template = "{{ messages[0]['content'] }}"
    tiny_model(tmp_path / "a.gguf", tokenizer__chat_template=template)
    shutil.copy(tmp_path / "a.gguf", tmp_path / "b.gguf")
    tiny_model(tmp_path / "v.gguf", stablelm__pooling_type=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIT_HOME", str(tmp_path / "home"))
    return tmp_path


def run(line: str) -> int:
    return run_main(serve.command, shlex.split(line))


def value(supervisor: Supervisor, flag: str) -> str:
    return supervisor.command[supervisor.command.index(flag) + 1]


def test_slots_are_as_many_of_eight_as_a_quarter_of_the_memory_holds() -> None:
    assert choose_slots("m", SMALL, 1024, None, None) == 4
    found = [choose_slots("m", SMALL, 1024, None, 150 + 4 * 1024 * count) for count in (9, 8, 3, 1, 0.25)]
    assert found == [8, 8, 3, 1, 1]
    assert choose_slots("m", SMALL, 1024, 11, 150 + 11 * 1024) == 11, "those asked for may take all"


@pytest.mark.parametrize(
    ("context", "slots", "free", "said"),
    [
        (1024, None, 150 + 1023, "-c 1024: m takes 0 MB and the attention cache of one slot 0 MB, .* at most -c 768$"),
        (1024, 2, 150 + 2047, "of 2 slots .*; give at most -c 768, or a smaller --parallel$"),
        (256, 9, 150 + 512, "^--parallel 9: the slots of m take more .*; give a smaller --parallel$"),
        (1024, None, 150, "^m: takes 0 MB, but 0 MB of memory are free; end other programs, or serve a smaller"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(context: int, slots: int | None, free: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        choose_slots("m", SMALL, context, slots, free)


def test_a_window_bounds_the_cache() -> None:
    windowed = Need(weights=100, token=1, window=256, work=50, trained=4096)
    assert windowed.total(4096, 2) == 150 + 2 * 256
    assert choose_slots("m", windowed, 4096, 2, 150 + 2 * 256) == 2


def test_a_state_counts_in_each_slot_whatever_the_context() -> None:
    hybrid = replace(SMALL, token=1, state=300)
    assert hybrid.total(512, 2) == 150 + 2 * (512 + 300)
    assert hybrid.largest_context(2, 150 + 2 * (512 + 300)) == 512
    assert hybrid.largest_context(2, 150 + 2 * 300) == 0 == hybrid.largest_context(2, 200)


def test_the_state_of_linear_attention_by_the_engine_s_numbers() -> None:
    """Of a 27B: 48 layers with a state of 48 x 128 x 128 and 3 inputs of 10,240."""
    numbers = {
        "block_count": 64,
        "full_attention_interval": 4,
        "ssm.conv_kernel": 4,
        "ssm.group_count": 16,
        "ssm.state_size": 128,
        "ssm.inner_size": 6144,
    }
    keys = {"general.architecture": "qwen35", **{f"qwen35.{name}": value for name, value in numbers.items()}}
    assert state_bytes(keys) == 48 * (48 * 128 * 128 + 3 * 10_240) * 4
    assert state_bytes({**keys, "qwen35.block_count": 65, "qwen35.nextn_predict_layers": 1}) == state_bytes(keys)
    assert state_bytes({"general.architecture": "llama", "llama.block_count": 64}) == 0


def test_as_many_models_are_loaded_as_fit_whichever_they_are() -> None:
    assert choose_loaded([10, 30, 20], None, None) == 3
    assert [choose_loaded([10, 30, 20], None, free) for free in (60, 59, 50, 49, 30)] == [3, 2, 2, 1, 1]
    assert choose_loaded([10, 30, 20], 2, 50) == 2 and choose_loaded([10, 30], 5, 100) == 2
    with pytest.raises(UserError, match=r"^--models-max 3: .* give at most --models-max 2$"):
        choose_loaded([10, 30, 20], 3, 50)


def test_cache_types_count(models: Path) -> None:
    header = plan.inference.find_checked(models / "a.gguf")[1]
    half = Need.of(models / "a.gguf", header).token
    assert half > 0
    assert Need.of(models / "a.gguf", header, ["-ctk", "f32", "-ctv", "f32"]).token == 2 * half
    assert Need.of(models / "a.gguf", header, ["-ctk", "q8_0", "-ctv", "q8_0"]).token == round(half * 17 / 32)


def test_one_model_has_the_context_in_each_slot(started: list[Supervisor], models: Path) -> None:
    assert run("a.gguf -c 200 --parallel 3 -t 2") == 0
    (one,) = started
    assert [value(one, flag) for flag in ("-c", "-np", "-t", "--alias")] == ["768", "3", "2", "a"]
    assert "--models-preset" not in one.command
    assert value(one, "-ub") == "512" and one.env["TRIT_STEP"] == "512", "the tiny model is quick"


def test_several_models_share_threads(
    started: list[Supervisor], models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lists: list[str] = []
    write = plan.write_list
    monkeypatch.setattr(
        plan, "write_list", lambda made, folder: lists.append(write(made, folder).read_text()) or folder / "models.ini"
    )
    assert run('chat=a.gguf b.gguf v.gguf -t 7 -c 256 --parallel 2 --models-max 2 -p "Be kind"') == 0
    (one,) = started
    assert value(one, "--models-max") == "2" and "-m" not in one.command and "-t" not in one.command
    sections = dict(part.split("]\n", 1) for part in lists[0].split("[")[1:] if "]\n" in part)
    assert list(sections) == ["chat", "b", "v"]
    assert f"m = {models / 'a.gguf'}" in sections["chat"] or "m = a.gguf" in sections["chat"]
    for lines in sections.values():
        assert "c = 512\nnp = 2\nt = 3\n" in lines and "no-kv-unified = true\n" in lines
    assert "alias = a\n" in sections["chat"] and "chat-template-file = " in sections["b"]
    assert "embeddings = true" in sections["v"] and "template" not in sections["v"]
    assert not Path(value(one, "--models-preset")).parent.exists(), "the folder goes with the server"
    assert one.env["LLAMA_CACHE"].startswith(str(Path(value(one, "--models-preset")).parent))


def test_models_of_vectors_give_vectors(started: list[Supervisor], models: Path) -> None:
    assert run("v.gguf -c 1024") == run("a.gguf --embeddings") == run("a.gguf") == 0
    assert "--pooling" not in started[0].command and value(started[0], "-ub") == "256"
    assert value(started[1], "--pooling") == "mean" and "--embeddings" not in started[2].command


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.gguf a.gguf", "are both called a; call one of them otherwise: NAME=a"),
        ("x=a.gguf x=b.gguf", "are both called x"),
        ("no/=a.gguf c=", "c=: expected NAME=MODEL"),
        ("'a b=a.gguf'", "expected NAME=MODEL, with a name of letters"),
        ("a.gguf none.gguf", "the model none.gguf is not there"),
        ("-m a.gguf b.gguf", "unrecognized arguments: b.gguf"),
        ("a.gguf -- -np 8", "-- -np: is given in front of --, as --parallel"),
        ("a.gguf -- -c 8", "-- -c: is given in front of --, as -c"),
        ("a.gguf -- -hf org/name", "-- -hf: the model goes in front of --"),
        ("a.gguf -- --hf-repo-draft org/name", "the engine downloads nothing; fetch models with: trit pull NAME"),
        ("a.gguf -- --models-dir x", "-- --models-dir: name the models in front of --"),
        ("a.gguf -- --ssl-key-file x", "this server has no TLS; put a proxy"),
        ("a.gguf b.gguf -- --api-key x", "-- --api-key: of several models, keys go in front of --"),
        ("a.gguf --api-key-file a.gguf", "--api-key-file a.gguf: is no text in UTF-8"),
        ("a.gguf --api-key-file none", "none"),
        ("a.gguf --api-key ' '", "--api-key ' ': expected a text that is not empty"),
        ("a.gguf --parallel 0", "--parallel 0: expected 1 to 256"),
        ("a.gguf --unload-after 0", "--unload-after 0: expected 1 to 31536000"),
    ],
)
def test_mistakes_are_one_sentence(
    line: str, said: str, started: list[Supervisor], models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err and not started


def test_a_path_that_the_list_cannot_hold_is_named(
    started: list[Supervisor], models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (models / "b.gguf").rename(models / "b;c.gguf")
    assert run("a.gguf 'b;c.gguf'") == 2 and "none can have ; or # in its path" in capsys.readouterr().err
    assert run("'b;c.gguf'") == 0, "alone it can"


def test_keys_are_told_to_the_engine_alone(
    started: list[Supervisor], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "keys").write_text('# mine\n one \n\ntwo, "half"\n')
    assert run("a.gguf b.gguf --host 0.0.0.0 --api-key zero --api-key-file keys") == 0
    assert started[0].env["LLAMA_API_KEY"] == '"zero","one","two, ""half"""'
    assert "zero" not in " ".join(started[0].command)
    monkeypatch.setenv("LLAMA_API_KEY", "mine")
    assert run("a.gguf --api-key zero") == run("a.gguf") == 0
    assert [one.env["LLAMA_API_KEY"] for one in started[1:]] == ['"zero",mine', "mine"]
    monkeypatch.setenv("LLAMA_API_KEY", "")
    assert run("a.gguf") == 0 and "LLAMA_API_KEY" not in started[3].env


def test_too_little_memory_is_told_before_anything_starts(
    started: list[Supervisor], models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "usable_memory_bytes", lambda: 1 << 20)
    assert run("a.gguf") == 2
    assert "but 1 MB of memory are free" in capsys.readouterr().err and not started
