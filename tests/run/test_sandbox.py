# SPDX-License-Identifier: MIT
"""The engine itself, confined: it answers as before, and can do nothing else."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.serving import descendants
from trit.base.errors import run_main
from trit.base.places import BUILD_DIR, ROOT
from trit.base.sandbox import Sandbox, landlock_version
from trit.gguf.header import read_raw_header
from trit.gguf.made import default_model
from trit.run import completion

pytestmark = pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")
PROMPT = "Sandra went to the office. John moved to the garden. Where is Sandra?\nAnswer:"
ANSWER = "Sandra is in the office."

Ask = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ask(engine_bin: Path) -> Ask:
    """run_inference.py, confined."""
    assert (engine_bin / "llama-completion").is_file()

    def run(*flags: str, engine: Sequence[str | Path] = ()) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / "run_inference.py", "--sandbox", "--temperature", "0", "-n", "9", *flags]
        command += ["-p", PROMPT, "--", *engine]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(
    *flags: str, engine: Sequence[str | Path] = (), address: str = ""
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    port = free_port()
    command = [sys.executable, ROOT / "run_inference_server.py", "-t", "1", "--port", str(port), *flags, "--", *engine]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = address or f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=1):
                break
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        yield process, address
    finally:
        process.kill()
        process.communicate()


def post(address: str, route: str, body: object) -> dict[str, object]:
    request = urllib.request.Request(address + route, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)  # type: ignore[no-any-return]


def test_a_confined_engine_answers_and_finds_its_tuning(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRIT_TUNING", str(tmp_path / "tuning.json"))
    (tmp_path / "tuning.json").write_text("no tuning")
    done = ask()
    assert (done.returncode, done.stdout.strip()) == (0, ANSWER)
    # It was opened and read: else it could not be called broken, but only unreadable.
    assert "tuning.json" in done.stderr
    assert "cannot be read" not in done.stderr
    monkeypatch.delenv("TRIT_TUNING")
    if (BUILD_DIR / "tuning.json").is_file():
        assert "cannot be read" not in ask().stderr


def test_files_that_flags_name_are_open_to_it(ask: Ask, tmp_path: Path) -> None:
    grammar, cache, log = tmp_path / "words.gbnf", tmp_path / "prompt.cache", tmp_path / "engine.log"
    grammar.write_text('root ::= " Sandra sits" [.]')
    done = ask(engine=["--grammar-file", grammar, "--prompt-cache", cache, "--log-file", log])
    assert (done.returncode, done.stdout.strip()) == (0, "Sandra sits.")
    assert cache.stat().st_size > 0
    assert log.stat().st_size > 0


def test_no_other_file_is(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the engine can name a file, too; only flags are asked."""
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}")
    monkeypatch.setenv("LLAMA_ARG_CHAT_TEMPLATE_FILE", str(template))
    done = ask("--verbose")
    assert done.returncode != 0
    assert str(template) in done.stderr
    assert ask("--no-sandbox").returncode == 0


