# SPDX-License-Identifier: MIT
"""run_inference.py: its flags and words with a made-up engine, its answers with the real one."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.tiny_gguf import EMPTY, tiny_model
from tests.support.told_engine import PERF, FakeEngine, run
from trit.base.errors import run_main
from trit.base.host import physical_cores
from trit.base.places import DEMO_PROMPT, ROOT
from trit.engine import inference
from trit.gguf.made import default_model
from trit.run import completion


def test_prints_the_text_and_nothing_else(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(engine, "-p", "Q") == 0
    assert capfd.readouterr() == ("An answer.\n", "")
    engine.answer(" Ended by the model.", " [end of text]\n\n\n")
    assert run(engine, "-p", "Q") == 0
    assert capfd.readouterr() == ("Ended by the model.\n", "")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([" a", "\n", "\n", "\n", "\n", "b", "\n\n"], "a\n\n\n\nb\n"),
        (["  two spaces, one is the model's", "\n\n"], " two spaces, one is the model's\n"),
        (["\nfirst a newline", "\n\n"], "\nfirst a newline\n"),
        ([" half [end of", " text]\n", "\n\n"], "half\n"),
        ([" it says [end of text] itself", "\n", "\n"], "it says [end of text] itself\n"),
        (["", "\n\n"], "\n"),
        ([" [end of text]\n\n\n"], "\n"),
        (["\xe2\x82", "\xac 5", "\n\n"], "\u20ac 5\n"),
    ],
)
def test_what_the_engine_adds_is_taken_off(
    engine: FakeEngine, parts: list[str], text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    engine.plan(stdout=parts, stderr=PERF.format(sampled=9), pause=0.01)
    assert run(engine, "-p", "Q") == 0
    assert capfd.readouterr().out == text


def test_text_streams(engine: FakeEngine) -> None:
    engine.plan(stdout=[" first", " second", "\n\n"], stderr=PERF.format(sampled=9), pause=0.5)
    code = "from trit.run import completion; "
    code += f"completion.engine_binary = lambda name: {str(engine.program)!r}; "
    code += f"completion.main(['-m', {str(engine.model)!r}, '-p', 'Q'])"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"first"
        assert process.poll() is None
        assert process.stdout.read() == b" second\n"


def test_flags_reach_the_engine(engine: FakeEngine) -> None:
    sampling = ["--seed", "5", "--top-k", "7", "--top-p", "0.5", "--repeat-penalty", "1.1"]
    own = ["-n", "6", "-t", "1", "-c", "500", "-temp", "0", *sampling, "-p", "A\\nB"]
    assert run(engine, *own, "--", "--ignore-eos", "-p", "x") == 0
    values = {"-m": str(engine.model), "-n": "6", "-t": "1", "-c": "512", "--temp": "0.0", "--seed": "5"}
    values |= {"--top-k": "7", "--top-p": "0.5", "--repeat-penalty": "1.1", "-p": "A\\nB"}
    assert {flag: engine.value(flag) for flag in values} == values
    assert {"-no-cnv", "--no-display-prompt"} <= set(engine.arguments)
    assert "--no-repack" not in engine.arguments
    assert engine.arguments[-3:] == ["--ignore-eos", "-p", "x"]


def test_defaults_are_bitnet_s(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = completion.build_parser().parse(["-p", "x"])[0]
    assert (defaults.ctx_size, defaults.temperature) == (2048, 0.8)
    monkeypatch.setattr(inference, "default_model", lambda: engine.model)
    assert run_main(completion.main, ["-p", "x"]) == 0 and engine.value("-m") == str(engine.model)
    assert (defaults.conversation, defaults.json, defaults.verbose) == (False, False, False)
    assert run(engine, "-p", "x") == 0
    assert engine.value("-t") == str(physical_cores()) and engine.value("-n") == "128"
    assert not {"--seed", "--top-k", "--top-p", "--repeat-penalty"} & set(engine.arguments)
    long = ["--model", "m", "--n-predict", "1", "--threads", "2", "--ctx-size", "3", "--temperature", "4"]
    short = ["-m", "m", "-n", "1", "-t", "2", "-c", "3", "-temp", "4", "-p", "x"]
    parse = completion.build_parser().parse
    assert parse([*long, "--prompt", "x"]) == parse(short)
    assert run(engine, "-p", "x", "--no-repack") == 0
    assert "--no-repack" in engine.arguments
    assert parse(["-cnv"])[0].conversation and parse(["--conversation"])[0].conversation


@pytest.mark.parametrize("prompt", ["-5 degrees", "--help", "-", "a=b", "x " * 20000])
def test_prompts_that_look_like_flags(engine: FakeEngine, prompt: str) -> None:
    assert run(engine, "-p", prompt) == 0
    assert engine.value("-p") == prompt


def test_json(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    engine.answer(" Caf\xc3\xa9.", " [end of text]\n\n\n", sampled=13)
    assert run(engine, "-p", "Q", "--json", "-t", "1", "-temp", "0.5") == 0
    out, err = capfd.readouterr()
    assert err == "" and out.count("\n") == 1
    assert json.loads(out) == {
        "text": " Caf\u00e9.",
        "stop": "end",
        "prompt_tokens": 5,
        "generated_tokens": 7,
        "prompt_tokens_per_second": 2500.0,
        "generated_tokens_per_second": 1750.0,
        "prompt_ms": 2.0,
        "generation_ms": 4.0,
        "sampling_ms": 0.41,
        "unaccounted_ms": 1.09,
        "load_ms": 46.4,
        "total_ms": 7.5,
        "model": str(engine.model),
        "threads": 1,
        "ctx_size": 2048,
        "seed": 77,
        "temperature": 0.5,
    }
    engine.answer(" One", sampled=6)
    assert run(engine, "-p", "Q", "--json") == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["stop"], result["generated_tokens"], result["generated_tokens_per_second"]) == ("length", 1, None)


def test_verbose_shows_the_engine_s_log_and_timings(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(engine, "-p", "Q", "--verbose") == 0
    out, err = capfd.readouterr()
    assert out == "An answer.\n"
    assert "sampler seed: 77" in err
    assert "prompt: 5 tokens, 2500.0 tokens/s\ngenerated: 8 tokens, 1750.0 tokens/s\n" in err


def test_notes_and_warnings_are_never_hidden(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    words = "0.00 I quiet\nwarning: tier avx2 is skipped: differs\n"
    words += "0.00.1.2 W llama_context: n_ctx_seq (2048) > n_ctx_train (8) -- possible training context overflow\n"
    words += "0.00.1.2 W \n\nllama_completion: context full and context shift is disabled => stopping\n"
    engine.plan(stdout=[" x", "\n\n"], stderr=words + PERF.format(sampled=13))
    assert run(engine, "-p", "Q") == 0
    assert capfd.readouterr().err.splitlines() == [
        "warning: tier avx2 is skipped: differs",
        "note: the context of 2048 tokens is full; -c sets a larger one",
        "note: 13 tokens, but the model was trained for 8: do not trust it here",
    ]


def test_a_busy_machine_is_said_to_people(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inference, "usable_cpus", lambda: 4)
    for load, arguments, at_terminal, told in [
        (2.4, ("-t", "2"), True, False),
        (2.6, ("-t", "2"), True, True),
        (0.6, ("-t", "4"), True, True),
        (9.0, ("-t", "1"), False, False),
        (9.0, ("-t", "1", "--json"), True, False),
    ]:
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0), raising=False)
        monkeypatch.setattr(sys.stderr, "isatty", lambda there=at_terminal: there, raising=False)
        assert run(engine, "-p", "Q", *arguments) == 0
        assert ("note: other programs are busy here" in capsys.readouterr().err) == told, (load, arguments)


def test_two_bos_are_said(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    words = "0.0 W check_double_bos_eos: Added a BOS token, but the prompt also starts with a BOS token. So now\n"
    engine.plan(stdout=[" x", "\n\n"], stderr=words + PERF.format(sampled=13))
    assert run(engine, "-p", "<s>Q") == 0
    assert capfd.readouterr().err.startswith("note: the prompt begins with the model's bos token")


def test_the_bundled_model_says_what_it_is_for(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(engine, "-p", "The capital of France is") == 0
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(completion, "BUNDLED_MODEL", engine.model.parent)
    assert run(engine, "-p", "The capital of France is", "--json") == 0
    assert run(engine, "-p", DEMO_PROMPT) == run(engine, "-p", "Ann left.\nWhere is Ann?\nAnswer: ") == 0
    assert capfd.readouterr().err == ""
    assert run(engine, "-p", "The capital of France is") == 0
    assert "only knows where somebody is" in capfd.readouterr().err


def test_a_folder_or_a_name_with_one_model_is_taken(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    (models / "Name").mkdir(parents=True)
    only = models / "Name" / "weights-00001-of-00002.gguf"
    only.write_bytes(EMPTY)
    (models / "Name" / "weights-00002-of-00002.gguf").write_bytes(EMPTY)
    monkeypatch.setattr(inference, "MODELS_DIR", models)
    for given in (str(only.parent), "org/Name", "https://hub.example/org/Name", "https://hub.example/org/Name/tree/x"):
        assert inference.find_model(Path(given)) == only
    assert inference.find_model(Path("org/Other")) == Path("org/Other")
    (models / "Name" / "second.gguf").write_bytes(EMPTY)
    assert inference.find_model(only.parent) == only.parent


def test_more_threads_than_cpus_is_said(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(engine, "-p", "Q", "-t", "500") == 0
    assert "note: -t 500 is more than this machine's" in capfd.readouterr().err


def test_prompt_from_a_file(engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("two\\nlines are one\n", encoding="utf-8")
    assert run(engine, "-f", str(file)) == 0
    assert engine.prompt == b"two\\nlines are one"
    assert "--no-escape" in engine.arguments
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("piped \u20ac\n".encode())))
    assert run(engine, "--file", "-") == 0
    assert engine.prompt == b"piped \xe2\x82\xac"
    reader, writer = os.pipe()
    os.write(writer, b"from a pipe\n")
    os.close(writer)
    assert run(engine, "-f", f"/dev/fd/{reader}") == 0
    assert engine.prompt == b"from a pipe"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"word " * 400_000)))
    assert run(engine, "--file", "-") == 0
    assert len(engine.prompt) == 2_000_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_prompt_files_of_other_systems(engine: FakeEngine, tmp_path: Path, encoding: str, end: str) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(f"H\u00e9l\u00e8ne sat down.{end}{end}Who sat?{end}".encode(encoding))
    assert run(engine, "-f", str(file)) == 0
    assert engine.prompt.decode() == "H\u00e9l\u00e8ne sat down.\n\nWho sat?"
    for codec, mark in (("utf-16-be", b"\xfe\xff"), ("utf-32-be", b"\0\0\xfe\xff")):
        file.write_bytes(mark + f"Big \u20ac{end}".encode(codec))
        assert run(engine, "-f", str(file)) == 0
        assert engine.prompt.decode() == "Big \u20ac"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the prompt is empty; give one with -p TEXT or -f FILE"),
        (("-p", ""), "the prompt is empty"),
        (("-f", "no/file"), "-f no/file cannot be read: No such file"),
        (("-f", "empty"), "-f empty is empty or no text"),
        (("-f", "binary"), "-f binary is not utf-16-le text (byte 2); save it as UTF-8"),
        (("-f", "latin"), "-f latin is not utf-8 text (byte 1); save it as UTF-8"),
        (("-f", "unmarked"), "-f unmarked is empty or no text"),
        (("where", "-n", "5", "is", "she"), "'where' stands alone; a prompt goes behind -p, in quotation marks: "),
        (("-p", "where", "is she"), "run_inference.py -p 'where is she'"),
        (
            ("-p", "x", "-m", "org/name"),
            "if that is a model on the Hub, fetch it with: python3 setup_env.py -hr org/name",
        ),
        (
            ("-p", "x", "-m", "https://hf.example/org/name/tree/v2"),
            "fetch it with: python3 setup_env.py -hr org/name@v2",
        ),
        (("-p", "x", "-m", "two"), "-m two is a folder; name one of the GGUF files in it: a.gguf, b.gguf"),
        (("-p", "x", "-m", "checkpoint"), "make one with: python3 setup_env.py -md checkpoint"),
        (("-p", "x", "-m", "checkpoint/x.gguf"), "make it with: python3 setup_env.py -md checkpoint"),
        (("-p", "x", "-m", "no.gguf"), "the model no.gguf is not there; beside it is model.gguf; give the path"),
        (("-p", "x", "-m", "binary"), "-m binary is not a GGUF file"),
        (("-p", "x", "-m", "bare"), "-m bare is a folder without a model in it; give the path of a GGUF file"),
        (("-cnv",), "has no chat template, so -cnv cannot be used with it"),
        (("-cnv", "--json"), "--json is for one prompt"),
    ],
)
def test_mistakes_are_one_sentence(
    engine: FakeEngine,
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0\xd8")
    (tmp_path / "latin").write_bytes(b"h\xe9")
    (tmp_path / "unmarked").write_bytes("text".encode("utf-16-le"))
    for name in ("two/a.gguf", "two/b.gguf", "checkpoint/config.json", "bare/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert run(engine, *arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("error: ") and err.count("\n") == 1


def test_conflicting_and_unknown_flags(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in (("-p", "x", "-f", "y"), ("-p", "x", "-n", "many")):
        assert run(engine, *arguments) == 2
        assert capfd.readouterr().err.count("\n") == 1
    assert run(engine, "-p", "x", "stray") == 2
    assert "'stray' stands alone" in capfd.readouterr().err
    assert run(engine, "-p", "x", "--unknown") == 2
    assert "run_inference.py ... -- --unknown" in capfd.readouterr().err


def test_missing_engine_and_missing_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trit.base.places.ENGINE_BIN", tmp_path)
    monkeypatch.setattr("trit.base.places.engine_program", lambda name, *_: tmp_path / name)
    model = tmp_path / "x.gguf"
    model.write_bytes(EMPTY)
    assert run_main(completion.main, ["-m", str(model), "-p", "x"]) == 2
    assert "the engine is not built" in capfd.readouterr().err
    bundled = tmp_path / "bundled"
    monkeypatch.setattr(inference, "BUNDLED_MODEL", bundled)
    monkeypatch.setattr(inference, "default_model", lambda: bundled / "ggml-model-i2_s.gguf")
    assert run_main(completion.main, ["-p", "x"]) == 2
    assert capfd.readouterr().err.endswith("is not there; make it with: python3 setup_env.py\n")
    # A file that set-up would make, if it were told to; beside it is what it made.
    (tmp_path / "ggml-model-tl2.gguf").write_bytes(b"GGUF")
    assert run_main(completion.main, ["-m", str(tmp_path / "ggml-model-i2_s.gguf"), "-p", "x"]) == 2
    assert capfd.readouterr().err.endswith(
        f"is not there; beside it is ggml-model-tl2.gguf; make it with: python3 setup_env.py -md {tmp_path} -q i2_s\n"
    )


def test_the_default_model_is_what_set_up_made_last(tmp_path: Path) -> None:
    assert default_model(tmp_path) == tmp_path / "ggml-model-i2_s.gguf"
    for age, name in enumerate(("tl2", "i2_s", "tl1")):
        path = tmp_path / f"ggml-model-{name}.gguf"
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    assert default_model(tmp_path).name == "ggml-model-tl2.gguf"


@pytest.mark.parametrize(
    ("plan", "code", "message"),
    [
        ({"code": 3}, 3, "the engine ended with exit code 3; see what it says with --verbose"),
        (
            {"code": 1, "stderr": "0.00.1.2 I x\n0.00.1.2 E y: first\n0.00.1.2 E z\n"},
            1,
            "exit code 1: y: first",
        ),
        ({"code": 1, "stderr": "error: invalid argument: --foo\n"}, 1, "exit code 1: invalid argument: --foo"),
        ({"code": 2, "stderr": "error: the model's file is gone\n"}, 2, "error: the model's file is gone\n"),
        ({"signal": 6, "stderr": "/x/ggml.c:7: GGML_ASSERT(a) failed\n"}, 134, "SIGABRT: /x/ggml.c:7: GGML_ASSERT(a)"),
        (
            {"signal": 4},
            132,
            "SIGILL; it was compiled for another CPU; make one for this: python3 setup_env.py --clean",
        ),
        ({"signal": 9}, 137, "SIGKILL; probably for want of memory"),
        (
            {"code": 1, "stderr": "0.00.1.2 E m: prompt is too long (90 tokens, max 60)\n"},
            2,
            "has 90 tokens",
        ),
    ],
)
def test_failures_are_passed_on_and_explained(
    engine: FakeEngine, plan: dict[str, object], code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    engine.plan(**plan)
    assert run(engine, "-p", "x") == code
    assert message in capfd.readouterr().err


def test_too_long_an_argument(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(engine, "-p", "x" * 3_000_000) == 2
    assert "give a long prompt with -f FILE" in capfd.readouterr().err


def gguf_with_template(path: Path, template: str) -> None:
    """A small model whose metadata names the key before it has it."""
    tiny_model(path, general__note="tokenizer.chat_template", tokenizer__chat_template=template)


def test_a_template_is_found_behind_its_name_in_a_text(engine: FakeEngine) -> None:
    gguf_with_template(engine.model, "{{ messages }} \u20ac")
    assert inference.chat_template(engine.model) == "{{ messages }} \u20ac"


def test_a_system_prompt_needs_a_message(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(engine, "-p", "x", "--system", "Be kind") == 2
    sentence = "error: --system: run_inference.py continues a prompt as it is; put the text in front of the prompt\n"
    assert capfd.readouterr().err == sentence


def test_unescape_is_the_engine_s() -> None:
    assert inference.unescape(r"a\nb\tc\"d\'e\\n\z") == "a\nb\tc\"d'e\\n\\z"


# From here on with the compiled engine.


def answer(gguf: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_inference.py"), "-m", str(gguf), "-t", "1", *arguments]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=False, **options
    )  # type: ignore[call-overload]


def test_the_demo(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    result = answer(story_gguf, "-p", DEMO_PROMPT, "-n", "6", "-temp", "0", "-t", "2", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "Mary is in the garden.\n", "")


def test_the_demo_as_json_from_a_file(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "story.txt"
    file.write_text(DEMO_PROMPT.replace("\\n", "\n") + "\n")
    result = answer(story_gguf, "-f", str(file), "-n", "20", "-temp", "0", "--json", "--seed", "9")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["text"], told["stop"], told["generated_tokens"]) == (" Mary is in the garden.", "end", 6)
    assert told["prompt_tokens"] > 30
    assert told["prompt_tokens_per_second"] > 0 and told["generated_tokens_per_second"] > 0
    assert (told["threads"], told["seed"], told["ctx_size"]) == (1, 9, 2048)


def test_real_sampling_repeats_with_its_seed(engine_bin: Path, story_gguf: Path) -> None:
    def sample(seed: int) -> str:
        flags = ["-p", "Mary", "-n", "30", "-temp", "3", "--top-k", "0", "--top-p", "1", "--seed", str(seed)]
        result = answer(story_gguf, *flags, "--", "--ignore-eos", "--min-p", "0")
        assert result.returncode == 0, result.stderr
        return str(result.stdout)

    first = sample(1)
    assert sample(1) == first
    assert sample(2) != first


def test_real_failures(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    long = answer(story_gguf, "-p", "Mary " * 400, "-c", "256")
    assert long.returncode == 2
    assert "the context has room for 252; give a larger -c" in long.stderr
    unloadable = tmp_path / "unloadable.gguf"
    unloadable.write_bytes(EMPTY)
    broken = answer(unloadable, "-p", "x")
    assert broken.returncode == 2
    assert broken.stderr.startswith(f"error: {unloadable}: the engine does not load it: error loading model hyper")
    unknown = answer(story_gguf, "-p", "x", "--", "--no-such-flag")
    assert unknown.returncode == 2
    assert unknown.stderr.splitlines()[-1] == "error: invalid argument: --no-such-flag"


def test_real_context_that_fills_up(engine_bin: Path, story_gguf: Path) -> None:
    result = answer(story_gguf, "-p", "Mary", "-n", "-1", "-c", "256", "-temp", "0", "--", "--ignore-eos")
    assert result.returncode == 0
    assert "note: the context of 256 tokens is full" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_cleanly(engine_bin: Path, story_gguf: Path) -> None:
    """As a terminal does it: the signal goes to the whole group."""
    command = [sys.executable, str(ROOT / "run_inference.py"), "-m", str(story_gguf), "-p", DEMO_PROMPT, "-n", "100000"]
    command += ["-t", "1", "--", "--ignore-eos", "--context-shift"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.read(1)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert error.strip() == ""


def with_pooling(path: Path, pooling: int | None) -> Path:
    """A small model with a word about pooling among its metadata, or none."""
    more = {} if pooling is None else {"stablelm__pooling_type": pooling}
    return tiny_model(path, general__note="x.pooling_type", **more)


@pytest.mark.parametrize(("pooling", "embeds"), [(None, False), (0, False), (1, True), (3, True)])
def test_embedding_models_are_told_by_their_pooling(tmp_path: Path, pooling: int | None, embeds: bool) -> None:
    assert inference.is_embedding_model(with_pooling(tmp_path / "model.gguf", pooling)) == embeds


def test_an_embedding_model_is_not_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = with_pooling(tmp_path / "model.gguf", 3)
    assert run_main(completion.main, ["-m", str(model), "-p", "hi"]) == 2
    sentence = capsys.readouterr().err
    assert f"{model} is an embedding model: it gives vectors, not answers; serve it with: " in sentence
    assert sentence.endswith(f"run_inference_server.py -m {model} -- --embeddings\n")
