# SPDX-License-Identifier: MIT
"""Panels: their bytes against the comment in src/kernels/panel.cpp, and every tier's kernels against numpy.

Integers are compared for equality; so are floats, whose every step is rounded as numpy rounds it.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.kernel_build import build_kernels, need
from tests.support.tiers import MAX_K, OVERREAD, PACKINGS, ROWS, SEED, TIERS, Tier, at_page_end, open_library

GROUP, CANARY = 16, 0x5EED5EED
INPUTS = {0: 16, 1: 20, 2: 32}  # of one step
EMULATED = ("avx_vnni", "avx512_amx")
CODES = {0: np.uint8([0, 1, 2, 3]), 1: np.uint8([0, 1, 2]), 2: np.uint8([0, 2])}
# Around the tiles of every tier (2 to 8 tokens, 16 and 32 of AMX), their rests, and more than one block of them.
TOKENS = [*range(1, 71), 96, 97, 129, 250]


def expected_bytes(packing: int, codes: np.ndarray) -> np.ndarray:
    """The panel as the comment in src/kernels/panel.cpp says it; what is missing has code 0."""
    rows, k = codes.shape
    step = INPUTS[packing]
    padded = np.zeros((ROWS, -(-k // step) * step), dtype=np.uint32)
    padded[:rows, :k] = codes
    if packing == 0:
        groups = padded.reshape(4, GROUP, -1, 4, 4)  # group, row, step, field, input
        order = groups.transpose(3, 2, 0, 1, 4)
        return sum(order[field] << 2 * field for field in range(4)).astype(np.uint8).ravel()
    if packing == 2:
        order = padded.reshape(4, GROUP, -1, 8, 4).transpose(3, 2, 0, 1, 4)
        return sum(order[field] // 2 << field for field in range(8)).astype(np.uint8).ravel()
    halves = padded.reshape(2, 2, GROUP, -1, 5, 4)  # half, group, row, step, field, input
    order = halves.transpose(4, 0, 3, 1, 2, 5)
    return sum(order[field] * 3**field for field in range(5)).astype(np.uint8).ravel()


def pack(library: ctypes.CDLL, packing: int, codes: np.ndarray, gap: int = 0) -> np.ndarray:
    """The library's panel, ending where memory ends. `gap`: bytes between the rows, of no legal code."""
    rows, k = codes.shape
    apart = np.full((rows, k + gap), 0xFF, dtype=np.uint8)
    apart[:, :k] = codes
    source = at_page_end(apart.ravel()[: rows * (k + gap) - gap])
    panel = at_page_end(np.full(library.trit_panel_bytes(packing, k), 0xA5, dtype=np.uint8))
    assert panel.ctypes.data % 64 == 0
    assert library.trit_panel_pack(packing, k, rows, source.ctypes.data, k + gap, panel.ctypes.data) == 1
    return panel


def tokens(values: np.ndarray, gap: int, fill: int) -> np.ndarray:
    """Activations [m, k] with `gap` bytes between tokens; exactly what may be read behind the last is readable."""
    m, k = values.shape
    memory = at_page_end(np.full((m - 1) * (k + gap) + k + OVERREAD, fill, dtype=np.int8))
    view = np.lib.stride_tricks.as_strided(memory, (m, k), (k + gap, 1))
    view[:] = values
    return view


