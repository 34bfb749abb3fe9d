# SPDX-License-Identifier: MIT
"""Output files that are whole or not there. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def names_file(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Around what writes a file: an OSError without a name (a full disk), or with the temporary one, gets its name."""
    try:
        yield
    except OSError as error:
        if error.filename is None or (partial and error.filename == str(partial)):
            error.filename = str(path)
        raise


@contextmanager
def atomic_outputs(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a temporary path beside each path; fsync and rename them all on success, delete them on any failure.

    A reader therefore sees the old file or the whole new one, never a part of it. The first path gets its file last:
    where it is, the others are.
    """
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    partials = [path.with_name(f".{path.name}.{os.getpid()}.partial") for path in paths]
    try:
        with names_file(paths[0], partials[0]):
            yield partials
            for partial in partials:
                with partial.open("rb+") as file:
                    os.fsync(file.fileno())
            for partial, path in reversed(list(zip(partials, paths, strict=True))):
                partial.replace(path)
    finally:
        for partial in partials:
            # A folder that cannot be written has none.
            with suppress(OSError):
                partial.unlink(missing_ok=True)


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """:func:`atomic_outputs` for one file."""
    with atomic_outputs([path]) as (partial,):
        yield partial
