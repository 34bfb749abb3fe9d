# SPDX-License-Identifier: MIT
"""Ternary matrices and scales from stored bytes, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trit.base.errors import UserError
from trit.convert.ternary import Declared, check_left_out, check_shape, check_stored, read_ternary
from trit.models import checkpoint
from trit.models.checkpoint import StoredTensor

OFFLINE, MASTER = Declared(divides=False, master=False), Declared(divides=False, master=True)
DIVIDES = Declared(divides=True, master=False)


def tensor(folder: Path, values: Any, dtype: str = "F32", name: str = "w.weight") -> StoredTensor:
    data = np.asarray(values, {"F32": "<f4", "F16": "<f2", "U8": "u1"}[dtype])
    path = folder / f"{name}.safetensors"
    path.write_bytes(data.tobytes())
    return StoredTensor(name, path, 0, dtype, data.shape)


def scale(folder: Path, *values: float) -> StoredTensor:
    return tensor(folder, values, name="w.weight_scale")


@pytest.mark.parametrize(
    ("config", "master", "divides", "is_master"),
    [
        ({}, False, True, False),
        ({}, True, True, True),
        ({"quantization_config": None}, False, True, False),
        ({"quantization_config": {"linear_class": "autobitlinear"}}, False, False, False),
        ({"quantization_config": {"linear_class": "bitlinear", "quantization_mode": "online"}}, False, True, True),
        ({"quantization_config": {"quant_method": "bitnet", "quantization_mode": "offline"}}, False, True, False),
        ({"weight_bits": 1}, False, True, True),
        ({"weight_bits": 1, "input_bits": 8}, False, True, True),
        ({"input_bits": 4}, False, True, False),
    ],
)
def test_what_is_declared(config: dict[str, Any], master: bool, divides: bool, is_master: bool) -> None:
    assert Declared.from_config(config, master) == Declared(divides, is_master)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"weight_bits": 2}, "weight_bits 2 and input_bits 8; the ternary kernels compute 1 and 8"),
        ({"weight_bits": 1, "input_bits": 4}, "weight_bits 1 and input_bits 4"),
        ({"quantization_config": {"quant_method": "gptq"}}, "says gptq, bitlinear, offline; expected bitnet"),
        ({"quantization_config": {"linear_class": "linear"}}, "says bitnet, linear, offline"),
        ({"quantization_config": {"quantization_mode": "later"}}, "says bitnet, bitlinear, later"),
    ],
)
def test_what_is_declared_and_not_known(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Declared.from_config(config, True)


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("o_proj", True),
        ("model.layers.0", True),
        (r"model\.layers\.\d+\.mlp", False),
        (r"model\.layers\.\d+\.attn", True),
        ("model.layers.0.attn.o", False),
        ("layers.0", False),
        ("model.", True),
        ("lm_head", False),
        ("model.layers.1", False),
    ],
)
def test_layers_that_are_to_stay(pattern: str, left_out: bool) -> None:
    config = {"quantization_config": {"modules_to_not_convert": ["norm", pattern]}}
    name = "model.layers.0.attn.o_proj.weight"
    if left_out:
        with pytest.raises(UserError, match=r"modules_to_not_convert has .*, so model\.layers\.0\.attn\.o_proj is an"):
            check_left_out(config, ["other.weight", name])
    else:
        check_left_out(config, ["other.weight", name])
    for nothing in ({}, {"quantization_config": None}, {"quantization_config": {"modules_to_not_convert": None}}):
        check_left_out(nothing, [name])


def test_shapes_and_packed_weights_without_a_scale(tmp_path: Path) -> None:
    floats = tensor(tmp_path, np.ones((8, 3)))
    check_stored(floats, None, (8, 3), "config.json")
    told = r"^w\.weight: has shape \[8, 3\], config\.json asks for \[\d+, \d\]"
    for wrong, more in (((3, 8), "; it is stored transposed$"), ((32, 3), "$")):
        with pytest.raises(UserError, match=told + more):
            check_stored(floats, None, wrong, "config.json")
    packed = tensor(tmp_path, np.ones((2, 3)), "U8")
    one = scale(tmp_path, 1)
    check_stored(packed, one, (8, 3), "config.json")
    for wrong in ((2, 3), (9, 3), (10, 3), (8, 4), (12, 3)):
        with pytest.raises(UserError, match=r"^w\.weight: is packed with shape \[2, 3\], .* packed by 4 rows$"):
            check_stored(packed, one, wrong, "config.json")
    with pytest.raises(UserError, match=r"^w\.weight: is packed, but there is no w\.weight_scale$"):
        check_stored(packed, None, (8, 3), "config.json")
    with pytest.raises(UserError, match="asks for"):
        check_shape(floats, (8, 3, 1), "config.json")


# Byte i of a column holds rows i, 2 + i, 4 + i, 6 + i from the lowest bits up, as value + 1.
PACKED = [[0b_10_01_00_10, 0b_01_01_01_01], [0b_00_00_10_01, 0b_10_10_10_10]]
UNPACKED = [[1, 0], [0, 1], [-1, 0], [1, 1], [0, 0], [-1, 1], [1, 0], [-1, 1]]


@pytest.mark.parametrize(("declared", "expected"), [(OFFLINE, 4.0), (DIVIDES, 0.25), (MASTER, 4.0)])
def test_packed_weights(declared: Declared, expected: float, tmp_path: Path) -> None:
    ternary, found, kind = read_ternary(tensor(tmp_path, PACKED, "U8"), scale(tmp_path, 4), declared)
    assert ternary.dtype == np.int8 and ternary.tolist() == UNPACKED
    assert (found, kind) == (expected, "packed")


@pytest.mark.parametrize("shift", [0, 2, 4, 6])
def test_a_code_that_is_no_weight(shift: int, tmp_path: Path) -> None:
    spoiled = [[PACKED[0][0] | 3 << shift, PACKED[0][1]], PACKED[1]]
    with pytest.raises(UserError, match=r"^w\.weight: holds the 2-bit code 3"):
        read_ternary(tensor(tmp_path, spoiled, "U8"), scale(tmp_path, 1), OFFLINE)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, 1.0], r"has shape \[2\], expected one positive value"),
        ([], r"has shape \[0\]"),
        ([0.0], "is 0, expected one positive value"),
        ([-2.0], "is -2, expected one positive value"),
    ],
)
def test_scales_that_are_none(values: list[float], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^w\.weight_scale: {said}"):
        read_ternary(tensor(tmp_path, PACKED, "U8"), scale(tmp_path, *values), OFFLINE)


@pytest.mark.parametrize(
    ("stored", "declared", "expected"), [(None, OFFLINE, 0.5), (4.0, OFFLINE, 2.0), (4.0, DIVIDES, 0.125)]
)
def test_ternary_floats(stored: float | None, declared: Declared, expected: float, tmp_path: Path) -> None:
    values = [[0.5, 0.0, -0.5], [0.0, 0.0, 0.5]]
    weight_scale = None if stored is None else scale(tmp_path, stored)
    for dtype in ("F32", "F16"):
        ternary, found, kind = read_ternary(tensor(tmp_path, values, dtype), weight_scale, declared)
        assert ternary.tolist() == [[1, 0, -1], [0, 0, 1]] and (found, kind) == (expected, "ternary floats")
    ternary, found, _ = read_ternary(tensor(tmp_path, np.zeros((2, 3))), weight_scale, declared)
    assert not ternary.any() and found == 2 * expected


@pytest.mark.parametrize(
    ("group", "stored", "declared", "factor"),
    [(64, None, OFFLINE, 1), (128, 8.0, OFFLINE, 8), (64, 8.0, DIVIDES, 0.125)],
)
def test_ternary_floats_in_groups(
    group: int, stored: float | None, declared: Declared, factor: float, tmp_path: Path
) -> None:
    scales = np.arange(1, 1 + 2 * 256 // group, dtype=np.float32).reshape(2, -1) / 4
    signs = np.tile(np.array([1, 0, -1, 1], np.int8), (2, 64))
    weight = tensor(tmp_path, signs * scales.repeat(group, 1))
    weight_scale = None if stored is None else scale(tmp_path, stored)
    ternary, found, kind = read_ternary(weight, weight_scale, declared)
    assert kind == f"ternary floats in groups of {group}" and ternary.tolist() == signs.tolist()
    assert isinstance(found, np.ndarray) and found.tolist() == (scales * factor).tolist()


@pytest.mark.parametrize("chunk", [1 << 20, 2, 3])
def test_master_weights(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of |w| is 1; halves go to the even side, everything beyond one is cut."""
    monkeypatch.setattr(checkpoint, "CHUNK_VALUES", chunk)
    values = [[0.5, -0.5, 0.75], [-0.25, 3.0, -1.0]]
    ternary, found, kind = read_ternary(tensor(tmp_path, values), None, MASTER)
    assert ternary.tolist() == [[0, 0, 1], [0, 1, -1]] and (found, kind) == (1.0, "master")


