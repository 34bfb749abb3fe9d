# SPDX-License-Identifier: MIT
"""Random embeddings and heads, drawn as the bytes of their type: no quantiser has to run over hundreds of millions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from trit.gguf.types import GGMLQuantizationType
from trit.gguf.writer import PlannedTensor

# Standard deviation of the values.
HEAD_STD = 0.05
# Values that are made at once.
CHUNK_VALUES = 1 << 22

Random = np.random.Generator


def _random_blocks(rng: Random, blocks: int, block_bytes: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytearray(rng.bytes(block_bytes * blocks)), dtype=np.uint8).reshape(blocks, block_bytes)


def _f16_bytes(value: float) -> npt.NDArray[np.uint8]:
    return np.array([value], dtype="<f2").view(np.uint8)


def _q8_0(rng: Random, blocks: int) -> npt.NDArray[np.uint8]:
    """block_q8_0 of ggml-common.h: f16 d, 32 int8 q; x = d q. Uniform q has a standard deviation of 74."""
    out = _random_blocks(rng, blocks, 34)
    out[:, :2] = _f16_bytes(HEAD_STD / 74)
    return out


def _q6_k(rng: Random, blocks: int) -> npt.NDArray[np.uint8]:
    """block_q6_K: 192 bytes of 6-bit q, 16 int8 scales, f16 d; x = d scale (q - 32). Uniform q: deviation 18.5."""
    out = _random_blocks(rng, blocks, 210)
    out[:, 192:208] = 8
    out[:, 208:] = _f16_bytes(HEAD_STD / (18.5 * 8))
    return out


def _q4_k(rng: Random, blocks: int) -> npt.NDArray[np.uint8]:
    """block_q4_K: f16 d and dmin, 12 bytes of 6-bit scales and minima, 128 of 4-bit q; x = d scale q - dmin min.

    With every scale and minimum 8, eight of the 12 bytes are 8 and four hold two low halves, 0x88. dmin = 7.5 d centres
    the values; uniform q has a standard deviation of 4.6.
    """
    out = _random_blocks(rng, blocks, 144)
    d = HEAD_STD / (4.6 * 8)
    out[:, :2], out[:, 2:4] = _f16_bytes(d), _f16_bytes(7.5 * d)
    out[:, 4:12], out[:, 12:16] = 8, 0x88
    return out


BLOCK_MAKERS = {"Q8_0": (_q8_0, 32), "Q6_K": (_q6_k, 256), "Q4_K": (_q4_k, 256)}


def head_pieces(rng: Random, tensor: PlannedTensor) -> Iterator[npt.NDArray[Any]]:
    """Random values of an embedding or head in its type, a few million at a time."""
    name = GGMLQuantizationType(tensor.ggml_type).name
    values = tensor.shape[0] * tensor.shape[1]
    for start in range(0, values, CHUNK_VALUES):
        count = min(CHUNK_VALUES, values - start)
        if name in BLOCK_MAKERS:
            make, block = BLOCK_MAKERS[name]
            yield make(rng, count // block)
        else:
            floats = rng.standard_normal(count, dtype=np.float32) * np.float32(HEAD_STD)
            yield floats.astype(np.float16) if name == "F16" else floats
