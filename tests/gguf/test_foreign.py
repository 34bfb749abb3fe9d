# SPDX-License-Identifier: MIT
"""Foreign GGUF files: bytes on paper, the scalar writers against the decoders, sizes that decide."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.support.foreign_files import TILED, VECTORS, WRITERS, random_rows, write_gguf
from tests.support.tiny_gguf import KEYS
from trit.base.errors import UserError, run_main
from trit.convert.command import main
from trit.gguf.decode import decode, decode_anything
from trit.gguf.encoding_table import TERNARY
from trit.gguf.encodings import ENCODINGS
from trit.gguf.header import RawHeader, RawTensor, read_raw_header
from trit.gguf.identify import Found, identify
from trit.gguf.layouts import LAYOUTS
from trit.gguf.tiles import Tiles, decode_tiled

TILES = {"bitnet_tl1": Tiles(128, 64, 32), "bitnet_tl2": Tiles(128, 96, 32)}


def as_bytes(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.uint8)


@pytest.mark.parametrize(("layout", "n", "k", "raw", "places"), VECTORS, ids=[row[0] for row in VECTORS])
def test_bytes_on_paper(layout: str, n: int, k: int, raw: str, places: dict[tuple[int, int], int]) -> None:
    expected = np.zeros((n, k), np.int8)
    for place, value in places.items():
        expected[place] = value
    decoded = decode(layout, as_bytes(bytes.fromhex(raw)), n, k, "w")
    np.testing.assert_array_equal(decoded.values, expected)
    assert (decoded.scales == 0.5).all()


def test_tl_bytes_on_paper() -> None:
    """Weights (0, 1) = +1 and (17, 6) = -1 in a strip of TL1; triple (0, 0, -1) of row 8 in TL2 with its sign bit."""
    tl1 = bytearray(b"\x44" * (32 * 8 // 4))
    tl1[0] = 0x54
    tl1[32 + 16 + 1] = 0x41
    values = decode_tiled("bitnet_tl1", as_bytes(bytes(tl1)), 2.0, 32, 8, Tiles(32, 8, 32), "w").values
    assert dict(zip(map(tuple, np.argwhere(values).tolist()), values[values != 0], strict=True)) == {
        (0, 1): 1,
        (17, 6): -1,
    }
    # One tile of 32 x 24: 4 vectors of 32 bytes, then 16 words; row 8 is byte 16 of its vector.
    tl2 = bytearray(4 * 32 + 32)
    tl2[16] = 0x10
    tl2[4 * 32 + 2 * 8 : 4 * 32 + 2 * 8 + 2] = struct.pack("<H", 1 << 15)
    values = decode_tiled("bitnet_tl2", as_bytes(bytes(tl2)), 2.0, 32, 24, Tiles(32, 24, 32), "w").values
    assert np.argwhere(values).tolist() == [[8, 2]] and values[8, 2] == -1


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize(("n", "k"), [(128, 768), (256, 512)])
def test_scalar_writers_round_trip(layout: str, n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trit.gguf.codecs.CHUNK_WEIGHTS", 7 * k)
    rows = random_rows(n, k, k, layout)
    raw = WRITERS[layout][1](rows, 0.375)
    assert len(raw) in LAYOUTS[layout].sizes(n, k)
    if layout in TILED:
        decoded = decode_tiled(layout, as_bytes(raw), 0.375, n, k, TILES[layout], "w")
    else:
        decoded = decode(layout, as_bytes(raw), n, k, "w")
    np.testing.assert_array_equal(decoded.values, np.array(rows, np.int8) - 1)
    assert (decoded.scales == 0.375).all()
    per_row = {"tensor": 1, "row": n}.get(LAYOUTS[layout].scales) or n * k // int(LAYOUTS[layout].scales.split()[-1])
    assert decoded.scales.size == per_row


def test_the_codebook_of_stq1_0_is_the_published_one() -> None:
    """ggml-common.h of llama.cpp's pull request 22836: two bits a weight, lowest first, as value + 1."""
    published = bytes.fromhex("a9892909a68626069a921a126a624a42" + "012181a1042484a41018909840486068")
    for index, packed in enumerate(published):
        block = bytes([index & 15]) + bytes(31) + bytes([index >> 4]) + bytes(7) + bytes.fromhex("0038")
        values = decode("stq1_0", as_bytes(block), 1, 256, "w").values[0, [0, 16, 32, 48]]
        assert values.tolist() == [(packed >> 2 * lane & 3) - 1 for lane in range(4)]


