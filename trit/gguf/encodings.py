# SPDX-License-Identifier: MIT
"""The table of weight encodings: how a ternary matrix becomes the bytes of a GGUF tensor, and back.

Everywhere a ternary matrix is ``ternary * scale``: ``ternary`` is int8 [n, k] (n output rows, k inputs, row-major) with
values in {-1, 0, 1}, ``scale`` is one positive float32 for the matrix, or float32 [n, k / group], one for each group of
consecutive inputs of a row. To add an encoding, add a row to ``ENCODINGS``; the converter, the dummy generator and the
tests walk the table. Plain numpy, so that the kernel tests can import it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trit.base.errors import UserError
from trit.base.flags import called

Ternary = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]
# One for the matrix, or float32 [n, k / group].
Scale = float | npt.NDArray[np.float32]

# Rows that are packed at once. It bounds the temporary arrays to a few times this many weights.
CHUNK_WEIGHTS = 1 << 20
# What rounding may change a scale by, relative to it: twice what it is for the normal numbers of float16.
MAX_SCALE_DEVIATION = 1e-3
# Group sizes that are looked for in floats, after one group a row: those of llama.cpp's blocks and of Ternary-Bonsai.
GROUPS = (256, 128, 64)
# After the packed weights of an i2_s tensor: its float32 scale, then zeros up to this many bytes.
I2_S_TAIL_BYTES = 32
# The same for tl1 and tl2. Other than i2_s's, so that bitnet.cpp's TL1, which has tl1's number, never has its size.
TL_TAIL_BYTES = 64


@dataclass(frozen=True)
class Encoding:
    """One way to store a ternary matrix.

    Attributes:
        name: What ``--outtype`` calls it.
        ggml_type: Number of the tensor type in a GGUF file.
        file_type: Value of ``general.file_type`` for a model whose matrices have this type.
        block: The number of inputs k has to be a multiple of this.
        block_bytes: Bytes per block.
        tail_bytes: Bytes after the last block of the matrix.
        scale_inputs: Inputs of a row that share a scale are a multiple of this; 0: the whole matrix shares one.
        pack: (ternary int8 [n, k], scale) -> uint8 [nbytes].
        unpack: (uint8 [nbytes], n, k, tensor name) -> (ternary int8 [n, k], scale); raises UserError on invalid bytes.
            The scale is a float where one fits the whole matrix.
        stored_scale: float32 scale -> the scale as this encoding can hold it.
    """

    name: str
    ggml_type: int
    file_type: int
    block: int
    block_bytes: int
    tail_bytes: int
    scale_inputs: int
    pack: Callable[[Ternary, Scale], Bytes]
    unpack: Callable[[Bytes, int, int, str], tuple[Ternary, Scale]]
    stored_scale: Callable[[Scale], Scale]

    def nbytes(self, n: int, k: int) -> int:
        """Size in bytes of a matrix [n, k]; k has to be a multiple of ``block``."""
        return n * k // self.block * self.block_bytes + self.tail_bytes


def _rounded(dtype: str) -> Callable[[Scale], Scale]:
    def stored_scale(scale: Scale) -> Scale:
        with np.errstate(over="ignore"):  # the caller looks at the result: infinity means that the type cannot hold it
            stored = np.asarray(scale).astype(dtype).astype(np.float32)
        return stored if stored.ndim else float(stored)

    return stored_scale


_scale_f16, _scale_f32 = _rounded("<f2"), _rounded("<f4")


def spread_scale(scale: Scale, n: int, k: int, group: int) -> npt.NDArray[np.float32]:
    """A scale as float32 [n, k / group], for a group that divides its own."""
    scales = np.asarray(scale, dtype=np.float32)
    if scales.ndim == 0:
        return np.full((n, k // group), scales, dtype=np.float32)
    return scales.repeat(k // group // scales.shape[1], axis=1)


def _gathered(scales: npt.NDArray[np.float32]) -> Scale:
    """The one scale of a matrix if its blocks' scales [n, blocks] agree (0 in blocks of zeros), else all of them."""
    scale = float(scales.max(initial=0.0))
    return scale if np.isin(scales, [0.0, scale]).all() else scales


