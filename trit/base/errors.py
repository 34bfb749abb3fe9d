# SPDX-License-Identifier: MIT
"""Errors that become one sentence and an exit code. Standard library only."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class TritError(Exception):
    """A failure on our side: one sentence that names the place and what to do (exit code 1).

    Attributes:
        flags: those of a tool that the sentence asks for; whoever runs the tool for somebody else can explain them.
    """

    exit_code = EXIT_FAILED

    def __init__(self, *words: object, flags: Sequence[str] = ()):
        super().__init__(*words)
        self.flags = tuple(flags)

    def __str__(self) -> str:
        """The sentence on one line: names that come out of broken files may hold line breaks and terminal codes."""
        return "".join(letter if letter.isprintable() else "?" for letter in super().__str__())


class UserError(TritError):
    """A mistake in what the user gave: a file, a flag, a checkpoint (exit code 2)."""

    exit_code = EXIT_USAGE


class UnknownNameError(UserError):
    """There is nothing of the name that the user gave; another one may have been meant."""


class CommandError(TritError):
    """A program that we started ended with an error; ``tail`` holds the lines of its output that matter most."""

    def __init__(self, message: str, tail: Sequence[str], returncode: int):
        super().__init__(message)
        self.tail = list(tail)
        self.returncode = returncode


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def explain(error: OSError, path: Path | None = None) -> TritError:
    """One sentence about a file that could not be read or written; a full disk is called so.

    Args:
        error: what the system said.
        path: of the file, where the error does not name it.
    """
    place = path or (Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else None)
    name = str(place) if place else "standard output, or a file,"
    if error.errno in _DISK_FULL:
        return TritError(f"{name} cannot be written: the disk is full{_free(place)}; free some space, run this again")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return TritError(f"{name}: {error.strerror}; allow it, or name another place")
    return TritError(f"{name}: {error.strerror or error}; mend that and run this again")


def _free(place: Path | None) -> str:
    """How much the disk of a file has left."""
    import shutil  # only now: the less is imported before run_main, the sooner Ctrl-C is answered

    for folder in place.absolute().parents if place else ():
        with suppress(OSError):
            return f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB are free in {folder})"
    return ""


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""Write letters that an encoding lacks as ``\\u6a21``: readable, and inside of JSON the same text."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.end


codecs.register_error("trit-escape", _escape)


def make_printable() -> None:
    """Let ``print`` never raise for what it is to print: the one place that decides this, for all commands.

    Letters that the terminal's encoding lacks are escaped. What was closed when we were started leads nowhere;
    otherwise the next file that is opened would take its number, and get what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="trit-escape")


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and turn its exceptions into one line on stderr and an exit code.

    Returns:
        What ``main`` returned; 1 or 2 for a :class:`TritError`; 130 after Ctrl-C.
    """
    make_printable()
    try:
        try:
            code = main(argv)
        except SystemExit:
            # So argparse ends behind help and versions.
            sys.stdout.flush()
            raise
        # Here, where a full disk behind it still becomes a sentence.
        sys.stdout.flush()
        return code
    except TritError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`... | head`): not an error of ours, but nothing more can be said.
        _close_stdout()
        return EXIT_FAILED
    except OSError as error:
        if error.filename is None:
            # Probably our own output: whatever else is written goes through trit.base.files, which names the file.
            _close_stdout()
        with suppress(OSError):
            print(f"error: {explain(error)}", file=sys.stderr)
        return EXIT_FAILED


def _close_stdout() -> None:
    """What is still to be written goes nowhere: the interpreter would try it again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
