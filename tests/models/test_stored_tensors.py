# SPDX-License-Identifier: MIT
"""Values of a checkpoint's tensors, by hand, and files that are not what their names say."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from trit.base.errors import TritError, UserError
from trit.models import checkpoint
from trit.models.checkpoint import (
    Checkpoint,
    StoredTensor,
    check_side_files,
    readable,
    shard_names,
    short_list,
    weight_files,
)
from trit.models.json_files import MAX_JSON_BYTES, MAX_TOKENIZER_BYTES, read_json

# dtype -> the bytes of 1, -2, 0.5, 0, 1.5 and -1.
VALUES = [1.0, -2.0, 0.5, 0.0, 1.5, -1.0]
STORED = {
    "F32": "0000803f 000000c0 0000003f 00000000 0000c03f 000080bf",
    "F16": "003c 00c0 0038 0000 003e 00bc",
    "BF16": "803f 00c0 003f 0000 c03f 80bf",
    "F64": "000000000000f03f 00000000000000c0 000000000000e03f 0000000000000000 000000000000f83f 000000000000f0bf",
}


def stored(tmp_path: Path, dtype: str, data: bytes, shape: tuple[int, ...], before: bytes = b"head") -> StoredTensor:
    path = tmp_path / "w.safetensors"
    path.write_bytes(before + data)
    return StoredTensor("w", path, len(before), dtype, shape)


@pytest.mark.parametrize("dtype", STORED)
def test_values_of_every_dtype(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = stored(tmp_path, dtype, bytes.fromhex(STORED[dtype]), (2, 3))
    assert tensor.size == 6
    for chunk, row, sizes in ((1 << 20, 1, [6]), (4, 1, [4, 2]), (4, 3, [3, 3]), (2, 3, [3, 3]), (1, 1, [1] * 6)):
        monkeypatch.setattr(checkpoint, "CHUNK_VALUES", chunk)
        pieces = list(tensor.floats(row))
        assert [piece.size for piece in pieces] == sizes
        assert np.concatenate(pieces).tolist() == VALUES and {piece.dtype for piece in pieces} == {np.dtype("f4")}


def test_bytes_are_no_floats_and_are_read_by_place(tmp_path: Path) -> None:
    tensor = stored(tmp_path, "U8", bytes(range(10, 16)), (6,))
    assert tensor.read(2, 5).tolist() == [12, 13, 14]
    with pytest.raises(UserError, match=r"^w: expected floating-point values, found U8$"):
        next(tensor.floats())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none(value: float, tmp_path: Path) -> None:
    tensor = stored(tmp_path, "F32", struct.pack("<3f", 1, 2, value), (3,))
    with pytest.raises(UserError, match=r"^w: holds NaN or infinity in w\.safetensors; the checkpoint is broken$"):
        list(tensor.floats())


def test_a_file_that_has_become_shorter(tmp_path: Path) -> None:
    tensor = stored(tmp_path, "F16", bytes(10), (6,))
    assert tensor.read(0, 5).size == 5
    with pytest.raises(UserError, match=r"w\.safetensors: ends inside w; download the file again"):
        tensor.read(4, 6)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["c", "b", "a"], "a, b, c"),
        (["d", "c", "b", "a"], "a, b, c and 1 more"),
        (["e", "d", "c", "b", "a"], "a, b, c and 2 more"),
    ],
)
def test_a_list_of_names_is_short(names: list[str], said: str) -> None:
    assert short_list(names) == said


# --- folders


def safetensors(header: Mapping[str, object], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ROW = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
WHOLE = safetensors({"__metadata__": {"format": "pt"}, "a": ROW}, bytes(8))


def folder_with(tmp_path: Path, content: bytes, name: str = "model.safetensors", **config: object) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_whole_file(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, WHOLE, num_hidden_layers=1)
    opened = Checkpoint.open(folder)
    assert list(opened.tensors) == ["a"] and opened.notes == []
    offset = len(WHOLE) - 8
    assert opened.tensors["a"] == StoredTensor("a", folder / "model.safetensors", offset, "F32", (2,))
    folder_with(tmp_path, WHOLE, num_hidden_layers=2)
    with pytest.raises(UserError, match=r"num_hidden_layers is 2, more than there are tensors \(1\)"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WHOLE[:-1], "not a whole safetensors file"),
        (WHOLE + b"x", "not a whole safetensors file"),
        (b"\x01", "not a whole safetensors file"),
        (struct.pack("<Q", MAX_JSON_BYTES + 1) + bytes(99), r"\(its header would have 33,554,433 bytes\)"),
        (struct.pack("<Q", MAX_JSON_BYTES) + bytes(99), r"not a whole safetensors file \((?!its header would)"),
        (safetensors({"a": ROW | {"dtype": "I64", "shape": [1]}}, bytes(8)), "^a: stored as I64 in model.safetensors"),
    ],
)  # fmt: skip
def test_files_that_are_no_safetensors(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        Checkpoint.open(folder_with(tmp_path, content))


def test_a_name_in_two_files_and_one_that_is_in_none(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, WHOLE, "one.safetensors")
    (folder / "two.safetensors").write_bytes(WHOLE)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    with pytest.raises(UserError, match=r"^a: is in both one\.safetensors and two\.safetensors$"):
        Checkpoint.open(folder)
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}))
    with pytest.raises(UserError, match=r"^b: the index says it is in one\.safetensors, but it is not"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    "value", [None, [], {}, *({"weight_map": it} for it in ({}, [], {"a": 1}, {"a": "x.safetensors", "b": None}))]
)
def test_an_index_without_names(value: object, tmp_path: Path) -> None:
    path = tmp_path / "x.index.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"x\.index\.json: (has no weight_map of file names|expected a JSON object)"):
        shard_names(path)


def test_which_weights_a_folder_lacks(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        weight_files(tmp_path, {})
    names = "model.safetensors, model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json"
    assert str(caught.value) == f"{tmp_path}: has no {names} (found no weights); download the weights, too"
    for name in ("a.bin", "b.gguf", "c.pt", "d.pth", "e.safetensors", "f.txt"):
        (tmp_path / name).touch()
    found = r"\(found a\.bin, b\.gguf, c\.pt and 2 more\)"
    with pytest.raises(UserError, match=rf"has no best\.bin {found}; name the GGUF file itself$"):
        weight_files(tmp_path, {"transformers_weights": "best.bin"})
    with pytest.raises(UserError, match="transformers_weights is '7', expected a file name"):
        weight_files(tmp_path, {"transformers_weights": 7})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "gone.bin"}}))
    with pytest.raises(UserError, match=r"gone\.bin is missing, which model\.safetensors\.index\.json names"):
        weight_files(tmp_path, {})
    index.write_text(json.dumps({"weight_map": {"x": "e.safetensors", "y": "a.bin", "z": "a.bin"}}))
    assert weight_files(tmp_path, {})[:2] == (index.name, ["a.bin", "e.safetensors"])


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("tokenizer.json", MAX_TOKENIZER_BYTES),
        ("tokenizer.model", MAX_TOKENIZER_BYTES),
        ("config.json", MAX_JSON_BYTES),
        ("merges.txt", MAX_JSON_BYTES),
        ("README.md", MAX_JSON_BYTES),
    ],
)
def test_how_large_a_file_beside_the_weights_may_be(name: str, most: int, tmp_path: Path) -> None:
    for size, refused in ((most, False), (most + 1, True)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
        if refused:
            with pytest.raises(UserError, match=f"{name}: has {size:,} bytes, expected at most {most:,}"):
                check_side_files(tmp_path)
        else:
            check_side_files(tmp_path)


# Every file that transformers, tokenizers or gguf-py may open there.
@pytest.mark.parametrize(
    "name",
    [
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.json",
        "chat_template.jinja", "modules.json", "config_sentence_transformers.json", "README.md",
    ],
)  # fmt: skip
def test_a_folder_in_the_place_of_a_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name}: is a folder, expected a file"):
        check_side_files(tmp_path)


def test_a_text_for_people_may_be_anything(tmp_path: Path) -> None:
    """Empty, or a page, unlike what a reader opens."""
    for content in (b"", b"<!DOCTYPE html><html></html>"):
        (tmp_path / "README.md").write_bytes(content)
        check_side_files(tmp_path)
        (tmp_path / "merges.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"merges\.txt: "):
            check_side_files(tmp_path)
        (tmp_path / "merges.txt").unlink()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\udcff"])
def test_what_is_not_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"x\.json: (cannot be read as JSON|is not UTF-8 text) \(.*\); (download|save)"):
        read_json(tmp_path / "x.json")


def test_json_that_is_no_object_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(UserError, match=r"x\.json: expected a JSON object, found list"):
        read_json(tmp_path / "x.json")
    with pytest.raises(UserError, match=r": has no y\.json; expected a Hugging Face checkpoint folder"):
        read_json(tmp_path / "y.json")
    with pytest.raises(UserError, match="not a folder"):
        Checkpoint.open(tmp_path / "x.json")


class PanicException(BaseException):
    """Named as what a panic of a Rust package becomes."""


@pytest.mark.parametrize(
    "raised", [KeyError("rope"), TypeError("a\nb"), PanicException("x" * 999), MemoryError("of no use")]
)
def test_whatever_readers_raise_is_a_sentence(raised: BaseException, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=f"a value in config.*\\({type(raised).__name__}: ") as caught,
        readable(tmp_path),
    ):
        raise raised
    assert str(caught.value).startswith(f"{tmp_path}: ") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 420


@pytest.mark.parametrize("raised", [TritError("ours"), UserError("theirs"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_a_sentence_already_or_an_end(raised: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(raised)) as caught, readable(tmp_path):
        raise raised
    assert caught.value is raised


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        (["module.model.norm.weight"], "model.norm.weight", "module.model.norm.weight"),
        (["module.model.norm.weight"], "model.layers.7.x", "module.model.layers.7.x"),
        (["model.layers.0._orig_mod.a.weight"], "model.layers.0.b.weight", "model.layers.0._orig_mod.b.weight"),
        (["model.layers.0._orig_mod.a.weight"], "model.layers.1.a.weight", "model.layers.1.a.weight"),
        (["model.norm.weight"], "lm_head.weight", "lm_head.weight"),
        ([], "lm_head.weight", "lm_head.weight"),
    ],
)
def test_a_missing_tensor_is_called_as_its_neighbours_are(
    names: list[str], asked: str, found: str, tmp_path: Path
) -> None:
    tensors = {checkpoint.plain_name(name): StoredTensor(name, tmp_path, 0, "F32", (1,)) for name in names}
    assert Checkpoint(tmp_path, {}, "config.json", tensors, [], []).stored_name(asked) == found