def same_values(ternary: Ternary, a: Scale, b: Scale) -> bool:
    """Whether ``ternary * a`` equals ``ternary * b``: the scales of groups of zeros do not matter."""
    n, k = ternary.shape
    group = math.gcd(*[k // scale.shape[1] if isinstance(scale, np.ndarray) else k for scale in (a, b)])
    used = ternary.reshape(n, k // group, group).any(axis=-1)
    return bool((spread_scale(a, n, k, group) == spread_scale(b, n, k, group))[used].all())


def split_groups(values: npt.NDArray[np.float32], group: int) -> tuple[Ternary, npt.NDArray[np.float32]] | None:
    """Float32 [n, k] -> ternary int8 [n, k] and scales [n, k / group] if every group is exactly -s, 0 and +s."""
    n, k = values.shape
    signs = np.sign(values)
    scales = np.abs(values).reshape(n, k // group, group).max(axis=-1)
    if not np.array_equal(values, signs * scales.repeat(group, axis=1)):
        return None
    return signs.astype(np.int8), scales


def group_sizes(k: int) -> tuple[int, ...]:
    """Sizes of groups that are tried on rows of k floats, the largest first."""
    return (k, *[group for group in GROUPS if group < k and k % group == 0])


def exact_ternary(
    pieces: Callable[[], Iterable[npt.NDArray[np.float32]]], n: int, k: int
) -> tuple[Ternary, Scale] | None:
    """The ternary matrix that floats hold exactly, with one scale for all of it, for each row, or for each group.

    Args:
        pieces: Gives the rows from the first to the last, float32 [some, k] at a time; called again for every size of
            groups that is tried, and mostly left after its first piece where the floats are not ternary.
        n: Rows.
        k: Columns.

    Returns:
        None if there is none. The scale of a matrix of zeros is 0.
    """
    for group in group_sizes(k):
        ternary, scales = np.empty((n, k), dtype=np.int8), np.empty((n, k // group), dtype=np.float32)
        done = 0
        for values in pieces():
            part = split_groups(values, group)
            if part is None:
                break
            rows = slice(done, done + len(values))
            ternary[rows], scales[rows] = part
            done = rows.stop
        else:
            scale = _gathered(scales)
            # A few values can be ternary by chance.
            if isinstance(scale, float) or group >= min(GROUPS):
                return ternary, scale
    return None


def _row_chunks(n: int, k: int) -> list[slice]:
    """Slices of rows that hold about ``CHUNK_WEIGHTS`` weights each."""
    rows = max(1, CHUNK_WEIGHTS // k)
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]


def _pack_2bit(ternary: Ternary, shifts: tuple[int, int, int, int]) -> Bytes:
    """Pack groups of 128 weights into 32 bytes: byte p of a group holds weights p, 32+p, 64+p, 96+p at ``shifts``.

    Codes are value + 1. Returns uint8 [n, k / 4].
    """
    n, k = ternary.shape
    out = np.empty((n, k // 4), dtype=np.uint8)
    for rows in _row_chunks(n, k):
        codes = (ternary[rows] + np.int8(1)).view(np.uint8).reshape(-1, 4, 32)
        packed = codes[:, 0] << shifts[0]
        for lane in (1, 2, 3):
            packed |= codes[:, lane] << shifts[lane]
        out[rows] = packed.reshape(-1, k // 4)
    return out


def _unpack_2bit(packed: Bytes, k: int, shifts: tuple[int, int, int, int], name: str) -> Ternary:
    """Inverse of :func:`_pack_2bit` for uint8 [n, k / 4]; raises UserError on code 3, which is no ternary value."""
    n = packed.shape[0]
    out = np.empty((n, k), dtype=np.int8)
    for rows in _row_chunks(n, k):
        groups = packed[rows].reshape(-1, 32)
        lanes = np.empty((groups.shape[0], 4, 32), dtype=np.uint8)
        for lane in range(4):
            lanes[:, lane] = (groups >> shifts[lane]) & 3
        out[rows] = _values(lanes.reshape(-1, k), rows.start, "the 2-bit code 3", name)
    return out


def _values(codes: Bytes, first_row: int, invalid: str, name: str) -> Ternary:
    """Codes [rows, k] -> values; raises UserError on code 3, which is no ternary value and came from ``invalid``."""
    if codes.max(initial=0) > 2:
        row, column = np.argwhere(codes > 2)[0]
        raise UserError(
            f"{name}: row {first_row + row}, column {column} holds {invalid}, which means no weight: "
            "the file is damaged or not of this encoding"
        )
    return np.asarray(codes.view(np.int8) - np.int8(1))


I2_S_SHIFTS = (6, 4, 2, 0)
TQ2_0_SHIFTS = (0, 2, 4, 6)


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
    out = np.zeros(ternary.size // 4 + I2_S_TAIL_BYTES, dtype=np.uint8)
    out[: ternary.size // 4] = _pack_2bit(ternary, I2_S_SHIFTS).reshape(-1)
    out[ternary.size // 4 :][:4] = np.array([scale], dtype="<f4").view(np.uint8)
    return out


def unpack_i2_s(data: Bytes, n: int, k: int, name: str = "i2_s tensor") -> tuple[Ternary, Scale]:
    """Inverse of :func:`pack_i2_s` for uint8 [n*k/4 + 32]; raises UserError on code 3, naming the tensor."""
    ternary = _unpack_2bit(data[: n * k // 4].reshape(n, k // 4), k, I2_S_SHIFTS, name)
    return ternary, float(data[n * k // 4 :][:4].view("<f4")[0])


def _pack_blocks(blocks_of: Callable[[Ternary], Bytes], block: int, block_bytes: int) -> Callable[..., Bytes]:
    """Packer of blocks, int8 [b, block] -> uint8 [b, block_bytes] by ``blocks_of``, and a tail with the scale."""

    def pack(ternary: Ternary, scale: Scale) -> Bytes:
        assert not isinstance(scale, np.ndarray)  # check_scale has refused it
        n, k = ternary.shape
        row_bytes = k // block * block_bytes
        out = np.zeros(n * row_bytes + TL_TAIL_BYTES, dtype=np.uint8)
        packed = out[: n * row_bytes].reshape(n, row_bytes)
        for rows in _row_chunks(n, k):
            packed[rows] = blocks_of(ternary[rows].reshape(-1, block)).reshape(-1, row_bytes)
        out[n * row_bytes :][:4] = np.array([scale], dtype="<f4").view(np.uint8)
        return out

    return pack


def _unpack_blocks(
    codes_of: Callable[[Bytes], Bytes], block: int, block_bytes: int
) -> Callable[[Bytes, int, int, str], tuple[Ternary, Scale]]:
    """Inverse of :func:`_pack_blocks`; ``codes_of`` gives the codes t + 1 and 3 for what means no weight."""

    def unpack(data: Bytes, n: int, k: int, name: str) -> tuple[Ternary, Scale]:
        row_bytes = k // block * block_bytes
        packed = data[: n * row_bytes].reshape(n, row_bytes)
        out = np.empty((n, k), dtype=np.int8)
        for rows in _row_chunks(n, k):
            codes = codes_of(packed[rows].reshape(-1, block_bytes)).reshape(-1, k)
            out[rows] = _values(codes, rows.start, "an index", name)
        return out, float(data[n * row_bytes :][:4].view("<f4")[0])

    return unpack


def _tl1_blocks(ternary: Ternary) -> Bytes:
    """Byte i of a block holds the pairs (4i, 4i + 1) and (4i + 2, 4i + 3) as 3 u0 + u1, the first in the low half."""
    codes = (ternary + np.int8(1)).view(np.uint8).reshape(-1, 8, 4)
    pairs = codes[..., 0::2] * np.uint8(3) + codes[..., 1::2]
    return np.asarray(pairs[..., 0] | pairs[..., 1] << 4)


# Codes of every index of a pair; 9 to 15 mean none.
_PAIRS = np.array([(i // 3, i % 3) if i < 9 else (3, 3) for i in range(16)], dtype=np.uint8)
# The four codes of every byte of two pairs; as words, which numpy looks up four times faster than rows of bytes.
_PAIR_WORDS = np.concatenate([np.tile(_PAIRS, (16, 1)), _PAIRS.repeat(16, axis=0)], axis=1).view(np.uint32)[:, 0]


def _tl1_codes(blocks: Bytes) -> Bytes:
    return np.asarray(_PAIR_WORDS[blocks]).view(np.uint8)


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


pack_tl1, unpack_tl1 = _pack_blocks(_tl1_blocks, 32, 8), _unpack_blocks(_tl1_codes, 32, 8)
pack_tl2, unpack_tl2 = _pack_blocks(_tl2_blocks, 128, 27), _unpack_blocks(_tl2_codes, 128, 27)


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


def unpack_tq2_0(data: Bytes, n: int, k: int, name: str = "tq2_0 tensor") -> tuple[Ternary, Scale]:
    """Inverse of :func:`pack_tq2_0`; the scale of an all-zero matrix or block comes back as 0."""
    blocks = data.reshape(-1, 66)
    ternary = _unpack_2bit(np.ascontiguousarray(blocks[:, :64]).reshape(n, k // 4), k, TQ2_0_SHIFTS, name)
    scales = np.ascontiguousarray(blocks[:, 64:]).view("<f2").astype(np.float32).reshape(n, -1)
    return ternary, _gathered(scales)


def _floats(ternary: Ternary, scale: Scale, rows: slice) -> npt.NDArray[np.float32]:
    """Float32 [rows, k]: some rows of ``ternary * scale``."""
    part = ternary[rows]
    factors = scale[rows].repeat(part.shape[1] // scale.shape[1], axis=1) if isinstance(scale, np.ndarray) else scale
    return np.asarray(part * np.asarray(factors, dtype=np.float32))


def _pack_with_gguf(quantization: str) -> Callable[[Ternary, Scale], Bytes]:
    """Packer that leaves the bytes to gguf-py, a few rows at a time."""

    def pack(ternary: Ternary, scale: Scale) -> Bytes:
        import gguf

        kind = gguf.GGMLQuantizationType[quantization]
        chunks = [gguf.quants.quantize(_floats(ternary, scale, rows), kind) for rows in _row_chunks(*ternary.shape)]
        return np.concatenate(chunks).reshape(-1).view(np.uint8)

    return pack


def unpack_tq1_0(data: Bytes, n: int, k: int, name: str = "tq1_0 tensor") -> tuple[Ternary, Scale]:
    """TQ1_0 bytes (block_tq1_0 in ggml-common.h: 256 weights in 54 bytes) -> ternary matrix and scale, by gguf-py."""
    import gguf

    row_blocks = data.reshape(n, k // 256 * 54)
    ternary = np.empty((n, k), dtype=np.int8)
    for rows in _row_chunks(n, k):
        values = gguf.quants.dequantize(row_blocks[rows], gguf.GGMLQuantizationType.TQ1_0)
        ternary[rows] = np.sign(values)
    scales = np.ascontiguousarray(data.reshape(-1, 54)[:, 52:]).view("<f2").astype(np.float32).reshape(n, -1)
    return ternary, _gathered(scales)


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


def unpack_q2_0(data: Bytes, n: int, k: int, name: str = "q2_0 tensor") -> tuple[Ternary, Scale]:
    """Inverse of :func:`pack_q2_0`; raises UserError on +2."""
    blocks = data.reshape(-1, 18)
    codes = np.stack([blocks[:, 2:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=-1).reshape(n, k)
    if codes.max(initial=0) > 2:
        row, column = np.argwhere(codes > 2)[0]
        raise UserError(f"{name}: row {row}, column {column} holds +2, so it is not ternary")
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32).reshape(n, -1)
    return codes.view(np.int8) - np.int8(1), _gathered(scales)


def _pack_float(dtype: str) -> Callable[[Ternary, Scale], Bytes]:
    """Packer for plain floats: every value is -s, 0 or +s, with s the scale rounded to ``dtype``."""

    def pack(ternary: Ternary, scale: Scale) -> Bytes:
        out = np.empty(ternary.shape, dtype=dtype)
        for rows in _row_chunks(*ternary.shape):
            out[rows] = _floats(ternary, scale, rows)
        return out.reshape(-1).view(np.uint8)

    return pack


def _unpack_float(dtype: str) -> Callable[[Bytes, int, int, str], tuple[Ternary, Scale]]:
    def unpack(data: Bytes, n: int, k: int, name: str) -> tuple[Ternary, Scale]:
        values = data.view(dtype).reshape(n, k)
        found = exact_ternary(lambda: (values[rows].astype(np.float32) for rows in _row_chunks(n, k)), n, k)
        if found is not None:
            return found
        raise UserError(
            f"{name}: not every value is -s, 0 or +s, with one scale s for the matrix, a row, or a group of "
            f"{' or '.join(map(str, GROUPS))} inputs, so it is not ternary"
        )

    return unpack


ENCODINGS: dict[str, Encoding] = {
    row.name: row
    for row in (
        # 140: the engine's own number. Files of bitnet.cpp say 40, which means Q1_0 today.
        Encoding("i2_s", 36, 140, 128, 32, I2_S_TAIL_BYTES, 0, pack_i2_s, unpack_i2_s, _scale_f32),
        Encoding("tq2_0", 35, 37, 256, 66, 0, 256, pack_tq2_0, unpack_tq2_0, _scale_f16),
        Encoding("tq1_0", 34, 36, 256, 54, 0, 256, _pack_with_gguf("TQ1_0"), unpack_tq1_0, _scale_f16),
        Encoding("q2_0", 42, 41, 64, 18, 0, 64, pack_q2_0, unpack_q2_0, _scale_f16),
        Encoding("tl1", 38, 141, 32, 8, TL_TAIL_BYTES, 0, pack_tl1, unpack_tl1, _scale_f32),
        Encoding("tl2", 37, 142, 128, 27, TL_TAIL_BYTES, 0, pack_tl2, unpack_tl2, _scale_f32),
        Encoding("f16", 1, 1, 1, 2, 0, 1, _pack_float("<f2"), _unpack_float("<f2"), _scale_f16),
        Encoding("f32", 0, 0, 1, 4, 0, 1, _pack_float("<f4"), _unpack_float("<f4"), _scale_f32),
    )
}


# Byte of a block where its float16 scale is; the other encodings have one scale for the whole matrix (docs/formats.md).
SCALE_AT = {"tq2_0": 64, "tq1_0": 52, "q2_0": 0}


class Blocked(Protocol):
    """A type with a name and blocks."""

    @property
    def name(self) -> str:
        """What ``--outtype`` calls it."""

    @property
    def block(self) -> int:
        """The number of inputs k has to be a multiple of this."""


def check_fits(encoding: Blocked, name: str, k: int) -> None:
    """Raise UserError, naming the tensor and a way out, if k inputs are not a whole number of blocks."""
    if k % encoding.block == 0:
        return
    others = " or ".join(row.name for row in ENCODINGS.values() if k % row.block == 0)
    wanted = f"{encoding.name} needs a multiple of {encoding.block}"
    raise UserError(f"{name}: {k} columns, {wanted}; use {called('--outtype')} {others}")


def fallback(encoding: Encoding, k: int) -> Encoding:
    """The encoding for a matrix with k inputs: ``encoding`` if they are whole blocks of it, else one that takes them.

    In place of another encoding the matrix gets scale 1, which every encoding holds exactly, and its own scale is a
    tensor of its own, so nothing is lost.
    """
    if k % encoding.block == 0:
        return encoding
    return ENCODINGS["q2_0" if k % ENCODINGS["q2_0"].block == 0 else "f16"]


def check_scale(encoding: Encoding, name: str, scale: Scale, k: int) -> float:
    """Look whether an encoding can hold a usable form of the scale of a matrix with k inputs.

    Returns:
        The largest deviation of a stored scale from its value, relative to it.

    Raises:
        UserError: it cannot; names the tensor and a way out.
    """
    group = k // scale.shape[1] if isinstance(scale, np.ndarray) else 0
    if group and (not encoding.scale_inputs or group % encoding.scale_inputs):
        others = [row.name for row in ENCODINGS.values() if row.scale_inputs and group % row.scale_inputs == 0]
        room = f"one for {encoding.scale_inputs} inputs" if encoding.scale_inputs else "one for the matrix"
        raise UserError(
            f"{name}: has a scale for every {group} inputs, {encoding.name} holds {room}; "
            f"use {called('--outtype')} {' or '.join(others)}"
        )
    wanted, stored = np.atleast_1d(scale), np.atleast_1d(encoding.stored_scale(scale))
    used = wanted != 0 if group else np.full(1, True)  # a group of zeros has no scale
    with np.errstate(all="ignore"):
        deviations = np.abs(stored[used] / wanted[used] - 1)
    # Negated, so that NaN counts as a deviation.
    if not ((stored[used] > 0) & (deviations <= MAX_SCALE_DEVIATION)).all():
        worst = int(np.nan_to_num(deviations, nan=np.inf).argmax())
        raise UserError(
            f"{name}: its scale {wanted[used][worst]:g} becomes {stored[used][worst]:g} in {encoding.name}; "
            f"use {called('--outtype')} {'f32' if group else 'i2_s or f32'}"
        )
    return float(deviations.max(initial=0.0))
