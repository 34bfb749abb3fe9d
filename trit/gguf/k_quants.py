# SPDX-License-Identifier: MIT
"""The types q4_k, q5_k and q6_k, which gguf-py can only read: llama.cpp's own method in numpy.

Blocks are those of ggml-common.h, the method is that of ggml-quants.c (the ``_ref`` functions). Every float operation
is done in float32 and in llama.cpp's order, so the bytes are the same as those of an engine that was compiled without
fused multiply-adds (x86); with them (ARM) a few values that lie near the middle of two steps differ. Groups of values
lie along the first axis here, so that sums over a group add up in order and every operation is a long vector.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

# Values per block; groups of 32 (q4_k, q5_k) or 16 (q6_k) share a scale.
BLOCK = 256
# Values that are worked on at once: their temporary arrays fit into a core's second-level cache.
STEP_VALUES = 1 << 17
# Below this a group's scale counts as zero (llama.cpp's GROUP_MAX_EPS).
SMALLEST_SCALE = np.float32(1e-15)
Q6_MIN, Q6_MAX = -32, 31
# q4_k and q5_k: largest code, and how many steps from which offset the search takes (arguments of make_qkx2_quants).
AFFINE = {4: (15, -1.0, 20), 5: (31, -0.5, 15)}


def quantize_k(values: Floats, bits: int) -> Bytes:
    """Float32, a multiple of 256 values -> uint8 [blocks, bytes of block_q4_K, block_q5_K or block_q6_K]."""
    blocks = values.reshape(-1, BLOCK)
    step = STEP_VALUES // BLOCK
    make = _q6 if bits == 6 else _affine
    # Groups of zeros divide by zero below, and nothing that comes of it is used.
    with np.errstate(all="ignore"):
        return np.concatenate([make(blocks[start : start + step], bits) for start in range(0, len(blocks), step)])


def _grouped(blocks: Floats, size: int) -> Floats:
    """Float32 [b, 256] -> [size, groups], groups in the order of the values."""
    return np.ascontiguousarray(blocks.reshape(-1, size).T)


def _divisor(values: Floats, used: npt.NDArray[np.bool_]) -> Floats:
    """The values to divide by; infinity where the quotient has to be zero."""
    return np.where(used, values, np.float32(np.inf))


def _q6_steps() -> Iterator[np.float32]:
    """The 19 values of -(32 + 0.1 i) that are tried, 32 first."""
    for i in (0, *range(-9, 0), *range(1, 10)):
        yield -(np.float32(32) + np.float32(0.1) * np.float32(i))


def _fit_q6(x: Floats) -> tuple[Floats, Floats]:
    """Method make_qx_quants: the scale of each group that loses least when values are rounded to scale * q.

    For 19 steps around -32 / (value of largest magnitude) round to q, fit the scale to the q by least squares with
    weights x^2, keep the best fit.

    Args:
        x: float32 [16, g].

    Returns:
        The scales [g] (0 for groups of zeros), and the factor [g] that made the codes of the best fit (0 likewise).
    """
    squares = x * x
    cubes = squares * x
    high, low = x.max(axis=0), x.min(axis=0)
    peaks = np.where(high > -low, high, low)
    # Of two values that differ only in their sign the first one counts.
    even = np.flatnonzero((high == -low) & (high > 0))
    peaks[even] = np.where((x[:, even] == high[even]).argmax(axis=0) < (x[:, even] == low[even]).argmax(axis=0), 1, -1)
    peaks[even] *= high[even]
    peaks = _divisor(peaks, np.abs(peaks) >= SMALLEST_SCALE)
    scales, best, chosen = np.zeros_like(peaks), np.zeros_like(peaks), np.zeros_like(peaks)
    q, product = np.empty_like(x), np.empty_like(x)
    for i, numerator in enumerate(_q6_steps()):
        step = numerator / peaks
        _round_into(q, x, step, Q6_MIN, Q6_MAX)
        along = np.multiply(cubes, q, out=product).sum(axis=0)
        np.multiply(squares, q, out=product)
        norm = np.multiply(product, q, out=product).sum(axis=0)
        better = norm > 0
        if i == 0:
            chosen = step
        else:
            better &= along * along > best * norm
            chosen = np.where(better, step, chosen)
        scale = along / norm
        scales, best = np.where(better, scale, scales), np.where(better, scale * along, best)
    return scales, chosen


def _round_into(out: Floats, x: Floats, step: Floats, low: int, high: int) -> None:
    """Codes clip(round(x * step)) into ``out``."""
    np.multiply(x, step, out=out)
    np.rint(out, out=out)
    np.clip(out, low, high, out=out)


def _final_codes(shifted: Floats, steps: Floats, low: int, high: int) -> Bytes:
    """Float32 [groups, size] -> codes clip(round(x / step)) - low, of any value where the group's step is 0."""
    flat = shifted.reshape(-1) / np.repeat(steps, shifted.shape[1])
    np.rint(flat, out=flat)
    np.clip(flat, low, high, out=flat)
    flat -= low
    return flat.astype(np.uint8).reshape(shifted.shape)


