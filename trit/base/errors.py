# SPDX-License-Identifier: MIT
"""Errors that become one sentence and an exit code. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

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
