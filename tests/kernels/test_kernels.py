# SPDX-License-Identifier: MIT
"""Every kernel tier against the scalar reference, and the reference against int64 arithmetic written from the spec.

Integers are compared for equality, never with a tolerance. The kernels are called through ctypes in libtrit.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiers import I2_S_FN, QUANTIZE_FN, SEED, TIERS, Tier, TierStruct, at_page_end

BLOCK = 128
# K of the published models (large, 3B's neighbours, 2B-4T, Llama3-8B, Falcon3) and the smallest ones.
WIDTHS = [128, 256, 384, 1024, 1152, 1536, 2048, 2560, 3072, 4096, 6912, 8192, 9216, 12288, 14336]


def pack(u: np.ndarray) -> np.ndarray:
    """Codes [n, k] to i2_s bytes, written from docs/formats.md and independent of trit.gguf.encodings."""
    blocks = u.astype(np.uint8).reshape(u.shape[0], -1, 4, 32)
    return (blocks[:, :, 0] << 6 | blocks[:, :, 1] << 4 | blocks[:, :, 2] << 2 | blocks[:, :, 3]).reshape(len(u), -1)


def activations(kind: str, m: int, k: int, rng: np.random.Generator) -> np.ndarray:
    q = np.zeros((m, k), dtype=np.int8)
    if kind == "random":
        q[:] = rng.integers(-128, 128, (m, k))
    elif kind == "highest":
        q[:] = 127
    elif kind == "lowest":
        q[:] = -128
    elif kind == "alternating":
        q[:, ::2], q[:, 1::2] = 127, -128
    elif kind == "one_hot":
        q[np.arange(m), rng.integers(0, k, m)] = 127
    return q


def weights(kind: str, n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "random":
        return rng.integers(0, 3, (n, k))
    return np.full((n, k), {"minus": 0, "zero": 1, "plus": 2, "invalid": 3}[kind])


@pytest.mark.parametrize("q_kind", ["random", "highest", "lowest", "alternating", "one_hot"])
@pytest.mark.parametrize("u_kind", ["random", "minus", "zero", "plus", "invalid"])
def test_sums_equal_int64_arithmetic_on_extreme_inputs(tier: Tier, q_kind: str, u_kind: str) -> None:
    rng = np.random.default_rng(SEED)
    for k in WIDTHS:
        u, q = weights(u_kind, 5, k, rng), activations(q_kind, 6, k, rng)
        np.testing.assert_array_equal(tier.i2_s(pack(u), q), q.astype(np.int64) @ u.T, err_msg=f"k={k}")


def test_no_int16_overflow_where_other_engines_have_one(tier: Tier) -> None:
    """microsoft/BitNet#629: 128 additions of up to 2 * 2 * 127 in int16 wrap for same-sign activations."""
    for k in (4096, 14336):
        u, q = np.full((1, k), 2), np.full((1, k), 127, dtype=np.int8)
        pairs = np.full(k // 32, 2 * 2 * 127, dtype=np.int16)  # what one 16-bit lane adds up
        assert pairs.sum(dtype=np.int16) != pairs.sum(dtype=np.int64)  # so 16 bits really are too few here
        assert tier.i2_s(pack(u), q).item() == 254 * k


@pytest.mark.parametrize("m", range(1, 34))
def test_every_row_and_token_tail(tier: Tier, scalar: Tier, m: int) -> None:
    rng = np.random.default_rng(SEED + m)
    k = 384
    u, q = rng.integers(0, 3, (17, k)), rng.integers(-128, 128, (m, k), dtype=np.int8)
    codes = pack(u)
    expected = scalar.i2_s(codes, q)
    np.testing.assert_array_equal(expected, q.astype(np.int64) @ u.T)
    for n in range(1, 18):
        np.testing.assert_array_equal(tier.i2_s(codes[:n], q), expected[:, :n], err_msg=f"n={n}")


def test_rows_may_lie_apart(tier: Tier, scalar: Tier) -> None:
    """Distances of rows and tokens that are not their lengths; what lies between must not be read as data."""
    rng = np.random.default_rng(SEED)
    n, m, k = 9, 7, 384
    codes, q = (
        rng.integers(0, 256, (n, k // 4 + 32), dtype=np.uint8),
        rng.integers(-128, 128, (m, k + 64), dtype=np.int8),
    )
    u = rng.integers(0, 3, (n, k))
    codes[:, : k // 4] = pack(u)
    c = np.zeros((m, n), dtype=np.int32)
    tier.struct.i2_s(k, codes.ctypes.data, codes.shape[1], n, q.ctypes.data, q.shape[1], m, c.ctypes.data, n)
    np.testing.assert_array_equal(c, q[:, :k].astype(np.int64) @ u.T)


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0), (4, 0), (0, 1)])
def test_nothing_to_do_writes_nothing(tier: Tier, n: int, m: int) -> None:
    codes, q, c = np.zeros((8, 32), dtype=np.uint8), np.zeros((8, 128), dtype=np.int8), np.full(64, 7, dtype=np.int32)
    tier.struct.i2_s(128, codes.ctypes.data, 32, n, q.ctypes.data, 128, m, c.ctypes.data, 8)
    assert (c == 7).all()


@pytest.mark.parametrize(("code", "value"), [(3, 127), (3, -128), (2, -128)])
def test_the_widest_matrix_of_the_contract(tier: Tier, code: int, value: int) -> None:
    k = 1 << 20
    codes, q = pack(np.full((1, k), code)), np.full((1, k), value, dtype=np.int8)
    assert tier.i2_s(codes, q).item() == code * value * k


def test_a_row_alone_equals_the_row_in_a_batch(tier: Tier) -> None:
    rng = np.random.default_rng(SEED)
    codes, q = pack(rng.integers(0, 3, (37, 2560))), rng.integers(-128, 128, (33, 2560), dtype=np.int8)
    batch = tier.i2_s(codes, q)
    for j in range(33):
        np.testing.assert_array_equal(tier.i2_s(codes, q[j : j + 1])[0], batch[j])
    for i in range(37):
        np.testing.assert_array_equal(tier.i2_s(codes[i : i + 1], q)[:, 0], batch[:, i])


@pytest.mark.parametrize("position", range(BLOCK))
def test_each_weight_meets_its_own_activation(tier: Tier, position: int) -> None:
    u = np.zeros((1, 256), dtype=np.uint8)
    u[0, 128 + position] = 2
    q = (np.arange(256) - 128).astype(np.int8).reshape(1, -1)
    assert tier.i2_s(pack(u), q).item() == 2 * int(q[0, 128 + position])


def test_every_byte_value_is_decoded(tier: Tier) -> None:
    rng = np.random.default_rng(SEED)
    q = rng.integers(-128, 128, (3, 128), dtype=np.int8)
    for byte in range(256):
        fields = [byte >> 6 & 3, byte >> 4 & 3, byte >> 2 & 3, byte & 3]
        u = np.repeat(fields, 32).reshape(1, 128)
        codes = np.full((1, 32), byte, dtype=np.uint8)
        np.testing.assert_array_equal(tier.i2_s(codes, q), q.astype(np.int64) @ u.T, err_msg=f"byte {byte}")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_shape(scalar: Tier, library: ctypes.CDLL, data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    k = BLOCK * data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    codes, q = pack(rng.integers(0, 3, (n, k))), rng.integers(-128, 128, (m, k), dtype=np.int8)
    expected = scalar.i2_s(codes, q)
    for name in TIERS:
        struct = library.trit_tier_by_name(name.encode()).contents
        if struct.supported():
            np.testing.assert_array_equal(Tier(struct).i2_s(codes, q), expected, err_msg=name)


@pytest.mark.skipif(os.name != "posix", reason="guard pages need mprotect")
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("k", [128, 384])
def test_nothing_is_read_past_the_end(tier: Tier, scalar: Tier, k: int, m: int) -> None:
    rng = np.random.default_rng(SEED)
    for n in (1, 4, 5):
        codes = at_page_end(pack(rng.integers(0, 3, (n, k))))
        q = at_page_end(rng.integers(-128, 128, (m, k), dtype=np.int8))
        np.testing.assert_array_equal(tier.i2_s(codes, q), scalar.i2_s(codes, q))
    x = at_page_end(rng.standard_normal(k).astype(np.float32))
    np.testing.assert_array_equal(tier.quantize(x)[0], scalar.quantize(x)[0])


def reference_quantize(x: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """The formula of the training code, in float32 as torch computes it (np.rint rounds half to even)."""
    scale = np.float32(127.0) / np.maximum(np.abs(x).max(), np.float32(1e-5))
    return np.clip(np.rint(x * scale), -128, 127).astype(np.int8), scale


@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e-6, 1e-5, 0.37, 1.0, 254.0, 1e10, 3e38])
def test_quantize_is_the_training_formula(tier: Tier, magnitude: float) -> None:
    rng = np.random.default_rng(SEED)
    for k in (32, 128, 2560, 6912):
        grid = rng.integers(-254, 255, k) / 254  # half of them lie between two integers
        for x in (rng.standard_normal(k) / 5, grid, -np.abs(grid)):
            x = (np.clip(x, -1, 1) * magnitude).astype(np.float32)
            q, scale, total = tier.quantize(x)
            expected, expected_scale = reference_quantize(x)
            assert scale.tobytes() == np.float32(expected_scale).tobytes()
            np.testing.assert_array_equal(q, expected)
            assert total == expected.astype(np.int64).sum()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_broken_activation_gives_nan_and_never_a_number(tier: Tier, bad: float) -> None:
    for place in (0, 31, 100, 127):
        x = np.ones(128, dtype=np.float32)
        x[place] = bad
        q, scale, total = tier.quantize(x)
        assert np.isnan(scale) and total == 0 and not q.any()


def test_quantize_rounds_half_to_even(tier: Tier) -> None:
    x = np.zeros(32, dtype=np.float32)
    x[:7] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]  # the scale is exactly 1
    assert tier.quantize(x)[0][:7].tolist() == [127, 0, 2, 2, 0, -2, -2]


