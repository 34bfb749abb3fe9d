# SPDX-License-Identifier: MIT
"""run_inference_server.py: its flags, its checks before the start, and the real server."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.tiny_gguf import EMPTY, tiny_model
from trit.base.errors import run_main
from trit.base.host import physical_cores
from trit.base.places import ROOT
from trit.engine import inference
from trit.engine.server import Server
from trit.run import serve
from trit.run.serving import plan


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been started."""
    started: list[list[str]] = []
    monkeypatch.setattr(serve, "engine_binary", lambda name: Path("/engine") / name)
    monkeypatch.setattr(plan.batching, "multiply_rate", lambda threads: None)
    monkeypatch.setattr(serve, "supervise", lambda supervisor, ready: started.append(supervisor.command) or 0)
    return started


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model with a chat template."""
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return tiny_model(tmp_path / "model.gguf", tokenizer__chat_template=template)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*arguments: str) -> int:
    return run_main(serve.main, arguments)


def test_defaults_are_bitnet_s(commands: list[list[str]], model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    defaults = serve.build_parser().parse([])[0]
    assert (defaults.host, defaults.port, defaults.n_predict) == ("127.0.0.1", 8080, 4096)
    assert (defaults.ctx_size, defaults.temperature, defaults.prompt) == (2048, 0.8, None)
    assert defaults.model is None, "the bundled one, when it is asked for"
    port = str(free_port())
    assert run("-m", str(model), "--port", port, "-n", "7", "--temperature", "0.1", "--", "--slots") == 0
    flags = ["-m", str(model), "-c", "2048", "-np", "8", "-t", str(physical_cores()), "--no-kv-unified"]
    flags += ["-b", "128", "-ub", "128"]
    flags += ["--alias", model.parent.name]
    flags += ["--host", "127.0.0.1", "--port", port, "-n", "7", "--temp", "0.1", "-cb", "--grace", "5"]
    assert commands == [["/engine/llama-server", *flags, "--cache-ram", "256", "--slots"]]
    assert capsys.readouterr().out == f"Starting server on 127.0.0.1:{port}\n"


def test_system_prompt_goes_into_the_template(commands: list[list[str]], model: Path) -> None:
    assert run("-m", str(model), "--port", str(free_port()), "-p", 'Be "kind"\\nplease') == 0
    template = commands[0][commands[0].index("--chat-template") + 1]
    assert r'"Be \"kind\"\nplease"' in template
    assert template.endswith("{% for m in messages %}{{ m['content'] }}{% endfor %}")


def test_a_model_without_a_chat_template_is_warned_of(
    commands: list[list[str]], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(EMPTY)
    vectors = tiny_model(tmp_path / "vectors.gguf", stablelm__pooling_type=3)
    for path, flags, warned in (
        (bare, [], True),
        (bare, ["--slots"], True),
        (bare, ["--no-jinja", "--chat-template", "llama3"], False),
        (bare, ["--chat-template-file", "mine.jinja"], False),
        (bare, ["--chat-template-kwargs", "{}"], True),
        (model, [], False),
        (vectors, ["--embeddings"], False),
    ):
        assert run("-m", str(path), "--port", str(free_port()), "--", *flags) == 0
        err = capsys.readouterr().err
        assert err.startswith(f"warning: {path} has no chat template, so chat requests") == warned
        assert err.count("warning") == warned
    assert len(commands) == 7


def test_the_template_that_the_warning_names_is_used(engine_bin: Path, story_gguf: Path) -> None:
    """And not its name: every chat would be the prompt "llama3"."""
    flags = shlex.split(inference.TEMPLATE_ADVICE.partition(" -- ")[2])
    with Server(story_gguf, 1, flags, slots=1) as server:
        chat = {"messages": [{"role": "user", "content": "Where is Mary?"}]}
        prompt = str(server.post("/apply-template", chat)["prompt"])
    assert "Where is Mary?" in prompt and "start_header_id" in prompt


def test_mistakes_are_one_sentence(
    commands: list[list[str]], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run("-m", str(model), "--port", str(port)) == 2
        assert f"error: cannot listen on 127.0.0.1:{port} (Address already in use)" in capsys.readouterr().err
    assert run("-m", str(model), "--", "--port", "70000") == 2
    assert "--port 70000: expected 0 to 65535" in capsys.readouterr().err
    for host in ("a..b", "no-such-host.invalid", "127.0.0.1,127.0.0.1", "127.0.0.1,"):
        assert run("-m", str(model), "--host", host) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and "--host" in said
    assert run("-m", str(model), "--host", "203.0.113.1", "--insecure") == 2
    assert "cannot listen on 203.0.113.1:8080" in capsys.readouterr().err
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(EMPTY)
    assert run("-m", str(bare), "--port", str(free_port()), "-p", "Be kind") == 2
    assert "has no chat template, so a system prompt has no place in it" in capsys.readouterr().err
    assert commands == []
    assert run("-m", str(bare), "--host", "server.sock") == 0, "the server also listens on UNIX sockets"


@pytest.fixture
def server(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The real server with the bundled model, and its address."""
    port = free_port()
    command = [sys.executable, str(ROOT / "run_inference_server.py"), "-m", str(story_gguf), "--port", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen([*command, "-t", "1", "--temperature", "0"], stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield process, address
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_real_server_answers_and_stops(server: tuple[subprocess.Popen[bytes], str]) -> None:
    process, address = server
    story = "John moved to the office. Mary went to the garden. Where is Mary?\nAnswer:"
    body = json.dumps({"prompt": story, "max_tokens": 20}).encode()
    request = urllib.request.Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        told = json.load(response)
    assert told["choices"][0]["text"] == " Mary is in the garden."
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) in (0, 130)
