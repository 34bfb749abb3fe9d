# SPDX-License-Identifier: MIT
"""A part of a document that a program writes, between two comments. Standard library only (set-up imports it)."""

from __future__ import annotations

from pathlib import Path

from trit.base.errors import UserError
from trit.base.files import atomic_output


def write_section(path: Path, begin: str, end: str, content: str, *, check: bool = False) -> bool:
    """Put ``content`` between the lines ``begin`` and ``end``; whether it was there already. ``check`` only looks.

    Raises:
        UserError: the document lacks the two lines.
    """
    text = path.read_text(encoding="utf-8")
    first, last = text.find(begin), text.find(end)
    if first < 0 or last < first:
        raise UserError(f"{path} has no lines {begin} and {end}; put them where the text goes")
    new = f"{text[:first]}{begin}\n{content}\n{text[last:]}"
    if new != text and not check:
        with atomic_output(path) as partial:
            partial.write_text(new, encoding="utf-8")
    return new == text
