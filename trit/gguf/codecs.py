# SPDX-License-Identifier: MIT
"""The code of every row of ``trit.gguf.encoding_table``: ternary matrix -> bytes, and bytes -> matrix and scales.

Everywhere a ternary matrix is ``ternary * scale``: ``ternary`` is int8 [n, k] (n output rows, k inputs, row-major) with
values in {-1, 0, 1}, ``scale`` is one positive float32 for the matrix, or float32 [n, k / group], one for each group of
consecutive inputs of a row. Packers and decoders share no code: each is written from docs/formats.md by itself, so that
one can be the other's proof. ``tests/support/foreign_files.py`` has a third writing of each, and bytes by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trit.gguf.encoding_table import TABLE

Ternary = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]
Scales = npt.NDArray[np.float32]
# One for the matrix, or float32 [n, k / group].
Scale = float | Scales

# Rows that are packed or decoded at once. It bounds the temporary arrays to a few times this many weights.
CHUNK_WEIGHTS = 1 << 20


@dataclass(frozen=True)
class Decoded:
    """A matrix as its bytes say it.

    Attributes:
        values: int8 [n, k]; what stands for no weight is above 1, as is +2 where that is a weight.
        scales: float32 [1 or n, groups]: one for the matrix, for each row, or for each k / groups weights of a row.
    """

    values: Ternary
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


@dataclass(frozen=True)
class Codec:
    """Packer and decoder of one encoding, by two hands.

    Attributes:
        pack: (ternary int8 [n, k], scale) -> uint8 [nbytes]; k is whole blocks, and the scale one that it can hold.
        decode: (uint8 [nbytes], n, k) -> values and scales, nothing refused.
        invalid: What a message calls bytes that stand for no weight.
    """

    pack: Callable[[Ternary, Scale], Bytes]
    decode: Callable[[Bytes, int, int], Decoded]
    invalid: str = "the 2-bit code 3"


def row_chunks(n: int, k: int) -> list[slice]:
    """Slices of rows that hold about ``CHUNK_WEIGHTS`` weights each."""
    rows = max(1, CHUNK_WEIGHTS // k)
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def spread_scale(scale: Scale, n: int, k: int, group: int) -> Scales:
    """A scale as float32 [n, k / group], for a group that divides its own."""
    scales = np.asarray(scale, dtype=np.float32)
    if scales.ndim == 0:
        return np.full((n, k // group), scales, dtype=np.float32)
    return scales.repeat(k // group // scales.shape[1], axis=1)


def times_scale(ternary: Ternary, scale: Scale, rows: slice) -> Scales:
    """Float32 [rows, k]: some rows of ``ternary * scale``."""
    part = ternary[rows]
    factors = scale[rows].repeat(part.shape[1] // scale.shape[1], axis=1) if isinstance(scale, np.ndarray) else scale
    return np.asarray(part * np.asarray(factors, dtype=np.float32))


# Packers.


I2_S_SHIFTS = (6, 4, 2, 0)
TQ2_0_SHIFTS = (0, 2, 4, 6)


def _pack_2bit(ternary: Ternary, shifts: tuple[int, int, int, int]) -> Bytes:
    """Pack groups of 128 weights into 32 bytes: byte p of a group holds weights p, 32+p, 64+p, 96+p at ``shifts``.

    Codes are value + 1. Returns uint8 [n, k / 4].
    """
    n, k = ternary.shape
    out = np.empty((n, k // 4), dtype=np.uint8)
    for rows in row_chunks(n, k):
        codes = (ternary[rows] + np.int8(1)).view(np.uint8).reshape(-1, 4, 32)
        packed = codes[:, 0] << shifts[0]
        for lane in (1, 2, 3):
            packed |= codes[:, lane] << shifts[lane]
        out[rows] = packed.reshape(-1, k // 4)
    return out


def pack_i2_s(ternary: Ternary, scale: Scale) -> Bytes:
    """Ternary matrix -> i2_s bytes, as in the files published for bitnet.cpp (the same on every CPU).

    Blocks of 128 weights in 32 bytes: byte p holds weights p, 32+p, 64+p, 96+p at bits 7:6, 5:4, 3:2, 1:0 as value + 1.
    After all n*k/4 bytes the scale as little-endian float32, then 28 zero bytes.

    Args:
        ternary: int8 [n, k], values in {-1, 0, 1}, k a multiple of 128.
        scale: What every weight is multiplied by; one number, as i2_s has no room for more.

    Returns:
        uint8 [n*k/4 + 32].
    """
    assert not isinstance(scale, np.ndarray)  # check_scale has refused it
    out = np.zeros(ternary.size // 4 + TABLE["i2_s"].tail_bytes, dtype=np.uint8)
    out[: ternary.size // 4] = _pack_2bit(ternary, I2_S_SHIFTS).reshape(-1)
    out[ternary.size // 4 :][:4] = np.array([scale], dtype="<f4").view(np.uint8)
    return out


def _pack_blocks(name: str, blocks_of: Callable[[Ternary], Bytes]) -> Callable[[Ternary, Scale], Bytes]:
    """Packer of blocks, int8 [b, block] -> uint8 [b, block_bytes] by ``blocks_of``, and a tail with the scale."""
    block, block_bytes, tail_bytes = TABLE[name].block, TABLE[name].block_bytes, TABLE[name].tail_bytes

    def pack(ternary: Ternary, scale: Scale) -> Bytes:
        assert not isinstance(scale, np.ndarray)  # check_scale has refused it
        n, k = ternary.shape
        row_bytes = k // block * block_bytes
        out = np.zeros(n * row_bytes + tail_bytes, dtype=np.uint8)
        packed = out[: n * row_bytes].reshape(n, row_bytes)
        for rows in row_chunks(n, k):
            packed[rows] = blocks_of(ternary[rows].reshape(-1, block)).reshape(-1, row_bytes)
        out[n * row_bytes :][:4] = np.array([scale], dtype="<f4").view(np.uint8)
        return out

    return pack


def _tl1_blocks(ternary: Ternary) -> Bytes:
    """Byte i of a block holds the pairs (4i, 4i + 1) and (4i + 2, 4i + 3) as 3 u0 + u1, the first in the low half."""
    codes = (ternary + np.int8(1)).view(np.uint8).reshape(-1, 8, 4)
    pairs = codes[..., 0::2] * np.uint8(3) + codes[..., 1::2]
    return np.asarray(pairs[..., 0] | pairs[..., 1] << 4)


# tl2 as three weights per index: 42 triplets in a block of 128 weights, and a pair.
_TRIPLETS = 42


def _tl2_blocks(ternary: Ternary) -> Bytes:
    """Block of 128 weights in 27 bytes: 42 indices of triplets, the pair that is left, the triplets' signs.

    T = 9 t0 + 3 t1 + t2 of weights 3i .. 3i + 2 is stored as |T| in half a byte (byte i / 2, the first in the low half)
    and a sign bit, 1 for T < 0: of triplets 0 to 39 in bytes 22 to 26, lowest bit first, of 40 and 41 at bits 4 and 5
    of byte 21, whose low half is the pair of weights 126 and 127 as 3 u0 + u1.
    """
    triplets = ternary[:, : 3 * _TRIPLETS].reshape(-1, _TRIPLETS, 3)
    sums = triplets[..., 0] * np.int8(9) + triplets[..., 1] * np.int8(3) + triplets[..., 2]
    indices, negative = np.abs(sums).view(np.uint8), (sums < 0).view(np.uint8)
    pairs = ternary[:, 126] * np.int8(3) + ternary[:, 127] + np.int8(4)
    out = np.empty((len(ternary), 27), dtype=np.uint8)
    out[:, :21] = indices[:, 0::2] | indices[:, 1::2] << 4
    out[:, 21] = pairs.view(np.uint8) | negative[:, 40] << 4 | negative[:, 41] << 5
    out[:, 22:] = np.packbits(negative[:, :40], axis=1, bitorder="little")
    return out


def pack_tq2_0(ternary: Ternary, scale: Scale) -> Bytes:
    """Ternary matrix -> TQ2_0 bytes of llama.cpp (block_tq2_0 in ggml-common.h), equal to what gguf-py makes of it.

    Blocks of 256 weights: two groups of 32 bytes, byte p of group g holds weights 128g + p, +32, +64, +96 at bits
    1:0, 3:2, 5:4, 7:6 as value + 1; then the scale as float16, or 0 where all 256 weights are 0.

    Args:
        ternary: int8 [n, k], values in {-1, 0, 1}, k a multiple of 256.
        scale: One, or float32 [n, k / group] for groups of whole blocks; rounded to float16.

    Returns:
        uint8 [n * k / 256 * 66].
    """
    n, k = ternary.shape
    scales = spread_scale(scale, n, k, 256).reshape(-1)
    blocks = np.empty((ternary.size // 256, 66), dtype=np.uint8)
    blocks[:, :64] = _pack_2bit(ternary, TQ2_0_SHIFTS).reshape(-1, 64)
    nonzero = ternary.reshape(-1, 256).any(axis=1)
    blocks[:, 64:] = np.where(nonzero, scales, 0).astype("<f2").view(np.uint8).reshape(-1, 2)
    return blocks.reshape(-1)


def _pack_with_gguf(quantization: str) -> Callable[[Ternary, Scale], Bytes]:
    """Packer that leaves the bytes to gguf-py, a few rows at a time."""

    def pack(ternary: Ternary, scale: Scale) -> Bytes:
        import gguf

        kind = gguf.GGMLQuantizationType[quantization]
        chunks = [gguf.quants.quantize(times_scale(ternary, scale, rows), kind) for rows in row_chunks(*ternary.shape)]
        return np.concatenate(chunks).reshape(-1).view(np.uint8)

    return pack


def pack_q2_0(ternary: Ternary, scale: Scale) -> Bytes:
    """Ternary matrix -> Q2_0 bytes of llama.cpp (block_q2_0 in ggml-common.h), the type of Ternary-Bonsai's files.

    Blocks of 64 weights: the scale as float16, then 16 bytes; byte p holds weights 4p .. 4p + 3 at bits 1:0, 3:2, 5:4,
    7:6 as value + 1. (The format's fourth code, +2, is never written.)

    Args:
        ternary: int8 [n, k], values in {-1, 0, 1}, k a multiple of 64.
        scale: One, or float32 [n, k / group] for groups of whole blocks; rounded to float16.

    Returns:
        uint8 [n * k / 64 * 18].
    """
    blocks = np.empty((ternary.size // 64, 18), dtype=np.uint8)
    n, k = ternary.shape
    blocks[:, :2] = spread_scale(scale, n, k, 64).astype("<f2").view(np.uint8).reshape(-1, 2)
    codes = (ternary.reshape(-1, 16, 4) + np.int8(1)).view(np.uint8)
    blocks[:, 2:] = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
    return blocks.reshape(-1)


# Decoders, and what those of ``trit.gguf.decode`` take from them.


def fields(packed: Bytes, shifts: tuple[int, int, int, int]) -> Ternary:
    """uint8 [..., w] -> int8 [..., 4, w]: the four two-bit fields of every byte, as value = code - 1."""
    codes = np.stack([packed >> shift & 3 for shift in shifts], axis=-2)
    return np.subtract(codes.view(np.int8), 1, dtype=np.int8)


def tail_scale(data: Bytes, place: int) -> Scales:
    """The one float32 behind so many bytes of codes."""
    return data[place:][:4].view("<f4").astype(np.float32).reshape(1, 1)


def i2_s_blocks(width: int) -> Callable[[Bytes, int, int], Decoded]:
    """Blocks of 4 * width weights: byte p holds weights p, width + p, ... at bits 7:6, 5:4, 3:2, 1:0.

    The blocks follow each other through all rows; where k is no multiple of theirs, they lie across two.
    """

    def decoder(data: Bytes, n: int, k: int) -> Decoded:
        values = np.empty(n * k, dtype=np.int8)
        blocks = data[: n * k // 4].reshape(-1, width)
        for rows in row_chunks(len(blocks), 4 * width):
            values[4 * width * rows.start : 4 * width * rows.stop] = fields(blocks[rows], (6, 4, 2, 0)).reshape(-1)
        return Decoded(values.reshape(n, k), tail_scale(data, n * k // 4))

    return decoder


def _halves(blocks: Bytes, place: int) -> Scales:
    """The float16 at ``place`` of every block [n, groups, bytes], as float32 [n, groups]."""
    return np.ascontiguousarray(blocks[..., place : place + 2]).view("<f2").astype(np.float32)[..., 0]


def grouped(
    block: int, block_bytes: int, scale_at: int, values_of: Callable[[Bytes], Ternary]
) -> Callable[[Bytes, int, int], Decoded]:
    """Rows of blocks with a float16 scale each; ``values_of`` turns blocks [b, bytes] into values [b, block]."""

    def decoder(data: Bytes, n: int, k: int) -> Decoded:
        blocks = data.reshape(n, k // block, block_bytes)
        values = np.empty((n, k), dtype=np.int8)
        for rows in row_chunks(n, k):
            values[rows] = values_of(blocks[rows].reshape(-1, block_bytes)).reshape(-1, k)
        return Decoded(values, _halves(blocks, scale_at))

    return decoder


def _tq2_0_values(blocks: Bytes) -> Ternary:
    """Two runs of 32 bytes; byte p of a run holds its weights p, 32 + p, ... at bits 1:0, 3:2, 5:4, 7:6."""
    return fields(blocks[:, :64].reshape(-1, 2, 32), (0, 2, 4, 6)).reshape(len(blocks), 256)


def digits(codes: Bytes, count: int) -> Ternary:
    """uint8 [b, w] -> int8 [b, count, w]: bytes are fractions of 256 whose base-3 digits are weights, highest first."""
    powers = np.array([3**i for i in range(count)], dtype=np.uint16).reshape(1, count, 1)
    fractions = codes[:, None, :].astype(np.uint16) * powers & np.uint16(255)
    values: Ternary = (fractions * np.uint16(3) >> np.uint16(8)).astype(np.int8)
    values -= 1
    return values


def trits(stages: tuple[tuple[int, int, int], ...]) -> Callable[[Bytes], Ternary]:
    """Stages (first byte, bytes, digits per byte); digit i of a stage's byte m is its weight i * bytes + m."""

    def values_of(blocks: Bytes) -> Ternary:
        parts = [
            digits(blocks[:, first : first + width], count).reshape(len(blocks), -1) for first, width, count in stages
        ]
        return np.concatenate(parts, axis=1)

    return values_of


# The four weights of every byte of two-bit codes, lowest bits first; as words, like _PAIR_WORDS.
_QUARTETS = np.array([[(byte >> shift & 3) - 1 for shift in (0, 2, 4, 6)] for byte in range(256)], dtype=np.int8)
_QUARTET_WORDS = _QUARTETS.view(np.uint32)[:, 0]


def neighbours(blocks: Bytes) -> Ternary:
    """Behind the scale, every byte holds four neighbouring weights, lowest bits first."""
    return np.asarray(_QUARTET_WORDS[blocks[:, 2:]]).view(np.int8)


# Codes of every index of a pair; 9 to 15 mean none.
_PAIRS = np.array([(i // 3, i % 3) if i < 9 else (3, 3) for i in range(16)], dtype=np.uint8)
# The four codes of every byte of two pairs; as words, which numpy looks up four times faster than rows of bytes.
_PAIR_WORDS = np.concatenate([np.tile(_PAIRS, (16, 1)), _PAIRS.repeat(16, axis=0)], axis=1).view(np.uint32)[:, 0]


def _tl1_codes(blocks: Bytes) -> Bytes:
    return np.asarray(_PAIR_WORDS[blocks]).view(np.uint8)


def _triplet(key: int) -> tuple[int, int, int]:
    """Codes of a triplet's index with its sign in bit 4; index 14 and 15 and a negative 0 mean none."""
    index, negative = key & 15, key >> 4
    total = 13 - index if negative else 13 + index
    return (total // 9, total // 3 % 3, total % 3) if index < 14 and key != 16 else (3, 3, 3)


_TRIPLET_CODES = np.array([_triplet(key) for key in range(32)], dtype=np.uint8)


def _tl2_codes(blocks: Bytes) -> Bytes:
    keys = np.empty((len(blocks), _TRIPLETS), dtype=np.uint8)
    keys[:, 0::2], keys[:, 1::2] = blocks[:, :21] & 15, blocks[:, :21] >> 4
    keys[:, :40] |= np.unpackbits(blocks[:, 22:], axis=1, bitorder="little") << 4
    keys[:, 40] |= blocks[:, 21] & 16
    keys[:, 41] |= blocks[:, 21] >> 1 & 16
    codes = np.empty((len(blocks), 128), dtype=np.uint8)
    codes[:, : 3 * _TRIPLETS] = np.take(_TRIPLET_CODES, keys, axis=0).reshape(len(blocks), -1)
    # The two spare bits are zero; anything else is no block of this encoding.
    codes[:, 126:] = np.where(blocks[:, 21:22] < 64, _PAIRS[blocks[:, 21] & 15], 3)
    return codes


def _indexed(name: str, codes_of: Callable[[Bytes], Bytes]) -> Callable[[Bytes, int, int], Decoded]:
    """Rows of blocks before one scale; ``codes_of`` gives the codes t + 1 of blocks, and 3 for what means no weight."""
    block, block_bytes = TABLE[name].block, TABLE[name].block_bytes

    def decoder(data: Bytes, n: int, k: int) -> Decoded:
        row_bytes = k // block * block_bytes
        packed = data[: n * row_bytes].reshape(n, row_bytes)
        values = np.empty((n, k), dtype=np.int8)
        for rows in row_chunks(n, k):
            codes = codes_of(packed[rows].reshape(-1, block_bytes)).reshape(-1, k)
            np.subtract(codes.view(np.int8), 1, out=values[rows])
        return Decoded(values, tail_scale(data, n * row_bytes))

    return decoder


def _scaled_blocks(name: str, values_of: Callable[[Bytes], Ternary]) -> Callable[[Bytes, int, int], Decoded]:
    """As :func:`grouped`, with the sizes of the table."""
    row = TABLE[name]
    assert row.scale_at is not None
    return grouped(row.block, row.block_bytes, row.scale_at, values_of)


CODECS: dict[str, Codec] = {
    "i2_s": Codec(pack_i2_s, i2_s_blocks(32)),
    "tq2_0": Codec(pack_tq2_0, _scaled_blocks("tq2_0", _tq2_0_values)),
    "tq1_0": Codec(_pack_with_gguf("TQ1_0"), _scaled_blocks("tq1_0", trits(((0, 32, 5), (32, 16, 5), (48, 4, 4))))),
    "q2_0": Codec(pack_q2_0, _scaled_blocks("q2_0", neighbours)),
    "tl1": Codec(_pack_blocks("tl1", _tl1_blocks), _indexed("tl1", _tl1_codes), invalid="an index"),
    "tl2": Codec(_pack_blocks("tl2", _tl2_blocks), _indexed("tl2", _tl2_codes), invalid="an index"),
}
