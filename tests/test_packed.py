# SPDX-License-Identifier: MIT
"""Packed weights through ggml's own API: tensors in a buffer of our type, where they become panels.

A weight with one scale meets activations that are quantised per token; one with different scales, activations that
are quantised per group. Both are compared, bit for bit, with the formulas of include/trit.h step by step in float32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from guarded_ggml import same_bits
from packed_weights import SCALE_AT, PackedGgml, Weights, activations

from utils.weight_encodings import ENCODINGS

F32 = 0
NAMES = ["i2_s", *SCALE_AT]
# Encoding and what its scales are: the same for the whole tensor, or different ones.
KINDS = [(name, "one") for name in NAMES] + [(name, "many") for name in SCALE_AT]
# Rows, and inputs in blocks of the encoding: a panel has 64 rows, and 32 are the fewest that are packed.
SIZES = [(32, 1), (33, 2), (63, 3), (64, 10), (65, 5), (130, 7), (200, 20)]
TOKENS = [1, 2, 5, 33, 241, 500]
THREADS = [1, 2, 3, 8]


@pytest.fixture
def ggml(engine_bin: Path) -> Iterator[PackedGgml]:
    context = PackedGgml(engine_bin)
    yield context
    context.close()


def check_matrix(ggml: PackedGgml, weights: Weights, tokens: list[int], threads: list[int]) -> None:
    n, k = weights.values.shape
    w = ggml.packed(weights)
    for m in tokens:
        x = activations(m, k)
        node, expected = ggml.mul_mat(w, x), weights.times(x)
        assert ggml.supports(node)
        for count in threads:
            same_bits(ggml.compute(node, (m, n), count), expected, f"m = {m}, {count} threads")


@pytest.mark.parametrize(("n", "blocks"), SIZES)
@pytest.mark.parametrize(("name", "scales"), KINDS)
def test_one_matrix(ggml: PackedGgml, name: str, scales: str, n: int, blocks: int) -> None:
    weights = Weights.random(name, scales, n, blocks * ENCODINGS[name].block)
    assert weights.per_token == (scales == "one")
    check_matrix(ggml, weights, TOKENS, THREADS)


@pytest.mark.parametrize(("name", "scales"), KINDS)
def test_tokens_in_small_blocks(ggml: PackedGgml, name: str, scales: str) -> None:
    """Wide activations: fewer tokens fit into the cache, so a batch is worked off in blocks of 60."""
    check_matrix(ggml, Weights.random(name, scales, 70, 16384), [59, 60, 61, 130], [1, 3])


@pytest.mark.parametrize("name", NAMES)
def test_the_widest_matrix(ggml: PackedGgml, name: str) -> None:
    k = 1 << 18
    values = np.ones((32, k), dtype=np.int8)
    values[1] = -1
    w = ggml.packed(Weights(name, values, np.float16(1)))
    out = ggml.compute(ggml.mul_mat(w, np.ones((2, k), dtype=np.float32)), (2, 32), 2)
    assert (out == np.where(np.arange(32) == 1, -k, k)).all()
    assert not ggml.supports(ggml.call("ggml_mul_mat", ggml.in_buffer(36, 2 * k, 32), ggml.tensor(F32, 2 * k, 1)))


@pytest.mark.parametrize(("name", "scales"), KINDS)
def test_results_are_those_of_the_weights(ggml: PackedGgml, name: str, scales: str) -> None:
    """Against float64: only the rounding of activations, half a step of the grid each, lies between them."""
    weights = Weights.random(name, scales, 96, 1024)
    x = activations(20, 1024)
    w = ggml.packed(weights)
    out = ggml.compute(ggml.mul_mat(w, x), (20, 96), 2)
    half_step = np.abs(x).max(axis=-1, keepdims=True) / 254
    bound = half_step * np.abs(weights.real()).sum(axis=-1)
    assert (np.abs(out - x @ weights.real().T) <= bound * 1.0001).all()


@pytest.mark.parametrize("name", SCALE_AT)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_block_with_scale_zero_is_zero_and_goes_with_any_scale(ggml: PackedGgml, name: str, zero: float) -> None:
    block = ENCODINGS[name].block
    weights = Weights.random(name, "many", 70, 8 * block)
    weights.scales[:] = 0.75
    weights.scales[5, 2] = weights.scales[5, 7] = weights.scales[69] = zero
    w, x = ggml.packed(weights), activations(3, 8 * block)
    values = weights.values * (weights.scales != 0).repeat(block, axis=-1)
    one = Weights(name, values, np.float16(0.75))
    assert not np.array_equal(one.times(x), weights.times(x)), "the two grids must differ here"
    same_bits(ggml.compute(ggml.mul_mat(w, x), (3, 70), 2), one.times(x))


@pytest.mark.parametrize("name", SCALE_AT)
def test_one_scale_that_differs_makes_the_grid_grouped(ggml: PackedGgml, name: str) -> None:
    for place in ((0, 0), (69, 7), (31, 3)):
        weights = Weights.random(name, "many", 70, 8 * ENCODINGS[name].block)
        weights.scales[:] = 0.75
        weights.scales[place] = np.nextafter(np.float16(0.75), np.float16(1))
        x = activations(2, weights.values.shape[-1])
        same_bits(ggml.compute(ggml.mul_mat(ggml.packed(weights), x), (2, 70), 2), weights.times(x), place)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("stack", "batch"),
    [((1, 1), (1, 4)), ((1, 2), (1, 2)), ((1, 2), (1, 6)), ((2, 1), (2, 3)), ((2, 3), (4, 6))],
    ids=str,
)
@pytest.mark.parametrize(("name", "scales"), KINDS)
def test_stacks_and_broadcasting(
    ggml: PackedGgml, name: str, scales: str, stack: tuple[int, int], batch: tuple[int, int], threads: int
) -> None:
    """Matrix i2 of a stack meets the activations i2 * r ... i2 * r + r - 1."""
    n, m, k = 70, 3, 2 * ENCODINGS[name].block
    weights, x = Weights.random(name, scales, *stack, n, k), activations(*batch, m, k)
    out = ggml.compute(ggml.mul_mat(ggml.packed(weights), x), (*batch, m, n), threads)

    def wide(array: np.ndarray) -> np.ndarray:
        return array.repeat(batch[0] // stack[0], axis=0).repeat(batch[1] // stack[1], axis=1)

    grid = weights.scales if weights.per_token else wide(weights.scales)
    same_bits(out, Weights(name, wide(weights.values), grid).times(x))


@pytest.mark.parametrize("m", [1, 4])
@pytest.mark.parametrize(("name", "scales"), KINDS)
def test_strided_activations(ggml: PackedGgml, name: str, scales: str, m: int) -> None:
    """Every second token of a larger tensor."""
    k = 3 * ENCODINGS[name].block
    weights, x = Weights.random(name, scales, 70, k), activations(2 * m, k)
    a = ggml.tensor(F32, k, 2 * m)
    ggml.write(a, x)
    size = ctypes.c_int64
    view = ggml.call("ggml_view_2d", a, size(k), size(m), ctypes.c_size_t(2 * k * 4), ctypes.c_size_t(0))
    node = ggml.call("ggml_mul_mat", ggml.packed(weights), view)
    same_bits(ggml.compute(node, (m, 70), 3), weights.times(x[::2]))
