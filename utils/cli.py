# SPDX-License-Identifier: MIT
"""What every command shares: error types, exit codes, atomic output files.

Standard library only: ``setup_env.py`` and ``run_inference.py`` import it before any package is installed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class TritError(Exception):
    """A failure on our side: one sentence that names the place and what to do (exit code 1)."""

    exit_code = EXIT_FAILED


class UserError(TritError):
    """A mistake in what the user gave: a file, a flag, a checkpoint (exit code 2)."""

    exit_code = EXIT_USAGE


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and turn its exceptions into one line on stderr and an exit code.

    Returns:
        What ``main`` returned; 1 or 2 for a :class:`TritError`; 130 after Ctrl-C.
    """
    try:
        return main(argv)
    except TritError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`... | head`): not an error of ours, but nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; fsync and rename it on success, delete it on any failure.

    A reader therefore sees the old file or the whole new one, never a part of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
