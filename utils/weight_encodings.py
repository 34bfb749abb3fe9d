# SPDX-License-Identifier: MIT
"""The table of weight encodings: how a ternary matrix becomes the bytes of a GGUF tensor, and back.

Everywhere a ternary matrix is ``ternary * scale``: ``ternary`` is int8 [n, k] (n output rows, k inputs, row-major) with
values in {-1, 0, 1}, ``scale`` is one positive float32. To add an encoding, add a row to ``ENCODINGS``; the converter,
the dummy generator and the tests walk the table. Plain numpy, so that the kernel tests can import it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utils.cli import UserError

Ternary = npt.NDArray[np.int8]
Bytes = npt.NDArray[np.uint8]

# Rows that are packed at once. It bounds the temporary arrays to a few times this many weights.
CHUNK_WEIGHTS = 1 << 22
# After the packed weights of an i2_s tensor: its float32 scale, then zeros up to this many bytes.
I2_S_TAIL_BYTES = 32


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
        pack: (ternary int8 [n, k], scale) -> uint8 [nbytes].
        unpack: (uint8 [nbytes], n, k, tensor name) -> (ternary int8 [n, k], scale); raises UserError on invalid bytes.
        stored_scale: float32 scale -> the scale as this encoding can hold it.
    """

    name: str
    ggml_type: int
    file_type: int
    block: int
    block_bytes: int
    tail_bytes: int
    pack: Callable[[Ternary, float], Bytes]
    unpack: Callable[[Bytes, int, int, str], tuple[Ternary, float]]
    stored_scale: Callable[[float], float]

    def nbytes(self, n: int, k: int) -> int:
        """Size in bytes of a matrix [n, k]; k has to be a multiple of ``block``."""
        return n * k // self.block * self.block_bytes + self.tail_bytes


def _scale_f16(scale: float) -> float:
    with np.errstate(over="ignore"):  # the caller looks at the result: infinity means that f16 cannot hold it
        return float(np.float16(scale))


def _scale_f32(scale: float) -> float:
    return float(np.float32(scale))


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
        codes = lanes.reshape(-1, k)
        if codes.max(initial=0) > 2:
            row, column = np.argwhere(codes > 2)[0]
            raise UserError(
                f"{name}: row {rows.start + row}, column {column} holds the 2-bit code 3, which means no weight: "
                "the file is damaged or not of this encoding"
            )
        out[rows] = codes.view(np.int8) - np.int8(1)
    return out


I2_S_SHIFTS = (6, 4, 2, 0)
TQ2_0_SHIFTS = (0, 2, 4, 6)


