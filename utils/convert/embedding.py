# SPDX-License-Identifier: MIT
"""Embeddings and heads in the type that --quant-embd names: gguf-py's quantisers, and q6_k, which it lacks."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from utils.gguf_types import GGMLQuantizationType

Floats = npt.NDArray[np.float32]

EMBEDDING_TYPES = ("f16", "f32", "bf16", "q8_0", "q6_k", "q5_1", "q5_0", "q4_1", "q4_0")
# A q6_K block: 256 values in 16 groups of 16; 6-bit q from -32 to 31, one int8 scale per group, one f16 d per block.
Q6_K_VALUES, Q6_K_GROUP, Q6_K_MIN, Q6_K_MAX = 256, 16, -32, 31
# Below this a group's scale counts as zero (llama.cpp's GROUP_MAX_EPS).
SMALLEST_SCALE = 1e-15


def default_embedding_type(outtype: str) -> str:
    """f32 in an all-f32 file, else f16."""
    return "f32" if outtype == "f32" else "f16"


def quantize_rows(values: Floats, kind: GGMLQuantizationType) -> npt.NDArray[Any]:
    """Float32 [rows, k] -> the rows in a type of the file; k is a multiple of the type's block."""
    if kind == GGMLQuantizationType.Q6_K:
        return _quantize_q6_k(values.reshape(-1, Q6_K_VALUES))
    return np.asarray(gguf.quants.quantize(values, kind))


def _group_scales(groups: Floats) -> Floats:
    """The scale of each group that loses least when its values are rounded to scale * q.

    Method of llama.cpp (make_qx_quants in ggml-quants.c): for 19 steps around -32 / (value of largest magnitude) round
    to q, fit the scale to the q by least squares with weights x^2, keep the best fit.

    Args:
        groups: float32 [g, 16].

    Returns:
        float32 [g], 0 for groups of zeros.
    """
    squares = groups * groups
    cubes = squares * groups
    peaks = np.take_along_axis(groups, np.abs(groups).argmax(axis=1, keepdims=True), axis=1)
    used = np.abs(peaks) >= SMALLEST_SCALE
    inverse = np.divide(1, peaks, out=np.zeros_like(peaks), where=used)
    scales = np.zeros(len(groups), dtype=np.float32)
    best = np.zeros(len(groups), dtype=np.float32)
    for tenth in (0, *range(-9, 0), *range(1, 10)):
        steps = np.float32(-(32 + 0.1 * tenth)) * inverse
        q = np.clip(np.rint(groups * steps), Q6_K_MIN, Q6_K_MAX)
        along = np.einsum("gi,gi->g", cubes, q)
        norm = np.einsum("gi,gi->g", squares, q * q)
        better = along * along > best * norm
        scales[better] = along[better] / norm[better]
        best[better] = scales[better] * along[better]
    return scales


def _quantize_q6_k(blocks: Floats) -> npt.NDArray[np.uint8]:
    """Float32 [b, 256] -> uint8 [b, 210], block_q6_K of ggml-common.h: low 4 bits, high 2 bits, group scales, d.

    In each half of 128 values, byte l of 64 holds the low bits of values l and 64 + l, and byte l of 32 the high bits
    of values l, 32 + l, 64 + l and 96 + l.
    """
    count = len(blocks)
    groups = blocks.reshape(-1, Q6_K_GROUP)
    scales = _group_scales(groups).reshape(count, -1)
    peaks = np.take_along_axis(scales, np.abs(scales).argmax(axis=1, keepdims=True), axis=1)
    used = np.abs(peaks) >= SMALLEST_SCALE
    inverse = np.divide(np.float32(-128), peaks, out=np.zeros_like(peaks), where=used)
    d = np.divide(1, inverse, out=np.zeros_like(peaks), where=used).astype("<f2")
    int_scales = np.minimum(np.rint(inverse * scales), 127).astype(np.int8)
    steps = (d.astype(np.float32) * int_scales).reshape(-1, 1)
    scaled = np.divide(groups, steps, out=np.zeros_like(groups), where=steps != 0)
    codes = (np.clip(np.rint(scaled), Q6_K_MIN, Q6_K_MAX) - Q6_K_MIN).astype(np.uint8).reshape(count, 2, 4, 32)
    low, high = codes & 0xF, codes >> 4
    ql = low[:, :, :2] | low[:, :, 2:] << 4
    qh = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    parts = (ql.reshape(count, 128), qh.reshape(count, 64), int_scales.view(np.uint8), d.view(np.uint8))
    return np.concatenate(parts, axis=1)
