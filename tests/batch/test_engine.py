# SPDX-License-Identifier: MIT
"""The child that answers: started again when it dies, and which row is at fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import TritError
from trit.batch.engine import Client, Engine

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
FAKE = Path(__file__).with_name("fake_server.py")


class Fake:
    """As much of a Server as an engine needs."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __enter__(self) -> Fake:
        command = [sys.executable, "-S", str(FAKE), str(self._mark)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def ended(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()


def answered(tmp_path: Path, words: list[str], slots: int = 3) -> tuple[list[str], dict[str, str], list[str]]:
    """Words with an answer, those without and why, and what was noted."""
    done: list[str] = []
    lost: dict[str, str] = {}
    notes: list[str] = []

    def ask(client: Client, word: str) -> Any:
        status, found = client.post("/any", {"word": word})
        assert status == 200
        return found["word"]

    make: Any = lambda: Fake(tmp_path / "mark")  # noqa: E731
    with Engine(make, slots, notes.append) as engine:
        engine.answer(words, ask, lambda word, found: done.append(found), lost.__setitem__)
    return done, lost, notes


def test_only_the_row_that_ends_the_engine_twice_is_lost(tmp_path: Path) -> None:
    words = [f"word {n}" for n in range(20)]
    done, lost, notes = answered(tmp_path, [*words[:5], "die", *words[5:], "once", "close", "close"])
    assert sorted(done) == sorted([*words, "once", "close", "close"])
    assert lost.keys() == {"die"} and "SIGKILL" in lost["die"] and lost["die"].endswith("twice over this row")
    assert len(notes) == 2 and all(note.endswith("starting it again") for note in notes)


def test_an_engine_that_dies_over_everything_ends_the_batch(tmp_path: Path) -> None:
    with pytest.raises(TritError, match="over 5 rows one after the other; mend that and run this again"):
        answered(tmp_path, ["die"] * 12, slots=1)


def test_what_goes_wrong_here_is_not_the_engine_s_fault(tmp_path: Path) -> None:
    def full(word: str, found: str) -> None:
        raise OSError(28, "No space left on device", "part")

    make: Any = lambda: Fake(tmp_path / "mark")  # noqa: E731
    with Engine(make, 2, print) as engine, pytest.raises(OSError, match="No space left"):
        engine.answer(["a", "b"], lambda client, word: client.post("/", {"word": word}), full, print)