def pack_i2_s(ternary: Ternary, scale: float) -> Bytes:
    """Ternary matrix -> i2_s bytes, as in the files published for bitnet.cpp (the same on every CPU).

    Blocks of 128 weights in 32 bytes: byte p holds weights p, 32+p, 64+p, 96+p at bits 7:6, 5:4, 3:2, 1:0 as value + 1.
    After all n*k/4 bytes the scale as little-endian float32, then 28 zero bytes.

    Args:
        ternary: int8 [n, k], values in {-1, 0, 1}, k a multiple of 128.
        scale: What every weight is multiplied by.

    Returns:
        uint8 [n*k/4 + 32].
    """
    out = np.zeros(ternary.size // 4 + I2_S_TAIL_BYTES, dtype=np.uint8)
    out[: ternary.size // 4] = _pack_2bit(ternary, I2_S_SHIFTS).reshape(-1)
    out[ternary.size // 4 :][:4] = np.array([scale], dtype="<f4").view(np.uint8)
    return out


def unpack_i2_s(data: Bytes, n: int, k: int, name: str = "i2_s tensor") -> tuple[Ternary, float]:
    """Inverse of :func:`pack_i2_s` for uint8 [n*k/4 + 32]; raises UserError on code 3, naming the tensor."""
    ternary = _unpack_2bit(data[: n * k // 4].reshape(n, k // 4), k, I2_S_SHIFTS, name)
    return ternary, float(data[n * k // 4 :][:4].view("<f4")[0])


def pack_tq2_0(ternary: Ternary, scale: float) -> Bytes:
    """Ternary matrix -> TQ2_0 bytes of llama.cpp (block_tq2_0 in ggml-common.h), equal to what gguf-py makes of it.

    Blocks of 256 weights: two groups of 32 bytes, byte p of group g holds weights 128g + p, +32, +64, +96 at bits
    1:0, 3:2, 5:4, 7:6 as value + 1; then the scale as float16, or 0 where all 256 weights are 0.

    Args:
        ternary: int8 [n, k], values in {-1, 0, 1}, k a multiple of 256.
        scale: What every weight is multiplied by; rounded to float16.

    Returns:
        uint8 [n * k / 256 * 66].
    """
    blocks = np.empty((ternary.size // 256, 66), dtype=np.uint8)
    blocks[:, :64] = _pack_2bit(ternary, TQ2_0_SHIFTS).reshape(-1, 64)
    nonzero = ternary.reshape(-1, 256).any(axis=1)
    blocks[:, 64:] = np.where(nonzero, np.float16(scale), np.float16(0)).astype("<f2").view(np.uint8).reshape(-1, 2)
    return blocks.reshape(-1)


def _block_scale(scales: npt.NDArray[np.float32], name: str) -> float:
    """The one scale of a matrix from its blocks' scales (0 in blocks of zeros); raises UserError if they differ."""
    scale = float(scales.max(initial=0.0))
    if not np.isin(scales, [0.0, scale]).all():
        raise UserError(f"{name}: blocks have different scales, so it is not one ternary matrix with one scale")
    return scale


def unpack_tq2_0(data: Bytes, n: int, k: int, name: str = "tq2_0 tensor") -> tuple[Ternary, float]:
    """Inverse of :func:`pack_tq2_0`; the scale of an all-zero matrix comes back as 0."""
    blocks = data.reshape(-1, 66)
    ternary = _unpack_2bit(np.ascontiguousarray(blocks[:, :64]).reshape(n, k // 4), k, TQ2_0_SHIFTS, name)
    scales = np.ascontiguousarray(blocks[:, 64:]).view("<f2").astype(np.float32).reshape(-1)
    return ternary, _block_scale(scales, name)


def _pack_with_gguf(quantization: str) -> Callable[[Ternary, float], Bytes]:
    """Packer that leaves the bytes to gguf-py, a few rows at a time."""

    def pack(ternary: Ternary, scale: float) -> Bytes:
        import gguf

        kind = gguf.GGMLQuantizationType[quantization]
        chunks = [gguf.quants.quantize(ternary[rows] * np.float32(scale), kind) for rows in _row_chunks(*ternary.shape)]
        return np.concatenate(chunks).reshape(-1).view(np.uint8)

    return pack


def unpack_tq1_0(data: Bytes, n: int, k: int, name: str = "tq1_0 tensor") -> tuple[Ternary, float]:
    """TQ1_0 bytes (block_tq1_0 in ggml-common.h: 256 weights in 54 bytes) -> ternary matrix and scale, by gguf-py."""
    import gguf

    row_blocks = data.reshape(n, k // 256 * 54)
    ternary = np.empty((n, k), dtype=np.int8)
    for rows in _row_chunks(n, k):
        values = gguf.quants.dequantize(row_blocks[rows], gguf.GGMLQuantizationType.TQ1_0)
        ternary[rows] = np.sign(values)
    scales = np.ascontiguousarray(data.reshape(-1, 54)[:, 52:]).view("<f2").astype(np.float32).reshape(-1)
    return ternary, _block_scale(scales, name)


def pack_q2_0(ternary: Ternary, scale: float) -> Bytes:
    """Ternary matrix -> Q2_0 bytes of llama.cpp (block_q2_0 in ggml-common.h), the type of Ternary-Bonsai's files.

    Blocks of 64 weights: the scale as float16, then 16 bytes; byte p holds weights 4p .. 4p + 3 at bits 1:0, 3:2, 5:4,
    7:6 as value + 1. (The format's fourth code, +2, is never written.)

    Args:
        ternary: int8 [n, k], values in {-1, 0, 1}, k a multiple of 64.
        scale: What every weight is multiplied by; rounded to float16.

    Returns:
        uint8 [n * k / 64 * 18].
    """
    blocks = np.empty((ternary.size // 64, 18), dtype=np.uint8)
    blocks[:, :2] = np.array([scale], dtype="<f2").view(np.uint8)
    codes = (ternary.reshape(-1, 16, 4) + np.int8(1)).view(np.uint8)
    blocks[:, 2:] = codes[..., 0] | codes[..., 1] << 2 | codes[..., 2] << 4 | codes[..., 3] << 6
    return blocks.reshape(-1)


def unpack_q2_0(data: Bytes, n: int, k: int, name: str = "q2_0 tensor") -> tuple[Ternary, float]:
    """Inverse of :func:`pack_q2_0`; raises UserError on +2, and on blocks with different scales."""
    blocks = data.reshape(-1, 18)
    codes = np.stack([blocks[:, 2:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=-1).reshape(n, k)
    if codes.max(initial=0) > 2:
        row, column = np.argwhere(codes > 2)[0]
        raise UserError(f"{name}: row {row}, column {column} holds +2, so it is not ternary")
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32).reshape(-1)
    return codes.view(np.int8) - np.int8(1), _block_scale(scales, name)


def _pack_float(dtype: str) -> Callable[[Ternary, float], Bytes]:
    """Packer for plain floats: every value is -s, 0 or +s, with s the scale rounded to ``dtype``."""

    def pack(ternary: Ternary, scale: float) -> Bytes:
        stored = np.array(scale).astype(dtype).astype(np.float32)
        out = np.empty(ternary.shape, dtype=dtype)
        for rows in _row_chunks(*ternary.shape):
            out[rows] = ternary[rows] * stored
        return out.reshape(-1).view(np.uint8)

    return pack


def _unpack_float(dtype: str) -> Callable[[Bytes, int, int, str], tuple[Ternary, float]]:
    def unpack(data: Bytes, n: int, k: int, name: str) -> tuple[Ternary, float]:
        values = data.view(dtype).reshape(n, k)
        chunks = _row_chunks(n, k)
        scale = max(float(np.abs(values[rows].astype(np.float32)).max()) for rows in chunks)
        ternary = np.empty((n, k), dtype=np.int8)
        for rows in chunks:
            floats = values[rows].astype(np.float32)
            ternary[rows] = np.sign(floats)
            if not np.array_equal(floats, ternary[rows] * np.float32(scale)):
                raise UserError(f"{name}: not every value is -s, 0 or +s for one scale s, so it is not ternary")
        return ternary, scale

    return unpack


ENCODINGS: dict[str, Encoding] = {
    row.name: row
    for row in (
        # 140: the engine's own number. Files of bitnet.cpp say 40, which means Q1_0 today.
        Encoding("i2_s", 36, 140, 128, 32, I2_S_TAIL_BYTES, pack_i2_s, unpack_i2_s, _scale_f32),
        Encoding("tq2_0", 35, 37, 256, 66, 0, pack_tq2_0, unpack_tq2_0, _scale_f16),
        Encoding("tq1_0", 34, 36, 256, 54, 0, _pack_with_gguf("TQ1_0"), unpack_tq1_0, _scale_f16),
        Encoding("q2_0", 42, 41, 64, 18, 0, pack_q2_0, unpack_q2_0, _scale_f16),
        Encoding("f16", 1, 1, 1, 2, 0, _pack_float("<f2"), _unpack_float("<f2"), _scale_f16),
        Encoding("f32", 0, 0, 1, 4, 0, _pack_float("<f4"), _unpack_float("<f4"), _scale_f32),
    )
}


def check_fits(encoding: Encoding, name: str, k: int) -> None:
    """Raise UserError, naming the tensor and a way out, if k inputs are not a whole number of blocks."""
    if k % encoding.block == 0:
        return
    others = " or ".join(row.name for row in ENCODINGS.values() if k % row.block == 0)
    wanted = f"{encoding.name} needs a multiple of {encoding.block}"
    raise UserError(f"{name}: {k} columns, {wanted}; use --outtype {others}")


def fallback(encoding: Encoding, k: int) -> Encoding:
    """The encoding for a matrix with k inputs: ``encoding`` if they are whole blocks of it, else one that takes them.

    In place of another encoding the matrix gets scale 1, which every encoding holds exactly, and its own scale is a
    tensor of its own, so nothing is lost.
    """
    if k % encoding.block == 0:
        return encoding
    return ENCODINGS["q2_0" if k % ENCODINGS["q2_0"].block == 0 else "f16"]


def check_scale(encoding: Encoding, name: str, scale: float) -> None:
    """Raise UserError, naming the tensor, if the encoding cannot hold a usable form of the scale."""
    stored = encoding.stored_scale(scale)
    if not np.isfinite(stored) or stored <= 0:
        raise UserError(f"{name}: its scale {scale:g} becomes {stored:g} in {encoding.name}; use --outtype i2_s or f32")
