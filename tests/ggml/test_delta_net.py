# SPDX-License-Identifier: MIT
"""The recurrence of linear attention against its formula in float64, and copies of long rows.

Its bits depend neither on the number of threads nor on how many tokens go through it at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.guarded_ggml import GuardedGgml, same_bits
from tests.support.tiers import SEED

F32, I32 = 0, 26
SIZE = 128
THREADS = [1, 2, 3, 5]


@pytest.fixture
def ggml(engine_bin: Path) -> Iterator[GuardedGgml]:
    context = GuardedGgml(engine_bin)
    yield context
    context.close()


def tensor(ggml: GuardedGgml, array: np.ndarray) -> ctypes.c_void_p:
    made = ggml.tensor(F32, *array.shape[::-1])
    ggml.write(made, array)
    return made


class Inputs:
    """Queries, keys [sequences, tokens, heads of keys, size], values, gates, betas, and states before the first."""

    def __init__(self, size: int, sequences: int, tokens: int, key_heads: int, heads: int) -> None:
        rng = np.random.default_rng(SEED)
        draw = lambda *shape: rng.standard_normal(shape, dtype=np.float32)  # noqa: E731
        self.q, self.k = (draw(sequences, tokens, key_heads, size) / np.float32(size**0.5) for _ in range(2))
        self.v = draw(sequences, tokens, heads, size)
        self.gate = -np.abs(draw(sequences, tokens, heads, 1))
        self.beta = rng.uniform(0, 1, self.gate.shape).astype(np.float32)
        self.state = draw(sequences, heads, size, size)

    def some(self, tokens: slice, state: np.ndarray) -> Inputs:
        part = object.__new__(Inputs)
        for name in ("q", "k", "v", "gate", "beta"):
            setattr(part, name, np.ascontiguousarray(getattr(self, name)[:, tokens]))
        part.state = state
        return part

    def expected(self) -> tuple[np.ndarray, np.ndarray]:
        """Outputs and last states by the definition, in float64; rows of a state are its values."""
        q, k, v, gate, beta, state = map(np.float64, (self.q, self.k, self.v, self.gate, self.beta, self.state))
        heads = np.arange(v.shape[2]) % q.shape[2]
        out = np.empty_like(v)
        for t in range(v.shape[1]):
            keys = k[:, t, heads][:, :, None]
            state = state * np.exp(gate[:, t])[..., None]
            delta = (v[:, t] - (state * keys).sum(axis=-1)) * beta[:, t]
            state = state + delta[..., None] * keys
            out[:, t] = (state * q[:, t, heads][:, :, None]).sum(axis=-1) / v.shape[-1] ** 0.5
        return out, state

    def computed(self, ggml: GuardedGgml, threads: int, kept: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The same by the engine; `kept`: how many of the last states, only the last is looked at."""
        made = [tensor(ggml, array) for array in (self.q, self.k, self.v, self.gate, self.beta, self.state)]
        node = ggml.call("ggml_gated_delta_net", *made, ctypes.c_int64(kept))
        flat = ggml.compute(node, (self.v.size + kept * self.state.size,), threads)
        states = flat[self.v.size : self.v.size + self.state.size]
        return flat[: self.v.size].reshape(self.v.shape), states.reshape(self.state.shape)


@pytest.mark.parametrize(("key_heads", "heads"), [(1, 1), (2, 6), (3, 3)])
@pytest.mark.parametrize(("sequences", "tokens"), [(1, 1), (1, 16), (1, 33), (2, 5)])
def test_results_are_those_of_the_formula(
    ggml: GuardedGgml, sequences: int, tokens: int, key_heads: int, heads: int
) -> None:
    inputs = Inputs(SIZE, sequences, tokens, key_heads, heads)
    out, state = inputs.expected()
    first = inputs.computed(ggml, 1)
    for actual, wanted in zip(first, (out, state), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())
    for threads in THREADS[1:]:
        for actual, wanted in zip(inputs.computed(ggml, threads), first, strict=True):
            same_bits(actual, wanted, f"{threads} threads")


@pytest.mark.parametrize("step", [1, 7, 16, 20])
def test_tokens_may_come_a_few_at_a_time(ggml: GuardedGgml, step: int) -> None:
    inputs = Inputs(SIZE, 1, 40, 2, 4)
    out, state = inputs.computed(ggml, 2)
    before = inputs.state
    for first in range(0, 40, step):
        tokens = slice(first, min(first + step, 40))
        part, before = inputs.some(tokens, before).computed(ggml, 3)
        same_bits(np.ascontiguousarray(part), np.ascontiguousarray(out[:, tokens]), tokens)
    same_bits(before, state)


@pytest.mark.parametrize(("size", "kept"), [(64, 1), (128, 2), (16, 1)])
def test_other_sizes_and_kept_states_are_upstreams(ggml: GuardedGgml, size: int, kept: int) -> None:
    inputs = Inputs(size, 1, 5, 2, 4)
    for actual, wanted in zip(inputs.computed(ggml, 2, kept), inputs.expected(), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("width", [1 << 16, (1 << 16) + 12, 1 << 15])
def test_long_rows_are_copied_by_all_threads(ggml: GuardedGgml, width: int) -> None:
    """And short ones as ever."""
    rows = np.random.default_rng(SEED).standard_normal((4, width), dtype=np.float32)
    wanted = np.array([2, 0, 2], dtype=np.int32)
    ids = ggml.tensor(I32, len(wanted))
    ggml.write(ids, wanted)
    copies = ggml.call("ggml_get_rows", tensor(ggml, rows), ids)
    # Alone it would be planned for one thread.
    node = ggml.call("ggml_add", copies, tensor(ggml, np.zeros((3, width), dtype=np.float32)))
    for threads in (1, 2, 3):
        same_bits(ggml.compute(node, (3, width), threads), rows[wanted], f"{threads} threads")
