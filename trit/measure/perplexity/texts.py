# SPDX-License-Identifier: MIT
"""Which texts are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import UserError
from trit.base.files import check_input
from trit.gguf.types import GgufHeader
from trit.measure.perplexity import held_out

SUFFIXES = (".txt", ".raw", ".md")
_BUNDLED_NAME = "Trit Story 3m"


@dataclass(frozen=True)
class Text:
    """A text file.

    Attributes:
        name: In tables and of files that are made for it; no two texts have the same.
        path: Of the file.
    """

    name: str
    path: Path


def is_bundled(header: GgufHeader) -> bool:
    """Whether a file holds the model that the shipped text is for, wherever it lies."""
    return header.metadata.get("general.name") == _BUNDLED_NAME


def find_texts(data: Sequence[Path], headers: Sequence[tuple[Path, GgufHeader]]) -> list[Text]:
    """The texts of ``-d``, or the shipped one where nothing is named and every model is the bundled one.

    Raises:
        UserError: nothing fits, is there, or is a text; two have the same name.
    """
    if not data:
        for path, header in headers:
            if not is_bundled(header):
                raise UserError(f"{path}: a text is shipped for the bundled model only; name a text file with -d")
        if not held_out.HELD_OUT.is_file():
            raise UserError(f"{held_out.HELD_OUT}: is not there; make it with: trit held-out")
        return [Text(held_out.HELD_OUT.name, held_out.HELD_OUT)]
    texts: list[Text] = []
    for path in data:
        texts += _in_folder(path) if path.is_dir() else [Text(path.name, path)]
    for text in texts:
        _check(text.path)
        if sum(other.name == text.name for other in texts) > 1:
            raise UserError(f"-d {text.path}: another text is called {text.name}, too; rename one of them")
    return texts


def _in_folder(folder: Path) -> list[Text]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"-d {folder}: holds no file that ends in {', '.join(SUFFIXES)}; name the text file itself")
    return [Text(path.relative_to(folder).as_posix(), path) for path in paths]


def _check(path: Path) -> None:
    if not path.exists():
        raise UserError(f"-d {path}: is not there; name a text file or a folder of them")
    check_input(path)
    with path.open("rb") as file:
        if b"\0" in file.read(1 << 16):
            raise UserError(f"-d {path}: is no text (it holds zero bytes); name a text file in UTF-8")
