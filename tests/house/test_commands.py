# SPDX-License-Identifier: MIT
"""What every command of the table has: exit codes, one sentence for a mistake, plain text, JSON for scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.house.test_advice import flags
from trit import cli
from trit.base import command as starting
from trit.base.errors import TritError
from trit.base.places import ROOT
from trit.cli import COMMANDS

# They import torch, which takes seconds; tests/train has them.
WITH_TORCH = {"train", "score"}
LIGHT = sorted(COMMANDS.keys() - WITH_TORCH)
# --json prints an object in the place of lines, or writes a file beside the tables.
PRINTS = {
    *("run", "profile", "pull", "list", "show", "rm", "ps", "inspect", "doctor"),
    *("convert", "tune", "download", "score", "batch"),
}
WRITES = {"bench", "perplexity", "drafts", "roofline", "verify"}
# What they make is files alone, whose names are given; compare and heads always write their tables for programs, too.
NO_JSON = {
    *("serve", "compare", "heads", "dummy", "dummy-bitnet", "train"),
    *("codegen", "codegen-tl1", "codegen-tl2", "committed", "registry", "held-out", "golden"),
}
# Names of what others have put into the terminal: an escape, and what overwrites a line.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def test_every_command_says_whether_it_has_json() -> None:
    assert COMMANDS.keys() == PRINTS | WRITES | NO_JSON and not PRINTS & WRITES


@pytest.mark.parametrize("name", LIGHT)
def test_json_is_where_a_script_wants_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "committed":
        pytest.skip("hands its flags on")
    assert ("--json" in flags(COMMANDS[name][0], monkeypatch)) == (name in PRINTS | WRITES)


@pytest.mark.parametrize("name", LIGHT)
def test_help_is_plain_and_ends_well(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    said = capfd.readouterr()
    assert (end.value.code, said.err) == (0, "")
    assert said.out.startswith(f"usage: trit {name}") and not _CONTROL.search(said.out)


@pytest.mark.parametrize("name", LIGHT)
def test_a_wrong_flag_is_one_sentence_and_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert cli.main([name, "--no-such-flag"]) == 2
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert not _CONTROL.search(said.err) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (lambda argv: 0, 0, ""),
        (lambda argv: 1, 1, ""),
        (TritError("it broke; mend it"), 1, "error: it broke; mend it\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
)
def test_how_a_command_ends_is_its_exit_code(
    ends: Callable[[object], int] | BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """All commands are started by one function."""

    class Module(SimpleNamespace):
        def __getattr__(self, name: str) -> Callable[[object], int]:
            if isinstance(ends, BaseException):
                raise ends
            return ends

    monkeypatch.setattr(starting, "importlib", SimpleNamespace(import_module=lambda name: Module()))
    for name in COMMANDS:
        assert cli.main([name]) == code, name
        assert capfd.readouterr() == ("", said), name


def test_only_what_looks_for_a_terminal_sends_it_signs() -> None:
    """Through a pipe everything is plain; the dim lines of a chat are all that NO_COLOR has to take away."""
    signs = re.compile(r"\\(?:033|x1b)\[[0-9;]*[A-Za-z]")
    found = {
        path.relative_to(ROOT).as_posix(): set(signs.findall(text))
        for path in (ROOT / "trit").rglob("*.py")
        if signs.search(text := path.read_text(encoding="utf-8"))
    }
    assert found.keys() == {"trit/base/progress.py", "trit/measure/rounds.py", "trit/run/chat.py"}
    assert {sign for each in found.values() for sign in each} == {"\\033[K", "\\x1b[K", "\\x1b[2m", "\\x1b[0m"}
    for name in found:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert ".isatty()" in text and ("NO_COLOR" in text or "2m" not in text), name


def test_json_of_a_conversion_is_alone_on_standard_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outfile = tmp_path / "x.gguf"
    assert cli.main(["convert", str(ROOT / "models" / "trit-story-3m"), "--outfile", str(outfile), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["paths"] == [str(outfile)] and told["outtype"] == "i2_s" and outfile.is_file()


@pytest.mark.parametrize("installed", [False, True])
def test_help_lists_what_works_here(
    installed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wheel's user is not shown what only a checkout can do."""
    monkeypatch.setattr(cli, "INSTALLED", installed)
    assert cli.main([]) == 0
    listed = set(re.findall(r"^  ([a-z0-9-]+)  +\S", capsys.readouterr().out.partition("commands:")[2], re.M))
    assert listed == COMMANDS.keys() - (set(cli.IN_A_CHECKOUT) if installed else set())
