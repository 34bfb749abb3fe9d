# SPDX-License-Identifier: MIT
"""The table of encodings: all that is known of each but its code. Standard library only.

A row means: the converter and the dummy generator write it, set-up and the other commands offer it, its file is found
on the Hub, the engine loads it. Whoever needs names, numbers, sizes or sets of encodings takes them from here; the code
of a row (pack, decode) is in ``trit.gguf.codecs``. CONTRIBUTING.md lists the five places of a new encoding. Layouts
that are only read, and that the engine refuses, are rows of ``trit.gguf.layouts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

BITNET_CPP = "bitnet.cpp"
LLAMA_CPP = "llama.cpp"
TRIT = "trit.cpp"


class InPlace(Enum):
    """Who multiplies with the bytes of a mapped file; those that are packed at load are all ours."""

    OUR_KERNEL = "a kernel of ours reads the bytes"
    OURS_UNPACKED = "kernels of ours, after unpacking some rows for each product"
    LLAMA_CPP = "llama.cpp's kernels"


@dataclass(frozen=True)
class EncodingRow:
    """One way to store a ternary matrix.

    Attributes:
        name: What ``--outtype`` calls it, and ggml.
        ggml_type: Number of the tensor type in a GGUF file.
        file_type: Value of ``general.file_type`` for a model whose matrices have this type.
        block: The number of inputs k has to be a multiple of this.
        block_bytes: Bytes per block.
        tail_bytes: Bytes after the last block of the matrix: its float32 scale, then zeros; 0 if scales are elsewhere.
        scale_at: Byte of a block where its float16 scale is; None if it has none of its own.
        holds_two: Whether a weight can be +2; of two-bit codes that is code 3.
        ternary: Whether the engine packs it at load and multiplies as with ternary weights; False of plain floats.
        in_place: What is done with it if it is not packed.
        packings: What the tuner calls the packings that a file of this encoding is made for; () of those that are
            never the fastest. With any, it is one that set-up's "auto" may turn out to be.
        writer: Who has thought it out.
    """

    name: str
    ggml_type: int
    file_type: int
    block: int
    block_bytes: int
    tail_bytes: int = 0
    scale_at: int | None = None
    holds_two: bool = False
    ternary: bool = True
    in_place: InPlace = InPlace.LLAMA_CPP
    packings: tuple[str, ...] = ()
    writer: str = LLAMA_CPP

    @property
    def scale_inputs(self) -> int:
        """Inputs of a row that share a scale are a multiple of this; 0: the whole matrix shares one."""
        return 0 if self.tail_bytes else self.block

    @property
    def scale_bits(self) -> int:
        """Bits of a scale; of plain floats, which are 0 and plus or minus their scale, their own."""
        return 32 if self.tail_bytes else 8 * self.block_bytes if self.scale_at is None else 16

    @property
    def known_to_ggml(self) -> bool:
        """Whether ggml has it; types that only we have are added to it by patch 0001."""
        return self.in_place is InPlace.LLAMA_CPP

    def nbytes(self, n: int, k: int) -> int:
        """Size in bytes of a matrix [n, k]; k has to be a multiple of ``block``."""
        return n * k // self.block * self.block_bytes + self.tail_bytes


TABLE: dict[str, EncodingRow] = {
    row.name: row
    for row in (
        EncodingRow(
            "i2_s",
            ggml_type=36,
            file_type=140,  # the engine's own number. Files of bitnet.cpp say 40, which means Q1_0 today.
            block=128,
            block_bytes=32,
            tail_bytes=32,
            in_place=InPlace.OUR_KERNEL,
            packings=("2_bits", "5_trits"),
            writer=BITNET_CPP,
        ),
        EncodingRow("tq2_0", ggml_type=35, file_type=37, block=256, block_bytes=66, scale_at=64),
        EncodingRow("tq1_0", ggml_type=34, file_type=36, block=256, block_bytes=54, scale_at=52),
        EncodingRow("q2_0", ggml_type=42, file_type=41, block=64, block_bytes=18, scale_at=0, holds_two=True),
        EncodingRow(
            "tl1",
            ggml_type=38,
            file_type=141,
            block=32,
            block_bytes=8,
            tail_bytes=64,  # other than i2_s's, so that bitnet.cpp's TL1, which has tl1's number, never has its size
            in_place=InPlace.OURS_UNPACKED,
            packings=("tl1",),
            writer=TRIT,
        ),
        EncodingRow(
            "tl2",
            ggml_type=37,
            file_type=142,
            block=128,
            block_bytes=27,
            tail_bytes=64,
            in_place=InPlace.OURS_UNPACKED,
            packings=("tl2",),
            writer=TRIT,
        ),
        EncodingRow("f16", ggml_type=1, file_type=1, block=1, block_bytes=2, holds_two=True, ternary=False),
        EncodingRow("f32", ggml_type=0, file_type=0, block=1, block_bytes=4, holds_two=True, ternary=False),
    )
}
# What the engine packs, too, and nothing here writes: a weight is -1 or +1, never 0.
SIGNS = EncodingRow("q1_0", ggml_type=41, file_type=40, block=128, block_bytes=18, scale_at=0)
# What is taken where nobody asks for another.
DEFAULT = "i2_s"

# What is taken in its place where that does not hold a model's matrices, the first that does.
INSTEAD = ("tl1", "tq2_0", "q2_0", "f16")

TERNARY = tuple(row.name for row in TABLE.values() if row.ternary)
# In three parts: those that only we have, those that llama.cpp has too, floats.
OURS = tuple(row.name for row in TABLE.values() if not row.known_to_ggml)
STOCK = tuple(name for name in TERNARY if name not in OURS)
FLOATS = tuple(row.name for row in TABLE.values() if not row.ternary)

# Number of the tensor type -> row, of those that the engine packs.
BY_NUMBER = {TABLE[name].ggml_type: TABLE[name] for name in TERNARY}
# Encodings with a float16 scale in every block -> the byte of the block where it is.
SCALE_AT = {row.name: row.scale_at for row in TABLE.values() if row.scale_at is not None}
# Packing -> encoding of a file that is made for it.
MADE_FOR = {packing: row.name for row in TABLE.values() for packing in row.packings}
# What "auto" of set-up may turn out to be: what is taken without measuring, then the smallest.
AUTO_TYPES = tuple(
    sorted(
        dict.fromkeys(MADE_FOR.values()),
        key=lambda name: (name != DEFAULT, TABLE[name].block_bytes / TABLE[name].block),
    )
)


def in_words(*names: str, last: str = "and") -> str:
    """``a, b and c``."""
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def holding(columns: int = 0, group: int = 0) -> tuple[str, ...]:
    """The encodings that hold matrices as they are: those that only we have, llama.cpp's, floats.

    Args:
        columns: The matrices have such rows, in inputs; 0: whole blocks of any encoding.
        group: This many inputs of a row share a scale; 0: one for the matrix.
    """
    rows = [TABLE[name] for name in (*OURS, *STOCK, *FLOATS)]
    return tuple(
        row.name
        for row in rows
        if columns % row.block == 0 and (not group or (row.scale_inputs and group % row.scale_inputs == 0))
    )
