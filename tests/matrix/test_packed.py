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

from tests.support.guarded_ggml import in_new_process, same_bits
from tests.support.packed_weights import PackedGgml, Weights, activations, row_of
from tests.support.tiers import SEED, Tier, TierStruct
from trit.gguf.encoding_table import OURS, SCALE_AT, SIGNS
from trit.gguf.encodings import ENCODINGS

F32, F16, Q8_0, I32 = 0, 1, 8, 26
NAMES = [*OURS, *SCALE_AT]
# Encoding and what its scales are: the same for the whole tensor, or different ones.
KINDS = [(name, "one") for name in NAMES] + [(name, "many") for name in SCALE_AT]
# The same along a row, or in pairs of blocks: groups in both cases.
ALIKE = [("tq2_0", "rows"), ("q2_0", "rows"), ("q2_0", "pairs")]
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
@pytest.mark.parametrize(("name", "scales"), KINDS + ALIKE)
def test_one_matrix(ggml: PackedGgml, name: str, scales: str, n: int, blocks: int) -> None:
    """An odd number of blocks leaves a last group of half the size."""
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
    assert weights.per_token
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

    grid = weights.scales if weights.one_scale else wide(weights.scales)
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


@pytest.mark.parametrize(
    ("name", "scales"), [("tl1", "one"), ("q2_0", "one"), ("q2_0", "many"), ("q2_0", "pairs"), ("q2_0", "rows")]
)
def test_inputs_that_are_no_multiple_of_128(ggml: PackedGgml, name: str, scales: str) -> None:
    """Hidden sizes such as 576 of SmolLM: what is missing in a step of panels has no weight."""
    for k in (576, 1216):
        check_matrix(ggml, Weights.random(name, scales, 100, k), [1, 7, 40], [1, 2])


@pytest.mark.parametrize("scales", ["one", "many", "rows"])
def test_signs_alone(ggml: PackedGgml, scales: str) -> None:
    """Panels of one bit."""
    for n, k in ((33, 256), (130, 896)):
        check_matrix(ggml, Weights.random(SIGNS.name, scales, n, k), [1, 2, 5, 33, 241], [1, 3])


def test_a_block_of_signs_with_scale_zero_keeps_its_own(ggml: PackedGgml) -> None:
    """No code of one bit stands for 0, so it goes with no other scale."""
    for zeros in ((0, 0), (5, 1), (69, 3)):
        weights = Weights.random(SIGNS.name, "many", 70, 512)
        weights.scales[:] = 0.75
        weights.scales[zeros] = 0
        x = activations(2, 512)
        out = ggml.compute(ggml.mul_mat(ggml.packed(weights), x), (2, 70), 2)
        assert (np.abs(out - x @ weights.real().T) <= np.abs(x).max() / 254 * np.abs(weights.real()).sum(axis=-1)).all()


@pytest.mark.parametrize("packing", ["5_trits", "tl2"])
def test_a_packing_that_is_asked_for(engine_bin: Path, native_tier: Tier, packing: str) -> None:
    """Of what may hold +2, too; data that do hold one, and scales of small groups, get 2 bits."""
    env = {"TRIT_TIER": native_tier.struct.name.decode(), "TRIT_PACKING": packing}
    result = in_new_process("tests.matrix.test_packed.multiply_packed", engine_bin, **env)
    if f"TRIT_PACKING={packing}: no kernel" in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr


def multiply_packed(engine_bin: str) -> None:
    for name, scales in [("q2_0", "one"), ("tq1_0", "many"), *ALIKE]:
        for largest in (1, 2) if name == "q2_0" else (1,):
            ggml = PackedGgml(Path(engine_bin))
            weights = Weights.random(name, scales, 70, 9 * ENCODINGS[name].block)
            np.minimum(weights.values, largest, out=weights.values)
            check_matrix(ggml, weights, [1, 2, 9, 40], [2])
            ggml.close()


