# SPDX-License-Identifier: MIT
"""The weight encodings: bytes on paper, round trips, agreement with gguf-py; and GGUF headers with our types."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trit.base.errors import UserError
from trit.convert.embedding import quantize_rows
from trit.gguf.codecs import Decoded, pack_i2_s, pack_tq2_0, spread_scale
from trit.gguf.encode import for_encoding, unpack
from trit.gguf.encodings import ENCODINGS, check_fits, check_scale, fallback
from trit.gguf.layouts import PLAIN
from trit.gguf.types import GGMLQuantizationType, GGUFReader, GGUFWriter, read_header

unpack_i2_s = ENCODINGS["i2_s"].unpack
SCALES = st.floats(2.0**-12, 1000.0, width=32)


@st.composite
def matrices(draw: st.DrawFn, block: int) -> np.ndarray:
    """Ternary matrices of a few rows and blocks, all densities of zeros, whole blocks of zeros included."""
    n, blocks = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    zeros = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    ternary = rng.choice(
        np.array([-1, 0, 1], np.int8), (n, block * blocks), p=[(1 - zeros) / 2, zeros, (1 - zeros) / 2]
    )
    if draw(st.booleans()):
        ternary[-1, -block:] = 0
    return ternary


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), scale=SCALES)
def test_round_trip(name: str, data: st.DataObject, scale: float) -> None:
    row = ENCODINGS[name]
    ternary = data.draw(matrices(max(row.block, 8)))
    n, k = ternary.shape
    packed = row.pack(ternary, scale)
    assert packed.dtype == np.uint8 and packed.shape == (row.nbytes(n, k),)
    unpacked, unpacked_scale = row.unpack(packed, n, k, "t")
    np.testing.assert_array_equal(unpacked, ternary)
    assert unpacked_scale == row.stored_scale(scale) or not ternary.any()


@settings(max_examples=60, deadline=None)
@given(ternary=matrices(256), scale=SCALES)
def test_tq2_0_equals_gguf_py(ternary: np.ndarray, scale: float) -> None:
    theirs = gguf.quants.quantize(ternary * np.float32(scale), gguf.GGMLQuantizationType.TQ2_0)
    assert pack_tq2_0(ternary, scale).tobytes() == theirs.tobytes()


def test_i2_s_bytes_as_documented() -> None:
    """One row of 256: in the first block weight 0 is +1, weight 32 is -1, weight 127 is +1; the second is all -1."""
    ternary = np.zeros((1, 256), np.int8)
    ternary[0, [0, 32, 127]] = [1, -1, 1]
    ternary[0, 128:] = -1
    packed = pack_i2_s(ternary, 0.75)
    assert packed[0] == 0b10_00_01_01
    assert packed[31] == 0b01_01_01_10
    assert (packed[1:31] == 0b01_01_01_01).all() and (packed[32:64] == 0).all()
    assert packed[64:].tobytes() == struct.pack("<f", 0.75) + bytes(28)


@settings(max_examples=60, deadline=None)
@given(codes=st.binary(min_size=64, max_size=64))
def test_any_bytes_without_code_3_are_a_matrix(codes: bytes) -> None:
    """Decoding is the inverse of encoding on the side of the bytes too; bytes with code 3 are refused by name."""
    data = np.frombuffer(codes + struct.pack("<f", 1.5) + bytes(28), np.uint8)
    fields = np.stack([(data[:64] >> shift) & 3 for shift in (0, 2, 4, 6)])
    if (fields == 3).any():
        with pytest.raises(UserError, match=r"blk\.0\.x\.weight: row 0, column \d+ holds the 2-bit code 3"):
            unpack_i2_s(data, 1, 256, "blk.0.x.weight")
    else:
        ternary, scale = unpack_i2_s(data, 1, 256, "blk.0.x.weight")
        assert pack_i2_s(ternary, scale).tobytes() == data.tobytes()


def test_large_matrix_is_packed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    ternary = np.random.default_rng(0).integers(-1, 2, (33, 512)).astype(np.int8)
    whole = {name: row.pack(ternary, 0.5) for name, row in ENCODINGS.items()}
    monkeypatch.setattr("trit.gguf.codecs.CHUNK_WEIGHTS", 2048)
    for name, row in ENCODINGS.items():
        assert row.pack(ternary, 0.5).tobytes() == whole[name].tobytes()
        np.testing.assert_array_equal(row.unpack(whole[name], 33, 512, name)[0], ternary)


@pytest.mark.parametrize(("name", "block_bytes"), [("tq2_0", 66), ("tq1_0", 54)])
def test_blocks_with_different_scales_are_decoded(name: str, block_bytes: int) -> None:
    packed = ENCODINGS[name].pack(np.ones((1, 512), np.int8), 0.5)
    packed[block_bytes - 2 : block_bytes] = np.array([0.25], "<f2").view(np.uint8)
    ternary, scale = ENCODINGS[name].unpack(packed, 1, 512, "w")
    assert (ternary == 1).all()
    np.testing.assert_array_equal(scale, [[0.25, 0.5]])


@pytest.mark.parametrize("scale", [-0.25, float("nan"), float("-inf")])
@pytest.mark.parametrize(("name", "place"), [("tq2_0", 64), ("tq1_0", 52), ("q2_0", 0)])
def test_one_scale_that_cannot_be_is_named(name: str, place: int, scale: float) -> None:
    row = ENCODINGS[name]
    data = row.pack(np.ones((2, 512), np.int8), 0.5)
    at = data.size - row.block_bytes + place
    data[at : at + 2] = np.frombuffer(struct.pack("<e", scale), np.uint8)
    with pytest.raises(UserError, match=rf"^w: has a scale of {scale:g}, so it is damaged or no {name}"):
        row.unpack(data, 2, 512, "w")


def test_floats_that_are_not_ternary_are_refused() -> None:
    values = np.array([[0.5, -0.5, 0.0, 0.25]], "<f2")
    with pytest.raises(UserError, match=r"^w: not every value is -s, 0 or"):
        ENCODINGS["f16"].unpack(values.reshape(-1).view(np.uint8), 1, 4, "w")


def test_columns_that_do_not_fit_are_refused_with_a_way_out() -> None:
    with pytest.raises(
        UserError, match=r"^blk\.3\.ffn_down: 8640 columns, i2_s needs a multiple of 128; use --outtype q2_0 or tl1"
    ):
        check_fits(ENCODINGS["i2_s"], "blk.3.ffn_down", 8640)
    ways_out = "use --outtype i2_s or q2_0 or tl1 or tl2 or f16 or f32"
    with pytest.raises(UserError, match=f"640 columns, tq2_0 needs a multiple of 256; {ways_out}"):
        check_fits(ENCODINGS["tq2_0"], "w", 640)
    check_fits(ENCODINGS["i2_s"], "w", 640)


@pytest.mark.parametrize(
    ("name", "scale"),
    [("f16", 1e-9), ("tq2_0", 1e6), *(("i2_s", scale) for scale in (float("inf"), float("nan"), 0.0, -0.5))],
)
def test_scales_that_do_not_fit_are_refused(name: str, scale: float) -> None:
    with pytest.raises(UserError, match=r"^w: its scale"):
        check_scale(ENCODINGS[name], "w", scale, 256)


@pytest.fixture
def small_gguf(tmp_path: Path) -> Path:
    """One i2_s tensor [2, 256], one f32 vector, a few keys."""
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "bitnet-b1.58")
    writer.add_string("text", "naïve")
    writer.add_array("words", ["a", "b"])
    row = ENCODINGS["i2_s"]
    packed = pack_i2_s(np.ones((2, 256), np.int8), 2.0)
    kind = GGMLQuantizationType(row.ggml_type)
    writer.add_tensor_info("w", (2, 256), np.dtype(np.float32), row.nbytes(2, 256), raw_dtype=kind)
    writer.add_tensor_info("v", (4,), np.dtype(np.float32), 16, raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.write_tensor_data(packed)
    writer.write_tensor_data(np.arange(4, dtype=np.float32))
    writer.close()
    return path


def test_our_header_reader_agrees_with_gguf_py(small_gguf: Path) -> None:
    ours, theirs = read_header(small_gguf), GGUFReader(small_gguf)
    assert ours.metadata["text"] == "naïve" == theirs.get_field("text").contents()
    assert ours.metadata["words"] == ["a", "b"]
    assert ours.types["words"] == (gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING)
    for tensor in theirs.tensors:
        entry = ours.tensors[tensor.name]
        assert entry.offset == tensor.data_offset and entry.ggml_type == tensor.tensor_type
        assert entry.shape == tuple(reversed(tensor.shape.tolist()))
        assert entry.read(small_gguf)[: tensor.n_bytes].tobytes() == tensor.data.tobytes()
    assert theirs.tensors[0].tensor_type.name == "I2_S"
    assert ours.tensors["w"].nbytes == 2 * 256 // 4 + 32


@pytest.mark.parametrize("keep", [0, 3, 20, 60, 200])
def test_truncated_header_is_refused(small_gguf: Path, keep: int) -> None:
    small_gguf.write_bytes(small_gguf.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"small\.gguf: (not a whole GGUF file|is empty)"):
        read_header(small_gguf)


def test_file_without_tensors(tmp_path: Path) -> None:
    """A vocabulary by itself, as in the engine's tree."""
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q1sII", 1, b"k", 4, 7))
    header = read_header(path)
    assert header.tensors == {} and header.metadata == {"k": 7}


