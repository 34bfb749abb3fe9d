# SPDX-License-Identifier: MIT
"""Which files, ports and memory the engine is given."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.foreign_files import write_gguf
from trit.base.errors import UserError
from trit.base.places import BUILD_DIR
from trit.base.sandbox import Sandbox, landlock_version
from trit.engine import confinement
from trit.engine.confinement import (
    FOLDER_FLAGS,
    READ_FLAGS,
    WRITE_FLAGS,
    memory_limit,
    named,
    parse_bytes,
    tuning_file,
    written,
)

# Left out on purpose; docs/security.md says why.
UNCONFINED = {"-hff", "--hf-file", "--mcp-servers-config", "--models-dir", "--models-preset", "--video-ffmpeg-dir"}
GIB = 1 << 30


def parse(*words: str, default: bool = True) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    confinement.add_flags(parser, default=default)
    return parser.parse_args(words)


@pytest.mark.parametrize("program", ["llama-server", "llama-completion", "llama-cli"])
def test_every_flag_of_the_engine_that_names_a_file_is_known(engine_bin: Path, program: str) -> None:
    text = subprocess.run([engine_bin / program, "--help"], capture_output=True, text=True, check=True).stdout
    value = re.compile(r"^(-.*?) (?:[A-Z_]*(?:FNAME|FILE|PATH|DIR)\b)", re.MULTILINE)
    flags = {flag.strip() for match in value.finditer(text) for flag in match[1].split(",")}
    assert len(flags) > 15, "the help no longer looks as it did"
    assert flags - READ_FLAGS - WRITE_FLAGS - FOLDER_FLAGS - UNCONFINED == set()


def test_values_are_lists_with_scales_and_split_models(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    adapters = [tmp_path / name for name in ("a.gguf", "b:c.gguf", "d.gguf")]
    for path in (*parts, *adapters):
        path.touch()
    a, b, d = map(str, adapters)
    command = ["llama-server", "-m", str(parts[0]), "--lora", f"{a},{b}", "--lora-scaled", f"{d}:0.5", "-md", "gone"]
    assert set(named(command)) == {*parts, *adapters}


def test_a_flag_in_the_place_of_a_value_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt may be the name of a flag; what follows it is the wrapper's next flag."""
    monkeypatch.chdir(tmp_path)
    assert list(written(["llama-completion", "-p", "--log-file", "-no-cnv"])) == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_to_be_written_is_made_where_it_can_be(tmp_path: Path) -> None:
    log, slots, nowhere = tmp_path / "a,b.log", tmp_path / "slots", tmp_path / "gone" / "log"
    command = ["llama-server", "--log-file", str(log), "--slot-save-path", str(slots), "--output", str(nowhere)]
    assert list(written(command)) == [log, nowhere, slots]
    assert sorted(tmp_path.iterdir()) == [log, slots]


def test_the_tuning_file_is_the_one_that_the_engine_opens() -> None:
    assert tuning_file({}) == BUILD_DIR / "tuning.json"
    assert tuning_file({"TRIT_TUNING": "/a/b.json"}) == Path("/a/b.json")


