# SPDX-License-Identifier: MIT
"""Numbers of tensors that no trained model has."""

from __future__ import annotations

import math
import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.support.foreign_files import write_gguf
from trit.gguf.header import read_raw_header
from trit.gguf.identify import identify
from trit.gguf.layouts import PLAIN
from trit.gguf.source import Source
from trit.gguf.tensor_numbers import FLOATS, SCALE_PLACES, broken_numbers
from trit.inspect.sample import finite

IDS = {name: (number, block, size) for number, (name, block, size) in PLAIN.items()}
ROWS, COLUMNS = 200, 256


def matrix(kind: str, at: int | None, value: float) -> bytes:
    """ROWS x COLUMNS weights with scales of 0.5, but for one scale or float of row ``at``."""
    _, block, size = IDS[kind]
    if kind in FLOATS:
        values = np.full((ROWS, COLUMNS), 0.5, "<f4")
        if at is not None:
            values[at, COLUMNS // 2] = value
        if kind == "bf16":
            return (values.view("<u4") >> 16).astype("<u2").tobytes()
        return values.astype({"f32": "<f4", "f16": "<f2"}[kind]).tobytes()
    raw = bytearray(range(7, 7 + size)) * (ROWS * COLUMNS // block)
    for start in range(0, len(raw), size):
        for place in SCALE_PLACES[kind]:
            raw[start + place : start + place + 2] = struct.pack("<e", 0.5)
    if at is not None:
        place = at * COLUMNS // block * size + SCALE_PLACES[kind][-1]
        raw[place : place + 2] = struct.pack("<e", value)
    return bytes(raw)


def written(path: Path, kind: str, raw: bytes, name: str = "output.weight") -> Path:
    return write_gguf(path / "m.gguf", [], [(name, (ROWS, COLUMNS), IDS[kind][0], raw)])


def reason(path: Path) -> str | None:
    return broken_numbers(path, identify(read_raw_header(path)))


@pytest.mark.parametrize("kind", SCALE_PLACES)
def test_scales_are_where_gguf_py_reads_them(kind: str) -> None:
    """Two bytes are a scale if weights are no numbers with NaN in them."""
    number, _, size = IDS[kind]
    found = []
    for at in range(size - 1):
        block = np.zeros((1, size), np.uint8)
        block[0, at : at + 2] = np.frombuffer(struct.pack("<e", math.nan), np.uint8)
        with np.errstate(invalid="ignore"):
            weights = gguf.quants.dequantize(block, gguf.GGMLQuantizationType(number))
        if np.isnan(weights).any():
            found.append(at)
    assert tuple(found) == SCALE_PLACES[kind]


@pytest.mark.parametrize("kind", [*FLOATS, *SCALE_PLACES])
def test_rows_of_tokens_are_looked_at(kind: str, tmp_path: Path) -> None:
    """The first and the last row are among those of which a run looks at; an inspection looks at all."""
    assert reason(written(tmp_path, kind, matrix(kind, None, 0))) is None
    for at in (0, ROWS - 1):
        for value in (math.nan, math.inf, -math.inf):
            path = written(tmp_path, kind, matrix(kind, at, value))
            assert reason(path) == "output.weight holds a number that is not finite"
    path = written(tmp_path, kind, matrix(kind, 3, math.nan))
    source = Source.open(path)
    assert reason(path) is None and not finite(source, source.found["output.weight"], True)
    whole = Source.open(written(tmp_path, kind, matrix(kind, None, 0)))
    assert finite(whole, whole.found["output.weight"], True)


@pytest.mark.parametrize("kind", [*FLOATS, *SCALE_PLACES])
@pytest.mark.parametrize("name", ["token_embd.weight", "output.weight", "blk.0.ffn_up.weight"])
def test_zeros(kind: str, name: str, tmp_path: Path) -> None:
    """A head of zeros makes all tokens alike; a matrix of a layer may be zero, and so may rows of an embedding."""
    nothing = bytes(len(matrix(kind, None, 0)))
    assert reason(written(tmp_path, kind, nothing, name)) == (
        None if name.startswith("blk") else f"{name} is all zeros"
    )
    half = nothing[: len(nothing) // 2] + matrix(kind, None, 0)[len(nothing) // 2 :]
    assert reason(written(tmp_path, kind, half, name)) is None


def test_norms_of_zeros(tmp_path: Path) -> None:
    """A bias may be zero, a norm not."""
    for name, said in (
        ("output_norm.weight", "output_norm.weight is all zeros"),
        ("blk.3.ffn_down_norm_in.weight", None),
        ("blk.3.attn_q.bias", None),
        ("blk.3.post_attention_norm.weight", "blk.3.post_attention_norm.weight is all zeros"),
    ):
        assert reason(write_gguf(tmp_path / "m.gguf", [], [(name, (8,), 0, bytes(32))])) == said
        assert reason(write_gguf(tmp_path / "m.gguf", [], [(name, (8,), 1, struct.pack("<8e", *[0] * 7, 1))])) is None


def test_what_a_run_does_not_look_at(tmp_path: Path) -> None:
    """Matrices of layers, and types whose scales it does not know: any bytes are a model's there."""
    for kind in (*FLOATS, *SCALE_PLACES):
        assert reason(written(tmp_path, kind, matrix(kind, 0, math.nan), "blk.0.ffn_up.weight")) is None
    others = [name for name, (_, block, _) in IDS.items() if block > 1 and name not in SCALE_PLACES]
    assert others
    for kind in others:
        _, block, size = IDS[kind]
        assert reason(written(tmp_path, kind, b"\xff" * (ROWS * COLUMNS // block * size))) is None


def test_matrices_of_layers_are_sampled_by_an_inspection(tmp_path: Path) -> None:
    path = written(tmp_path, "f32", matrix("f32", 3, math.nan), "blk.0.ffn_up.weight")
    source = Source.open(path)
    assert reason(path) is None and not finite(source, source.found["blk.0.ffn_up.weight"], False)


def test_costs_little(tmp_path: Path) -> None:
    """A head of 128,256 x 4,096 half floats, of which 32 rows are read: 8 ms."""
    path = tmp_path / "m.gguf"
    shape = (128_256, 4096)
    write_gguf(path, [], [("output.weight", shape, 1, b"")])
    header = read_raw_header(path, whole=False)
    with path.open("r+b") as file:
        file.truncate(header.data_offset + 2 * shape[0] * shape[1])
        file.seek(header.data_offset)
        file.write(struct.pack("<e", 1))
    found = identify(read_raw_header(path))
    times = []
    for _ in range(3):
        started = time.process_time()
        assert broken_numbers(path, found) is None
        times.append(time.process_time() - started)
    assert min(times) < 0.2
