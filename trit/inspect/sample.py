# SPDX-License-Identifier: MIT
"""Count the values of a ternary tensor of a GGUF file, on evenly spaced rows if it is large."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trit.gguf.decode import Decoded, decode
from trit.gguf.identify import Found
from trit.gguf.layouts import FLAT_I2_S, TILED
from trit.gguf.source import Source
from trit.gguf.tensor_numbers import FLOATS, SCALE_PLACES, block_bytes

# Weights of a tensor that are looked at unless all are asked for.
SAMPLE_WEIGHTS = 1 << 20


def look(source: Source, item: Found, exact: bool) -> Decoded:
    """Decode a tensor, or evenly spaced rows of it; raises UserError on codes and scales that mean nothing."""
    tensor = item.tensor
    n, k = tensor.rows, tensor.columns
    wanted = max(1, SAMPLE_WEIGHTS // k)
    # In these the bytes of a row are not together.
    if exact or wanted >= n or item.name in (*TILED, FLAT_I2_S, "i2_s_rows4"):
        return source.matrix(item)
    tail = item.layout.sizes(0, k)[0] if item.layout else 0
    row_bytes = (item.nbytes - tail) // n
    rows = np.unique(np.linspace(0, n - 1, wanted).astype(int))
    whole = np.memmap(source.files[tensor.name], dtype=np.uint8, mode="r", offset=tensor.offset, shape=(item.nbytes,))
    picked = whole[: n * row_bytes].reshape(n, row_bytes)[rows].reshape(-1)
    return decode(item.name, np.concatenate([picked, whole[n * row_bytes :]]), len(rows), k, tensor.name)


def finite(source: Source, item: Found, exact: bool) -> bool:
    """Whether the floats of a matrix, or the scales of its blocks, are finite; on evenly spaced rows if it is large.

    A type whose scales are not known passes.
    """
    tensor, kind = item.tensor, item.name
    if kind not in FLOATS and kind not in SCALE_PLACES:
        return True
    n, k = tensor.rows, tensor.columns
    whole = np.memmap(source.files[tensor.name], np.uint8, "r", offset=tensor.offset, shape=(n, item.nbytes // n))
    wanted = n if exact else min(n, max(1, SAMPLE_WEIGHTS // k))
    rows = np.unique(np.linspace(0, n - 1, wanted).astype(int))
    step = max(1, SAMPLE_WEIGHTS // k)
    for start in range(0, len(rows), step):
        piece = whole[start : start + step] if wanted == n else whole[rows[start : start + step]]
        if kind in SCALE_PLACES:
            blocks = piece.reshape(-1, block_bytes(kind))
            words = np.concatenate([blocks[:, place : place + 2] for place in SCALE_PLACES[kind]]).view("<u2")
        else:
            words = piece.view("<u4" if kind == "f32" else "<u2")
        exponent = {"f32": 0x7F800000, "bf16": 0x7F80}.get(kind, 0x7C00)
        if ((words & exponent) == exponent).any():
            return False
    return True


def counts(values: npt.NDArray[np.int8]) -> list[int]:
    """How many of the values are -1, 0, +1, +2."""
    return [int((values == value).sum()) for value in (-1, 0, 1, 2)]


def scale_kind(decoded: Decoded) -> str:
    """How the scales are shared, by what they are, not by what the layout could hold."""
    if decoded.used_scales().size <= 1:
        return "one per tensor"
    scales = decoded.scales
    if scales.shape[1] == 1 or (scales == scales[:, :1]).all():
        return "one per row"
    return f"one per group of {decoded.shape[1] // scales.shape[1]}"
