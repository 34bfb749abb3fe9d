# SPDX-License-Identifier: MIT
"""The engine hook through ggml's own API: products of i2_s, tl1 and tl2 tensors in every shape that ggml allows.

The language models' graphs have one matrix and one batch of tokens. ggml also allows stacks of both, broadcasting,
strided activations and views of a weight; all of them are compared with float64 here.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trit.gguf.encodings import ENCODINGS, Encoding

F32 = 0
# What is computed in place: ggml has no code for these types.
IN_PLACE = ("i2_s", "tl1", "tl2")
K = 256


class InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


class Ggml:
    """One ggml context; tensors are opaque pointers."""

    def __init__(self, engine_bin: Path) -> None:
        for name in ("libggml-base.so", "libggml-cpu.so"):
            if not (engine_bin / name).is_file():
                pytest.skip(f"{engine_bin / name} is not there (this engine is linked statically)")
        self._base = ctypes.CDLL(str(engine_bin / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self._cpu = ctypes.CDLL(str(engine_bin / "libggml-cpu.so"))
        self._cpu.ggml_cpu_init()
        self._base.ggml_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._base.ggml_init(InitParams(64 << 20, None, False)))

    def call(self, name: str, *args: Any) -> ctypes.c_void_p:
        function = getattr(self._base, name)
        function.restype = ctypes.c_void_p
        return ctypes.c_void_p(function(self._context, *args))

    def tensor(self, kind: int, *ne: int) -> ctypes.c_void_p:
        dims = (ctypes.c_int64 * len(ne))(*ne)
        return self.call("ggml_new_tensor", ctypes.c_int(kind), ctypes.c_int(len(ne)), dims)

    def data(self, tensor: ctypes.c_void_p) -> int:
        self._base.ggml_get_data.restype = ctypes.c_void_p
        return int(self._base.ggml_get_data(tensor))

    def write(self, tensor: ctypes.c_void_p, array: np.ndarray) -> None:
        flat = np.ascontiguousarray(array)
        self._base.ggml_nbytes.restype = ctypes.c_size_t
        assert self._base.ggml_nbytes(tensor) == flat.nbytes
        ctypes.memmove(self.data(tensor), flat.ctypes.data, flat.nbytes)

    def compute(self, tensor: ctypes.c_void_p, shape: tuple[int, ...], threads: int) -> np.ndarray:
        """Run the graph that ends in this tensor; float32 of this numpy shape."""
        graph = self.call("ggml_new_graph")
        self._base.ggml_build_forward_expand(graph, tensor)
        assert self._cpu.ggml_graph_compute_with_ctx(self._context, graph, ctypes.c_int(threads)) == 0
        out = np.empty(shape, dtype=np.float32)
        ctypes.memmove(out.ctypes.data, self.data(tensor), out.nbytes)
        return out

    def close(self) -> None:
        self._base.ggml_free(self._context)


@pytest.fixture
def ggml(engine_bin: Path) -> Any:
    context = Ggml(engine_bin)
    yield context
    context.close()


@pytest.fixture(params=IN_PLACE)
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return ENCODINGS[request.param]


def pack(encoding: Encoding, ternary: np.ndarray, scale: float) -> np.ndarray:
    """Bytes of a stack of matrices [..., n, k]: all codes, then one tail."""
    return encoding.pack(ternary.reshape(-1, ternary.shape[-1]), scale)


def expected(ternary: np.ndarray, scale: float, x: np.ndarray) -> np.ndarray:
    """[..., m, n] as the formula says it, with the scales in float32 and the sums in int64."""
    factor = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5))
    q = np.rint(x * factor).astype(np.int64)
    sums = q @ np.swapaxes(ternary.astype(np.int64), -1, -2)
    return sums.astype(np.float32) / factor * np.float32(scale)


def random_weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, shape, dtype=np.int8)


def random_activations(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("m", [1, 2, 5, 33])
@pytest.mark.parametrize("n", [1, 3, 4, 65, 130])
def test_one_matrix(ggml: Ggml, encoding: Encoding, n: int, m: int, threads: int) -> None:
    ternary, x = random_weights(n, K), random_activations(m, K)
    w, a = ggml.tensor(encoding.ggml_type, K, n), ggml.tensor(F32, K, m)
    ggml.write(w, pack(encoding, ternary, 0.37))
    ggml.write(a, x)
    out = ggml.compute(ggml.call("ggml_mul_mat", w, a), (m, n), threads)
    np.testing.assert_array_equal(out, expected(ternary, 0.37, x))


@pytest.mark.parametrize("blocks", [1, 5, 16, 17, 40])
def test_columns(ggml: Ggml, encoding: Encoding, blocks: int) -> None:
    """Rows are unpacked 512 inputs at a time, the last time fewer."""
    n, m, k = 70, 3, blocks * encoding.block
    ternary, x = random_weights(n, k), random_activations(m, k)
    w, a = ggml.tensor(encoding.ggml_type, k, n), ggml.tensor(F32, k, m)
    ggml.write(w, pack(encoding, ternary, 0.37))
    ggml.write(a, x)
    out = ggml.compute(ggml.call("ggml_mul_mat", w, a), (m, n), 2)
    np.testing.assert_array_equal(out, expected(ternary, 0.37, x))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("stack", "batch"),
    [((1, 1), (1, 4)), ((1, 2), (1, 2)), ((1, 2), (1, 6)), ((2, 1), (2, 3)), ((2, 3), (4, 6))],
    ids=str,
)
def test_stacks_and_broadcasting(
    ggml: Ggml, encoding: Encoding, stack: tuple[int, int], batch: tuple[int, int], threads: int
) -> None:
    """Matrix i2 of a stack meets the activations i2 * r ... i2 * r + r - 1 (ggml's rule for grouped attention)."""
    n, m = 7, 3
    ternary, x = random_weights(*stack, n, K), random_activations(*batch, m, K)
    w, a = ggml.tensor(encoding.ggml_type, K, n, *stack[::-1]), ggml.tensor(F32, K, m, *batch[::-1])
    ggml.write(w, pack(encoding, ternary, 0.5))
    ggml.write(a, x)
    out = ggml.compute(ggml.call("ggml_mul_mat", w, a), (*batch, m, n), threads)
    wide = ternary.repeat(batch[0] // stack[0], axis=0).repeat(batch[1] // stack[1], axis=1)
    np.testing.assert_array_equal(out, expected(wide, 0.5, x))


def test_strided_activations(ggml: Ggml, encoding: Encoding) -> None:
    """Every second token of a larger tensor: the distance of two rows is not their length."""
    n, m = 9, 4
    ternary, x = random_weights(n, K), random_activations(2 * m, K)
    w, a = ggml.tensor(encoding.ggml_type, K, n), ggml.tensor(F32, K, 2 * m)
    ggml.write(w, pack(encoding, ternary, 0.25))
    ggml.write(a, x)
    size, step = ctypes.c_int64, ctypes.c_size_t(2 * K * 4)
    view = ggml.call("ggml_view_2d", a, size(K), size(m), step, ctypes.c_size_t(0))
    out = ggml.compute(ggml.call("ggml_mul_mat", w, view), (m, n), 2)
    np.testing.assert_array_equal(out, expected(ternary, 0.25, x[::2]))


def test_a_view_of_a_weight_has_the_whole_tensor_s_scale(ggml: Ggml, encoding: Encoding) -> None:
    """Rows 8 to 19 of 32: their scale stands behind row 31."""
    ternary, x = random_weights(32, K), random_activations(3, K)
    w, a = ggml.tensor(encoding.ggml_type, K, 32), ggml.tensor(F32, K, 3)
    ggml.write(w, pack(encoding, ternary, 0.75))
    ggml.write(a, x)
    size, row = ctypes.c_int64, encoding.nbytes(1, K) - encoding.tail_bytes
    view = ggml.call("ggml_view_2d", w, size(K), size(12), ctypes.c_size_t(row), ctypes.c_size_t(8 * row))
    out = ggml.compute(ggml.call("ggml_mul_mat", view, a), (3, 12), 2)
    np.testing.assert_array_equal(out, expected(ternary[8:20], 0.75, x))


def test_get_rows(ggml: Ggml, encoding: Encoding) -> None:
    ternary, ids = random_weights(40, K), np.array([39, 0, 7, 7, 20], dtype=np.int32)
    w, i = ggml.tensor(encoding.ggml_type, K, 40), ggml.tensor(26, len(ids))
    ggml.write(w, pack(encoding, ternary, 0.3))
    ggml.write(i, ids)
    out = ggml.compute(ggml.call("ggml_get_rows", w, i), (len(ids), K), 2)
    np.testing.assert_array_equal(out, ternary[ids].astype(np.float32) * np.float32(0.3))


@pytest.mark.parametrize("spoil", [np.nan, np.inf])
def test_a_broken_token_gives_nan_and_spares_the_others(ggml: Ggml, encoding: Encoding, spoil: float) -> None:
    ternary, x = random_weights(6, K), random_activations(3, K)
    x[1, 100] = spoil
    w, a = ggml.tensor(encoding.ggml_type, K, 6), ggml.tensor(F32, K, 3)
    ggml.write(w, pack(encoding, ternary, 1.0))
    ggml.write(a, x)
    out = ggml.compute(ggml.call("ggml_mul_mat", w, a), (3, 6), 2)
    assert np.isnan(out[1]).all()
    np.testing.assert_array_equal(out[[0, 2]], expected(ternary, 1.0, x[[0, 2]]))