def run_selftest(engine_bin: Path, **env: str) -> subprocess.CompletedProcess[str]:
    program = next(path for path in engine_bin.iterdir() if path.stem == "trit-selftest")
    return subprocess.run([program], env={**os.environ, **env}, capture_output=True, text=True, timeout=60)


def test_forced_tier_is_the_one_that_runs(native_tier: Tier, engine_bin: Path) -> None:
    name = native_tier.struct.name.decode()
    result = run_selftest(engine_bin, TRIT_TIER=name)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"chosen: {name}"


def test_the_best_tier_of_this_cpu_is_chosen(library: ctypes.CDLL, engine_bin: Path) -> None:
    structs = [library.trit_tier_by_name(name.encode()).contents for name in TIERS]
    best = max((struct for struct in structs if struct.supported()), key=lambda struct: struct.rank)
    for value in ("", None):
        env = {key: text for key, text in os.environ.items() if key != "TRIT_TIER"}
        if value is not None:
            env["TRIT_TIER"] = value
        program = next(path for path in engine_bin.iterdir() if path.stem == "trit-selftest")
        done = subprocess.run([program], env=env, capture_output=True, text=True, timeout=60)
        assert done.stdout.splitlines()[-1] == f"chosen: {best.name.decode()}"


def test_unknown_forced_tier_is_one_sentence_and_exit_code_2(engine_bin: Path) -> None:
    result = run_selftest(engine_bin, TRIT_TIER="avx9000")
    assert result.returncode == 2
    assert "TRIT_TIER=avx9000" in result.stderr and "scalar" in result.stderr