def test_master_weights_near_nothing(tmp_path: Path) -> None:
    """The scale is at least 1e-5, so that weights of dead layers do not become noise."""
    ternary, found, _ = read_ternary(tensor(tmp_path, [[1e-7, -2e-6, 3e-7, 9e-6]]), None, MASTER)
    assert ternary.tolist() == [[0, 0, 0, 1]] and found == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.parametrize("chunk", [1 << 20, 2])
def test_ordinary_weights_are_refused(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHUNK_VALUES", chunk)
    weight = tensor(tmp_path, [[4.0, 0.5, -4.0], [0.0, -1.5, 3.5]])
    words = r"^w\.weight: is not ternary \(worst deviation 0\.375 of the largest weight 4, at \[1, 1\] = -1\.5\)"
    with pytest.raises(UserError, match=words) as caught:
        read_ternary(weight, None, OFFLINE)
    assert caught.value.flags == ("--master-weights",)
    with pytest.raises(UserError, match=r"^w\.weight: is declared a master weight, yet w\.weight_scale is there"):
        read_ternary(weight, scale(tmp_path, 1), MASTER)


def test_four_levels_are_named(tmp_path: Path) -> None:
    """+-a and +-3a of Tencent's 2-bit models, which are no masters either; a few such numbers say nothing."""
    values = np.random.default_rng(0).choice([-0.75, -0.25, 0.25, 0.75], (4, 128))
    with pytest.raises(UserError, match=r"holds four levels, .* of Tencent's 2-bit .* take the model's 1\.25-bit"):
        read_ternary(tensor(tmp_path, values), None, OFFLINE)
    assert read_ternary(tensor(tmp_path, values), None, MASTER)[2] == "master"
    with pytest.raises(UserError, match="is not ternary"):
        read_ternary(tensor(tmp_path, values[:, :32]), None, OFFLINE)
