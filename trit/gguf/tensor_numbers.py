# SPDX-License-Identifier: MIT
"""Numbers in a file's tensors that no trained model has: not finite, negative scales, zeros throughout.

Vectors and the scale behind a matrix are read whole, of the embedding and the head some rows: together some megabytes
of a model of billions of weights, in a few milliseconds. Standard library only.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

from trit.gguf.identify import Found
from trit.gguf.layouts import PLAIN, TILED

# Block types whose every weight is multiplied with float16 scales -> where those are in a block.
SCALE_PLACES = {
    "q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q8_0": (0,), "q2_k": (80, 82), "q3_k": (108,),
    "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,), "iq4_nl": (0,), "iq4_xs": (0,),
}  # fmt: skip
FLOATS = ("f32", "f16", "bf16")
# Matrices of which a row is one token's.
ROWS_OF_TOKENS = ("token_embd.weight", "output.weight")
_ROWS = 32


def broken_numbers(path: Path, found: Iterable[Found]) -> str | None:
    """Which tensor of a file holds a number that is not finite, a negative scale, or nothing but zeros; None if none.

    A head or embedding is said to be zero by the rows that were looked at, which are spread over it evenly.
    """
    with path.open("rb") as file:
        for item in found:
            if reason := _broken(file, item):
                return f"{item.tensor.name} {reason}"
    return None


def _broken(file: BinaryIO, item: Found) -> str | None:
    tensor = item.tensor
    if item.layout and item.name not in TILED and (tail := _tail(item)):
        file.seek(tensor.offset + item.nbytes - tail)
        numbers: Collection[float] = struct.unpack("<f", file.read(4))
    elif item.name in ("f32", "f16") and tensor.rows == 1:
        file.seek(tensor.offset)
        numbers = floats(file.read(item.nbytes), item.name)
    elif tensor.name in ROWS_OF_TOKENS and (item.name in FLOATS or item.name in SCALE_PLACES):
        numbers = _sample(file, item)
    else:
        return None
    if not math.isfinite(sum(numbers)):
        return "holds a number that is not finite"
    if (item.layout or tensor.name.endswith("scale")) and min(numbers) < 0:
        return f"has a scale of {min(numbers):g}"
    if (tensor.name in ROWS_OF_TOKENS or tensor.name.endswith("norm.weight")) and not any(numbers):
        return "is all zeros"
    return None


def _tail(item: Found) -> int:
    """Bytes behind the blocks of a tensor, the first four of which are its scale; 0 if its scales are elsewhere."""
    assert item.layout is not None
    return item.layout.sizes(0, item.tensor.columns)[0]


def _sample(file: BinaryIO, item: Found) -> list[float]:
    """Numbers, or the scales of the blocks, of some rows of a matrix."""
    rows = item.tensor.rows
    row_bytes = item.nbytes // rows
    numbers: list[float] = []
    for row in sorted({i * (rows - 1) // (_ROWS - 1) for i in range(_ROWS)}):
        file.seek(item.tensor.offset + row * row_bytes)
        numbers += floats(scales(file.read(row_bytes), item.name), "f16" if item.name in SCALE_PLACES else item.name)
    return numbers


def block_bytes(kind: str) -> int:
    """Bytes of a block of a type of ``SCALE_PLACES``."""
    return next(nbytes for name, _, nbytes in PLAIN.values() if name == kind)


def scales(raw: bytes, kind: str) -> bytes:
    """The float16 scales in blocks of a type of ``SCALE_PLACES``; the bytes of floats as they are."""
    if kind not in SCALE_PLACES:
        return raw
    block = block_bytes(kind)
    parts = []
    for place in SCALE_PLACES[kind]:
        halves = bytearray(2 * (len(raw) // block))
        halves[0::2], halves[1::2] = raw[place::block], raw[place + 1 :: block]
        parts.append(bytes(halves))
    return b"".join(parts)


def floats(raw: bytes, kind: str) -> Collection[float]:
    """Numbers of a type of ``FLOATS``."""
    if kind == "bf16":
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        raw, kind = bytes(wide), "f32"
    if kind == "f16":
        return struct.unpack(f"<{len(raw) // 2}e", raw)
    values = array("f")
    if values.itemsize == 4 and struct.pack("=f", 1.0) == struct.pack("<f", 1.0):
        values.frombytes(raw)
        return values
    return struct.unpack(f"<{len(raw) // 4}f", raw)
