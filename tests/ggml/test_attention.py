# SPDX-License-Identifier: MIT
"""Attention over a half-precision cache: against float64, and the same bits however work is shared."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.guarded_ggml import GuardedGgml, in_new_process, same_bits
from tests.support.tiers import SEED

F32, F16 = 0, 1
HIDDEN = -np.inf
# Single precision, sums of up to 512 products in scores, exponentials of scores up to some ten.
TOLERANCE = 3e-5


@dataclass(frozen=True)
class Case:
    """Sizes of one attention; value: of a head's values, 0: as its keys."""

    head: int = 64
    value: int = 0
    kv_heads: int = 2
    group: int = 4
    tokens: int = 1
    positions: int = 100
    streams: int = 1

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group


@dataclass
class Inputs:
    """Of one attention.

    q [streams, heads, tokens, head], k and v [streams, positions, kv_heads, head], mask [streams, tokens, positions].
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    mask: np.ndarray | None


def inputs(case: Case, seed: int = SEED, hide: float = 0.3) -> Inputs:
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((case.streams, case.heads, case.tokens, case.head), dtype=np.float32)
    cache = (case.streams, case.positions, case.kv_heads)
    k, v = (rng.standard_normal((*cache, n)).astype(np.float16) for n in (case.head, case.value or case.head))
    mask = np.where(rng.random((case.streams, case.tokens, case.positions)) < hide, HIDDEN, 0).astype(np.float16)
    return Inputs(3 * q, k, v, mask)


def expected(x: Inputs, scale: float) -> np.ndarray:
    """[streams, tokens, heads, head] in float64; a token that sees nothing gives zeros."""
    group = x.q.shape[1] // x.k.shape[2]
    k, v = (np.repeat(cache.astype(np.float64), group, axis=2) for cache in (x.k, x.v))
    scores = np.einsum("shtd,sphd->shtp", x.q.astype(np.float64), k) * np.float64(np.float32(scale))
    scores += x.mask.astype(np.float64)[:, None]
    largest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isneginf(largest), 0, largest))
    sums = weights.sum(axis=-1, keepdims=True)
    return np.einsum("shtp,sphd->sthd", weights / np.where(sums == 0, 1, sums), v)


def tensor(ggml: GuardedGgml, kind: int, array: np.ndarray) -> ctypes.c_void_p:
    made = ggml.tensor(kind, *array.shape[::-1])
    ggml.write(made, array)
    return made


def attend(
    ggml: GuardedGgml, x: Inputs, scale: float, threads: int, *, alibi: float = 0.0, cap: float = 0.0
) -> np.ndarray:
    """What the engine gives; the cache's rows hold all heads, as in the language models."""
    zero, one, two, three = (ctypes.c_int(axis) for axis in range(4))
    k, v = (ggml.call("ggml_permute", tensor(ggml, F16, cache), zero, two, one, three) for cache in (x.k, x.v))
    mask = tensor(ggml, F16, x.mask[:, None]) if x.mask is not None else None
    numbers = [ctypes.c_float(number) for number in (scale, alibi, cap)]
    node = ggml.call("ggml_flash_attn_ext", tensor(ggml, F32, x.q), k, v, mask, *numbers)
    streams, heads, tokens, _ = x.q.shape
    return ggml.compute(node, (streams, tokens, heads, x.v.shape[-1]), threads)


@pytest.fixture
def ggml(engine_bin: Path) -> Iterator[GuardedGgml]:
    context = GuardedGgml(engine_bin)
    yield context
    context.close()


def close_to(actual: np.ndarray, wanted: np.ndarray, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance * max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    "case",
    [
        *(Case(group=group) for group in (1, 2, 3, 4, 5, 8)),
        *(Case(positions=n) for n in (1, 2, 63, 64, 65, 129, 700, 2049, 4500)),
        *(Case(tokens=n, positions=80) for n in (2, 7, 31, 64, 200)),
        *(Case(head=n) for n in (16, 80, 96, 128, 256)),
        Case(head=192, value=128, positions=300),
        Case(head=64, value=96, kv_heads=1, group=3),
        Case(streams=3, tokens=2, positions=300),
        Case(kv_heads=1, group=1, positions=3000),
        Case(kv_heads=5, group=4, head=128, positions=600),
    ],
    ids=str,
)
def test_equals_float64(ggml: GuardedGgml, case: Case, threads: int) -> None:
    x = inputs(case)
    close_to(attend(ggml, x, 0.125, threads), expected(x, 0.125))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_sizes(engine_bin: Path, data: st.DataObject) -> None:
    case = Case(
        head=16 * data.draw(st.integers(1, 16)),
        kv_heads=data.draw(st.integers(1, 6)),
        group=data.draw(st.integers(1, 9)),
        tokens=data.draw(st.integers(1, 8)),
        positions=data.draw(st.integers(1, 300)),
        streams=data.draw(st.integers(1, 2)),
    )
    x = inputs(case, data.draw(st.integers(0, 1 << 30)), data.draw(st.sampled_from([0.0, 0.5, 0.98])))
    ggml = GuardedGgml(engine_bin)
    try:
        close_to(attend(ggml, x, 0.2, data.draw(st.integers(1, 6))), expected(x, 0.2))
    finally:
        ggml.close()


