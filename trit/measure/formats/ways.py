# SPDX-License-Identifier: MIT
"""The rows of a comparison: a format of the file, and whether the engine packs it when it loads it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from trit.gguf.encoding_table import OURS, STOCK, TABLE, InPlace

# Ternary encodings with our kernels; q4_0 and f16 are what people would run without them.
FORMATS = (*OURS, *STOCK, "q4_0", "f16")
REFERENCE = "f16"
NO_REPACK = ":no-repack"
_NOT_PACKED = {
    InPlace.OUR_KERNEL: "ours, from the file's bytes",
    InPlace.OURS_UNPACKED: "ours, unpacked each time",
    InPlace.LLAMA_CPP: "llama.cpp's",
}


@dataclass(frozen=True)
class Way:
    """A row.

    Attributes:
        format: of the file's matrices, one of ``FORMATS``.
        packed: the engine may rewrite matrices when it loads them (its default, ``--repack``).
    """

    format: str
    packed: bool = True

    @property
    def name(self) -> str:
        """As ``--types`` takes it."""
        return self.format if self.packed else self.format + NO_REPACK

    @property
    def kernels(self) -> str:
        """Whose code multiplies."""
        if self.format in ("q4_0", "f16"):
            return "llama.cpp's" if self.packed or self.format == "f16" else "llama.cpp's, not repacked"
        return "ours, packed at load" if self.packed else _NOT_PACKED[TABLE[self.format].in_place]


def parse_way(text: str) -> Way:
    """``i2_s`` or ``i2_s:no-repack``, for argparse."""
    name = text.lower()
    way = Way(name.removesuffix(NO_REPACK), not name.endswith(NO_REPACK))
    if way.format not in FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r}: there are {', '.join(FORMATS)}, each also with {NO_REPACK}")
    return way


# llama.cpp's own kernels on the smallest error and the highest speed among its own ternary types: what one has without
# this project. Where a shape has no tq2_0, the 4-bit type that everybody uses stands in.
BASELINES = (Way("tq2_0", packed=False), Way("q4_0"))
DEFAULT_WAYS = (*(Way(name) for name in FORMATS), BASELINES[0])
