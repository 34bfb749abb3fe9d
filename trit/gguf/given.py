# SPDX-License-Identifier: MIT
"""A GGUF file that came from elsewhere: is it used as it is, or converted first? Standard library only."""

from __future__ import annotations

from pathlib import Path

from trit.base.errors import UserError
from trit.gguf.identify import identify
from trit.gguf.known_order import refuse_other_order
from trit.gguf.layouts import TILED
from trit.gguf.loadable import check_loadable
from trit.gguf.parts import read_parts


def check_given(path: Path) -> str | None:
    """The encoding to convert a GGUF of another engine to; None if ours loads it as it is.

    Raises:
        UserError: it is no GGUF file, or it is damaged, or does neither load nor convert as it is; says why.
    """
    if not is_gguf(path):
        raise UserError(f"{path} is not a GGUF file; download or convert it again")
    found = [item for _, header in read_parts(path, arrays=False) for item in identify(header)]
    foreign = next((item for item in found if not item.loads), None)
    if foreign is None or foreign.layout is None or foreign.name in TILED or any(item.problem for item in found):
        refuse_other_order(path, check_loadable(path))
        return None
    return foreign.layout.outtype


def is_gguf(path: Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"