@pytest.mark.parametrize(
    "case", [Case(positions=70), Case(tokens=9, positions=2500), Case(group=3, positions=900)], ids=str
)
def test_threads_do_not_matter(ggml: GuardedGgml, case: Case) -> None:
    """One thread takes whole rows or chunks of them, many take chunks: the sums are put together in one order."""
    x = inputs(case)
    first = attend(ggml, x, 0.125, 1)
    for threads in (2, 3, 7, 16):
        same_bits(attend(ggml, x, 0.125, threads), first, threads)


def test_alone_as_in_a_batch(ggml: GuardedGgml) -> None:
    case = Case(tokens=90, positions=1500)
    x = inputs(case)
    batch = attend(ggml, x, 0.125, 2)
    for token in range(0, case.tokens, 9):
        pick = slice(token, token + 1)
        alone = attend(ggml, Inputs(x.q[:, :, pick], x.k, x.v, x.mask[:, pick]), 0.125, 2)
        same_bits(alone, batch[:, pick], token)


def prompt(case: Case, sequences: int = 1) -> Inputs:
    """Each token sees what came before it in its sequence, itself included, but for a few slots that were freed."""
    x = inputs(case)
    rng = np.random.default_rng(SEED)
    slots = np.arange(case.positions)
    own = np.arange(case.tokens) + case.positions - case.tokens
    last = case.tokens // sequences
    for stream in range(case.streams):
        freed = rng.random(case.positions) < 0.1
        for token in range(case.tokens):
            hidden = (slots > own[token]) | (freed & (slots != own[token]))
            hidden |= slots % sequences != min(token // last, sequences - 1)
            x.mask[stream, token] = np.where(hidden, HIDDEN, 0)
    return x


PROMPTS = [
    *(Case(group=group, tokens=70, positions=200) for group in (1, 2, 3, 4, 5, 8)),
    *(Case(tokens=n, positions=n, head=16) for n in (4, 15, 16, 17, 63, 64, 65, 67, 130)),
    *(Case(tokens=24, positions=n, kv_heads=1) for n in (64, 65, 129, 2048, 2060, 4500)),
    Case(tokens=20, positions=90, head=192, value=128, group=3),
    Case(tokens=20, positions=90, head=16, value=80, group=4),
    Case(tokens=40, positions=100, streams=3, group=2),
]


@pytest.mark.parametrize("case", PROMPTS, ids=str)
def test_a_prompt_together_equals_its_tokens_alone(ggml: GuardedGgml, case: Case) -> None:
    x = prompt(case)
    together = attend(ggml, x, 0.125, 1)
    close_to(together, expected(x, 0.125))
    for threads in (2, 3, 7):
        same_bits(attend(ggml, x, 0.125, threads), together, threads)
    for token in {0, 1, case.tokens // 3, case.tokens - 2, case.tokens - 1}:
        pick = slice(token, token + 1)
        alone = attend(ggml, Inputs(x.q[:, :, pick], x.k, x.v, x.mask[:, pick]), 0.125, 2)
        same_bits(alone, together[:, pick], token)


def test_tokens_of_several_sequences_together(ggml: GuardedGgml) -> None:
    """Sequences of a server, a token that sees nothing, and one whose mask adds something, beside tokens in tiles."""
    x = prompt(Case(tokens=100, positions=400), sequences=3)
    x.mask[:, 20] = HIDDEN
    x.mask[:, 50] -= np.float16(1.5)
    together = attend(ggml, x, 0.125, 2)
    close_to(together, expected(x, 0.125))
    assert not together[:, 20].any()
    for token in (0, 19, 20, 21, 33, 49, 50, 51, 67, 99):
        pick = slice(token, token + 1)
        alone = attend(ggml, Inputs(x.q[:, :, pick], x.k, x.v, x.mask[:, pick]), 0.125, 2)
        same_bits(alone, together[:, pick], token)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_a_later_token_sees_never_reaches_an_earlier_one(ggml: GuardedGgml, poison: float) -> None:
    x = prompt(Case(tokens=48, positions=150))
    wanted = attend(ggml, x, 0.125, 2)
    first = 17
    new = ~np.isneginf(x.mask[0, first]) & np.isneginf(x.mask[0, first - 1])
    assert new.sum() == 1
    x.k[:, new] = poison
    x.v[:, new] = poison
    spoilt = attend(ggml, x, 0.125, 2)
    same_bits(spoilt[:, :first], wanted[:, :first], poison)
    assert np.isnan(spoilt[:, first:]).all()


def test_hidden_positions_are_never_read_into_a_sum(ggml: GuardedGgml) -> None:
    """A slot that was freed may hold anything."""
    x = inputs(Case(tokens=1, positions=400))
    wanted = attend(ggml, x, 0.125, 2)
    hidden = np.isneginf(x.mask[0, 0])
    for poison in (np.nan, np.inf):
        x.k[:, hidden] = poison
        x.v[:, hidden] = poison
        same_bits(attend(ggml, x, 0.125, 2), wanted, poison)


def test_without_a_mask_and_with_one_for_all_streams(ggml: GuardedGgml) -> None:
    x = inputs(Case(streams=2, tokens=3, positions=200))
    x.mask = x.mask[:1]
    close_to(attend(ggml, x, 0.125, 2), expected(x, 0.125))
    wanted = expected(Inputs(x.q, x.k, x.v, np.zeros_like(x.mask)), 0.125)
    x.mask = None
    close_to(attend(ggml, x, 0.125, 2), wanted)


def test_a_token_that_sees_nothing_gives_zeros(ggml: GuardedGgml) -> None:
    x = inputs(Case(tokens=3))
    x.mask[:, 1] = HIDDEN
    out = attend(ggml, x, 0.125, 2)
    assert not out[:, 1].any()
    close_to(out, expected(x, 0.125))


@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_what_is_not_a_number_stays_so(ggml: GuardedGgml, where: str) -> None:
    x = inputs(Case(kv_heads=1, group=2), hide=0.0)
    getattr(x, where)[0, 0, 0, 0] = np.nan
    out = attend(ggml, x, 0.125, 1)[0, 0]
    # NaN in q spoils its row, in a key all rows, in a value one column.
    spoilt = {"q": out[0], "k": out, "v": out[:, 0]}[where]
    assert np.isnan(spoilt).all()
    assert np.isfinite(out).sum() == {"q": 64, "k": 0, "v": 2 * 63}[where]


def test_large_scores_and_added_biases(ggml: GuardedGgml) -> None:
    """exp() of the scores alone would overflow; what a mask adds may be any number."""
    x = inputs(Case(positions=200), hide=0.2)
    x.q *= 40
    shift = np.random.default_rng(SEED).uniform(-8, 8, x.mask.shape).astype(np.float16)
    x.mask = np.where(np.isneginf(x.mask), x.mask, shift)
    # Scores in the thousands have an error of their own, as in any single-precision sum.
    close_to(attend(ggml, x, 0.125, 2), expected(x, 0.125), 2e-3)


def test_what_is_not_ours_goes_to_llama_cpp(ggml: GuardedGgml) -> None:
    """A cap of the scores, a slope for each head, odd sizes: upstream's code with upstream's work memory."""
    for head in (20, 40):
        odd = inputs(Case(head=head, tokens=3))
        close_to(attend(ggml, odd, 0.125, 2), expected(odd, 0.125), 5e-3)
    x = inputs(Case())
    capped = attend(ggml, x, 0.125, 2, cap=2.0)
    assert np.abs(capped - expected(x, 0.125)).max() > 0.05
    # A slope for each head, which multiplies what the mask adds.
    x.mask = np.random.default_rng(SEED).uniform(-4, 4, x.mask.shape).astype(np.float16)
    assert np.abs(attend(ggml, x, 0.125, 2, alibi=8.0) - expected(x, 0.125)).max() > 0.05


def error_of_one_token(engine_bin: str) -> None:
    """For a process of its own: print the largest error of a long attention."""
    context = GuardedGgml(Path(engine_bin))
    x = inputs(Case(head=128, positions=4000), hide=0.0)
    x.v += np.float16(1)
    print(np.abs(attend(context, x, 0.02, 2) - expected(x, 0.02)).max())


def test_the_switch_goes_back_to_llama_cpp_s_sums_in_half_precision(engine_bin: Path) -> None:
    errors = []
    for asked in ("on", "off"):
        result = in_new_process("tests.ggml.test_attention.error_of_one_token", engine_bin, TRIT_ATTENTION=asked)
        assert result.returncode == 0, result.stderr
        errors.append(float(result.stdout))
    ours, theirs = errors
    assert ours < 1e-5 < 1e-4 < theirs
