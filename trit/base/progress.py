# SPDX-License-Identifier: MIT
"""One line a step: what it does, how far it is, how long it took.

On a terminal the line of the running step is redrawn in place; elsewhere (a pipe, a CI log) a line comes now and then.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_REDRAW_S = 0.5
_SPARSE_S = 20.0


def clock(seconds: float) -> str:
    """Seconds as people read them: ``4.2 s``, ``3:07``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _tick(ok: bool) -> str:
    """A tick or a cross where the terminal can show it."""
    marks = "\u2713\u2717"
    try:
        marks.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "ok" if ok else "FAILED"
    return marks[0] if ok else marks[1]


class StepLine:
    """The progress line of one step; use it as a context manager and call :meth:`done` at the end.

    Args:
        number: place of the step, from 1.
        total: number of steps; None: not known yet.
        name: short name, also that of the log file.
        deed: what the step does, shown until there is something more precise to show.
    """

    def __init__(self, number: int, total: int | None, name: str, deed: str):
        self._head = f"[{number}{f'/{total}' if total else ''}] {name:<10}"
        self._state = deed
        self._start = time.monotonic()
        self._shown = self._start
        self._live = sys.stdout.isatty()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._redraw, daemon=True)
        self._summary: str | None = None

    def __enter__(self) -> StepLine:
        if self._live:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        if self._live:
            self._thread.join()
        summary = self._summary if kind is None else "stopped" if kind is KeyboardInterrupt else "failed"
        line = f"{self._head} {_tick(kind is None)} {clock(self.elapsed_s):>7}  {summary or self._state}"
        print(f"\r\033[K{line}" if self._live else line, flush=True)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self._start

    def update(self, state: str) -> None:
        """Show what the step is at."""
        self._state = state
        if not self._live and time.monotonic() - self._shown > _SPARSE_S:
            self._shown = time.monotonic()
            print(f"{self._head} ... {clock(self.elapsed_s):>7}  {state}", flush=True)

    def note(self, text: str) -> None:
        """Print a line that stays, above the running step's."""
        print(f"\r\033[Knote: {text}" if self._live else f"note: {text}", flush=True)

    def done(self, summary: str) -> None:
        """Set what the finished line says."""
        self._summary = summary

    def _redraw(self) -> None:
        while not self._ended.wait(_REDRAW_S):
            width = shutil.get_terminal_size().columns - 1
            line = f"{self._head}   {clock(self.elapsed_s):>7}  {self._state}"
            print(f"\r\033[K{line[:width]}", end="", flush=True)


@contextmanager
def until_now(found: Callable[[], str], show: Callable[[str], object] = print) -> Iterator[None]:
    """Around what takes long: who does not wait for its end sees what there is until then.

    Args:
        found: what there is, in words; empty: nothing.
        show: prints it.
    """
    try:
        yield
    except KeyboardInterrupt:
        if text := found():
            print("\nstopped; what was measured until now:", file=sys.stderr)
            show(text)
        raise