def routed(weights: Weights, x: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """[tokens, slots, n]: slot s of a token is the product with expert ids[token, s]."""
    tokens, slots = ids.shape
    out = np.empty((tokens, slots, weights.values.shape[-2]), dtype=np.float32)
    every = np.broadcast_to(x, (tokens, slots, x.shape[-1]))
    for e in range(len(weights.values)):
        grid = weights.scales if weights.one_scale else weights.scales[e]
        out[ids == e] = Weights(weights.name, weights.values[e], grid).times(every[ids == e])
    return out


@pytest.mark.parametrize("shared", [True, False], ids=["one activation row", "a row for each slot"])
@pytest.mark.parametrize(("experts", "slots", "tokens"), [(1, 1, 1), (4, 2, 1), (8, 3, 7), (3, 3, 40), (2, 1, 600)])
@pytest.mark.parametrize(("name", "scales"), [*KINDS, *ALIKE, ("q2_0", "matrices"), ("tq2_0", "matrices")])
def test_experts(ggml: PackedGgml, name: str, scales: str, experts: int, slots: int, tokens: int, shared: bool) -> None:
    n, k = 70, 2 * ENCODINGS[name].block
    weights = Weights.random(name, scales, experts, n, k)
    x = activations(tokens, 1 if shared else slots, k)
    # Unevenly: the first expert has most tokens of a large batch, some experts have none.
    ranks = np.random.default_rng(SEED).exponential(size=(tokens, experts)) * np.arange(1, experts + 1)
    ids = np.argsort(ranks, axis=1)[:, :slots].astype(np.int32)
    a, i = ggml.tensor(F32, *x.shape[::-1]), ggml.tensor(I32, slots, tokens)
    ggml.write(a, x)
    ggml.write(i, ids)
    node = ggml.call("ggml_mul_mat_id", ggml.packed(weights), a, i)
    assert ggml.supports(node)
    expected = routed(weights, x, ids)
    for threads in THREADS:
        same_bits(ggml.compute(node, expected.shape, threads), expected, f"{threads} threads")


def test_neighbours_in_one_buffer(ggml: PackedGgml) -> None:
    """As the loader has them: packing one tensor must leave those before and behind it alone."""
    every = [Weights.random(name, scales, 32 + 7 * i, 1024) for i, (name, scales) in enumerate(KINDS + ALIKE)]
    tensors = ggml.in_one_buffer([(ENCODINGS[w.name].ggml_type, *w.values.shape[::-1]) for w in every])
    for order in (1, -1):
        for weights, w in list(zip(every, tensors, strict=True))[::order]:
            ggml.set(w, weights.data())
        for weights, w in zip(every, tensors, strict=True):
            x = activations(2, 1024)
            same_bits(ggml.compute(ggml.mul_mat(w, x), (2, len(weights.values)), 2), weights.times(x), weights.name)


@pytest.mark.parametrize("spoil", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "scales"), KINDS)
def test_a_broken_token_gives_nan_and_spares_the_others(ggml: PackedGgml, name: str, scales: str, spoil: float) -> None:
    k = 4 * ENCODINGS[name].block
    weights, x = Weights.random(name, scales, 70, k), activations(5, k)
    w, whole = ggml.packed(weights), weights.times(x)
    x[3, k // 2] = spoil
    out = ggml.compute(ggml.mul_mat(w, x), (5, 70), 2)
    assert np.isnan(out[3]).all()
    same_bits(out[[0, 1, 2, 4]], whole[[0, 1, 2, 4]])
    assert np.isnan(ggml.compute(ggml.mul_mat(w, x[3:4]), (1, 70), 3)).all(), "a token alone takes another way"


def test_what_is_not_supported_is_refused(ggml: PackedGgml) -> None:
    i2_s, q2_0 = ENCODINGS["i2_s"].ggml_type, ENCODINGS["q2_0"].ggml_type
    x, ids = ggml.tensor(F32, 256, 3), ggml.tensor(I32, 3)
    w = ggml.in_buffer(i2_s, 256, 64)
    assert ggml.supports(ggml.call("ggml_mul_mat", w, x))
    size, row = ctypes.c_int64, ctypes.c_size_t(64)
    view = ggml.call("ggml_view_2d", w, size(256), size(32), row, ctypes.c_size_t(32 * 64))
    swapped_axes = map(ctypes.c_int, (0, 2, 1, 3))
    cube, row_ids = ggml.in_buffer(i2_s, 256, 64, 4), ggml.tensor(I32, 2, 3)
    swapped = ggml.call("ggml_permute", cube, *swapped_axes)
    for part in (view, swapped):  # what the engine does before it asks
        ggml.base("ggml_backend_view_init", part)
    refused = {
        "31 rows": ggml.call("ggml_mul_mat", ggml.in_buffer(i2_s, 256, 31), x),
        "activations in f16": ggml.call("ggml_mul_mat", w, ggml.tensor(F16, 256, 3)),
        "activations in our buffer": ggml.call("ggml_mul_mat", w, ggml.in_buffer(F32, 256, 3)),
        "weights in f16": ggml.call("ggml_mul_mat", ggml.in_buffer(F16, 256, 64), x),
        "weights in q8_0": ggml.call("ggml_mul_mat", ggml.in_buffer(Q8_0, 256, 64), x),
        "a view": ggml.call("ggml_mul_mat", view, x),
        "matrices swapped": ggml.call("ggml_mul_mat", swapped, ggml.tensor(F32, 256, 3, 64)),
        "rows": ggml.call("ggml_get_rows", w, ids),
        "a copy": ggml.call("ggml_cpy", w, ggml.tensor(F32, 256, 64)),
        "too wide": ggml.call(
            "ggml_mul_mat", ggml.in_buffer(q2_0, (1 << 18) + 64, 32), ggml.tensor(F32, (1 << 18) + 64, 1)
        ),
        "experts of f16": ggml.call(
            "ggml_mul_mat_id", ggml.in_buffer(F16, 256, 64, 4), ggml.tensor(F32, 256, 1, 3), row_ids
        ),
    }
    assert [what for what, op in refused.items() if ggml.supports(op)] == []
    assert ggml.supports(ggml.call("ggml_mul_mat_id", cube, ggml.tensor(F32, 256, 1, 3), row_ids))


def pack_damaged(engine_bin: str, name: str, scales: str, damage: str) -> None:
    weights = Weights.random(name, scales, 70, 1024)
    data = weights.data()
    blocks = data[: 70 * 1024 // ENCODINGS[name].block * ENCODINGS[name].block_bytes].reshape(70, -1)
    if damage == "code":
        blocks[69, 33] |= 0b11110000 if name in ("tl1", "tl2") else 0b00110000
    elif name in OURS:
        data[-ENCODINGS[name].tail_bytes :][:4] = np.float32(damage).reshape(1).view(np.uint8)
    else:
        blocks = blocks.reshape(-1, ENCODINGS[name].block_bytes)
        where = blocks if scales == "one" else blocks[100:101]
        where[:, SCALE_AT[name] :][:, :2] = np.float16(damage).reshape(1).view(np.uint8)
    ggml = PackedGgml(Path(engine_bin))
    ggml.set(ggml.in_buffer(ENCODINGS[name].ggml_type, 1024, 70, name="blk.7.ffn_down.weight"), data)
    print("packed")


@pytest.mark.parametrize(
    ("name", "scales", "damage"),
    [(name, scales, damage) for name, scales in KINDS for damage in ("nan", "inf", "-inf", "-0.5")]
    + [(name, "one", "code") for name in OURS]
    + [("tq2_0", "one", "code"), ("tq2_0", "many", "code")],
)
def test_damage_is_one_sentence(engine_bin: Path, name: str, scales: str, damage: str) -> None:
    result = in_new_process("tests.matrix.test_packed.pack_damaged", engine_bin, name, scales, damage)
    fault = "holds a code that stands for no weight" if damage == "code" else "has a scale below 0 or no number"
    advice = "the file is damaged; convert or download it again"
    assert result.stderr == f"error: the {name} tensor blk.7.ffn_down.weight {fault}: {advice}\n"
    assert result.returncode == 2 and result.stdout == ""


def test_what_is_sound_packs_in_a_new_process(engine_bin: Path) -> None:
    """So that the test above sees the damage and not another failure."""
    result = in_new_process("tests.matrix.test_packed.pack_damaged", engine_bin, "q2_0", "many", "1.5")
    assert result.returncode == 0 and result.stdout == "packed\n", result.stderr


def read_wrongly(engine_bin: str, name: str, way: str) -> None:
    ggml = PackedGgml(Path(engine_bin))
    k = 2 * ENCODINGS[name].block
    w = ggml.packed(Weights.random(name, "one", 128, k), name="blk.3.attn_q.weight")
    if way == "view":
        size, row = ctypes.c_int64, ENCODINGS[name].nbytes(1, k) - ENCODINGS[name].tail_bytes
        w = ggml.call("ggml_view_2d", w, size(k), size(64), ctypes.c_size_t(row), ctypes.c_size_t(64 * row))
        node = ggml.mul_mat(w, activations(2, k))
    else:
        ids = ggml.tensor(I32, 2)
        ggml.write(ids, np.array([1, 5], dtype=np.int32))
        node = ggml.call("ggml_get_rows", w, ids)
    print(ggml.compute(node, (2, 64 if way == "view" else k), 1))


@pytest.mark.parametrize("name", NAMES)
def test_view(engine_bin: Path, name: str) -> None:
    """Panels have no rows that a view could point at: better no result than one of wrong bytes."""
    result = in_new_process("tests.matrix.test_packed.read_wrongly", engine_bin, name, "view")
    assert result.returncode != 0 and result.stdout == ""
    said = [line for line in result.stderr.splitlines() if "trit: MUL_MAT" in line]
    assert said, result.stderr
    assert all("a view of the packed tensor blk.3.attn_q.weight, is not supported" in line for line in said)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_packed_weight(engine_bin: Path, name: str) -> None:
    result = in_new_process("tests.matrix.test_packed.read_wrongly", engine_bin, name, "rows")
    assert result.returncode != 0 and result.stdout == ""
    assert f"trit: GET_ROWS of the {name} tensor blk.3.attn_q.weight is not supported" in result.stderr


def multiply_everything(engine_bin: str) -> None:
    for name, scales in [*KINDS, *ALIKE, (SIGNS.name, "many")]:
        for n, blocks in SIZES[::2]:
            ggml = PackedGgml(Path(engine_bin))
            check_matrix(ggml, Weights.random(name, scales, n, blocks * row_of(name).block), [1, 2, 33], [2])
            ggml.close()
    # Rows and tokens enough for tables over tokens.
    for name, scales in (("i2_s", "one"), ("tq2_0", "rows"), (SIGNS.name, "one"), (SIGNS.name, "rows")):
        ggml = PackedGgml(Path(engine_bin))
        check_matrix(ggml, Weights.random(name, scales, 450, 512), [40], [1])
        ggml.close()
    print(ctypes.cast(ggml.chosen_tier(), ctypes.POINTER(TierStruct)).contents.name.decode())


def test_every_tier(native_tier: Tier, engine_bin: Path) -> None:
    """A process has one tier, so each runs in its own."""
    name = native_tier.struct.name.decode()
    result = in_new_process("tests.matrix.test_packed.multiply_everything", engine_bin, TRIT_TIER=name)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{name}\n"
