# SPDX-License-Identifier: MIT
"""q4_k, q5_k and q6_k in numpy against the compiled engine's own quantiser, through its C function."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from trit.convert.embedding import K_BITS, quantize_pieces, quantize_rows
from trit.gguf.embedding_types import EMBEDDING_TYPES, default_embedding_type
from trit.gguf.types import GGMLQuantizationType

TYPES = [GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q5_K, GGMLQuantizationType.Q6_K]
# Fused multiply-adds, which compilers make where the CPU has them by default, round differently.
SAME_ARITHMETIC = platform.machine().lower() in {"x86_64", "amd64"}


def cases() -> dict[str, np.ndarray]:
    """Values of many kinds: trained-like, coarse (ties), far-spread, one-sided, zeros, constants, tiny."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((48, 2560), dtype=np.float32)
    sparse = normal.copy()
    sparse.reshape(48, -1, 16)[:, ::3] = 0
    sparse.reshape(48, -1, 32)[:, ::5] *= 1e-4
    constants = np.array([[3], [-3], [1e-20], [0.1], [0], [65504], [1e-30]], np.float32)
    return {
        "normal": normal * np.float32(0.03),
        "bfloat16": (normal.view(np.uint32) & 0xFFFF0000).view(np.float32),
        "coarse": np.rint(normal * 4) / np.float32(4),
        "spread": (normal * np.exp(rng.standard_normal(normal.shape) * 3)).astype(np.float32),
        "positive": np.abs(normal) + 1,
        "negative": -np.abs(normal) - 1,
        "sparse": sparse,
        "constant": np.repeat(constants, 256, axis=1),
        "tiny": normal * np.float32(1e-19),
    }


@pytest.fixture(scope="module")
def base(engine_bin: Path) -> ctypes.CDLL:
    if sys.platform == "win32":
        pytest.skip("ggml's library has another name")
    library = ctypes.CDLL(str(next(engine_bin.glob("libggml-base.*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


def engine_blocks(base: ctypes.CDLL, values: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """What ggml_quantize_chunk makes of float32 [rows, k]."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    out = np.zeros((values.size // 256, size), dtype=np.uint8)
    rows, columns = (ctypes.c_int64(length) for length in values.shape)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (values, out)]
    made = base.ggml_quantize_chunk(ctypes.c_int(kind), *pointers, ctypes.c_int64(0), rows, columns, None)
    assert made == out.nbytes
    return out


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("case", cases())
def test_same_bytes_as_the_engine(case: str, kind: GGMLQuantizationType, base: ctypes.CDLL) -> None:
    values = np.ascontiguousarray(cases()[case])
    ours, theirs = quantize_rows(values, kind), engine_blocks(base, values, kind)
    assert ours.shape == theirs.shape
    if SAME_ARITHMETIC:
        np.testing.assert_array_equal(ours, theirs)
        return
    decoded = [gguf.quants.dequantize(blocks, kind).reshape(values.shape) for blocks in (ours, theirs)]
    errors = [float(((back - values) ** 2).mean()) for back in decoded]
    assert (ours == theirs).mean() > 0.99 and errors[0] <= errors[1] * 1.01 + 1e-30


@pytest.mark.parametrize(("kind", "error"), list(zip(TYPES, (0.08, 0.04, 0.02), strict=True)), ids=str)
def test_error_of_normal_values(kind: GGMLQuantizationType, error: float) -> None:
    """Root mean square error, in units of the values' deviation: half for each further bit."""
    values = np.random.default_rng(1).standard_normal((64, 512), dtype=np.float32)
    back = gguf.quants.dequantize(quantize_rows(values, kind), kind).reshape(values.shape)
    assert error / 2 < np.sqrt(((back - values) ** 2).mean()) < error


def test_pieces_come_in_order() -> None:
    values = np.random.default_rng(2).standard_normal((400, 256), dtype=np.float32)
    for kind in (GGMLQuantizationType.Q6_K, GGMLQuantizationType.F16):
        pieces = list(quantize_pieces((values[i : i + 7] for i in range(0, 400, 7)), kind))
        whole = quantize_rows(values, kind)
        assert np.concatenate(pieces).tobytes() == whole.tobytes()


def test_default_type_fits_the_hidden_size() -> None:
    wanted = {("i2_s", 2560): "q6_k", ("tq2_0", 2560): "q6_k", ("i2_s", 640): "q8_0", ("q2_0", 48): "f16"}
    wanted |= {("f16", 2560): "f16", ("f32", 2560): "f32"}
    for (outtype, columns), name in wanted.items():
        assert default_embedding_type(outtype, columns) == name
        assert name in EMBEDDING_TYPES and columns % gguf.GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]][0] == 0
    assert {kind.name.lower() for kind in K_BITS} <= set(EMBEDDING_TYPES)
