# SPDX-License-Identifier: MIT
"""What a shell gets when somebody presses the tab key, and what it reads for that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.library.test_store import keep
from trit import cli
from trit.base.places import ROOT
from trit.library.store import Store


def offered(line: str, tmp_path: Path) -> list[str]:
    """What is offered behind a line, as bash asks for it."""
    answer = tmp_path / "answer"
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE": "1"}
    asked |= {"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    command = [sys.executable, "-m", "trit"]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **asked}, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    return [word.strip() for word in answer.read_text().splitlines()]


def test_commands_and_names_are_offered(store: Store, tmp_path: Path) -> None:
    keep(store, "org/Mine", a__gguf=b"1")
    assert offered("trit pu", tmp_path) == ["pull"]
    assert {"run", "rm", "ps", "list", "tune"} <= set(offered("trit ", tmp_path))
    assert offered("trit run bitnet-2b-4t-", tmp_path) == ["bitnet-2b-4t-bf16", "bitnet-2b-4t-gguf"]
    assert offered("trit rm ", tmp_path) == ["org/Mine"], "only what is here can be deleted"
    assert offered("trit doctor ", tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_take_it(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--completion", shell])
    code = capsys.readouterr().out
    assert ended.value.code == 0 and "trit" in code
    if program := shutil.which(shell):
        (tmp_path / "code").write_text(code)
        assert subprocess.run([program, "-n", tmp_path / "code"], check=False).returncode == 0


def test_without_the_package_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert cli.main(["--completion", "bash"]) == 2
    assert capsys.readouterr().err == "error: completion needs a package: pip install argcomplete\n"
    assert cli.main(["--completion", "csh"]) == 2 and "'csh'" in capsys.readouterr().err