@pytest.mark.parametrize(("text", "size"), [("900M", 900 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("0", 0)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["10M", "0.5M", "2000T", "9" * 30 + "G", "9" * 400 + "G"])
def test_limits_that_cannot_be_right(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected 16M to 1024T"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "12", "-1G", "1 G", "many", "1K"])
def test_wrong_sizes_say_what_is_expected(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a size such as"):
        parse_bytes(text)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Of 4 layers with 2 heads of keys and values, each of 8 numbers."""
    path = tmp_path / "model.gguf"
    numbers = {
        **{"block_count": 4, "embedding_length": 64, "context_length": 1000},
        **{"attention.head_count": 8, "attention.head_count_kv": 2},
    }
    uint32, string = 4, 8
    keys = [(f"llama.{key}", uint32, None, value) for key, value in numbers.items()]
    return write_gguf(path, [("general.architecture", string, None, "llama"), *keys], [])


@pytest.mark.parametrize(
    ("limit", "flags", "said"),
    [
        (
            "20M",
            "-t 2 -c 256",
            "--memory-limit 20 MiB: the attention cache takes 0 MiB, the stacks of the threads 16 MiB ",
        ),
        ("400M", "-t 64 -c 256", "the stacks of the threads 512 MiB and packed weights up to 0 MiB; give 1.0 GiB"),
        ("200M", "-t 1 -c 1000000", "the attention cache takes 244 MiB, the stacks of the threads 8 MiB"),
    ],
)
def test_a_memory_limit_that_is_too_small_is_refused(
    limit: str, flags: str, said: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confinement, "_stack", lambda: 8 << 20)
    command = ["llama-completion", "-m", str(model), *flags.split()]
    with pytest.raises(UserError) as error:
        confinement.check_memory_limit(parse_bytes(limit), command, [model])
    assert said in str(error.value)
    enough = re.search(r"give (\S+) (\w)iB$", str(error.value))
    assert enough
    confinement.check_memory_limit(parse_bytes(enough[1] + enough[2]), command, [model])
    # A cache of another type may be smaller.
    if "stacks of the threads 8 MiB" in said:
        confinement.check_memory_limit(parse_bytes(limit), [*command, "-ctk", "q4_0"], [model])


def test_the_memory_limit_grows_with_model_context_and_kept_chats(model: Path) -> None:
    # 4 layers x 2 heads x (8 + 8) numbers x 4 bytes
    token = 4 * 2 * 16 * 4
    weights = model.stat().st_size

    def limit(*flags: str, program: str = "llama-server") -> int | None:
        return memory_limit([program, "-m", str(model), *flags], [model])

    assert limit("-c", "256", "-cram", "0") == 2 * (weights + 256 * token) + 3 * GIB
    assert limit("-c", "0", "-cram", "0") == 2 * (weights + 1000 * token) + 3 * GIB
    assert limit("-c", "256", "--cache-ram", "100") == 2 * (weights + 256 * token) + (100 << 20) + 3 * GIB
    assert limit("-c", "256") == 2 * (weights + 256 * token) + 11 * GIB
    assert limit("-c", "256", program="llama-completion") == 2 * (weights + 256 * token) + 3 * GIB
    assert limit("-c", "256", "-cram", "-1") is None
    # Each thread has a stack: those of 512 are more than the room for everything else.
    resource = pytest.importorskip("resource")
    few, many = (limit("-t", text, "-tb", "3", "-cram", "0") for text in ("2", "512"))
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    assert few and many and many - few == 510 * (8 << 20 if stack == resource.RLIM_INFINITY else stack)


def test_without_landlock_it_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(confinement, "landlock_version", lambda: 0)
    assert confinement.prepare(parse(), ["llama-server"]) is None
    assert "the engine is not confined" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"--sandbox: .* has no Landlock"):
        confinement.prepare(parse("--sandbox"), ["llama-server"])
    assert confinement.prepare(parse("--no-sandbox"), ["llama-server"]) is None
    assert confinement.prepare(parse(default=False), ["llama-server"]) is None
    assert capsys.readouterr().err == ""


def vocabulary(command: Sequence[str | Path], sandbox: Sandbox | None) -> int:
    enter = sandbox.enter if sandbox else None
    return subprocess.run(command, input=b"", capture_output=True, preexec_fn=enter, check=False).returncode


@pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")
def test_a_tool_s_program_opens_its_own_model_and_no_other(
    engine_bin: Path, story_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copy(story_gguf, tmp_path / "other.gguf"))
    program = engine_bin / "trit-vocabulary"
    sandbox = confinement.of_tool([program], read=[story_gguf])
    assert sandbox is not None and sandbox.limit is None
    assert vocabulary([program, story_gguf], sandbox) == 0
    assert vocabulary([program, other], sandbox) != 0
    assert vocabulary([program, other], confinement.of_tool([program, "-m", other])) == 0
    assert confinement.of_tool([tmp_path / "trit-vocabulary", story_gguf]) is None, "another build"
    monkeypatch.setenv("TRIT_SANDBOX", "off")
    assert confinement.of_tool([program]) is None


@pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")
def test_a_tool_reads_its_tuning_and_writes_what_it_saves(engine_bin: Path, tmp_path: Path) -> None:
    """The rules as the kernel gets them: each path is opened when its rule is made."""
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Sandbox, "_allow", lambda self, path, rights: opened.append(str(path)))
        command = [engine_bin / "llama-perplexity", "-f", tmp_path, "--save-all-logits", tmp_path / "saved"]
        confinement.of_tool(command, {"TRIT_TUNING": str(tmp_path / "tuning.json")})
    assert {str(tmp_path), str(tmp_path / "saved"), str(tmp_path / "tuning.json")} <= set(opened)


def test_a_format_of_the_engine_s_benchmark_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(confinement.written(["/bin/llama-bench", "-o", "jsonl"])) == []
    assert list(tmp_path.iterdir()) == []
    assert list(confinement.written(["/bin/llama-perplexity", "-o", "found"])) == [Path("found")]


def test_a_memory_limit_asks_for_the_sandbox() -> None:
    with pytest.raises(UserError, match="--memory-limit is part of the confinement"):
        confinement.prepare(parse("--memory-limit", "1G", default=False), ["llama-completion"])
