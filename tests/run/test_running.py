# SPDX-License-Identifier: MIT
"""Which servers and chats run: by number and beginning of their processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trit.run import running


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TRIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "running"


def test_a_process_is_shown_as_long_as_it_is_the_same(folder: Path) -> None:
    assert running.running() == [] and not folder.exists()
    running.note("server", Path("/m.gguf"), "127.0.0.1:8080")
    (one,) = running.running()
    assert (one.pid, one.kind, one.model, one.address) == (os.getpid(), "server", "/m.gguf", "127.0.0.1:8080")
    alone = one.memory
    assert one.models == ("/m.gguf",) and alone is not None and 1 << 20 < alone < 1 << 34
    with subprocess.Popen([sys.executable, "-c", "x = b'x' * 30_000_000; print(1, flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout is not None and child.stdout.readline()
        assert one.memory > alone + 25_000_000  # type: ignore[operator]
        child.communicate(b"\n")
    # Another process that got the number later.
    path = folder / f"{os.getpid()}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "began": "another moment"}))
    assert running.running() == [] and not path.exists()


def test_what_has_ended_goes_and_so_does_what_is_no_note(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        moment = running.began(other.pid)
        assert moment is not None and running.began(other.pid) == moment != running.began(os.getpid())
        folder.mkdir(parents=True)
        note = {"pid": other.pid, "began": moment, "kind": "chat", "model": "m", "address": None, "since": "2026"}
        (folder / f"{other.pid}.json").write_text(json.dumps(note))
        for name, content in (("1", "{"), ("2", "[]"), ("3", "{}"), ("4", '{"pid": "x"}'), ("5", "")):
            (folder / f"{name}.json").write_text(content)
        assert [one.pid for one in running.running()] == [other.pid]
        assert len(list(folder.iterdir())) == 1
        other.kill()
    assert running.running() == [] and list(folder.iterdir()) == []
    assert running.began(other.pid) is None


def test_an_ended_process_that_nobody_has_asked_after_runs_no_more() -> None:
    other = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert running.began(other.pid) is None
    other.wait()


def test_where_nothing_can_be_written_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TRIT_HOME", str(tmp_path / "file"))
    running.note("chat", Path("/m.gguf"))
    assert running.running() == []
