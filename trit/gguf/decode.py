# SPDX-License-Identifier: MIT
"""Bytes of a ternary layout -> matrix of codes and scales: one function per row of ``layouts.LAYOUTS``.

Every layout becomes the same thing: ``values`` int8 [n, k] (-1, 0, +1; the two-bit layouts of the q2_0 kind can also
hold +2) and ``scales`` float32 [n, groups], where a group is k / groups neighbouring weights of a row. A layout with
one scale for the whole tensor has scales [1, 1], one with a scale per row [n, 1]. Weight = value * scale. Written from
the formats' descriptions in docs/formats.md; works on a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trit.base.errors import UserError

Bytes = npt.NDArray[np.uint8]
Values = npt.NDArray[np.int8]
Scales = npt.NDArray[np.float32]

# Weights that are decoded at once.
CHUNK_WEIGHTS = 1 << 22


@dataclass(frozen=True)
class Decoded:
    """A ternary matrix: values int8 [n, k]; scales float32 [1 or n, groups]."""

    values: Values
    scales: Scales

    @property
    def shape(self) -> tuple[int, int]:
        """(n, k)."""
        n, k = self.values.shape
        return n, k

    def used_scales(self) -> Scales:
        """The different scales of the groups that hold anything but zeros, ascending; a group of zeros has none."""
        n, k = self.shape
        groups = self.scales.shape[1]
        used = self.values.reshape(n, groups, k // groups).any(axis=2)
        return np.unique(np.broadcast_to(self.scales, used.shape)[used])


def decode(layout: str, data: Bytes, n: int, k: int, name: str) -> Decoded:
    """Decode a tensor whose size fits its layout (``identify``); the tile-ordered layouts are in ``tiles``.

    Args:
        layout: Name of a row of ``LAYOUTS``.
        data: uint8, the tensor's bytes without padding.
        n: Rows.
        k: Columns.
        name: The tensor's, for messages.

    Raises:
        UserError: a code or a scale that the layout cannot have; names the tensor.
    """
    decoded = _DECODERS[layout](data, n, k)
    if not np.isfinite(decoded.scales).all() or (decoded.scales < 0).any():
        worst = decoded.scales[~np.isfinite(decoded.scales) | (decoded.scales < 0)][0]
        raise UserError(f"{name}: has a scale of {worst:g}, so it is damaged or no {layout}{_HINTS.get(layout, '')}")
    if layout not in HOLDS_TWO and decoded.values.max(initial=0) > 1:
        row, column = np.argwhere(decoded.values > 1)[0]
        what = "an index" if layout in INDEXED else "the 2-bit code 3"
        raise UserError(
            f"{name}: row {row}, column {column} holds {what}, which means no weight: "
            "the file is damaged or not of this encoding"
        )
    return decoded


# Layouts in which the code 3 means +2.
HOLDS_TWO = frozenset({"q2_0", "q2_0_g128", "pq2_0"})
# Layouts of indices that stand for two or three weights.
INDEXED = frozenset({"tl1", "tl2"})
_HINTS = {"q2_0_g128": "; OxiBonsai's files put the scale behind the codes, which is not read here"}


def _chunks(n: int, k: int) -> list[slice]:
    rows = max(1, CHUNK_WEIGHTS // k)
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def _fields(packed: Bytes, shifts: tuple[int, int, int, int]) -> Values:
    """uint8 [..., w] -> int8 [..., 4, w]: the four two-bit fields of every byte, as value = code - 1."""
    fields = np.stack([packed >> shift & 3 for shift in shifts], axis=-2)
    return np.subtract(fields.view(np.int8), 1, dtype=np.int8)


def _tail_scale(data: Bytes, n: int, k: int) -> Scales:
    """The one float32 behind n * k / 4 bytes of codes."""
    return data[n * k // 4 :][:4].view("<f4").astype(np.float32).reshape(1, 1)


def _i2_s(width: int) -> Callable[[Bytes, int, int], Decoded]:
    """Blocks of 4 * width weights: byte p holds weights p, width + p, ... at bits 7:6, 5:4, 3:2, 1:0.

    The blocks follow each other through all rows; where k is no multiple of theirs, they lie across two.
    """

    def decoder(data: Bytes, n: int, k: int) -> Decoded:
        values = np.empty(n * k, dtype=np.int8)
        blocks = data[: n * k // 4].reshape(-1, width)
        for rows in _chunks(len(blocks), 4 * width):
            values[4 * width * rows.start : 4 * width * rows.stop] = _fields(blocks[rows], (6, 4, 2, 0)).reshape(-1)
        return Decoded(values.reshape(n, k), _tail_scale(data, n, k))

    return decoder


def _i2_s_rows4(data: Bytes, n: int, k: int) -> Decoded:
    """Byte [r, c] holds column c of rows 4r, 4r + 1, 4r + 2, 4r + 3 at bits 7:6, 5:4, 3:2, 1:0."""
    values = np.empty((n // 4, 4, k), dtype=np.int8)
    codes = data[: n * k // 4].reshape(n // 4, k)
    for rows in _chunks(n // 4, 4 * k):
        values[rows] = _fields(codes[rows], (6, 4, 2, 0))
    return Decoded(values.reshape(n, k), _tail_scale(data, n, k))


def _tl1(data: Bytes, n: int, k: int) -> Decoded:
    """Half bytes 3 u0 + u1 of two neighbouring weights, the low half first; 9 to 15 come out as values above 1."""
    values = np.empty((n, k // 4, 2, 2), dtype=np.int8)
    packed = data[: n * k // 4].reshape(n, k // 4)
    for rows in _chunks(n, k):
        halves = np.stack([packed[rows] & 15, packed[rows] >> 4], axis=-1)
        values[rows, ..., 0] = halves // 3
        values[rows, ..., 1] = halves % 3
    values -= 1
    return Decoded(values.reshape(n, k), _tail_scale(data, n, k))


def _tl2(data: Bytes, n: int, k: int) -> Decoded:
    """Blocks of 128 weights in 27 bytes: 42 half bytes |9 t0 + 3 t1 + t2|, one 3 u0 + u1, 42 signs, two zero bits.

    The half bytes are those of bytes 0 to 21, low first; but the high half of byte 21 holds the last two signs and the
    zero bits. The first 40 signs are bytes 22 to 26, lowest bit first.
    """
    values = np.empty((n * k // 128, 128), dtype=np.int8)
    blocks = data[: n * k // 128 * 27].reshape(-1, 27)
    for rows in _chunks(len(blocks), 128):
        block = blocks[rows]
        halves = np.stack([block[:, :22] & 15, block[:, :22] >> 4], axis=-1).reshape(-1, 44)
        signs = np.unpackbits(np.roll(block[:, 21:], -1, axis=1), axis=1, bitorder="little")[:, [*range(40), 44, 45]]
        totals = np.where(signs == 1, -halves[:, :42].view(np.int8), halves[:, :42].view(np.int8)) + np.int8(13)
        out = values[rows]
        out[:, 0:126:3], out[:, 1:126:3], out[:, 2:126:3] = totals // 9, totals // 3 % 3, totals % 3
        out[:, 126], out[:, 127] = halves[:, 42] // 3, halves[:, 42] % 3
        none = (halves[:, :42] > 13) | (halves[:, :42] == 0) & (signs == 1)
        out[:, 0:126:3][none] = 3
        out[:, 126][block[:, 21] > 63] = 3
        out -= 1
    scale = data[len(blocks) * 27 :][:4].view("<f4").astype(np.float32).reshape(1, 1)
    return Decoded(values.reshape(n, k), scale)


def _halves(blocks: Bytes, place: int) -> Scales:
    """The float16 at ``place`` of every block [n, groups, bytes], as float32 [n, groups]."""
    return np.ascontiguousarray(blocks[..., place : place + 2]).view("<f2").astype(np.float32)[..., 0]


def _grouped(
    block: int, block_bytes: int, scale_at: int, values_of: Callable[[Bytes], Values]
) -> Callable[[Bytes, int, int], Decoded]:
    """Rows of blocks with a float16 scale each; ``values_of`` turns blocks [b, bytes] into values [b, block]."""

    def decoder(data: Bytes, n: int, k: int) -> Decoded:
        blocks = data.reshape(n, k // block, block_bytes)
        values = np.empty((n, k), dtype=np.int8)
        for rows in _chunks(n, k):
            values[rows] = values_of(blocks[rows].reshape(-1, block_bytes)).reshape(-1, k)
        return Decoded(values, _halves(blocks, scale_at))

    return decoder


def _tq2_0_values(blocks: Bytes) -> Values:
    """Two runs of 32 bytes; byte p of a run holds its weights p, 32 + p, ... at bits 1:0, 3:2, 5:4, 7:6."""
    return _fields(blocks[:, :64].reshape(-1, 2, 32), (0, 2, 4, 6)).reshape(len(blocks), 256)


def _neighbours(blocks: Bytes) -> Values:
    """Behind the scale, every byte holds four neighbouring weights, lowest bits first."""
    codes = blocks[:, 2:]
    return np.ascontiguousarray(_fields(codes, (0, 2, 4, 6)).transpose(0, 2, 1)).reshape(len(blocks), -1)


def _digits(codes: Bytes, count: int) -> Values:
    """uint8 [b, w] -> int8 [b, count, w]: bytes are fractions of 256 whose base-3 digits are weights, highest first."""
    powers = np.array([3**i for i in range(count)], dtype=np.uint16).reshape(1, count, 1)
    fractions = codes[:, None, :].astype(np.uint16) * powers & np.uint16(255)
    digits: Values = (fractions * np.uint16(3) >> np.uint16(8)).astype(np.int8)
    digits -= 1
    return digits


def _trits(stages: tuple[tuple[int, int, int], ...]) -> Callable[[Bytes], Values]:
    """Stages (first byte, bytes, digits per byte); digit i of a stage's byte m is its weight i * bytes + m."""

    def values_of(blocks: Bytes) -> Values:
        parts = [
            _digits(blocks[:, first : first + width], count).reshape(len(blocks), -1) for first, width, count in stages
        ]
        return np.concatenate(parts, axis=1)

    return values_of


