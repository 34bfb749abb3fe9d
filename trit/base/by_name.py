# SPDX-License-Identifier: MIT
"""Models that are given by name: what finds their files is on a higher floor, and told to us by the command ``trit``.

Without it (the front doors, the scripts) a name is a path like any other. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

Finder = Callable[[Path], Path]
Check = Callable[[Path], None]

# At most one each: for GGUF files, for checkpoints, for names alone.
_finders: list[tuple[Finder, Finder, Check]] = []


def find_with(model: Finder, checkpoint: Finder, check: Check) -> None:
    """From here on these find the GGUF file and the checkpoint of a model, and refuse a name that nobody knows.

    A path that is no name comes back.
    """
    _finders[:] = [(model, checkpoint, check)]


def check_all(paths: Iterable[Path]) -> None:
    """Look at the names of several models before the first of them is fetched.

    Raises:
        UserError: there is no model of one of these names.
    """
    if _finders:
        for path in paths:
            _finders[0][2](path)


def model_files(paths: Iterable[Path]) -> list[Path]:
    """The GGUF files of several models; see :func:`model_file`."""
    paths = list(paths)
    check_all(paths)
    return [model_file(path) for path in paths]


def model_file(path: Path) -> Path:
    """The GGUF file of what the user gave: a name, a file, a folder; fetched and converted if it has to be.

    Raises:
        UserError: there is no such model, or it cannot be had or used.
    """
    return _finders[0][0](path) if _finders else path


def checkpoint(path: Path) -> Path:
    """The folder of the checkpoint that the user gave, by a name or a path; fetched if it has to be.

    Raises:
        UserError: there is no such model, it has no checkpoint, or it cannot be had.
    """
    return _finders[0][1](path) if _finders else path


def named_file(path: Path) -> Path:
    """The same for a command that takes files and folders as they are: only what is not there can be a name."""
    return path if path.exists() else model_file(path)
