# SPDX-License-Identifier: MIT
"""The shards of a batch that are not there yet, one after the other, until all are or we are asked to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from trit.base.errors import EXIT_INTERRUPTED, UserError
from trit.base.lock import take
from trit.base.progress import StepLine, clock
from trit.batch import output, shard
from trit.batch.engine import Engine
from trit.batch.manifest import Manifest
from trit.batch.task import Done

_LOCK = ".lock"


@dataclass
class Progress:
    """How far a batch is.

    Attributes:
        rows: of the batch.
        done: of them, in parts that are there and in the one that is being made.
        errors: those of them that are error rows.
        made: rows of this run.
        tokens: of this run.
        begun: when it began to answer, in seconds of :func:`time.monotonic`.
        asked: the signal that asked us to end; 0: none did.
    """

    rows: int
    done: int = 0
    errors: int = 0
    made: int = 0
    tokens: int = 0
    begun: float = 0.0
    asked: int = 0

    @property
    def seconds(self) -> float:
        """Of this run."""
        return time.monotonic() - self.begun

    def add(self, row: Done, new: bool) -> None:
        """Count a row; new: it was answered now, and not by an earlier run."""
        self.done += 1
        self.errors += row.failed
        if new:
            self.made += 1
            self.tokens += row.tokens

    def __str__(self) -> str:
        errors = f", {self.errors:,} errors" if self.errors else ""
        said = f"{self.done:,} of {self.rows:,} rows{errors}"
        if not self.made:
            return said
        left = (self.rows - self.done) * self.seconds / self.made
        return f"{said}, {self.tokens / self.seconds:.0f} tokens/s, {clock(left)} left"


def run(manifest: Manifest, source: Path, folder: Path, engine: Engine, progress: Progress, show: StepLine) -> None:
    """Compute what is missing.

    Args:
        manifest: of the batch; it is in the folder.
        source: its input.
        folder: gets the parts.
        engine: with its model.
        progress: is kept up to date.
        show: what people see of it.

    Raises:
        TritError: the engine keeps dying, or the disk is full.
    """
    missing = []
    for number in range(len(manifest.shards)):
        path = output.part(folder, number, manifest.parameters["output-format"])
        if path.exists():
            rows = [output.is_error(row) for row in output.read(path)]
            progress.done += len(rows)
            progress.errors += sum(rows)
        else:
            missing.append(number)
    progress.begun = time.monotonic()

    def told(row: Done, new: bool) -> None:
        progress.add(row, new)
        show.update(str(progress))

    with _ending(engine, progress):
        for number in missing:
            if engine.is_stopping() or shard.run(manifest, number, source, folder, engine, told) is None:
                return


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a folder to ourselves.

    Raises:
        UserError: another run has it.
    """
    with (folder / _LOCK).open("a", encoding="ascii") as file:
        if not take(file):
            raise UserError(
                f"--out {folder}: another trit batch writes there; wait for its end, or name another folder"
            )
        yield


@contextmanager
def _ending(engine: Engine, progress: Progress) -> Iterator[None]:
    """Let SIGINT and SIGTERM end us behind the rows that run; a second one ends us at once."""

    def asked(number: int, frame: FrameType | None) -> None:
        if progress.asked:
            engine.kill()
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        progress.asked = number
        engine.stop()
        # Not print, which may be at work.
        os.write(2, b"\nending behind the rows that run; once more ends at once\n")

    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, asked) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def exit_code(progress: Progress) -> int:
    """That of a run which was asked to end."""
    return EXIT_INTERRUPTED if progress.asked == signal.SIGINT else 128 + progress.asked