def test_a_confined_chat_answers(engine_bin: Path) -> None:
    assert engine_bin.is_dir()
    command = [sys.executable, ROOT / "run_inference.py", "-cnv", "--sandbox", "-n", "5", "--"]
    command += ["--no-jinja", "--chat-template", "llama3"]
    done = subprocess.run(command, input="Hello\n/exit\n", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_engine_that_cannot_be_confined_is_not_started(
    engine_bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Sandbox) -> None:
        raise OSError("no more layers")

    assert engine_bin.is_dir()
    monkeypatch.setattr(Sandbox, "enter", refuse)
    assert run_main(completion.main, ["-p", PROMPT, "--sandbox"]) == 1
    assert capsys.readouterr().err == "error: the kernel refuses to confine the engine; leave --sandbox away\n"


def test_the_memory_limit_ends_it_with_a_sentence(ask: Ask) -> None:
    done = ask("--memory-limit", "36M", "-t", "1", "-c", "256")
    assert done.returncode not in (0, 2)
    assert re.search(r"^error: the engine has met its memory limit of 36 MiB; .*--memory-limit$", done.stderr, re.M)
    assert "Traceback" not in done.stderr
    done = ask("--memory-limit", "20M", "-t", "2")  # known before
    assert done.returncode == 2
    assert re.search(r"^error: --memory-limit 20 MiB: .* the threads .*; give \d+ MiB$", done.stderr, re.M)


def test_so_it_does_a_server(engine_bin: Path) -> None:
    assert engine_bin.is_dir()
    command = [sys.executable, ROOT / "run_inference_server.py", "--port", str(free_port()), "--memory-limit", "40M"]
    command += ["-t", "1", "-c", "256"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "error: the engine has met its memory limit of 40 MiB; give" in done.stderr


def test_the_engine_s_own_port_and_a_socket_are_listened_on(engine_bin: Path, tmp_path: Path) -> None:
    """Flags behind -- win over the wrapper's."""
    assert engine_bin.is_dir()
    port = free_port()
    with server(engine=["--port", str(port)], address=f"http://127.0.0.1:{port}") as (_, address):
        assert post(address, "/tokenize", {"content": "Sandra"})["tokens"]
    place = tmp_path / "server.sock"
    command = [sys.executable, ROOT / "run_inference_server.py", "--host", place]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with closing(socket.socket(socket.AF_UNIX)) as client:
            for _ in range(300):
                with suppress(OSError):
                    client.connect(str(place))
                    break
                assert process.poll() is None
                time.sleep(0.1)
            client.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert client.recv(99).startswith(b"HTTP/1.")
    finally:
        process.kill()
        process.wait()


def test_an_adapter_is_loaded(engine_bin: Path, tmp_path: Path) -> None:
    import gguf
    import numpy as np

    assert engine_bin.is_dir()
    header = read_raw_header(default_model())
    rows, columns = header.tensors["blk.0.attn_output.weight"].shape
    writer = gguf.GGUFWriter(tmp_path / "adapter.gguf", header.metadata["general.architecture"])
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    writer.add_tensor("blk.0.attn_output.weight.lora_a", np.zeros((1, columns), np.float32))
    writer.add_tensor("blk.0.attn_output.weight.lora_b", np.zeros((rows, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with (
        server(engine=["--lora", tmp_path / "adapter.gguf"]) as (_, address),
        urllib.request.urlopen(f"{address}/lora-adapters", timeout=10) as response,
    ):
        assert [one["path"] for one in json.load(response)] == [str(tmp_path / "adapter.gguf")]


def test_the_server_is_confined_by_default_and_serves(engine_bin: Path, tmp_path: Path) -> None:
    assert engine_bin.is_dir()
    with server(engine=["--slot-save-path", tmp_path / "slots/"]) as (process, address):
        told = post(address, "/v1/completions", {"prompt": PROMPT, "max_tokens": 9, "temperature": 0})
        assert told["choices"][0]["text"].strip() == ANSWER  # type: ignore[index]
        saved = post(address, "/slots/0?action=save", {"filename": "one"})
        assert (tmp_path / "slots" / "one").stat().st_size == saved["n_written"]
        (engine,) = descendants(process.pid)
        assert "NoNewPrivs:\t1" in Path(f"/proc/{engine}/status").read_text()
        limits = Path(f"/proc/{engine}/limits").read_text()
        assert not re.search(r"Max data size +unlimited", limits)


def test_the_server_can_be_left_unconfined(engine_bin: Path) -> None:
    assert engine_bin.is_dir()
    with server("--no-sandbox") as (process, address):
        assert post(address, "/tokenize", {"content": "Sandra"})["tokens"]
        (engine,) = descendants(process.pid)
        assert "NoNewPrivs:\t0" in Path(f"/proc/{engine}/status").read_text()
