# SPDX-License-Identifier: MIT
"""The chat with a real model: SmolLM2-135M-Instruct in a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.real_chat import smollm2
from trit.base.places import ROOT

pytest.importorskip("pty", reason="a terminal of a POSIX system")
from tests.run.test_chat import gone
from tests.support.terminal import Terminal
from trit.run import running


@contextmanager
def chat(home: Path, *flags: str) -> Iterator[tuple[Terminal, int]]:
    """A chat that waits for its first message, and the process of its engine."""
    command = [sys.executable, "-m", "trit", "run", smollm2(), "-temp", "0", *flags]
    env = {"TRIT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    with Terminal(command, env) as terminal:
        terminal.ready()
        listed = subprocess.run(
            [sys.executable, "-m", "trit", "ps", "--json"], env={**os.environ, **env}, capture_output=True, check=True
        )
        (one,) = json.loads(listed.stdout)
        assert one["pid"] == terminal.pid and one["memory_bytes"] > 50e6
        (engine,) = [pid for pid, (parent, _) in running.processes().items() if parent == terminal.pid]
        yield terminal, engine


def test_a_chat(engine_bin: Path, tmp_path: Path) -> None:
    assert engine_bin.is_dir()
    with chat(tmp_path, "-n", "24") as (terminal, engine):
        terminal.send("Hello, what is 2+2?\r")
        terminal.wait("\x1b[?2004l")
        first = terminal.ready()
        assert "4" in first
        terminal.send("/regen\r")
        terminal.wait("\x1b[?2004l")
        assert terminal.ready() == first
        terminal.send("And what is my first question about? Is it food?\r")
        terminal.wait("\x1b[?2004l")
        assert re.search(r"\w", terminal.ready())
        terminal.send("/exit\r")
        assert terminal.end() == 0
        assert gone(engine)


def test_a_long_answer_is_stopped_and_another_given(engine_bin: Path, tmp_path: Path) -> None:
    assert engine_bin.is_dir()
    with chat(tmp_path, "--sandbox") as (terminal, engine):
        terminal.send("Count from one to one thousand, in words.\r")
        terminal.wait("\x1b[?2004l")
        terminal.wait(" ")
        begun = time.monotonic()
        terminal.send("\x03")
        terminal.wait("[stopped]")
        assert time.monotonic() - begun < 10
        terminal.ready()
        terminal.send("Say: yes\r")
        terminal.wait("\x1b[?2004l")
        terminal.wait(" ")
        os.kill(terminal.pid, signal.SIGKILL)
        assert terminal.end() == -signal.SIGKILL
        assert gone(engine)


def test_a_chat_outlives_its_context(engine_bin: Path, tmp_path: Path) -> None:
    assert engine_bin.is_dir()
    with chat(tmp_path, "-c", "256", "-n", "8") as (terminal, _):
        terminal.send("Say a number. " + "a b c d e f g h " * 8 + "\r")
        terminal.wait("\x1b[?2004l")
        terminal.ready()
        terminal.send("Say a number. " + "x y z " * 50 + "\r")
        terminal.wait("[the context of 256 tokens is full: from here on")
        assert re.search(r"\n.*\w", terminal.ready())
        terminal.send("x " * 400 + "\r")
        terminal.wait("tokens with what stands around it, the context has 256; give a shorter one")
        terminal.ready()
