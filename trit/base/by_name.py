# SPDX-License-Identifier: MIT
"""Models that are given by name: what finds their files is on a higher floor, and told to us by the command ``trit``.

Without it (the front doors, the scripts) a name is a path like any other. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_finders: list[Callable[[Path], Path]] = []


def find_with(finder: Callable[[Path], Path]) -> None:
    """From here on this finds the GGUF file of a model; it gives back what is a path and no name."""
    _finders[:] = [finder]


def model_file(path: Path) -> Path:
    """The GGUF file of what the user gave: a name, a file, a folder; fetched and converted if it has to be.

    Raises:
        UserError: there is no such model, or it cannot be had or used.
    """
    return _finders[0](path) if _finders else path


def named_file(path: Path) -> Path:
    """The same for a command that takes files and folders as they are: only what is not there can be a name."""
    return path if path.exists() else model_file(path)
