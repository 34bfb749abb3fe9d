# SPDX-License-Identifier: MIT
"""Weights that stay as they are in the file, through ggml's own API: the same results as packed ones, bit for bit.

The work memory ends where the next page is not mapped (``guarded_ggml``). i2_s has kernels of its own; tl1 and tl2 are
unpacked by every thread for itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.matrix.test_packed import TOKENS, routed
from tests.support.guarded_ggml import GuardedGgml, in_new_process, same_bits
from tests.support.packed_weights import Weights, activations
from tests.support.tiers import SEED, Tier
from trit.gguf.encoding_table import OURS
from trit.gguf.encodings import ENCODINGS

I32 = 26
# Rows, and inputs in blocks of the encoding: a panel has 64 rows, and 512 inputs are unpacked at once.
SIZES = [(1, 1), (31, 2), (64, 4), (65, 17), (200, 40)]


class InPlaceGgml(GuardedGgml):
    def weights(self, weights: Weights) -> ctypes.c_void_p:
        w = self.tensor(ENCODINGS[weights.name].ggml_type, *weights.values.shape[::-1])
        self.write(w, weights.data())
        return w


@pytest.fixture
def ggml(engine_bin: Path) -> Iterator[InPlaceGgml]:
    context = InPlaceGgml(engine_bin)
    yield context
    context.close()


def check_matrix(ggml: InPlaceGgml, weights: Weights, tokens: list[int], threads: list[int]) -> None:
    n, k = weights.values.shape
    w = ggml.weights(weights)
    for m in tokens:
        x = activations(m, k)
        node, expected = ggml.mul_mat(w, x), weights.times(x)
        for count in threads:
            same_bits(ggml.compute(node, (m, n), count), expected, f"m = {m}, {count} threads")


@pytest.mark.parametrize(("n", "blocks"), SIZES)
@pytest.mark.parametrize("name", OURS)
def test_one_matrix(ggml: InPlaceGgml, name: str, n: int, blocks: int) -> None:
    check_matrix(ggml, Weights.random(name, "one", n, blocks * ENCODINGS[name].block), TOKENS, [1, 2, 8])


@pytest.mark.parametrize("name", OURS)
def test_tokens_in_small_blocks(ggml: InPlaceGgml, name: str) -> None:
    """Wide activations: fewer tokens fit into the cache, so a batch is worked off in blocks of 60."""
    check_matrix(ggml, Weights.random(name, "one", 5, 16384), [59, 60, 61, 130], [1, 3])


@pytest.mark.parametrize("name", OURS)
def test_the_widest_matrix(ggml: InPlaceGgml, name: str) -> None:
    """Wider than a panel may be, at the most that a sum of 32 bits is promised for."""
    k = 1 << 20
    values = np.ones((2, k), dtype=np.int8)
    values[1] = -1
    w = ggml.weights(Weights(name, values, np.float32(1)))
    out = ggml.compute(ggml.mul_mat(w, np.ones((2, k), dtype=np.float32)), (2, 2), 2)
    np.testing.assert_array_equal(out, [[k, -k]] * 2)


@pytest.mark.parametrize(("experts", "slots", "tokens"), [(1, 1, 1), (4, 2, 1), (8, 3, 7), (3, 3, 40)])
@pytest.mark.parametrize("name", OURS)
def test_experts(ggml: InPlaceGgml, name: str, experts: int, slots: int, tokens: int) -> None:
    n, k = 70, 5 * 128
    weights, x = Weights.random(name, "one", experts, n, k), activations(tokens, slots, k)
    ids = np.argsort(np.random.default_rng(SEED).random((tokens, experts)), axis=1)[:, :slots].astype(np.int32)
    a, i = ggml.tensor(0, *x.shape[::-1]), ggml.tensor(I32, slots, tokens)
    ggml.write(a, x)
    ggml.write(i, ids)
    node = ggml.call("ggml_mul_mat_id", ggml.weights(weights), a, i)
    expected = routed(weights, x, ids)
    for threads in (1, 2, 8):
        same_bits(ggml.compute(node, expected.shape, threads), expected, f"{threads} threads")


def multiply_everything(engine_bin: str) -> None:
    for name in OURS:
        for n, blocks in SIZES[::2]:
            ggml = InPlaceGgml(Path(engine_bin))
            check_matrix(ggml, Weights.random(name, "one", n, blocks * ENCODINGS[name].block), [1, 2, 33], [2])
            ggml.close()
    print("equal")


def test_every_tier(native_tier: Tier, engine_bin: Path) -> None:
    """A process has one tier, so each runs in its own."""
    result = in_new_process(
        "tests.ggml.test_in_place.multiply_everything", engine_bin, TRIT_TIER=native_tier.struct.name.decode()
    )
    assert result.returncode == 0 and result.stdout == "equal\n", result.stderr
