# SPDX-License-Identifier: MIT
"""A program in a terminal of its own: what a person sees, types, and does to the window."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_CODES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])|\r")
# With this prompt_toolkit asks the terminal to mark what is pasted: it waits for a message.
_READY = "\x1b[?2004h"


class Terminal:
    """Use it in a ``with`` statement, which ends the program."""

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str], *, columns: int = 80):
        self.seen, self._place, self._bytes = "", 0, b""
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm-256color", **env})
            os.execv(str(command[0]), [str(word) for word in command])
        self.resize(columns)

    def resize(self, columns: int, rows: int = 24) -> None:
        """As when somebody pulls at the window."""
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        """Type this."""
        os.write(self._file, text.encode())

    def wait(self, text: str, seconds: float = 60) -> str:
        """Wait until a text comes; what came up to it, without the codes that colour and move."""
        end = time.monotonic() + seconds
        while (found := self.seen.find(text, self._place)) < 0:
            if not self._read(end):
                raise AssertionError(f"{text!r} did not come; all that came:\n{self.seen}")
        came, self._place = self.seen[self._place : found], found + len(text)
        return _CODES.sub("", came)

    def send_until(self, text: str, answer: str, times: int = 30) -> str:
        """Type this again every two seconds until the answer comes; what came up to it."""
        for _ in range(times - 1):
            self.send(text)
            with suppress(AssertionError):
                return self.wait(answer, 2)
        self.send(text)
        return self.wait(answer)

    def ready(self, seconds: float = 60) -> str:
        """Wait until a message can be typed; what came up to then."""
        return self.wait(_READY, seconds)

    def _read(self, end: float) -> bool:
        if not select.select([self._file], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._file, 1 << 16)
        except OSError:  # nobody has the other end any more
            return False
        # A letter that is cut in two is met whole by whoever waits for it.
        self._bytes += data
        self.seen = self._bytes.decode("utf-8", "replace")
        return bool(data)

    def end(self, seconds: float = 30) -> int:
        """Wait for the program's end; its exit code, a signal as a negative number."""
        end = time.monotonic() + seconds
        while True:
            self._read(time.monotonic() + 0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                raise AssertionError(f"it does not end; all that came:\n{self.seen}")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)
        os.close(self._file)