def test_four_levels_of_tencent_s_two_bits_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """q2_0c: 512 weights in 130 bytes, under whatever number its files have."""
    for number in (41, 42, 43, 44):
        path = write_gguf(tmp_path / "m.gguf", KEYS, [("blk.0.ffn_up.weight", (64, 1024), number, bytes(64 * 260))])
        assert run_main(main, [str(path)]) == 2
        said = capsys.readouterr().err
        assert "q2_0c" in said and "1.25-bit" in said, (number, said)


def test_our_encodings_agree_with_the_scalar_writers() -> None:
    ternary = np.array(random_rows(8, 512), np.int8) - 1
    for name in TERNARY:
        assert ENCODINGS[name].pack(ternary, 0.5).tobytes() == WRITERS[name][1]((ternary + 1).tolist(), 0.5), name


def test_codes_and_scales_that_mean_nothing_are_refused() -> None:
    for layout in ("i2_s", "i2_s_arm", "tq2_0", "iq2_bn"):
        rows = random_rows(4, 256)
        rows[1][7] = 3
        with pytest.raises(UserError, match=r"^blk\.0\.x: row 1, column 7 holds the 2-bit code 3"):
            decode(layout, as_bytes(WRITERS[layout][1](rows, 1.0)), 4, 256, "blk.0.x")
    for scale in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"^w: has a scale of .*OxiBonsai"):
            decode("q2_0_g128", as_bytes(WRITERS["q2_0_g128"][1](random_rows(4, 256), scale)), 4, 256, "w")
    for layout in TILED:
        with pytest.raises(UserError, match=r"^w: holds the (pair|triple) index 15"):
            decode_tiled(layout, np.full(128 * 192, 255, np.uint8), 1.0, 128, 192, TILES[layout], "w")