def selftest_message(library: ctypes.CDLL, tier: TierStruct) -> str:
    """What the self-test says against a tier; empty if it passes."""
    message = ctypes.create_string_buffer(256)
    library.trit_selftest.argtypes = [ctypes.POINTER(TierStruct), ctypes.c_char_p, ctypes.c_size_t]
    passed = library.trit_selftest(ctypes.byref(tier), message, 256)
    assert bool(passed) == (message.value == b"")
    return message.value.decode()


def variant(tier: Tier, **functions: object) -> TierStruct:
    """A copy of a tier's descriptor with other functions."""
    copy = TierStruct.from_buffer_copy(tier.struct)
    for name, function in functions.items():
        setattr(copy, name, function)
    return copy


@pytest.mark.parametrize("fault", ["one token", "fifteen tokens", "wide", "highest", "lowest", "past the end"])
def test_selftest_notices_a_wrong_product(library: ctypes.CDLL, scalar: Tier, fault: str) -> None:
    @I2_S_FN
    def wrong(k, w, w_row_bytes, n, q, q_row_bytes, m, c, c_stride):  # type: ignore[no-untyped-def]
        scalar.struct.i2_s(k, w, w_row_bytes, n, q, q_row_bytes, m, c, c_stride)
        first = ctypes.cast(q, ctypes.POINTER(ctypes.c_int8))[:32]
        applies = {
            "one token": m == 1,
            "fifteen tokens": m == 15,
            "wide": k > 4000,
            "highest": set(first) == {127},
            "lowest": set(first) == {-128},
            "past the end": True,
        }[fault]
        index = m * n if fault == "past the end" else (m - 1) * c_stride + n - 1
        ctypes.cast(c, ctypes.POINTER(ctypes.c_int))[index] += applies

    broken = variant(scalar, i2_s=wrong)
    message = selftest_message(library, broken)
    assert "i2_s" in message and "scalar reference" in message
    assert selftest_message(library, scalar.struct) == ""


@pytest.mark.parametrize("fault", ["value", "scale", "sum"])
def test_selftest_notices_a_wrong_quantisation(library: ctypes.CDLL, scalar: Tier, fault: str) -> None:
    @QUANTIZE_FN
    def wrong(k, x, q, scale, total):  # type: ignore[no-untyped-def]
        scalar.struct.quantize(k, x, q, scale, total)
        if fault == "value":
            ctypes.cast(q, ctypes.POINTER(ctypes.c_int8))[k - 1] ^= 1
        elif fault == "scale":
            ctypes.cast(scale, ctypes.POINTER(ctypes.c_int))[0] += 1
        else:
            total[0] += 1

    broken = variant(scalar, quantize=wrong)
    assert "quantize" in selftest_message(library, broken)
