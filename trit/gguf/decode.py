# SPDX-License-Identifier: MIT
"""Bytes of a ternary layout -> matrix of codes and scales: the one decoder, of our encodings and of other engines'.

Every layout becomes the same thing: ``values`` int8 [n, k] (-1, 0, +1; the two-bit layouts of the q2_0 kind can also
hold +2) and ``scales`` float32 [n, groups], where a group is k / groups neighbouring weights of a row. A layout with
one scale for the whole tensor has scales [1, 1], one with a scale per row [n, 1]. Weight = value * scale. The decoders
of encodings are in ``trit.gguf.codecs``, those of layouts that are only read are here; both are written from the
descriptions in docs/formats.md and work on a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trit.base.errors import UserError
from trit.gguf.codecs import (
    CODECS,
    Bytes,
    Decoded,
    Scales,
    Ternary,
    digits,
    fields,
    grouped,
    i2_s_blocks,
    neighbours,
    row_chunks,
    tail_scale,
    trits,
)
from trit.gguf.layouts import LAYOUTS

__all__ = ["Bytes", "Decoded", "Scales", "Ternary", "decode", "decode_anything"]


def decode_anything(layout: str, data: Bytes, n: int, k: int) -> Decoded:
    """As :func:`decode`, but nothing is refused: what stands for no weight becomes a value above 1."""
    return (CODECS[layout].decode if layout in CODECS else _FOREIGN[layout])(data, n, k)


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
    decoded = decode_anything(layout, data, n, k)
    if not np.isfinite(decoded.scales).all() or (decoded.scales < 0).any():
        worst = decoded.scales[~np.isfinite(decoded.scales) | (decoded.scales < 0)][0]
        raise UserError(f"{name}: has a scale of {worst:g}, so it is damaged or no {layout}{_HINTS.get(layout, '')}")
    if not LAYOUTS[layout].holds_two and decoded.values.max(initial=0) > 1:
        row, column = np.argwhere(decoded.values > 1)[0]
        what = CODECS[layout].invalid if layout in CODECS else "the 2-bit code 3"
        raise UserError(
            f"{name}: row {row}, column {column} holds {what}, which means no weight: "
            "the file is damaged or not of this encoding"
        )
    return decoded


_HINTS = {"q2_0_g128": "; OxiBonsai's files put the scale behind the codes, which is not read here"}


def _i2_s_rows4(data: Bytes, n: int, k: int) -> Decoded:
    """Byte [r, c] holds column c of rows 4r, 4r + 1, 4r + 2, 4r + 3 at bits 7:6, 5:4, 3:2, 1:0."""
    values = np.empty((n // 4, 4, k), dtype=np.int8)
    codes = data[: n * k // 4].reshape(n // 4, k)
    for rows in row_chunks(n // 4, 4 * k):
        values[rows] = fields(codes[rows], (6, 4, 2, 0))
    return Decoded(values.reshape(n, k), tail_scale(data, n * k // 4))


def _iq1_bn_values(blocks: Bytes) -> Ternary:
    """Blocks of 64 weights in 13 bytes: per 16 weights three bytes of five, and the 16ths of all four in the last.

    The digits of a byte are the other way round than in tq1_0: the first weight is the lowest digit.
    """
    count = len(blocks)
    fives = digits(blocks[:, :12], 5)[:, ::-1].transpose(0, 2, 1).reshape(count, 4, 15)
    last = digits(blocks[:, 12:], 5)[:, ::-1, 0][:, :4, None]
    return np.concatenate([fives, last], axis=2).reshape(count, 64)


def _iq2_bn_values(blocks: Bytes) -> Ternary:
    """Blocks of 64 weights in 16 bytes: byte p holds weights p, 16 + p, 32 + p, 48 + p at bits 1:0, 3:2, 5:4, 7:6."""
    return fields(blocks, (0, 2, 4, 6)).reshape(len(blocks), 64)


def _stq1_0_table() -> Ternary:
    """int8 [32, 4]: four weights of which one is 0, by its place and the signs of the others.

    Bits 3:2 of the index are the place of the 0. Of the other three, in their order, the first is +1, the second -1
    where bit 0 is set, the third -1 where bit 1 is. Bit 4 turns all signs round.
    """
    table = np.zeros((32, 4), dtype=np.int8)
    for index in range(32):
        others = [lane for lane in range(4) if lane != index >> 2 & 3]
        table[index, others] = np.where([0, index & 1, index & 2], -1, 1) * (-1 if index & 16 else 1)
    return table


_FOURS = _stq1_0_table()


def _stq1_0_values(blocks: Bytes) -> Ternary:
    """Blocks of 256 weights in 40 bytes and a scale: half a byte for each of 64 fours, low half first, a bit for each.

    Four g holds the weights 64 (g // 16) + g % 16 + 0, 16, 32, 48.
    """
    count = len(blocks)
    indices = np.empty((count, 64), dtype=np.uint8)
    indices[:, 0::2], indices[:, 1::2] = blocks[:, :32] & 15, blocks[:, :32] >> 4
    indices |= np.unpackbits(blocks[:, 32:40], axis=1, bitorder="little") << 4
    fours = np.take(_FOURS, indices, axis=0)
    return np.asarray(fours.reshape(count, 4, 16, 4).swapaxes(2, 3).reshape(count, 256))


def _rows(block_bytes: int, scale: str, values_of: Callable[[Bytes], Ternary]) -> Callable[[Bytes, int, int], Decoded]:
    """Rows that begin with their scale (a numpy dtype), then blocks of 64 weights."""
    scale_bytes = np.dtype(scale).itemsize

    def decoder(data: Bytes, n: int, k: int) -> Decoded:
        whole = data.reshape(n, scale_bytes + k // 64 * block_bytes)
        values = np.empty((n, k), dtype=np.int8)
        for rows in row_chunks(n, k):
            values[rows] = values_of(whole[rows, scale_bytes:].reshape(-1, block_bytes)).reshape(-1, k)
        scales = np.ascontiguousarray(whole[:, :scale_bytes]).view(scale).astype(np.float32)
        return Decoded(values, scales)

    return decoder


_FOREIGN: dict[str, Callable[[Bytes, int, int], Decoded]] = {
    "i2_s_flat": i2_s_blocks(32),
    "i2_s_arm": i2_s_blocks(16),
    "i2_s_rows4": _i2_s_rows4,
    "q2_0_g128": grouped(128, 34, 0, neighbours),
    "pq2_0": grouped(128, 34, 0, neighbours),
    "ptq1_0": grouped(128, 28, 26, trits(((0, 16, 5), (16, 8, 5), (24, 2, 4)))),
    "stq1_0": grouped(256, 42, 40, _stq1_0_values),
    "iq1_bn": _rows(13, "<f2", _iq1_bn_values),
    "iq2_bn": _rows(16, "<f4", _iq2_bn_values),
}