@pytest.mark.parametrize("index", range(16))
def test_every_index_of_pairs_and_triplets(index: int) -> None:
    """What means nothing is above one in all its weights, not in the first only; the rest is as documented."""
    tail = struct.pack("<f", 1.0) + bytes(28)
    values = decode_anything("tl1", as_bytes(bytes([index * 17]) * 32 + tail), 1, 128).values.reshape(-1, 2)
    pair = [index // 3 - 1, index % 3 - 1]
    assert (values > 1).all() if index > 8 else (values == pair).all()
    for negative in (False, True):
        signs = b"\xff" * 5 if negative else bytes(5)
        last = 4 | (0x30 if negative else 0)  # the pair (0, 0), and two signs
        raw = bytes([index * 17]) * 21 + bytes([last]) + signs
        values = decode_anything("tl2", as_bytes(raw + tail), 1, 128).values[0]
        assert values[126:].tolist() == [0, 0]
        triplets = values[:126].reshape(-1, 3)
        if index > 13 or (negative and index == 0):
            assert (triplets > 1).all()
        else:
            assert (triplets @ [9, 3, 1] == (-index if negative else index)).all() and (abs(triplets) <= 1).all()
    values = decode_anything("tl2", as_bytes(bytes(21) + bytes([index]) + bytes(5) + tail), 1, 128).values[0]
    assert (values[126:] > 1).all() if index > 8 else values[126:].tolist() == pair


def matrix_file(path: Path, layout: str, shapes: list[tuple[int, int]], kind: int | None = None) -> Path:
    number, writer = WRITERS[layout]
    tensors = [
        (f"blk.{i}.ffn_up.weight", shape, number if kind is None else kind, writer(random_rows(*shape, 0, layout), 0.5))
        for i, shape in enumerate(shapes)
    ]
    return write_gguf(path, KEYS, tensors)


@pytest.mark.parametrize("layout", WRITERS)
def test_number_and_size_decide(layout: str, tmp_path: Path) -> None:
    path = matrix_file(tmp_path / "m.gguf", layout, [(128, 768), (256, 512)])
    key = {"i2_s_arm": "arm", "i2_s_rows4": "rows4"}.get(layout, "published")
    found = identify(read_raw_header(path), key)
    assert [item.name for item in found] == [layout, layout] and not any(item.problem for item in found)
    assert [item.loads for item in found] == [LAYOUTS[layout].loads] * 2


@pytest.mark.parametrize(
    ("columns", "span", "nbytes", "problem"),
    [
        (64, 2 * 68, 136, None),
        (64, 160, 136, None),
        (64, 135, 0, "as q8_0 takes 136 bytes and has 135: the file is cut short, download or convert it again"),
        (64, 168, 0, "as q8_0 takes 136 bytes and has 168"),
        (33, 2 * 34, 0, "has 33 columns, which q8_0 cannot have"),
        (33, 20, 0, "has 33 columns, which q8_0 cannot have"),
    ],
)
def test_sizes_of_llama_cpp_s_own_types(columns: int, span: int, nbytes: int, problem: str | None) -> None:
    """Two rows of q8_0: 34 bytes for 32 weights, and at most what aligns the next tensor to 32 bytes."""
    tensor = RawTensor("w", (2, columns), 8, 256, span)
    behind = RawTensor("x", (1,), 0, 256 + span, 4)
    header = RawHeader({}, {}, {}, {"w": tensor, "x": behind}, 32, 256, 260 + span)
    assert identify(header)[0] == Found(tensor, "q8_0", None, nbytes, problem)


def test_group_64_and_128_under_one_number(tmp_path: Path) -> None:
    """A matrix so small that padding hides the difference is what the others of the file are."""
    assert len(WRITERS["q2_0"][1](random_rows(1, 128), 1)) == 36  # and 34 for groups of 128: both pad to 64
    for layout in ("q2_0", "q2_0_g128"):
        path = matrix_file(tmp_path / f"{layout}.gguf", layout, [(1, 128), (64, 128)])
        assert [item.name for item in identify(read_raw_header(path))] == [layout, layout]
    alone = matrix_file(tmp_path / "alone.gguf", "q2_0_g128", [(1, 128)])
    assert identify(read_raw_header(alone))[0].name == "q2_0"


def test_a_size_too_small_for_any_layout_is_a_cut_file_or_one_that_is_known_by_name_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_gguf(tmp_path / "m.gguf", KEYS, [("blk.0.ffn_up.weight", (64, 256), 42, bytes(64 * 32))])
    assert run_main(main, [str(path)]) == 2
    assert re.search(
        r"m\.gguf: is cut short: .* \(if it is whole: blk\.0\.ffn_up\.weight has type 42, neither q2_0 of llama\.cpp "
        r".* perhaps a q2b1 file",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize(
    ("layout", "kind", "sentence"),
    [
        ("iq2_bn", 143, "not pq2_0 or ptq1_0 of PrismML's fork by its size"),
        ("iq2_bn", 335, "iq2_bn_r4 of ik_llama.cpp"),
        ("q2_0", 150, "probably a type of ik_llama.cpp"),
        ("q2_0", 37, "not tl2 by its size; type 37 was also i8_s of bitnet.cpp"),
        ("q2_0", 999, "of no engine that is known here"),
        ("tq2_0", 36, "not i2_s by its size"),
        ("tq2_0", 38, "neither tl1 nor TL1 or TL2 of bitnet.cpp by its size"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    layout: str, kind: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = matrix_file(tmp_path / "m.gguf", layout, [(64, 256)], kind)
    assert run_main(main, [str(path)]) == 2
    assert re.search(rf"m\.gguf: blk\.0\.ffn_up\.weight has type {kind} and .*{sentence}", capsys.readouterr().err)
    assert sorted(tmp_path.iterdir()) == [path]


def test_first_versions_of_ik_are_told_from_llama_cpp_s(tmp_path: Path) -> None:
    rows = random_rows(64, 256)
    without_scales = b"".join(WRITERS["iq2_bn"][1]([row], 1.0)[4:] for row in rows)
    path = write_gguf(tmp_path / "m.gguf", KEYS, [("w", (64, 256), 35, without_scales)])
    (item,) = identify(read_raw_header(path))
    assert item.problem and "iq2_bn of ik_llama.cpp in 2024" in item.problem
