# SPDX-License-Identifier: MIT
"""Files of a split model: their names, their keys, and what each lacks that is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.foreign_files import Key, write_gguf
from tests.support.tiny_gguf import KEYS
from trit.base.errors import UserError
from trit.gguf.parts import parts_beside, read_parts, whole_name

F32 = 0


def part(folder: Path, number: int, count: int, *tensors: str, name: str = "", **keys: int) -> Path:
    """One file with its keys and its vectors of eight floats."""
    more: list[Key] = [("split.no", 2, None, number), ("split.count", 2, None, count)]
    more += [(f"split.{key.replace('_', '.')}", 5, None, value) for key, value in keys.items()]
    rows = [(tensor, (8,), F32, bytes(32)) for tensor in tensors]
    return write_gguf(folder / (name or f"m-{number + 1:05d}-of-{count:05d}.gguf"), [*KEYS, *more], rows)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("m.gguf", "m"),
        ("m-00001-of-00003.gguf", "m"),
        ("a-00001-of-00002-00002-of-00009.gguf", "a-00001-of-00002"),
        ("m-0001-of-00003.gguf", "m-0001-of-00003"),
        ("m-00001-of-00003x.gguf", "m-00001-of-00003x"),
        ("-00001-of-00003.gguf", ""),
    ],
)
def test_names(name: str, whole: str, tmp_path: Path) -> None:
    assert whole_name(tmp_path / name) == whole
    beside = parts_beside(tmp_path / name)
    if whole == Path(name).stem:
        assert beside == [tmp_path / name]
    else:
        count = int(name[-10:-5])
        assert [path.name for path in beside] == [f"{whole}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]


def test_a_model_in_three_files(tmp_path: Path) -> None:
    paths = [part(tmp_path, i, 3, f"t{i}", tensors_count=3) for i in range(3)]
    found = read_parts(paths[0])
    assert [path for path, _ in found] == paths
    assert [list(header.tensors) for _, header in found] == [["t0"], ["t1"], ["t2"]]
    # Without the count of tensors, too; a whole model's file may have any name and either key.
    part(tmp_path, 0, 3, "t0")
    assert len(read_parts(paths[0])) == 3
    for count in (0, 1):
        assert [path.name for path, _ in read_parts(part(tmp_path, 0, count, "t", name="x.gguf"))] == ["x.gguf"]


@pytest.mark.parametrize(
    ("number", "count", "name", "said"),
    [
        (0, 2, "x.gguf", "is part 1 of a split model; give it its name NAME-00001-of-00002.gguf back"),
        (0, 2, "m-00002-of-00002.gguf", "is part 1 of a split model; give it its name NAME-00001-of-00002.gguf"),
        (0, 2, "m-00001-of-00003.gguf", "is part 1 of a split model; give it its name NAME-00001-of-00002.gguf"),
        (1, 2, "", "is part 2 of a split model; give the first, m-00001-of-00002.gguf"),
        (2, 2, "", "its keys split.no 2 and split.count 2 contradict each other"),
        (1, 1, "", "its keys split.no 1 and split.count 1 contradict each other"),
        (1, 0, "", "its keys split.no 1 and split.count 0 contradict each other"),
        (0, 2, "", "m-00002-of-00002.gguf: is missing; the model is split into 2 files and needs them all"),
    ],
)
def test_what_is_no_first_part(number: int, count: int, name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f": {said}".removeprefix(": m-"))):
        read_parts(part(tmp_path, number, count, "t", name=name))


@pytest.mark.parametrize(
    ("number", "count", "tensors", "total", "said"),
    [
        (0, 2, ("b",), 2, "m-00002-of-00002.gguf: does not say that it is part 2 of 2; download or split it again"),
        (1, 3, ("b",), 2, "m-00002-of-00002.gguf: does not say that it is part 2 of 2"),
        (1, 2, ("b", "a"), 2, "m-00002-of-00002.gguf: a is in m-00001-of-00002.gguf too; the files are not of one"),
        (1, 2, ("b",), 3, "m-00001-of-00002.gguf: says that the model has 3 tensors, its parts have 2"),
        (1, 2, ("b",), 1, "m-00001-of-00002.gguf: says that the model has 1 tensors, its parts have 2"),
    ],
)
def test_what_is_no_second_part(
    number: int, count: int, tensors: tuple[str, ...], total: int, said: str, tmp_path: Path
) -> None:
    first = part(tmp_path, 0, 2, "a", tensors_count=total)
    part(tmp_path, number, count, *tensors, name="m-00002-of-00002.gguf")
    with pytest.raises(UserError, match=re.escape(said)):
        read_parts(first)


def test_a_part_that_is_cut(tmp_path: Path) -> None:
    first, second = part(tmp_path, 0, 2, "a"), part(tmp_path, 1, 2, "b", "c")
    whole = second.read_bytes()
    assert len(read_parts(first)) == 2
    second.write_bytes(whole[:-1])
    words = f"{second}: is cut short: by its header it has at least {len(whole):,} bytes, found {len(whole) - 1:,}; "
    with pytest.raises(UserError, match=re.escape(words)):
        read_parts(first)


def test_keys_of_another_type(tmp_path: Path) -> None:
    for key, kind, value in (("split.no", 8, "0"), ("split.count", 8, "2"), ("split.count", 6, 2.0)):
        path = write_gguf(tmp_path / "m.gguf", [*KEYS, (key, kind, None, value)], [("a", (8,), F32, bytes(32))])
        with pytest.raises(UserError, match=r"m\.gguf: its keys split\.no .* contradict each other"):
            read_parts(path)
