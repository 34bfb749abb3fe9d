# SPDX-License-Identifier: MIT
"""Who may use run_inference_server.py, flags of bitnet.cpp, and flags that are the engine's: before anything starts."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path

import pytest

from tests.support.tiny_gguf import EMPTY
from trit.base.errors import UserError, run_main
from trit.base.flags import ArgumentParser
from trit.base.places import ROOT
from trit.run import completion, serve
from trit.run.serving import plan


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been started."""
    started: list[list[str]] = []
    monkeypatch.setattr(serve, "engine_binary", lambda name: Path("/engine") / name)
    monkeypatch.setattr(plan.batching, "multiply_rate", lambda threads: None)
    monkeypatch.setattr(serve, "supervise", lambda supervisor, ready: started.append(supervisor.command) or 0)
    monkeypatch.setattr(serve, "check_port", lambda host, port: None)
    monkeypatch.setattr(serve, "MEMORY", {})
    monkeypatch.delenv("LLAMA_API_KEY", raising=False)
    return started


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A GGUF file with nothing in it."""
    path = tmp_path / "empty.gguf"
    path.write_bytes(EMPTY)
    return path


def run(model: Path, line: str) -> int:
    return run_main(serve.main, ["-m", str(model), *shlex.split(line)])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.7.2", "llm.example"])
def test_a_network_needs_a_key(
    host: str,
    commands: list[list[str]],
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run(model, f"--host {host}") == 2
    assert "--api-key-file" in capsys.readouterr().err and not commands
    assert run(model, f"-- --host {host}") == 2
    for line in (f"--host {host} --insecure", f"--host {host} -- --api-key-file keys", f"--host {host} --api-key=x"):
        assert run(model, line) == 0
    monkeypatch.setenv("LLAMA_API_KEY", "x")
    assert run(model, f"--host {host}") == 0
    assert len(commands) == 4


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost", "/run/trit.sock"])
def test_this_machine_needs_none(host: str, commands: list[list[str]], model: Path) -> None:
    assert run(model, f"--host {host}") == 0
    assert commands[0][commands[0].index("--host") + 1] == host


def test_names_and_origins_are_passed_on(commands: list[list[str]], model: Path) -> None:
    line = "--allow-origin https://a.example --allow-origin http://b.example:81 --allow-host c.example --grace 3"
    assert run(model, line) == 0
    told = " ".join(commands[0])
    assert "--cors-origins localhost,https://a.example,http://b.example:81" in told
    assert "--allowed-hosts c.example" in told and "--grace 3" in told


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("--host 0.0.0.0 -- --api-key x", "*"),
        ("--host 0.0.0.0 --allow-host a.example -- --api-key x", "a.example"),
        ("--host 0.0.0.0 --insecure", None),
        ("--host 127.0.0.1 -- --api-key x", None),
        ("--allowed-hosts b.example", "b.example"),
    ],
)
def test_names_of_a_network_are_answered_where_a_key_is_asked_for(
    line: str, names: str | None, commands: list[list[str]], model: Path
) -> None:
    assert run(model, line) == 0
    (command,) = commands
    assert names == (command[command.index("--allowed-hosts") + 1] if "--allowed-hosts" in command else None)


@pytest.mark.parametrize(
    "line", ["--allow-origin a.example", "--allow-origin https://a/b", "--allow-host http://a", "--allow-host a..b"]
)
def test_a_value_that_cannot_be_right_is_named(
    line: str, commands: list[list[str]], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, line) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}: give ") and not commands


def test_flags_of_bitnet_work(commands: list[list[str]], model: Path) -> None:
    assert run(model, "-temp 0.3 -cnv -n 9 -t 1 -c 300") == 0
    told = " ".join(commands[0])
    assert all(part in told for part in ("--temp 0.3", "-n 9", "-t 1", "-c 2048 -np 8"))


@pytest.mark.parametrize("main", [serve.main, completion.main])
@pytest.mark.parametrize("flags", ["--top-a 3", "--jinja", "--temp 0", "--flash-attn on"])
def test_a_flag_of_the_engine_is_told_its_place(
    main: object, flags: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(main, ["-m", str(model), "-p", "x", *shlex.split(flags)]) == 2  # type: ignore[arg-type]
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f" ... -- {flags}" in err


def test_no_parser_takes_abbreviations() -> None:
    """Every parser of the project is made of one class, and that one wants whole names."""
    paths = [*(ROOT / "trit").rglob("*.py"), *(ROOT / "utils").glob("*.py"), *(ROOT / "tests" / "fuzz").glob("*.py")]
    made: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ArgumentParser"):
                assert ast.unparse(node.func) in {"ArgumentParser", "inference.ArgumentParser"}, f"{path}:{node.lineno}"
                assert not any(word.arg == "allow_abbrev" for word in node.keywords), f"{path}:{node.lineno}"
                made.add(path.name)
    assert len(made) > 15
    for parser in (ArgumentParser(), serve.build_parser(), completion.build_parser()):
        parser.add_argument("--quantity")
        with pytest.raises((SystemExit, UserError)):
            parser.parse_args(["--quant", "1"])
