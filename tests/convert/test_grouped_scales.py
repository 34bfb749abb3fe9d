# SPDX-License-Identifier: MIT
"""Ternary matrices with a scale for every group of inputs: found in floats, packed, read back, refused."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.support.checkpoints import refusal
from tests.support.tiny_checkpoints import qwen3
from tests.support.tiny_checkpoints.linear_layers import GROUPED
from trit.base.errors import TritError, UserError
from trit.convert.from_checkpoint import Options, convert
from trit.convert.ternary import Declared, read_ternary
from trit.gguf.encodings import ENCODINGS, check_scale, same_values, spread_scale
from trit.gguf.types import read_header
from trit.models.checkpoint import Checkpoint, StoredTensor

NOTHING = Declared(divides=False, master=False)
# Encoding, inputs that share a scale; 0: a row.
CASES = [
    ("q2_0", 64),
    ("q2_0", 128),
    ("q2_0", 256),
    ("q2_0", 0),
    ("tq2_0", 256),
    ("tq1_0", 256),
    ("f16", 64),
    ("f16", 128),
    ("f32", 128),
    ("f32", 0),
]


def matrix(n: int, k: int, group: int, seed: int, zeros: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Random int8 [n, k] and scales [n, k / group] that are exact in float16; some groups are all zeros."""
    rng = np.random.default_rng(seed)
    ternary = rng.choice(np.array([-1, 0, 1], np.int8), (n, k), p=[(1 - zeros) / 2, zeros, (1 - zeros) / 2])
    ternary.reshape(-1, group)[rng.random(n * k // group) < 0.1] = 0
    scales = rng.uniform(0.001, 2, (n, k // group)).astype(np.float16).astype(np.float32)
    return ternary, scales


@pytest.mark.parametrize(("name", "group"), CASES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5), zeros=st.sampled_from([0.0, 0.3, 1.0]))
def test_round_trip(name: str, group: int, seed: int, n: int, zeros: float) -> None:
    k, row = 512, ENCODINGS[name]
    ternary, scales = matrix(n, k, group or k, seed, zeros)
    assert check_scale(row, "w", scales, k) == 0
    packed = row.pack(ternary, scales)
    assert packed.shape == (row.nbytes(n, k),)
    unpacked, scale = row.unpack(packed, n, k, "w")
    np.testing.assert_array_equal(unpacked, ternary)
    assert same_values(ternary, scale, scales)
    np.testing.assert_array_equal(
        unpacked * spread_scale(scale, n, k, 64).repeat(64, 1), ternary * scales.repeat(k // scales.shape[1], 1)
    )


@pytest.mark.parametrize("name", ["tq2_0", "tq1_0"])
def test_gguf_py_decodes_the_same_values(name: str) -> None:
    ternary, scales = matrix(7, 1024, 256, 3)
    packed = ENCODINGS[name].pack(ternary, scales).reshape(7, -1)
    decoded = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[name.upper()])
    np.testing.assert_array_equal(decoded, ternary * scales.repeat(256, axis=1))


def test_q2_0_blocks_of_a_group_share_its_scale() -> None:
    """Bytes as documented: float16 scale, then four weights a byte, lowest bits first, as value + 1."""
    ternary = np.zeros((1, 256), np.int8)
    ternary[0, [0, 5, 255]] = [1, -1, 1]
    blocks = ENCODINGS["q2_0"].pack(ternary, np.array([[0.5, 0.25]], np.float32)).reshape(4, 18)
    assert blocks[:, :2].copy().view("<f2")[:, 0].tolist() == [0.5, 0.5, 0.25, 0.25]
    assert blocks[0, 2:5].tolist() == [0b01_01_01_10, 0b01_01_00_01, 0b01_01_01_01] and blocks[3, 17] == 0b10_01_01_01


def stored(values: torch.Tensor, directory: Path) -> StoredTensor:
    save_file({"w": values.contiguous()}, directory / "model.safetensors")
    (directory / "config.json").write_text("{}")
    return Checkpoint.open(directory).tensors["w"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("group", [64, 128, 256, 512])
def test_groups_are_found_in_floats(
    group: int, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trit.models.checkpoint.CHUNK_VALUES", 1500)  # two rows at a time
    ternary, scales = matrix(9, 512, group, 1)
    scales = torch.from_numpy(scales).to(dtype).float().numpy()
    values = torch.from_numpy(ternary * scales.repeat(group, axis=1)).to(dtype)
    found, scale, kind = read_ternary(stored(values, tmp_path), None, NOTHING)
    np.testing.assert_array_equal(found, ternary)
    assert kind == f"ternary floats in groups of {group}" and same_values(ternary, scale, scales)


@pytest.mark.parametrize(
    ("shards", "by_rows", "group", "outtypes"),
    [
        (6, True, 1536, ("q2_0", "tq2_0", "tq1_0", "f16")),  # of the outputs: every row has its shard's
        (6, False, 256, ("q2_0", "tq2_0", "tq1_0", "f16")),  # of the inputs
        (3, False, 256, ("q2_0", "tq2_0", "f32")),
        (12, False, 128, ("q2_0", "f16")),
        (8, False, 64, ("q2_0", "f16")),
    ],
)
def test_a_scale_for_each_shard_of_a_split_matrix(
    shards: int, by_rows: bool, group: int, outtypes: tuple[str, ...], tmp_path: Path
) -> None:
    """TriLM's: trained on several devices, each with a part of the rows or of the columns and a scale of its own."""
    n, k = 24, 1536
    rng = np.random.default_rng(shards)
    ternary = rng.integers(-1, 2, (n, k)).astype(np.int8)
    scales = rng.uniform(0.01, 0.1, shards).astype(np.float16).astype(np.float32)
    factors = scales.repeat(n // shards)[:, None] if by_rows else scales.repeat(k // shards)
    wanted = (ternary * factors).astype(np.float16)
    found, scale, kind = read_ternary(stored(torch.from_numpy(wanted), tmp_path), None, NOTHING)
    assert kind == f"ternary floats in groups of {group}"
    for name in outtypes:
        row = ENCODINGS[name]
        assert check_scale(row, "w", scale, k) == 0
        values, held = row.unpack(row.pack(found, scale), n, k, "w")
        held_by_64 = spread_scale(held, n, k, 64).repeat(64, axis=1)
        np.testing.assert_array_equal(values * held_by_64, wanted.astype(np.float32))


def test_a_scale_beside_groups_multiplies_them(tmp_path: Path) -> None:
    ternary, scales = matrix(4, 256, 128, 2)
    values = torch.from_numpy(ternary * scales.repeat(128, axis=1))
    save_file({"w": values, "s": torch.tensor([4.0])}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    tensors = Checkpoint.open(tmp_path).tensors
    for divides, factor in ((False, 4.0), (True, 0.25)):
        _, scale, _ = read_ternary(tensors["w"], tensors["s"], Declared(divides=divides, master=False))
        assert same_values(ternary, scale, scales * np.float32(factor))


def test_one_value_too_many_is_no_group(tmp_path: Path) -> None:
    ternary, scales = matrix(4, 256, 128, 2, zeros=0.0)
    values = torch.from_numpy(ternary * scales.repeat(128, axis=1))
    values[3, 200] *= 0.999
    with pytest.raises(UserError, match=r"^w: is not ternary"):
        read_ternary(stored(values, tmp_path), None, NOTHING)


def test_encodings_without_room_are_refused_with_a_way_out() -> None:
    scales = np.full((2, 4), 0.5, np.float32)
    ways_out = "use --outtype q2_0 or f16 or f32"
    with pytest.raises(UserError, match=rf"^w: has a scale for every 128 inputs, i2_s holds one .*; {ways_out}$"):
        check_scale(ENCODINGS["i2_s"], "w", scales, 512)
    with pytest.raises(
        UserError, match=rf"^w: has a scale for every 128 inputs, tq2_0 holds one for 256 .*{ways_out}$"
    ):
        check_scale(ENCODINGS["tq2_0"], "w", scales, 512)
    ways_out = "use --outtype tq2_0 or tq1_0 or q2_0 or f16 or f32"
    with pytest.raises(UserError, match=rf"^w: has a scale for every 256 inputs, i2_s .*; {ways_out}$"):
        check_scale(ENCODINGS["i2_s"], "w", scales, 1024)


def test_rounding_of_scales_is_measured_and_has_a_bound() -> None:
    scales = np.array([[0.1, 0.0], [1 / 3, 2.0]], np.float32)
    wanted = max(abs(np.float32(np.float16(s)) / s - 1) for s in scales.flat if s)
    assert check_scale(ENCODINGS["q2_0"], "w", scales, 256) == pytest.approx(wanted, rel=1e-3)
    assert 0 < wanted < 5e-4
    scales[1, 0] = 1e-7  # a subnormal float16 number with one digit
    with pytest.raises(UserError, match=r"^w: its scale 1e-07 becomes 1.19\d*e-07 in q2_0; use --outtype f32$"):
        check_scale(ENCODINGS["q2_0"], "w", scales, 256)
    for scale, fits in ((9.9965e-6, False), (1e-4 * 1.0005, True)):
        # Subnormal too, steps of 6e-8: 0.2 % off half-way between two, 0.03 % at most ten times higher up.
        error = abs(np.float32(np.float16(scale)) / scale - 1)
        assert (error < 1e-3) == fits and error < 5e-3
        if fits:
            check_scale(ENCODINGS["q2_0"], "w", scale, 256)
        else:
            with pytest.raises(UserError, match="use --outtype i2_s or f32"):
                check_scale(ENCODINGS["q2_0"], "w", scale, 256)


@pytest.fixture(scope="module")
def bonsai(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bonsai") / "checkpoint"
    qwen3.make(directory, "Ternary-Bonsai-1.7B", GROUPED)
    return directory


def test_conversion_is_exact(bonsai: Path, tmp_path: Path) -> None:
    """Every value of the file is the checkpoint's."""
    built = qwen3.build("Ternary-Bonsai-1.7B", GROUPED)
    for outtype in ("q2_0", "f16"):
        report = convert(bonsai, tmp_path / f"{outtype}.gguf", Options(ENCODINGS[outtype], "f16"), progress=False)
        assert report.kinds == {"ternary floats in groups of 128": 14}
        assert not any("rounded" in note for note in report.notes)
        table = read_header(tmp_path / f"{outtype}.gguf").tensors
        for i in range(2):
            for name, target in (("self_attn.k_proj", "attn_k"), ("mlp.down_proj", "ffn_down")):
                entry = table[f"blk.{i}.{target}.weight"]
                ternary, scale = ENCODINGS[outtype].unpack(entry.read(tmp_path / f"{outtype}.gguf"), *entry.shape, "w")
                values = ternary * spread_scale(scale, *entry.shape, 64).repeat(64, axis=1)
                wanted = built.stored.tensors[f"model.layers.{i}.{name}.weight"].float().numpy()
                np.testing.assert_array_equal(values, wanted)


def test_a_wrong_scale_in_the_file_is_noticed(bonsai: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = ENCODINGS["q2_0"].pack

    def damaged(ternary: np.ndarray, scale: np.ndarray) -> np.ndarray:
        data = pack(ternary, scale).copy()
        data[1] ^= 0x10
        return data

    encoding = ENCODINGS["q2_0"]
    monkeypatch.setitem(ENCODINGS, "q2_0", encoding.__class__(**{**encoding.__dict__, "pack": damaged}))
    with pytest.raises(TritError, match=r"^blk\.0\.attn_q\.weight: reads back with other values"):
        convert(bonsai, tmp_path / "m.gguf", Options(ENCODINGS["q2_0"], "f16"), progress=False)
    assert not (tmp_path / "m.gguf").exists()


def test_a_ternary_embedding_stays_exact_in_q2_0(bonsai: Path, tmp_path: Path) -> None:
    outfile = tmp_path / "m.gguf"
    convert(bonsai, outfile, Options(ENCODINGS["q2_0"], "q2_0"), progress=False)
    entry = read_header(outfile).tensors["token_embd.weight"]
    ternary, scale = ENCODINGS["q2_0"].unpack(entry.read(outfile), *entry.shape, "token_embd")
    wanted = qwen3.build("Ternary-Bonsai-1.7B", GROUPED).stored.tensors["model.embed_tokens.weight"].float().numpy()
    np.testing.assert_array_equal(ternary * spread_scale(scale, *entry.shape, 64).repeat(64, axis=1), wanted)


def test_an_embedding_that_is_not_ternary_is_not_made_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qwen3.build("Ternary-Bonsai-1.7B", "fake-bf16", layers=1).write(tmp_path / "checkpoint")
    line = refusal(capsys, tmp_path / "checkpoint", "--quant-embd", "q2_0")
    assert "model.embed_tokens.weight: is not ternary, and q2_0 would make it so; use --quant-embd q6_k" in line
