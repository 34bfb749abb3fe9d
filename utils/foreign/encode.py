# SPDX-License-Identifier: MIT
"""A decoded ternary matrix -> the bytes of one of our encodings, or a sentence that says why it does not fit.

Nothing is lost but what the report says: a float32 scale that becomes a float16 one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.cli import UserError
from utils.foreign.decode import Bytes, Decoded
from utils.weight_encodings import Encoding, check_fits

# Where the float16 scale of a block is, in the encodings that have one per block.
SCALE_AT = {"tq2_0": 64, "tq1_0": 52, "q2_0": 0}
FLOATS = {"f16": "<f2", "f32": "<f4"}


@dataclass(frozen=True)
class Encoded:
    """Bytes of a tensor, and what they decode to.

    Attributes:
        data: uint8.
        expected: Values and scales as the encoding holds them.
        deviation: Largest relative error of a scale, 0 if all are exact.
    """

    data: Bytes
    expected: Decoded
    deviation: float


def encode(decoded: Decoded, encoding: Encoding, name: str) -> Encoded:
    """Pack a matrix.

    Raises:
        UserError: the encoding cannot hold its columns, its values or its scales; names the tensor and what can.
    """
    n, k = decoded.shape
    check_fits(encoding, name, k)
    twos = int((decoded.values > 1).sum())
    if twos and encoding.name not in ("q2_0", *FLOATS):
        raise UserError(
            f"{name}: holds +2 {twos:,} times ({100 * twos / (n * k):.2f} % of its weights), which {encoding.name} "
            "cannot; use --outtype q2_0"
        )
    if encoding.name in SCALE_AT:
        return _encode_blocks(decoded, encoding, name)
    if encoding.name in FLOATS:
        return _encode_floats(decoded, encoding, name)
    # i2_s: its scale is a float32, as all are here.
    scale = _one_scale(decoded, encoding, name)
    stored = np.full((1, 1), scale, dtype=np.float32)
    return Encoded(encoding.pack(decoded.values, scale), Decoded(decoded.values, stored), 0.0)


def _one_scale(decoded: Decoded, encoding: Encoding, name: str) -> float:
    """The scale of all that is not zero; 1 for a matrix of zeros, which has none, unless it says one itself."""
    used = decoded.used_scales()
    if used.size > 1:
        kind = "rows" if decoded.scales.shape[1] == 1 else f"groups of {decoded.shape[1] // decoded.scales.shape[1]}"
        raise UserError(
            f"{name}: its {kind} have {used.size:,} different scales ({used[0]:g} to {used[-1]:g}) and {encoding.name} "
            "has one for the whole tensor; use --outtype q2_0"
        )
    if used.size:
        return float(used[0])
    return float(decoded.scales.max()) or 1.0


def _block_scales(decoded: Decoded, encoding: Encoding, name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """One scale per block of the encoding, [n, k / block]; finer groups have to agree inside a block."""
    n, k = decoded.shape
    groups, blocks = decoded.scales.shape[1], k // encoding.block
    scales = np.broadcast_to(decoded.scales, (n, groups))
    if blocks % groups == 0:
        return np.repeat(scales, blocks // groups, axis=1)
    if groups % blocks:
        raise UserError(
            f"{name}: its groups of {k // groups} do not fit blocks of {encoding.block}; use --outtype q2_0"
        )
    # Groups of zeros agree with any scale.
    used = decoded.values.reshape(n, groups, -1).any(axis=2)
    inner = np.where(used, scales, 0).reshape(n, blocks, -1)
    highest = inner.max(axis=2)
    if not ((inner == highest[..., None]) | ~used.reshape(inner.shape)).all():
        raise UserError(
            f"{name}: its groups of {k // groups} have different scales inside the blocks of {encoding.block} of "
            f"{encoding.name}; use --outtype q2_0"
        )
    return np.where(used.reshape(inner.shape).any(axis=2), highest, scales.reshape(inner.shape)[..., 0])


def _encode_blocks(decoded: Decoded, encoding: Encoding, name: str) -> Encoded:
    n, k = decoded.shape
    scales = _block_scales(decoded, encoding, name)
    with np.errstate(over="ignore"):
        halves = scales.astype("<f2")
    used = decoded.values.reshape(n, k // encoding.block, -1).any(axis=2)
    stored = halves.astype(np.float32)
    bad = used & (~np.isfinite(stored) | (stored <= 0))
    if bad.any():
        raise UserError(
            f"{name}: its scale {scales[bad][0]:g} becomes {stored[bad][0]:g} in {encoding.name}; use --outtype f32"
        )
    data = encoding.pack(decoded.values, 1.0).reshape(n, k // encoding.block, encoding.block_bytes)
    # llama.cpp's own quantisers write scale 0 for a block of zeros, and so does pack.
    if encoding.name != "q2_0":
        halves = np.where(used, halves, np.zeros_like(halves))
    place = SCALE_AT[encoding.name]
    data[..., place : place + 2] = halves.view(np.uint8).reshape(n, -1, 2)
    errors = np.abs(stored - scales)[used] / scales[used] if used.any() else np.zeros(1)
    return Encoded(data.reshape(-1), Decoded(decoded.values, halves.astype(np.float32)), float(errors.max()))


def _encode_floats(decoded: Decoded, encoding: Encoding, name: str) -> Encoded:
    n, k = decoded.shape
    with np.errstate(over="ignore"):
        stored = decoded.scales.astype(FLOATS[encoding.name])
    used = decoded.used_scales()
    if used.size and not (np.isfinite(used.astype(FLOATS[encoding.name])) & (used.astype(stored.dtype) > 0)).all():
        raise UserError(f"{name}: its scales {used[0]:g} to {used[-1]:g} do not fit {encoding.name}; use --outtype f32")
    groups = stored.shape[1]
    values = decoded.values.reshape(n, groups, k // groups) * stored[..., None]
    errors = np.abs(used.astype(stored.dtype).astype(np.float32) - used) / used if used.size else np.zeros(1)
    data = values.astype(FLOATS[encoding.name]).reshape(-1).view(np.uint8)
    return Encoded(data, Decoded(decoded.values, stored.astype(np.float32)), float(errors.max()))
