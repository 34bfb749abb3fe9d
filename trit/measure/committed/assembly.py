# SPDX-License-Identifier: MIT
"""Inner loops of a compiler's assembly for 64-bit ARM: where they are, and what one pass of each computes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# Mnemonic with the arrangement of its result -> multiply-accumulates of one instruction.
MACS = {
    "sdot.4s": 16,
    "usdot.4s": 16,
    "smmla.4s": 32,
    "usmmla.4s": 32,
    "smlal.8h": 8,
    "smlal2.8h": 8,
    "smull.8h": 8,
    "smull2.8h": 8,
    "mla.16b": 16,
    "fmla.4s": 4,
    "fmla.8h": 8,
}
_LABEL = re.compile(r"([.$\w]+):")
_BRANCH = re.compile(r"(?:b(?:\.\w+)?|b(?:eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)|cbn?z|tbn?z)\s.*?([.$\w]+)$")
_COMMENT = re.compile(r"\s*(?://|#(?![\d-])|;).*")


def _lines(text: str) -> Iterator[str]:
    """Labels and instructions; comments and directives left out."""
    for line in text.splitlines():
        bare = _COMMENT.sub("", line).strip()
        if bare and (not bare.startswith(".") or _LABEL.fullmatch(bare)):
            yield re.sub(r"\s+", " ", bare)


def function(text: str, name: str) -> list[str]:
    """Labels and instructions of one function, whose symbol matches ``name`` as a whole.

    Raises:
        KeyError: there is none.
    """
    found = re.search(rf"^(?:{name}):.*?(?=^\s*\.size\s+(?:{name}),)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise KeyError(name)
    return list(_lines(found[0]))


def innermost_loops(lines: Sequence[str]) -> list[list[str]]:
    """The instructions of every loop that has no other one in it, from its label to the branch back."""
    labels = {match[1]: i for i, line in enumerate(lines) if (match := _LABEL.fullmatch(line))}
    spans = []
    for i, line in enumerate(lines):
        match = _BRANCH.fullmatch(line)
        if match and labels.get(match[1], i) < i:
            spans.append((labels[match[1]], i))
    inner = [span for span in spans if not any(span[0] <= a and b <= span[1] and (a, b) != span for a, b in spans)]
    return [[line for line in lines[a : b + 1] if not _LABEL.fullmatch(line)] for a, b in inner]


def macs(loop: Sequence[str]) -> int:
    """Multiply-accumulates of one pass."""
    count = 0
    for line in loop:
        # "sdot v0.4s, ..." or, as Apple writes it, "sdot.4s v0, ...".
        match = re.match(r"(\w+)(?:\.(\w+))? v\d+(?:\.(\w+))?,", line)
        if match:
            count += MACS.get(f"{match[1]}.{match[2] or match[3]}", 0)
    return count


def registers_written(loop: Sequence[str]) -> int:
    """Vector registers of 16 bytes that one pass writes to memory."""
    return sum({"str": 1, "stur": 1, "stp": 2}.get(line.split(" ", 1)[0], 0) for line in loop if " q" in line)


def hot_loop(text: str, name: str) -> list[str]:
    """The innermost loop of a function that multiplies most in one pass; without products the longest.

    Raises:
        KeyError: there is no such function, or it has no loop.
    """
    loops = innermost_loops(function(text, name))
    if not loops:
        raise KeyError(name)
    return max(loops, key=lambda loop: (macs(loop), len(loop)))