def test_truncated_data_is_refused(small_gguf: Path) -> None:
    entry = read_header(small_gguf).tensors["v"]
    small_gguf.write_bytes(small_gguf.read_bytes()[: entry.offset + 8])
    with pytest.raises(UserError, match=r"ends inside v"):
        entry.read(small_gguf)


def test_unknown_tensor_type_and_version_are_refused(small_gguf: Path) -> None:
    raw = bytearray(small_gguf.read_bytes())
    place = raw.index(struct.pack("<QQI", 256, 2, 36)) + 16
    raw[place] = 99
    small_gguf.write_bytes(raw)
    with pytest.raises(UserError, match="99"):
        read_header(small_gguf)
    raw[4] = 9
    small_gguf.write_bytes(raw)
    with pytest.raises(UserError, match="version 9"):
        read_header(small_gguf)


def test_q6_k_rounds_as_well_as_it_can() -> None:
    """Error of normal values as published for the type, exact zeros, and extremes that use the whole range."""
    rows = np.random.default_rng(0).standard_normal((8, 512)).astype(np.float32)
    rows[0] = 0
    rows[1, :256] = np.tile(np.arange(-32, 32, dtype=np.float32), 4)
    packed = quantize_rows(rows, GGMLQuantizationType.Q6_K)
    assert packed.dtype == np.uint8 and packed.shape == (16, 210)
    back = gguf.quants.dequantize(packed, GGMLQuantizationType.Q6_K).reshape(rows.shape)
    assert not back[0].any()
    np.testing.assert_allclose(back[1, :256], rows[1, :256], atol=0.3)
    assert np.sqrt(((back[2:] - rows[2:]) ** 2).mean()) < 0.02