def _q6(blocks: Floats, bits: int) -> Bytes:
    """Float32 [b, 256] -> uint8 [b, 210], block_q6_K: low 4 bits, high 2 bits, group scales, d.

    In each half of 128 values, byte l of 64 holds the low bits of values l and 64 + l, and byte l of 32 the high bits
    of values l, 32 + l, 64 + l and 96 + l.
    """
    count, groups = len(blocks), blocks.reshape(-1, 16)
    fitted, chosen = _fit_q6(_grouped(blocks, 16))
    scales = fitted.reshape(count, -1)
    peaks = np.take_along_axis(scales, np.abs(scales).argmax(axis=1, keepdims=True), axis=1)
    used = np.abs(peaks) >= SMALLEST_SCALE
    inverse = np.float32(-128) / _divisor(peaks, used)
    d = np.where(used, 1 / inverse, 0).astype("<f2")
    int_scales = np.minimum(np.rint(inverse * scales), 127).astype(np.int8)
    steps = (d.astype(np.float32) * int_scales).reshape(-1)
    codes = _final_codes(groups, steps, Q6_MIN, Q6_MAX)
    idle = np.flatnonzero(steps == 0)
    if idle.size:  # llama.cpp leaves the codes of the best fit there, though they count for nothing
        kept = np.clip(np.rint(groups[idle] * chosen[idle, None]), Q6_MIN, Q6_MAX) - Q6_MIN
        codes[idle] = np.where(chosen[idle, None] != 0, kept, 0)
    rows = codes.reshape(count, 2, 4, 32)
    if not used.all():
        rows[~used[:, 0]] = 0
    low, high = rows & 0xF, rows >> 4
    ql = low[:, :, :2] | low[:, :, 2:] << 4
    qh = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    parts = (ql.reshape(count, 128), qh.reshape(count, 64), int_scales.view(np.uint8), d.view(np.uint8))
    return np.concatenate(parts, axis=1)


def _errors(weights: Floats, x: Floats, codes: Floats, scale: Floats, low: Floats, work: Floats) -> Floats:
    """Weighted squared error of scale * code + low, per group."""
    np.multiply(codes, scale, out=work)
    work += low
    work -= x
    np.multiply(work, work, out=work)
    return np.asarray(np.multiply(weights, work, out=work).sum(axis=0))


