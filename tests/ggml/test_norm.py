# SPDX-License-Identifier: MIT
"""Norms of many rows: each row's squares are added in order, however many rows go side by side."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.guarded_ggml import GuardedGgml, same_bits
from tests.support.tiers import SEED

F32 = 0
EPS = np.float32(1e-5)


@pytest.fixture
def ggml(engine_bin: Path) -> Iterator[GuardedGgml]:
    context = GuardedGgml(engine_bin)
    yield context
    context.close()


def expected(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """In the precisions and the order of llama.cpp's loop: squares in single, their sum in double precision."""
    sums = np.add.accumulate((x * x).astype(np.float64), axis=-1)[..., -1:]
    means = (sums / x.shape[-1]).astype(np.float32)
    return x * (np.float32(1) / np.sqrt(means + EPS)) * w


def tensor(ggml: GuardedGgml, array: np.ndarray) -> ctypes.c_void_p:
    made = ggml.tensor(F32, *array.shape[::-1])
    ggml.write(made, array)
    return made


def draw(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(SEED)
    # Squares of all sizes: another order of additions would round otherwise.
    return rng.standard_normal(shape, dtype=np.float32) * np.exp(rng.uniform(-6, 6, shape)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [(1,), (2,), (7,), (8,), (9,), (17,), (40,), (3, 5), (2, 3, 7)], ids=str)
@pytest.mark.parametrize("width", [1, 7, 64, 333])
def test_each_row_has_the_bits_of_a_plain_loop(
    ggml: GuardedGgml, rows: tuple[int, ...], width: int, threads: int
) -> None:
    x, w = draw(*rows, width), draw(width)[::-1].copy()
    norm = ggml.call("ggml_rms_norm", tensor(ggml, x), ctypes.c_float(EPS))
    node = ggml.call("ggml_mul", norm, tensor(ggml, w))
    same_bits(ggml.compute(node, x.shape, threads), expected(x, w), (rows, width, threads))


def test_rows_that_lie_apart_or_are_written_over(ggml: GuardedGgml) -> None:
    x, w = draw(24, 5, 64), draw(64)
    zero, two, one, three = (ctypes.c_int(axis) for axis in (0, 2, 1, 3))
    apart = ggml.call("ggml_permute", tensor(ggml, x), zero, two, one, three)
    node = ggml.call("ggml_mul", ggml.call("ggml_rms_norm", apart, ctypes.c_float(EPS)), tensor(ggml, w))
    same_bits(ggml.compute(node, (5, 24, 64), 2), expected(x.transpose(1, 0, 2), w), "apart")


def test_weights_of_several_rows_are_llama_cpp_s(ggml: GuardedGgml) -> None:
    x, w = draw(6, 20, 64), draw(20, 64)
    norm = ggml.call("ggml_rms_norm", tensor(ggml, x), ctypes.c_float(EPS))
    node = ggml.call("ggml_mul", norm, tensor(ggml, w))
    same_bits(ggml.compute(node, x.shape, 2), expected(x, w), "rows of weights")
