# SPDX-License-Identifier: MIT
"""Large matrices of stock types, and a model's head: streamed by us, with the bits of llama.cpp's dot product.

What llama.cpp computes is had from it in two ways: the same matrix with a stack of activations, which is not streamed,
and its dot product of one row and one token.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support.guarded_ggml import GuardedGgml, in_new_process, same_bits
from tests.support.tiers import SEED, Tier, TierStruct, at_page_end

F32 = 0
LEAST_BYTES = 4 << 20  # of a matrix that is streamed


@dataclass(frozen=True)
class Stock:
    """A type of llama.cpp: its number, weights and bytes per block, where its half-precision scales are."""

    number: int
    block: int
    block_bytes: int
    scales: tuple[int, ...]
    most_tokens: int  # that are streamed


STOCK = {
    "f16": Stock(1, 1, 2, (), 1),
    "q8_0": Stock(8, 32, 34, (0,), 1),
    "q4_K": Stock(12, 256, 144, (0, 2), 7),
    "q5_K": Stock(13, 256, 176, (0, 2), 7),
    "q6_K": Stock(14, 256, 210, (208,), 7),
    "bf16": Stock(30, 1, 2, (), 1),
}


class TypeTraits(ctypes.Structure):
    """ggml_type_traits_cpu."""

    _fields_ = (
        ("from_float", ctypes.c_void_p),
        ("vec_dot", ctypes.c_void_p),
        ("vec_dot_type", ctypes.c_int),
        ("nrows", ctypes.c_int64),
    )


def random_rows(name: str, n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [n, row bytes]: any codes, scales of ordinary size."""
    stock = STOCK[name]
    if not stock.scales:
        floats = rng.standard_normal((n, k), dtype=np.float32)
        return (
            floats.astype(np.float16).view(np.uint8)
            if name == "f16"
            else floats.view(np.uint16)[:, 1::2].copy().view(np.uint8)
        )
    blocks = rng.integers(0, 256, (n * k // stock.block, stock.block_bytes), dtype=np.uint8)
    for at in stock.scales:
        halves = rng.uniform(-0.1, 0.1, len(blocks)).astype(np.float16)
        blocks[:, at : at + 2] = halves.reshape(-1, 1).view(np.uint8)
    return blocks.reshape(n, -1)


def odd_rows(name: str, k: int) -> int:
    """Rows of a matrix that is large enough, a prime, so that no thread count and no chunk divides it."""
    n = -(-LEAST_BYTES // (k // STOCK[name].block * STOCK[name].block_bytes))
    while any(n % i == 0 for i in range(2, int(n**0.5) + 1)):
        n += 1
    return n


class Head(GuardedGgml):
    def traits(self, name: str) -> TypeTraits:
        self._cpu.ggml_get_type_traits_cpu.restype = ctypes.POINTER(TypeTraits)
        return self._cpu.ggml_get_type_traits_cpu(ctypes.c_int(STOCK[name].number)).contents

    def most_tokens(self, name: str) -> int:
        """Where the dot product takes two rows at once (ARM's i8mm), llama.cpp's way is another for more tokens."""
        return STOCK[name].most_tokens if self.traits(name).nrows == 1 else 1

    def has_avx2_and_fma(self) -> bool:
        return bool(self._cpu.ggml_cpu_has_avx2() and self._cpu.ggml_cpu_has_fma())

    def matrix(self, name: str, rows: np.ndarray, k: int) -> ctypes.c_void_p:
        w = self.tensor(STOCK[name].number, k, len(rows))
        self.write(w, rows)
        return w

    def head(self, name: str, rows: np.ndarray, k: int, called: str = "output.weight") -> ctypes.c_void_p:
        w = self.matrix(name, rows, k)
        self.base("ggml_set_name", w, called.encode())
        return w

    def rows_of(self, w: ctypes.c_void_p, k: int, row_bytes: int, first: int, count: int) -> ctypes.c_void_p:
        size = ctypes.c_int64
        return self.call(
            "ggml_view_2d", w, size(k), size(count), ctypes.c_size_t(row_bytes), ctypes.c_size_t(first * row_bytes)
        )

    def upstream(self, w: ctypes.c_void_p, n: int, x: np.ndarray) -> np.ndarray:
        """The product as llama.cpp alone makes it: stacks of activations are not streamed."""
        stack = np.stack([x, np.zeros_like(x)])
        return self.compute(self.mul_mat(w, stack), (2, len(x), n), 2)[0]


@pytest.fixture
def ggml(engine_bin: Path) -> Iterator[Head]:
    context = Head(engine_bin)
    yield context
    context.close()


def activations(m: int, k: int) -> np.ndarray:
    return np.random.default_rng(SEED + 1).standard_normal((m, k)).astype(np.float32)


@pytest.mark.parametrize("m", range(1, 9))
@pytest.mark.parametrize("name", STOCK)
def test_the_bits_of_upstream(ggml: Head, name: str, m: int) -> None:
    k = 2048
    n = odd_rows(name, k)
    rows, x = random_rows(name, n, k, np.random.default_rng(SEED)), activations(m, k)
    w = ggml.matrix(name, rows, k)
    expected = ggml.upstream(w, n, x)
    assert np.isfinite(expected).all() and len(np.unique(expected)) > n * m // 2
    node = ggml.mul_mat(w, x)
    for threads in (1, 2, 3, 8):
        same_bits(ggml.compute(node, (m, n), threads), expected, f"{threads} threads")


def work_size(ggml: Head, name: str, n: int, k: int, m: int, stack: int = 1) -> int:
    node = ggml.call("ggml_mul_mat", ggml.tensor(STOCK[name].number, k, n), ggml.tensor(F32, k, m, stack))
    return int(ggml.plan(node, 8)[1].work_size)


@pytest.mark.parametrize("m", [1, 2, 7, 8])
@pytest.mark.parametrize("name", STOCK)
def test_what_is_streamed(ggml: Head, name: str, m: int) -> None:
    """Seen by the work memory, which does not depend on n: a thread has the tokens for itself when it streams."""
    k = 2048
    row_bytes = k // STOCK[name].block * STOCK[name].block_bytes
    enough = -(-LEAST_BYTES // row_bytes)
    own = work_size(ggml, name, 1000, k, m)
    assert work_size(ggml, name, enough - 1, k, m) == own, "smaller than 4 MB"
    assert (work_size(ggml, name, enough, k, m) != own) == (m <= ggml.most_tokens(name))
    assert work_size(ggml, name, enough, k, m, 2) == work_size(ggml, name, 1000, k, m, 2), "a stack"


@pytest.mark.parametrize("name", STOCK)
def test_strided_tokens_and_a_part_of_a_matrix(ggml: Head, name: str) -> None:
    k, m = 2048, ggml.most_tokens(name)
    n = odd_rows(name, k)
    rows, x = random_rows(name, n + 50, k, np.random.default_rng(SEED)), activations(2 * m, k)
    w, a = ggml.matrix(name, rows, k), ggml.tensor(F32, k, 2 * m)
    ggml.write(a, x)
    part = ggml.rows_of(w, k, rows.shape[1], 33, n)
    every_second = ggml.rows_of(a, k, 2 * 4 * k, 0, m)
    node = ggml.call("ggml_mul_mat", part, every_second)
    expected = ggml.upstream(part, n, np.ascontiguousarray(x[::2]))
    same_bits(ggml.compute(node, (m, n), 3), expected)


@pytest.mark.parametrize("called", ["output.weight", "token_embd.weight"])
@pytest.mark.parametrize("name", STOCK)
def test_a_token_s_logits_do_not_depend_on_the_tokens_beside_it(ggml: Head, name: str, called: str) -> None:
    k, n, most = 768, 331, 40
    rows, x = random_rows(name, n, k, np.random.default_rng(SEED)), activations(most, k)
    w = ggml.head(name, rows, k, called)
    alone = np.concatenate([ggml.upstream(w, n, row.reshape(1, k)) for row in x])
    assert np.isfinite(alone).all() and len(np.unique(alone)) > n * most // 2
    for m in (1, 2, 3, 6, 7, 8, 9, 14, 15, 16, 32, 33, most):
        for first in {0, most - m}:
            node = ggml.mul_mat(w, x[first : first + m])
            for threads in (1, 3):
                what = f"{m} tokens, {threads} threads"
                same_bits(ggml.compute(node, (m, n), threads), alone[first : first + m], what)


def test_many_tokens_of_another_matrix_are_left_to_llama_cpp(ggml: Head) -> None:
    k, m = 2048, 8
    n = odd_rows("q6_K", k)
    rows = random_rows("q6_K", n, k, np.random.default_rng(SEED))
    size = [
        ggml.plan(ggml.mul_mat(w, activations(m, k)), 8)[1].work_size
        for w in (ggml.matrix("q6_K", rows, k), ggml.head("q6_K", rows, k))
    ]
    assert size[0] != size[1]


def stream_q6_k(engine_bin: str) -> None:
    ggml = Head(Path(engine_bin))
    k = 2048
    n = odd_rows("q6_K", k)
    rows = random_rows("q6_K", n, k, np.random.default_rng(SEED))
    w, x = ggml.head("q6_K", rows, k), activations(16, k)
    expected = np.concatenate([ggml.upstream(w, n, x[:7]), ggml.upstream(w, n, x[7:14]), ggml.upstream(w, n, x[14:])])
    for m in (1, 2, 7, 8, 16):
        same_bits(ggml.compute(ggml.mul_mat(w, x[:m]), (m, n), 3), expected[:m], m)
    ggml._cpu.trit_tier_chosen.restype = ctypes.POINTER(TierStruct)
    print(ggml._cpu.trit_tier_chosen().contents.name.decode())


def test_every_tier_streams_the_bits_of_upstream(native_tier: Tier, engine_bin: Path) -> None:
    name = native_tier.struct.name.decode()
    result = in_new_process("tests.ggml.test_head.stream_q6_k", engine_bin, TRIT_TIER=name)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{name}\n"


Q6_K_FN = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_void_p,
)
VEC_DOT_FN = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
)
# block_q6_K: low nibbles, upper bits, scales, d; block_q8_K: d, codes, their sums by 16.
Q6_K = np.dtype([("low", "u1", 128), ("high", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
Q8_K = np.dtype([("d", "<f4"), ("codes", "i1", 256), ("sums", "<i2", 16)])
KINDS = ["random", "highest", "lowest", "mixed extremes", "subnormal", "zero scales", "overflow"]


def q6_k_and_q8_k(kind: str, n: int, m: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    w, tokens = np.zeros((n, blocks), dtype=Q6_K), np.zeros((m, blocks), dtype=Q8_K)
    w["low"], w["high"] = rng.integers(0, 256, w["low"].shape), rng.integers(0, 256, w["high"].shape)
    w["scales"], w["d"] = rng.integers(-128, 128, w["scales"].shape), rng.uniform(-0.1, 0.1, w.shape)
    tokens["codes"], tokens["d"] = rng.integers(-128, 128, tokens["codes"].shape), rng.uniform(-1, 1, tokens.shape)
    if kind == "highest":
        w["low"], w["high"], w["scales"], tokens["codes"] = 255, 255, 127, 127
    elif kind == "lowest":
        w["low"], w["high"], w["scales"], tokens["codes"] = 0, 0, -128, -128
    elif kind == "mixed extremes":
        w["low"], w["high"] = rng.choice([0, 255], w["low"].shape), rng.choice([0, 255], w["high"].shape)
        w["scales"] = rng.choice([-128, 127], w["scales"].shape)
        tokens["codes"] = rng.choice([-128, 127], tokens["codes"].shape)
    elif kind == "subnormal":
        w["d"] = rng.choice(np.array([6e-8, -6e-8, 6e-5, -3e-5], dtype=np.float16), w.shape)
        tokens["d"] = rng.choice(np.array([1e-38, -1e-40, 1e-44], dtype=np.float32), tokens.shape)
    elif kind == "zero scales":
        w["d"] = rng.choice(np.array([0, -0.0, 1], dtype=np.float16), w.shape)
        tokens["d"] = rng.choice(np.array([0, -0.0, 1], dtype=np.float32), tokens.shape)
    elif kind == "overflow":
        w["d"], tokens["d"] = 65504, rng.choice(np.array([1e30, -1e30], dtype=np.float32), tokens.shape)
    tokens["sums"] = tokens["codes"].reshape(m, blocks, 16, 16).sum(axis=-1, dtype=np.int16)
    return w, tokens


def run_q6_k(struct: TierStruct, w: np.ndarray, tokens: np.ndarray, n: int) -> np.ndarray:
    """[m, n] of n rows; w and tokens may hold more blocks behind each row's than are multiplied."""
    m, blocks = len(tokens), min(w.shape[1], tokens.shape[1])
    out = np.full((m, n + 2), 77, dtype=np.float32)
    rows = (ctypes.c_void_p * m)(*[row.ctypes.data for row in out])
    Q6_K_FN(struct.q6_k)(256 * blocks, w.ctypes.data, w.strides[0], n, tokens.ctypes.data, tokens.strides[0], m, rows)
    assert (out[:, n:] == 77).all(), "written behind the rows"
    return out[:, :n]


def canonical(results: np.ndarray) -> np.ndarray:
    """Which of the bit patterns of NaN an instruction gives is nobody's promise."""
    return np.where(np.isnan(results), np.float32(np.nan), results)


@pytest.mark.parametrize("kind", KINDS)
def test_q6_k_kernel_gives_the_bits_of_upstream(tier: Tier, ggml: Head, kind: str) -> None:
    if not tier.struct.q6_k:
        pytest.skip("this tier has no q6_K kernel: the engine's dot product is used")
    if not ggml.has_avx2_and_fma():
        pytest.skip("the contract's bits are those of llama.cpp with AVX2 and FMA, this engine is built without")
    vec_dot = VEC_DOT_FN(ggml.traits("q6_K").vec_dot)
    for blocks in (1, 2, 3, 8, 27, 48):
        w, tokens = q6_k_and_q8_k(kind, 9, 7, blocks)
        upstream = np.zeros((7, 9), dtype=np.float32)
        for j, i in np.ndindex(7, 9):
            vec_dot(256 * blocks, upstream[j:, i:].ctypes.data, 0, w[i].ctypes.data, 0, tokens[j].ctypes.data, 0, 1)
        for m in range(1, 8):
            for n in (1, 2, 3, 8, 9):
                actual = run_q6_k(tier.struct, w, tokens[:m], n)
                same_bits(canonical(actual), canonical(upstream[:m, :n]), f"{blocks} blocks, n = {n}, m = {m}")
        if kind == "random":
            assert np.isfinite(upstream).all() and len(np.unique(upstream)) == upstream.size


def test_q6_k_rows_and_tokens_may_lie_apart(tier: Tier) -> None:
    if not tier.struct.q6_k:
        pytest.skip("this tier has no q6_K kernel")
    w, tokens = q6_k_and_q8_k("random", 5, 7, 4)
    narrow = run_q6_k(tier.struct, w[:, :3].copy(), tokens[:, :3].copy(), 5)
    same_bits(run_q6_k(tier.struct, w, tokens[:, :3].copy(), 5), narrow)
    same_bits(run_q6_k(tier.struct, w[:, :3].copy(), tokens, 5), narrow)


@pytest.mark.parametrize("m", range(1, 8))
def test_q6_k_reads_nothing_past_the_end(tier: Tier, library: ctypes.CDLL, m: int) -> None:
    if not tier.struct.q6_k:
        pytest.skip("this tier has no q6_K kernel")
    for n in (1, 2, 3):
        w, tokens = q6_k_and_q8_k("random", n, m, 2)
        expected = run_q6_k(library.trit_tier_by_name(b"scalar").contents, w, tokens, n)
        same_bits(run_q6_k(tier.struct, at_page_end(w), at_page_end(tokens), n), expected)


def test_q6_k_without_rows_writes_nothing(tier: Tier) -> None:
    if not tier.struct.q6_k:
        pytest.skip("this tier has no q6_K kernel")
    w, tokens = q6_k_and_q8_k("random", 1, 2, 1)
    assert run_q6_k(tier.struct, w, tokens, 0).shape == (2, 0)