def test_file_types_are_llama_cpp_s() -> None:
    """What other programs show; i2_s is ours alone, q2_0 newer than gguf-py."""
    for name, file_type in (
        ("f32", "ALL_F32"),
        ("f16", "MOSTLY_F16"),
        ("tq1_0", "MOSTLY_TQ1_0"),
        ("tq2_0", "MOSTLY_TQ2_0"),
    ):
        assert ENCODINGS[name].file_type == gguf.LlamaFileType[file_type]
    assert (ENCODINGS["i2_s"].file_type, ENCODINGS["q2_0"].file_type) == (140, 41)
    numbers = [row.file_type for row in ENCODINGS.values()]
    assert len(set(numbers)) == len(numbers)


def test_plus_two_of_q2_0_is_no_ternary_weight() -> None:
    row = ENCODINGS["q2_0"]
    data = row.pack(np.zeros((2, 64), dtype=np.int8), 1.0)
    data[18 + 2 + 3] |= 0b11_00_00
    with pytest.raises(UserError, match=r"^w: row 1, column 14 holds \+2, so it is not ternary"):
        row.unpack(data, 2, 64, "w")


def test_sizes_of_llama_cpp_s_types() -> None:
    """The table of trit.gguf.layouts, which works without packages, against gguf-py's."""
    known = {kind.value: (kind.name.lower(), *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    # gguf-py has the q8_1 of 2023, with two float32; block_q8_1 of ggml-common.h has two float16.
    assert known.pop(9) == ("q8_1", 32, 40) and PLAIN[9] == ("q8_1", 32, 36)
    common = PLAIN.keys() & known.keys()
    assert {number: PLAIN[number] for number in common} == {number: known[number] for number in common}
    assert PLAIN.keys() - common <= {9, 40, 41}, "newer than gguf-py"


def test_an_invalid_code_is_named_by_its_row_in_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large matrices are unpacked in pieces, here one row each."""
    monkeypatch.setattr("trit.gguf.codecs.CHUNK_WEIGHTS", 128)
    data = pack_i2_s(np.zeros((3, 128), dtype=np.int8), 1.0)
    data[2 * 32 + 7] |= 0b11
    with pytest.raises(UserError, match=r"^w: row 2, column 103 holds the 2-bit code 3"):
        unpack_i2_s(data, 3, 128, "w")


def test_what_takes_columns_of_no_whole_block() -> None:
    """1bitLLM's 3B (8640) and xl (5460)."""
    assert [fallback(ENCODINGS["i2_s"], k).name for k in (8192, 8640, 5460)] == ["i2_s", "q2_0", "f16"]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["q2_0", "tq2_0", "i2_s", "f16"]), per_row=st.booleans(),
    group=st.sampled_from([32, 64, 128, 256, 512]), used=st.sampled_from([(1.0,), (1.0, 0.0), (1.0, 0.5, 0.0)]),
    zeros=st.sampled_from([0.0, 0.5, 1.0]), shared=st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip
def test_a_decoded_matrix_keeps_every_weight(
    seed: int, name: str, per_row: bool, group: int, used: tuple[float, ...], zeros: float, shared: int
) -> None:
    """In the form that the encoding takes: one scale, one for each of its blocks, or what was there."""
    rng, n, k = np.random.default_rng(seed), 3, 512
    values = rng.integers(-1, 2, (n, k)).astype(np.int8)
    values.reshape(n, -1, 32)[rng.random((n, k // 32)) < zeros] = 0
    scales = rng.choice(np.float32(used), (n if per_row else 1, k // group)).repeat(shared, axis=1)[:, : k // group]
    weights = values * np.broadcast_to(scales.repeat(group, axis=1), (n, k))
    block = ENCODINGS[name].block
    found, scale = for_encoding(Decoded(values, scales), ENCODINGS[name], "w")
    assert found.dtype == np.int8
    different = set(np.abs(weights).reshape(-1).tolist()) - {0.0}
    alike = all(len(set(np.abs(part).tolist()) - {0.0}) <= 1 for part in weights.reshape(-1, block))
    if len(different) <= 1:
        assert isinstance(scale, float) and scale > 0
        assert not different or scale == different.pop()
        np.testing.assert_array_equal(found * np.float32(scale), weights)
    else:
        assert isinstance(scale, np.ndarray) and scale.dtype == np.float32
        assert scale.shape == (n, k // block if group <= block and alike else k // group)
        np.testing.assert_array_equal(found * spread_scale(scale, n, k, 1), weights)


def test_a_matrix_of_zeros_keeps_its_scale() -> None:
    zeros = np.zeros((2, 64), np.int8)
    for scales, kept in (([[0.25, 0.5]], 0.5), ([[0.0, 0.0]], 1.0)):
        found, scale = for_encoding(Decoded(zeros, np.float32(scales)), ENCODINGS["q2_0"], "w")
        assert scale == kept and not found.any()


def test_plus_two_stays_where_there_is_room() -> None:
    values = np.resize(np.array([-1, 0, 1, 2, 1], np.int8), (2, 256))
    decoded = Decoded(values, np.float32([[0.5]]))
    row = ENCODINGS["q2_0"]
    found, scale = for_encoding(decoded, row, "w")
    np.testing.assert_array_equal(found, values)
    back, scales = unpack(row, row.pack(values, scale), 2, 256, "w")
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(scales, np.full((2, 4), 0.5))
    with pytest.raises(UserError, match=r"^w: holds \+2 102 times \(19\.92 % of its weights\), which i2_s cannot"):
        for_encoding(decoded, ENCODINGS["i2_s"], "w")


@pytest.mark.parametrize("name", ENCODINGS)
def test_bytes_of_every_encoding_are_read_back(name: str) -> None:
    row, values = ENCODINGS[name], np.resize(np.array([-1, 0, 1, 1], np.int8), (2, 256))
    found, scale = unpack(row, row.pack(values, 0.5), 2, 256, "w")
    np.testing.assert_array_equal(found, values)
    np.testing.assert_array_equal(np.unique(scale), [0.5])
    assert isinstance(scale, float) == (row.scale_inputs == 0 or not row.ternary)
