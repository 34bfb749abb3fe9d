# SPDX-License-Identifier: MIT
"""A file that holds something else than was meant is noticed, whatever differs."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.foreign_files import random_rows, write_gguf
from tests.support.tiny_gguf import KEYS
from trit.base.errors import TritError
from trit.convert import read_back
from trit.convert.read_back import Expected, ternary_digest, verify, verify_vocabulary
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import GGMLQuantizationType
from trit.gguf.writer import PlannedTensor

TQ2_0, Q2_0, F32 = ENCODINGS["tq2_0"], ENCODINGS["q2_0"], GGMLQuantizationType.F32
TERNARY = np.array(random_rows(6, 256), np.int8) - 1
VECTOR = np.arange(64, dtype="<f4").tobytes()


def model(folder: Path, scale: float = 0.5) -> tuple[Path, list[Expected]]:
    """Two matrices of three times two rows, and a vector."""
    rows = [("a", TQ2_0, (3, 2, 256)), ("b", Q2_0, (6, 256))]
    tensors = [(name, shape, int(row.ggml_type), row.pack(TERNARY, scale).tobytes()) for name, row, shape in rows]
    path = write_gguf(folder / "m.gguf", KEYS, [*tensors, ("v", (64,), 0, VECTOR)])
    digest = ternary_digest(TERNARY)
    expected = [Expected(PlannedTensor(name, shape, row.ggml_type), digest, row, scale) for name, row, shape in rows]
    return path, [*expected, Expected(PlannedTensor("v", (64,), F32), hashlib.blake2b(VECTOR).digest())]


@pytest.mark.parametrize("piece", [1 << 24, 256, 100, 1])
def test_what_was_meant(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_back, "PIECE_BYTES", piece)
    path, expected = model(tmp_path)
    assert verify([path], expected) == (
        "checked by reading back: 2 ternary tensors (3,072 weights) decode to the source's values and scales, 1 other "
        "tensors hold the bytes that were written"
    )
    path, expected = model(tmp_path, 1.0)
    verify([path], [replace(expected[0], scale=Expected(expected[0].tensor, b"").scale), *expected[1:]])


def test_what_was_not_meant(tmp_path: Path) -> None:
    path, (a, b, v) = model(tmp_path)
    values = r"reads back with other values than were written to m\.gguf; check the disk"
    other = ternary_digest(-TERNARY)
    for changed, words in (
        ([a, b], "the tensor table read back is not the one that was written"),
        ([b, a, v], "the tensor table read back is not the one that was written"),
        ([a, b, v, v], "the tensor table read back is not the one that was written"),
        ([replace(a, digest=other), b, v], f"^a: {values}"),
        ([a, replace(b, scale=0.25), v], f"^b: {values}"),
        ([a, b, replace(v, digest=other)], f"^v: {values}"),
        ([replace(a, tensor=replace(a.tensor, shape=(6, 256))), b, v], r"^a: reads back as type .*\(3, 2, 256\), exp"),
        ([a, b, replace(v, tensor=replace(v.tensor, ggml_type=GGMLQuantizationType.I32))], "^v: reads back as type"),
    ):
        with pytest.raises(TritError, match=words):
            verify([path], changed)
    for place in (-1, -4 * 64):
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(TritError, match=f"^v: {values}"):
            verify([path], [a, b, v])


def test_keys_of_a_vocabulary(tmp_path: Path) -> None:
    path, _ = model(tmp_path)
    keys = {key: value for key, _, _, value in KEYS if key.startswith("tokenizer.")}
    verify_vocabulary(path, keys)
    for changed, key in (
        (keys | {"tokenizer.ggml.more": 1}, "more"),
        (keys | {"tokenizer.ggml.tokens": ["a", "b", "c"]}, "tokens"),
        ({k: v for k, v in keys.items() if k != "tokenizer.ggml.model"}, "model"),
    ):
        with pytest.raises(TritError, match=rf"^tokenizer\.ggml\.{key}: reads back otherwise than it was written to m"):
            verify_vocabulary(path, changed)