def _iq1_bn_values(blocks: Bytes) -> Values:
    """Blocks of 64 weights in 13 bytes: per 16 weights three bytes of five, and the 16ths of all four in the last.

    The digits of a byte are the other way round than in tq1_0: the first weight is the lowest digit.
    """
    count = len(blocks)
    fives = _digits(blocks[:, :12], 5)[:, ::-1].transpose(0, 2, 1).reshape(count, 4, 15)
    last = _digits(blocks[:, 12:], 5)[:, ::-1, 0][:, :4, None]
    return np.concatenate([fives, last], axis=2).reshape(count, 64)


def _iq2_bn_values(blocks: Bytes) -> Values:
    """Blocks of 64 weights in 16 bytes: byte p holds weights p, 16 + p, 32 + p, 48 + p at bits 1:0, 3:2, 5:4, 7:6."""
    return _fields(blocks, (0, 2, 4, 6)).reshape(len(blocks), 64)


def _rows(block_bytes: int, scale: str, values_of: Callable[[Bytes], Values]) -> Callable[[Bytes, int, int], Decoded]:
    """Rows that begin with their scale (a numpy dtype), then blocks of 64 weights."""
    scale_bytes = np.dtype(scale).itemsize

    def decoder(data: Bytes, n: int, k: int) -> Decoded:
        whole = data.reshape(n, scale_bytes + k // 64 * block_bytes)
        values = np.empty((n, k), dtype=np.int8)
        for rows in _chunks(n, k):
            values[rows] = values_of(whole[rows, scale_bytes:].reshape(-1, block_bytes)).reshape(-1, k)
        scales = np.ascontiguousarray(whole[:, :scale_bytes]).view(scale).astype(np.float32)
        return Decoded(values, scales)

    return decoder


_DECODERS: dict[str, Callable[[Bytes, int, int], Decoded]] = {
    "i2_s": _i2_s(32),
    "i2_s_flat": _i2_s(32),
    "i2_s_arm": _i2_s(16),
    "i2_s_rows4": _i2_s_rows4,
    "tl1": _tl1,
    "tl2": _tl2,
    "tq1_0": _grouped(256, 54, 52, _trits(((0, 32, 5), (32, 16, 5), (48, 4, 4)))),
    "tq2_0": _grouped(256, 66, 64, _tq2_0_values),
    "q2_0": _grouped(64, 18, 0, _neighbours),
    "q2_0_g128": _grouped(128, 34, 0, _neighbours),
    "pq2_0": _grouped(128, 34, 0, _neighbours),
    "ptq1_0": _grouped(128, 28, 26, _trits(((0, 16, 5), (16, 8, 5), (24, 2, 4)))),
    "iq1_bn": _rows(13, "<f2", _iq1_bn_values),
    "iq2_bn": _rows(16, "<f4", _iq2_bn_values),
}