def run(tier: Tier, packing: int, panel: np.ndarray, q: np.ndarray) -> np.ndarray:
    """int32 [m, 64]; the kernel may write nothing around it."""
    m, k = q.shape
    c = np.full(m * ROWS + 2 * ROWS, CANARY, dtype=np.int32)
    start = c[ROWS:].ctypes.data
    tier.struct.panel[packing](k, panel.ctypes.data, q.ctypes.data, q.strides[0], m, start)
    assert (c[:ROWS] == CANARY).all() and (c[-ROWS:] == CANARY).all(), "wrote beyond its results"
    return c[ROWS:-ROWS].reshape(m, ROWS)


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels with loops in place of AMX and AVX-VNNI."""
    need("c++")
    build = build_kernels(tmp_path_factory.mktemp("emulated"), None, "-DTRIT_EMULATE=ON", targets=("trit",))
    return open_library(build / "bin")


@pytest.fixture(scope="session", params=TIERS)
def tier(request: pytest.FixtureRequest, library: ctypes.CDLL) -> Tier:
    """As in conftest.py, but rather emulated than skipped."""
    name = request.param.encode()
    pointer = library.trit_tier_by_name(name)
    if not pointer.contents.supported() and request.param in EMULATED:
        pointer = request.getfixturevalue("emulated").trit_tier_by_name(name)
    if not pointer.contents.supported() and request.param.startswith("avx512"):
        pointer = open_library(request.getfixturevalue("emulated_avx512")).trit_tier_by_name(name)
    if not pointer.contents.supported():
        pytest.skip(f"this CPU cannot run tier {request.param} (needs {pointer.contents.features.decode()})")
    return Tier(pointer.contents)


@pytest.fixture(scope="session", params=PACKINGS.values(), ids=PACKINGS)
def packing(request: pytest.FixtureRequest, tier: Tier) -> int:
    """A packing that the tier has a kernel for."""
    if not tier.struct.panel[request.param]:
        pytest.skip(f"tier {tier.struct.name.decode()} has no kernel for this packing")
    return int(request.param)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(list(CODES)), st.integers(1, 200), st.integers(1, ROWS), st.integers(0, 40), st.integers(0, 2**32)
)
def test_bytes_are_those_of_the_comment(
    library: ctypes.CDLL, packing: int, k: int, rows: int, gap: int, seed: int
) -> None:
    codes = np.random.default_rng(seed).choice(CODES[packing], (rows, k))
    panel = pack(library, packing, codes, gap)
    assert panel.size % 64 == 0
    np.testing.assert_array_equal(panel, expected_bytes(packing, codes))


@pytest.mark.parametrize("k", [32, 50, 60])
def test_code_3_is_refused_among_five_trits_and_only_there(library: ctypes.CDLL, k: int) -> None:
    for row, place in [(0, 0), (0, k - 1), (31, 19), (32, k // 2), (63, 0), (63, k - 1)]:
        codes = np.full((ROWS, k), 2, dtype=np.uint8)
        codes[row, place] = 3
        panel = np.zeros(library.trit_panel_bytes(1, k), dtype=np.uint8)
        assert library.trit_panel_pack(1, k, ROWS, codes.ctypes.data, k, panel.ctypes.data) == 0
        np.testing.assert_array_equal(pack(library, 0, codes), expected_bytes(0, codes))


@pytest.mark.parametrize(("code", "taken"), [(0, 1), (1, 0), (2, 1), (3, 0)])
def test_one_bit_is_for_signs_alone(library: ctypes.CDLL, code: int, taken: int) -> None:
    for row, place in [(0, 0), (31, 40), (63, 63)]:
        codes = np.full((ROWS, 64), 2, dtype=np.uint8)
        codes[row, place] = code
        panel = np.zeros(library.trit_panel_bytes(2, 64), dtype=np.uint8)
        assert library.trit_panel_pack(2, 64, ROWS, codes.ctypes.data, 64, panel.ctypes.data) == taken


def test_every_weight_meets_its_own_activation(library: ctypes.CDLL, tier: Tier, packing: int) -> None:
    """Tokens that are one input each give back the codes; every value of a byte is among them."""
    k = 448
    codes = np.random.default_rng(SEED).choice(CODES[packing], (ROWS, k))
    panel = pack(library, packing, codes)
    assert np.unique(panel).size == (243 if packing == 1 else 256)
    for value in (-128, 127):
        q = tokens(np.eye(k, dtype=np.int8) * np.int8(value), 0, value)
        np.testing.assert_array_equal(run(tier, packing, panel, q), codes.T.astype(np.int64) * value)
        for place in range(0, k, 7):  # the path of one token is another one
            alone = tokens(q[place : place + 1], 0, value)
            np.testing.assert_array_equal(run(tier, packing, panel, alone)[0], codes[:, place].astype(np.int64) * value)


KINDS = ["random", "highest", "lowest", "alternating"]


def activations(kind: str, m: int, k: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "random":
        return rng.integers(-128, 128, (m, k), dtype=np.int8)
    even, odd = {"highest": (127, 127), "lowest": (-128, -128), "alternating": (127, -128)}[kind]
    return np.tile(np.array([even, odd], dtype=np.int8), (m, k // 2))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_sums_equal_int64_arithmetic(library: ctypes.CDLL, tier: Tier, packing: int, data: st.DataObject) -> None:
    k, m = 32 * data.draw(st.integers(1, 40), "k / 32"), data.draw(st.sampled_from(TOKENS), "m")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    most = data.draw(st.booleans(), "largest code only")
    codes = rng.choice(CODES[packing][-1:] if most else CODES[packing], (ROWS, k))
    values = activations(data.draw(st.sampled_from(KINDS), "activations"), m, k, rng)
    q = tokens(values, data.draw(st.integers(0, 70), "gap"), data.draw(st.sampled_from([-128, -1, 0, 127]), "fill"))
    sums = run(tier, packing, pack(library, packing, codes), q)
    np.testing.assert_array_equal(sums, values.astype(np.int64) @ codes.T)


@pytest.mark.parametrize("k", [32, 96, 352, 704])
def test_every_number_of_tokens(library: ctypes.CDLL, tier: Tier, packing: int, k: int) -> None:
    rng = np.random.default_rng(SEED + k)
    codes = rng.choice(CODES[packing], (ROWS, k))
    panel, values = pack(library, packing, codes), activations("random", max(TOKENS), k, rng)
    sums = values.astype(np.int64) @ codes.T
    for m in TOKENS:
        np.testing.assert_array_equal(run(tier, packing, panel, tokens(values[-m:], 5, -128)), sums[-m:], f"m={m}")


def test_a_token_alone_equals_the_token_in_a_batch(library: ctypes.CDLL, tier: Tier, packing: int) -> None:
    rng = np.random.default_rng(SEED)
    k, m = 672, 70
    panel = pack(library, packing, rng.choice(CODES[packing], (ROWS, k)))
    q = tokens(activations("random", m, k, rng), 0, 0)
    batch = run(tier, packing, panel, q)
    for j in range(m):
        np.testing.assert_array_equal(run(tier, packing, panel, q[j : j + 1])[0], batch[j])
        np.testing.assert_array_equal(run(tier, packing, panel, q[j:]), batch[j:])


def test_no_tokens_write_nothing(library: ctypes.CDLL, tier: Tier, packing: int) -> None:
    panel = pack(library, packing, np.zeros((ROWS, 64), dtype=np.uint8))
    c, q = np.full(ROWS, CANARY, dtype=np.int32), np.zeros(64 + OVERREAD, dtype=np.int8)
    tier.struct.panel[packing](64, panel.ctypes.data, q.ctypes.data, 64, 0, c.ctypes.data)
    assert (c == CANARY).all()


@pytest.mark.parametrize("kind", ["highest", "lowest", "random"])
def test_the_widest_matrix_of_the_contract(library: ctypes.CDLL, tier: Tier, packing: int, kind: str) -> None:
    """Largest codes and activations of one sign: lanes that hold a code's upper field count it up to 64 times."""
    rng = np.random.default_rng(SEED)
    codes = rng.choice(CODES[packing] if kind == "random" else CODES[packing][-1:], (ROWS, MAX_K))
    panel = pack(library, packing, codes)
    most = activations(kind, 34, MAX_K, rng)
    # Exact: every sum is below 2^53.
    sums = most.astype(np.float64) @ codes.T.astype(np.float64)
    for m in (1, 2, 3, 6, 7, 34):
        if tier.struct.name == b"scalar" and m > 3:  # seconds, and its loop is one for any m
            continue
        np.testing.assert_array_equal(run(tier, packing, panel, tokens(most[:m], 0, -128)), sums[:m])


