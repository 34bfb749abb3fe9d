# SPDX-License-Identifier: MIT
"""The note in a model's folder about where its files came from: ``trit-source.json``.

It travels with the folder and outlives ``setup_env.py --clean``, so that a model once fetched needs no network again.
Standard library only: set-up reads it before anything is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trit.base.errors import UserError
from trit.base.files import atomic_output, check_input, stays_inside

FILE_NAME = "trit-source.json"
MAX_BYTES = 1 << 22


@dataclass(frozen=True)
class FetchedFile:
    """One file that was downloaded and checked.

    Attributes:
        size: in bytes.
        sha256: of its content, hexadecimal.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder was filled from.

    Attributes:
        repo: ``ORG/NAME``.
        revision: branch, tag or commit that was asked for.
        commit: the commit that it stood for.
        complete: whether every file is there; False while a download is under way.
        gguf: the ready-made model's (first) file; None if the folder is a checkpoint to convert.
        files: name -> what it was when it was fetched.
    """

    repo: str
    revision: str
    commit: str
    complete: bool = False
    gguf: str | None = None
    files: Mapping[str, FetchedFile] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Put it into the folder, whole or not at all."""
        with atomic_output(folder / FILE_NAME) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def is_whole(self, folder: Path) -> bool:
        """Whether the download ended and every file still has its size."""
        return self.complete and all(
            (folder / name).is_file() and (folder / name).stat().st_size == file.size
            for name, file in self.files.items()
        )


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's note; None if there is none or it cannot be read."""
    try:
        check_input(folder / FILE_NAME, MAX_BYTES)
        values = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        files = {name: FetchedFile(**file) for name, file in values.pop("files").items()}
        found = Manifest(**values, files=files)
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    # Set-up deletes what another revision has left: a note may name files of its folder only.
    inside = all(stays_inside(name) for name in [*files, *([] if found.gguf is None else [found.gguf])])
    return found if inside else None