def _fit_affine(x: Floats, bits: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Method make_qkx2_quants: scale and minimum of each group, values being scale * code - minimum.

    The code range is tried a little narrower and wider; for each, scale and minimum are fitted by least squares with
    weights (root mean square + magnitude); the least weighted error wins.

    Args:
        x: float32 [32, g].
        bits: 4 or 5.

    Returns:
        Scales and minima [g] (minima not negative), and what made the codes of the best fit, clip(round((x - origin) *
        factor)): origins and factors [g]. Scale and factor are 0 in groups of one value.
    """
    top, offset, steps = AFFINE[bits]
    weights = np.sqrt((x * x).sum(axis=0) / np.float32(32)) + np.abs(x)
    low, high = np.minimum(x.min(axis=0), 0), x.max(axis=0)
    used = high != low
    sum_w, sum_x = weights.sum(axis=0), (weights * x).sum(axis=0)
    factor = np.float32(top) / _divisor(high - low, used)
    scale = np.where(used, 1 / factor, 0)
    codes, work, product = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    _round_into(codes, np.subtract(x, low, out=work), factor, 0, top)
    error = _errors(weights, x, codes, scale, low, work)
    origin = low
    for i in range(steps + 1):
        numerator = np.float32(offset) + np.float32(0.1) * np.float32(i) + np.float32(top)
        # Each try starts from the best minimum so far.
        step = numerator / (high - low)
        _round_into(codes, np.subtract(x, low, out=work), step, 0, top)
        weighted = np.multiply(weights, codes, out=work)
        sum_l = weighted.sum(axis=0)
        sum_xl = np.multiply(weighted, x, out=product).sum(axis=0)
        sum_ll = np.multiply(weighted, codes, out=work).sum(axis=0)
        determinant = sum_w * sum_ll - sum_l * sum_l
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_low = (sum_ll * sum_x - sum_l * sum_xl) / determinant
        above = new_low > 0
        new_scale = np.where(above, sum_xl / sum_ll, new_scale)
        new_low = np.where(above, np.float32(0), new_low)
        new_error = _errors(weights, x, codes, new_scale, new_low, work)
        better = used & (determinant > 0) & (new_error < error)
        error, scale = np.where(better, new_error, error), np.where(better, new_scale, scale)
        factor, origin = np.where(better, step, factor), np.where(better, low, origin)
        low = np.where(better, new_low, low)
    return scale, -low, origin, factor


def _six_bits(values: Floats) -> tuple[Floats, Bytes]:
    """The largest of a block's eight group values (at least 0) [b, 1], and all eight in units of a 63rd of it."""
    largest = np.maximum(values.max(axis=1, keepdims=True), 0)
    inverse = np.float32(63) / _divisor(largest, largest > 0)
    return largest, np.minimum(np.rint(inverse * values).astype(np.int64).astype(np.uint8), 63)


def _affine(blocks: Floats, bits: int) -> Bytes:
    """Float32 [b, 256] -> block_q4_K [b, 144] or block_q5_K [b, 176].

    d and dmin (f16), 12 bytes of 6-bit scales and minima, for q5_k 32 bytes of fifth bits, 128 bytes of low bits: byte
    l of 32 holds values l and 32 + l of its 64; bit 2 c and 2 c + 1 of fifth-bit byte l belong to the same values.
    """
    count, top = len(blocks), AFFINE[bits][0]
    scales, minima, origins, factors = _fit_affine(_grouped(blocks, 32), bits)
    largest_scale, s = _six_bits(scales.reshape(count, 8))
    largest_min, m = _six_bits(minima.reshape(count, 8))
    d, dmin = ((largest / np.float32(63)).astype("<f2") for largest in (largest_scale, largest_min))
    steps = (d.astype(np.float32) * s).reshape(-1)
    offsets = (dmin.astype(np.float32) * m).reshape(-1, 1)
    groups = blocks.reshape(-1, 32)
    codes = _final_codes(groups + offsets, steps, 0, top)
    idle = np.flatnonzero(steps == 0)
    if idle.size:  # as in _q6
        codes[idle] = np.clip(np.rint((groups[idle] - origins[idle, None]) * factors[idle, None]), 0, top)
    rows = codes.reshape(count, 4, 2, 32)
    packed = (
        s[:, :4] | s[:, 4:] >> 4 << 6,
        m[:, :4] | m[:, 4:] >> 4 << 6,
        s[:, 4:] & 0xF | (m[:, 4:] & 0xF) << 4,
    )
    low = (rows[:, :, 0] & 0xF | (rows[:, :, 1] & 0xF) << 4).reshape(count, 128)
    parts = [d.view(np.uint8), dmin.view(np.uint8), *packed]
    if bits == 5:
        fifth = rows >> 4 << np.arange(8, dtype=np.uint8).reshape(4, 2, 1)
        parts.append(np.bitwise_or.reduce(fifth, axis=(1, 2)))
    return np.concatenate([*parts, low], axis=1)