def same_bits(actual: np.ndarray, expected: np.ndarray, message: str = "") -> None:
    """Signs of zeros count; a NaN is a NaN."""
    np.testing.assert_array_equal(actual, expected, err_msg=message)
    np.testing.assert_array_equal(np.signbit(actual[expected == 0]), np.signbit(expected[expected == 0]), message)


SCALES = [1.0, 3.7, 1e-5, 12.7e6, 1e30, float("nan")]


@pytest.mark.parametrize("act_scale", SCALES)
@pytest.mark.parametrize("w_step", [0, 1])
def test_finish_rounds_every_step(tier: Tier, w_step: int, act_scale: float) -> None:
    rng = np.random.default_rng(SEED)
    differs = 0
    for n in range(1, ROWS + 1):
        for limit, act_sum in [(1 << 24, 0), (40000, -4711), (1 << 30, 77)]:
            c = at_page_end(rng.integers(-limit, limit, ROWS, dtype=np.int32))
            c[n // 2] = act_sum  # zero, whose sign is the weight scale's
            w = at_page_end(rng.standard_normal(n if w_step else 1).astype(np.float32))
            out = at_page_end(np.full(n, CANARY, dtype=np.float32))
            tier.struct.finish(n, c.ctypes.data, act_sum, act_scale, w.ctypes.data, w_step, out.ctypes.data)
            value = (c[:n] - np.int32(act_sum)).astype(np.float32)
            expected = value / np.float32(act_scale) * w
            same_bits(out, expected, f"n={n}")
            # Another order of the same formula: other bits, or this test compares nothing.
            differs += int((expected != value * (w / np.float32(act_scale))).sum())
    assert differs > 500 or act_scale != 3.7


def test_finish_writes_its_rows_only_and_needs_no_alignment(tier: Tier) -> None:
    c, w = np.arange(ROWS, dtype=np.int32), np.full(ROWS, 2, dtype=np.float32)
    for n in range(1, ROWS + 1):
        for offset in range(4, 8):
            out = np.full(ROWS + 16, CANARY, dtype=np.float32)
            at = out.ctypes.data + 4 * offset
            tier.struct.finish(n, c.ctypes.data, 0, 1.0, w.ctypes.data, 1, at)
            np.testing.assert_array_equal(out[offset : offset + n], 2.0 * np.arange(n))
            assert (out[:offset] == np.float32(CANARY)).all() and (out[offset + n :] == np.float32(CANARY)).all()


@pytest.mark.parametrize("act_step", [1.0, 0.37, 1e-5, 1e30, float("nan")])
def test_accumulate_rounds_every_step(tier: Tier, act_step: float) -> None:
    """Every half-precision scale: subnormal, infinite and not a number too."""
    rng = np.random.default_rng(SEED)
    fused_differs = 0
    for first in range(0, 1 << 16, ROWS):
        half = at_page_end(np.arange(first, first + ROWS, dtype=np.uint16))
        act_sum = int(rng.integers(-5000, 5000))
        c = at_page_end(rng.integers(-(1 << 20), 1 << 20, ROWS, dtype=np.int32))
        before = (rng.standard_normal(ROWS) * 1e4).astype(np.float32)
        acc = at_page_end(before)
        tier.struct.accumulate(c.ctypes.data, act_sum, act_step, half.ctypes.data, acc.ctypes.data)
        with np.errstate(all="ignore"):
            value = (c - np.int32(act_sum)).astype(np.float32) * np.float32(act_step)
            w = half.view(np.float16).astype(np.float32)
            expected = before + value * w
            fused = (before.astype(np.float64) + value.astype(np.float64) * w.astype(np.float64)).astype(np.float32)
        same_bits(acc, expected, f"halves from {first:#x}")
        fused_differs += int((fused != expected)[~np.isnan(expected)].sum())
    assert fused_differs > 1000 or act_step != 0.37
