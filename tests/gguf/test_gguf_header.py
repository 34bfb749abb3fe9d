# SPDX-License-Identifier: MIT
"""GGUF headers that lie: each is refused with one sentence, in little time and memory."""

from __future__ import annotations

import resource
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.foreign_files import Key, Tensor, text, write_gguf
from trit.base.errors import UserError
from trit.gguf.header import MAX_ELEMENTS, RawTensor, read_raw_header

KEYS: list[Key] = [("general.architecture", 8, None, "x"), ("words", 9, 8, ["a", "b"]), ("n", 9, 4, [1, 2, 3])]
TENSOR: Tensor = ("w", (4, 32), 0, bytes(512))


def refused(path: Path, sentence: str) -> None:
    for arrays in (True, False):
        with pytest.raises(UserError, match=rf"{path.name}: not a whole GGUF file \(.*{sentence}"):
            read_raw_header(path, arrays)


def test_reads_what_is_there(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", KEYS, [TENSOR, ("v", (3, 2, 8), 1, bytes(96))])
    header = read_raw_header(path)
    assert header.metadata == {"general.architecture": "x", "words": ["a", "b"], "n": [1, 2, 3]}
    assert header.types["words"] == (9, 8) and header.types["general.architecture"] == (8, None)
    assert header.tensors["v"].shape == (3, 2, 8) and (header.tensors["v"].rows, header.tensors["v"].columns) == (6, 8)
    assert header.tensors["w"].span == 512 and header.tensors["v"].offset == header.data_offset + 512
    skipped = read_raw_header(path, arrays=False)
    assert skipped.metadata == {"general.architecture": "x", "words": None, "n": None}
    assert skipped.tensors == header.tensors


def test_every_value_type_keeps_its_value(tmp_path: Path) -> None:
    values: list[tuple[int, Any]] = [
        (0, 255), (1, -128), (2, 65535), (3, -32768), (4, (1 << 32) - 1), (5, -(1 << 31)), (6, 0.5), (7, True),
        (10, (1 << 64) - 1), (11, -(1 << 63)), (12, 0.1),
    ]  # fmt: skip
    keys: list[Key] = [(f"one.{kind}", kind, None, value) for kind, value in values]
    keys += [(f"many.{kind}", 9, kind, [value, value]) for kind, value in values]
    found = read_raw_header(write_gguf(tmp_path / "m.gguf", keys, [TENSOR])).metadata
    assert found == {key: value for key, _, _, value in keys}
    assert found["one.7"] is True and found["many.7"][0] is True


def test_text_that_is_not_utf_8_keeps_its_bytes(tmp_path: Path) -> None:
    keys: list[Key] = [("one", 8, None, b"a\xff"), ("many", 9, 8, [b"\xfe", b"b"])]
    found = read_raw_header(write_gguf(tmp_path / "m.gguf", keys, [TENSOR])).metadata
    assert found["one"].encode("utf-8", "surrogateescape") == b"a\xff"
    assert [text.encode("utf-8", "surrogateescape") for text in found["many"]] == [b"\xfe", b"b"]


def head(tensors: int, keys: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def array(element: int, count: int) -> bytes:
    return text("k") + struct.pack("<IIQ", 9, element, count)


LIES = {
    "no magic": (b"GGML" + bytes(100), "the first four bytes"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "version": (head(0, 0, version=7), "version 7"),
    "version without 64-bit counts": (head(0, 0, version=1), "version 1"),
    # Longer than what is left, shorter than the whole file, and nothing behind it that would fail.
    "text that runs past the end": (head(0, 1, text("k") + struct.pack("<IQ", 8, 50) + bytes(20)), "string of 50"),
    "word that runs past the end": (head(0, 1, array(8, 2) + text("a") + struct.pack("<Q", 50) + bytes(20)), "string"),
    "tensor count": (head(1 << 60, 0, bytes(1000)), "tensors"),
    "tensor count in bytes": (head(1000, 0, bytes(1000)), "1000 tensors"),
    "key count": (head(0, 1 << 63, bytes(1000)), "keys"),
    "key length": (head(0, 1, struct.pack("<Q", 1 << 40) + bytes(1000)), "string of"),
    "array length": (head(0, 1, array(4, 1 << 61) + bytes(1000)), "array elements"),
    "strings of nothing": (head(0, 1, array(8, 1 << 61) + bytes(1000)), "array elements"),
    "nested array": (head(0, 1, array(9, 1) + bytes(1000)), "value type 9"),
    "value type": (head(0, 1, text("k") + struct.pack("<I", 77) + bytes(99)), "value type 77"),
    "key that is no text": (head(0, 1, text(b"\xff\xfe") + struct.pack("<IB", 0, 1) + bytes(99)), "not UTF-8"),
    "key twice": (head(0, 2, 2 * (text("k") + struct.pack("<IB", 0, 1)) + bytes(99)), "twice"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_refused(name: str, tmp_path: Path) -> None:
    raw, sentence = LIES[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    refused(path, sentence)


@pytest.mark.parametrize(
    ("limit", "enough", "keys", "sentence"),
    [
        ("MAX_ELEMENTS", 6, [("a", 9, 4, [1, 2, 3]), ("b", 9, 4, [4, 5, 6])], "3 array elements"),
        ("MAX_ELEMENTS", 6, [("a", 9, 8, ["", "", ""]), ("b", 9, 4, [4, 5, 6])], "3 array elements"),
        # With the names of keys and of the tensor.
        ("MAX_STRINGS_BYTES", 9, [("a", 8, None, "xyz"), ("b", 8, None, "xyz")], "string of 1 bytes"),
    ],
)
def test_limits_hold_for_all_keys_together(
    limit: str, enough: int, keys: list[Key], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gguf(tmp_path / "m.gguf", keys, [TENSOR])
    monkeypatch.setattr(f"trit.gguf.header.{limit}", enough)
    read_raw_header(path)
    monkeypatch.setattr(f"trit.gguf.header.{limit}", enough - 1)
    refused(path, sentence)


def test_words_of_an_array_count_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "m.gguf", [("a", 9, 8, ["xyz", "xyz"])], [TENSOR])
    # The key's own byte counts, too.
    monkeypatch.setattr("trit.gguf.header.MAX_STRINGS_BYTES", 8)
    read_raw_header(path)
    monkeypatch.setattr("trit.gguf.header.MAX_STRINGS_BYTES", 6)
    with pytest.raises(UserError, match="a string of 3 bytes runs too far"):
        read_raw_header(path)
    read_raw_header(path, arrays=False)


def test_every_field_of_a_header(tmp_path: Path) -> None:
    keys: list[Key] = [("a.words", 9, 8, ["x", "yz"]), ("general.alignment", 4, None, 32)]
    tensors: list[Tensor] = [("w", (4, 32), 0, bytes(512)), ("v", (3, 2, 8), 1, bytes(96))]
    path = write_gguf(tmp_path / "m.gguf", keys, tensors)
    header = read_raw_header(path)
    assert header.metadata == {"a.words": ["x", "yz"], "general.alignment": 32}
    assert header.types == {"a.words": (9, 8), "general.alignment": (4, None)} and header.counts == {"a.words": 2}
    assert (header.alignment, header.data_offset, header.file_bytes) == (32, 224, 224 + 512 + 96)
    assert list(header.tensors.values()) == [
        RawTensor("w", (4, 32), 0, 224, 512),
        RawTensor("v", (3, 2, 8), 1, 736, 96),
    ]


def test_which_arrays_are_read(tmp_path: Path) -> None:
    """Those that are asked for, and short ones: up to 1,024 elements."""
    lengths = {"short": 1024, "long": 1025, "asked": 1025}
    keys: list[Key] = [(name, 9, 0, [7] * length) for name, length in lengths.items()]
    keys += [(f"{name}.words", 9, 8, ["w"] * length) for name, length in lengths.items()]
    path = write_gguf(tmp_path / "m.gguf", [*keys, ("last", 0, None, 5)], [TENSOR])
    for arrays, read in (
        (True, {"short", "long", "asked"}),
        (False, set()),
        (("asked", "asked.words", "other"), {"short", "asked"}),
        ((), {"short"}),
    ):
        header = read_raw_header(path, arrays)
        assert header.metadata["last"] == 5 and header.counts == {
            name + end: length for name, length in lengths.items() for end in ("", ".words")
        }
        for name, length in lengths.items():
            assert header.metadata[name] == ([7] * length if name in read else None)
            assert header.metadata[f"{name}.words"] == (["w"] * length if name in read else None)


def test_a_file_that_is_only_a_beginning(tmp_path: Path) -> None:
    """As the Hub gives the first bytes: the table is whole, the data is not there."""
    path = write_gguf(tmp_path / "m.gguf", KEYS, [TENSOR, ("v", (3, 2, 8), 1, bytes(96))])
    raw, start = path.read_bytes(), read_raw_header(path).data_offset
    for keep, spans in ((start + 600, (512, 88)), (start + 512, (512, 0)), (start, (512, 0)), (start - 1, None)):
        path.write_bytes(raw[:keep])
        if spans is None or not spans[1]:
            refused(path, "v: its data would be at offset .*behind the end of the file" if spans else "")
        if spans:
            assert tuple(tensor.span for tensor in read_raw_header(path, whole=False).tensors.values()) == spans


@pytest.mark.parametrize("version", [2, 3])
def test_versions(version: int, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(head(0, 0, version=version))
    assert read_raw_header(tmp_path / "m.gguf").metadata == {}


def test_names_have_an_end(tmp_path: Path) -> None:
    """A key or a name has at most 1,024 bytes, text at most 16 MiB."""
    path = tmp_path / "m.gguf"
    for size, fits in ((1024, True), (1025, False)):
        path.write_bytes(head(0, 1, text("k" * size) + struct.pack("<IB", 0, 1)))
        if fits:
            assert read_raw_header(path).metadata == {"k" * size: 1}
        else:
            refused(path, "a string of 1025 bytes at offset 32 runs too far")
    for size, fits in ((1 << 24, True), ((1 << 24) + 1, False)):
        path.write_bytes(head(0, 1, text("k") + struct.pack("<I", 8) + text("x" * size)))
        if fits:
            assert len(read_raw_header(path).metadata["k"]) == size
        else:
            refused(path, f"a string of {size} bytes")


@pytest.mark.parametrize(
    ("limit", "keys", "rows", "sentence"),
    [("MAX_KEYS", 3, 0, "3 keys, which its size cannot hold"), ("MAX_TENSORS", 0, 3, "3 tensors, which its size")],
)
def test_how_many_there_may_be(
    limit: str, keys: int, rows: int, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [text(f"k{i}") + struct.pack("<IB", 0, 1) for i in range(keys)]
    parts += [text(f"t{i}") + struct.pack("<IQIQ", 1, 8, 0, 32 * i) for i in range(rows)]
    raw = head(rows, keys, b"".join(parts))
    path = tmp_path / "m.gguf"
    path.write_bytes(raw + bytes(-len(raw) % 32 + 96))
    monkeypatch.setattr(f"trit.gguf.header.{limit}", 3)
    assert len(read_raw_header(path).metadata) == keys and len(read_raw_header(path).tensors) == rows
    monkeypatch.setattr(f"trit.gguf.header.{limit}", 2)
    refused(path, sentence)


def test_the_smallest_things_that_fit(tmp_path: Path) -> None:
    """Counts are compared with what the rest of a file can hold: just enough passes."""
    path = tmp_path / "m.gguf"
    for element, count, rest in ((0, 5, bytes(5)), (4, 5, bytes(20)), (8, 5, bytes(40))):
        raw = head(0, 1, array(element, count) + rest)
        path.write_bytes(raw)
        assert read_raw_header(path).metadata["k"] == [0 if element != 8 else ""] * 5
        assert read_raw_header(path, arrays=False).counts == {"k": 5}
        path.write_bytes(raw[:-1])
        refused(path, "says that it has 5 array elements, which its size cannot hold")


@pytest.mark.parametrize(
    ("tensors", "keys", "least", "what"), [(3, 0, 3 * 32 - 8, "3 tensors"), (0, 5, 5 * 13, "5 keys")]
)
def test_counts_are_compared_with_the_least_that_their_rows_take(
    tensors: int, keys: int, least: int, what: str, tmp_path: Path
) -> None:
    """Nothing is read of a table that cannot be there; rows of zeros are looked at, and refused for what they say.

    The count of keys, 8 bytes, is in the rest of the file when that of tensors is compared.
    """
    path = tmp_path / "m.gguf"
    path.write_bytes(head(tensors, keys, bytes(least - 1)))
    refused(path, f"says that it has {what}, which its size cannot hold")
    path.write_bytes(head(tensors, keys, bytes(least)))
    refused(path, ": has 0 dimensions" if tensors else "the key  is there twice")


@pytest.mark.parametrize("alignment", [1, 8, 1 << 20])
def test_alignments(alignment: int, tmp_path: Path) -> None:
    raw = head(1, 1, text("general.alignment") + struct.pack("<II", 4, alignment))
    raw += text("w") + struct.pack("<IQIQ", 1, 8, 0, 0)
    path = tmp_path / "m.gguf"
    path.write_bytes(raw + bytes(-len(raw) % alignment + 32))
    found = read_raw_header(path)
    assert found.alignment == alignment and found.data_offset == -(-len(raw) // alignment) * alignment
    assert found.tensors["w"].span == 32


@pytest.mark.parametrize("alignment", [0, 3, 1 << 21, 1 << 31])
def test_alignment_has_to_be_a_power_of_two(alignment: int, tmp_path: Path) -> None:
    keys: list[Key] = [*KEYS, ("general.alignment", 4, None, alignment)]
    refused(write_gguf(tmp_path / "m.gguf", keys, [TENSOR]), "alignment")


def test_alignment_of_another_type_is_refused(tmp_path: Path) -> None:
    for kind, element, value in ((8, None, "32"), (6, None, 32.0), (9, 4, [32])):
        keys: list[Key] = [*KEYS, ("general.alignment", kind, element, value)]
        refused(write_gguf(tmp_path / "m.gguf", keys, [TENSOR]), "alignment")


def edited(tmp_path: Path, row: bytes) -> Path:
    """A file with one tensor whose row of the table is replaced."""
    path = tmp_path / "m.gguf"
    raw = head(1, 0, row)
    path.write_bytes(raw + bytes(-len(raw) % 32) + bytes(512))
    return path


@pytest.mark.parametrize(
    ("dimensions", "offset", "sentence"),
    [
        ([], 0, "0 dimensions"),
        ([1] * 5, 0, "5 dimensions"),
        ([32, 0], 0, r"shape \[0, 32\]"),
        ([1 << 40, 1 << 40], 0, "shape"),
        ([32, 4], 1 << 40, "behind the end"),
        ([32, 4], 512, "behind the end"),
        ([32, 4], 5, "no multiple of 32"),
    ],
)
def test_tensor_rows_that_cannot_be(dimensions: list[int], offset: int, sentence: str, tmp_path: Path) -> None:
    row = text("w") + struct.pack("<I", len(dimensions)) + struct.pack(f"<{len(dimensions)}Q", *dimensions)
    refused(edited(tmp_path, row + struct.pack("<IQ", 0, offset)), sentence)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (1, 1, 1, 1)])
def test_tensors_of_one_to_four_dimensions(shape: tuple[int, ...], tmp_path: Path) -> None:
    """The outermost first, as numpy has it: a row is the last."""
    count = int(np.prod(shape))
    tensor = read_raw_header(write_gguf(tmp_path / "m.gguf", [], [("w", shape, 0, bytes(4 * count))])).tensors["w"]
    assert tensor.shape == shape and (tensor.rows, tensor.columns) == (count // shape[-1], shape[-1])


def test_tensors_that_collide(tmp_path: Path) -> None:
    raw = write_gguf(tmp_path / "m.gguf", KEYS, [TENSOR, ("v", (4, 32), 0, bytes(512))]).read_bytes()
    place = raw.index(text("v")) + len(text("v")) + 4 + 16 + 4
    (tmp_path / "m.gguf").write_bytes(raw[:place] + struct.pack("<Q", 0) + raw[place + 8 :])
    refused(tmp_path / "m.gguf", "where another tensor is")
    refused(write_gguf(tmp_path / "n.gguf", KEYS, [TENSOR, TENSOR]), "w is there twice")


def test_every_truncation_of_a_header_is_refused(tmp_path: Path) -> None:
    raw = write_gguf(tmp_path / "m.gguf", KEYS, [TENSOR]).read_bytes()
    data = read_raw_header(tmp_path / "m.gguf").data_offset
    for keep in range(1, data + 1):
        (tmp_path / "m.gguf").write_bytes(raw[:keep])
        refused(tmp_path / "m.gguf", "")


def test_random_damage_never_does_more_than_refuse(tmp_path: Path) -> None:
    raw = write_gguf(tmp_path / "m.gguf", KEYS, [TENSOR, ("v", (4, 32), 0, bytes(512))]).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "d.gguf"
    read = 0
    for _ in range(800):
        damaged = bytearray(raw)
        for place in rng.integers(0, 260, rng.integers(1, 5)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            read_raw_header(path)
            read += 1
        except UserError:
            pass
    assert 0 < read < 800


def test_memory_is_bounded(tmp_path: Path) -> None:
    """64 MB of an array that says it has as many elements as a file may have, and one more than that."""
    path = tmp_path / "m.gguf"
    for count in (MAX_ELEMENTS, MAX_ELEMENTS + 1):
        with path.open("wb") as file:
            file.write(head(0, 1, array(8, count)))
            file.truncate(8 * (MAX_ELEMENTS + 10))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        if count > MAX_ELEMENTS:
            refused(path, "array elements")
        else:
            assert len(read_raw_header(path).metadata["k"]) == count
        assert time.process_time() - started < 20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
