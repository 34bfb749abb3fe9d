# SPDX-License-Identifier: MIT
"""Which encoding a matrix gets whose columns are no whole blocks, and where its scale goes."""

from __future__ import annotations

import numpy as np
import pytest

from trit.base.errors import UserError
from trit.convert.matrices import (
    SCALED_GRAPHS,
    check_columns,
    fallback_notes,
    fitting,
    matrix_rows,
    odd_ones,
    rounding_notes,
    scale_name,
    write_matrix,
)
from trit.convert.read_back import ternary_digest
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import GGMLQuantizationType
from trit.gguf.writer import PlannedTensor

TQ2_0, Q2_0, F16 = ENCODINGS["tq2_0"], ENCODINGS["q2_0"], ENCODINGS["f16"]
SHAPES = {"a.weight": (4, 256), "b.weight": (4, 512), "c.weight": (4, 320), "d.weight": (2, 320)}


class Writer:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, pieces: list[np.ndarray]) -> bytes:
        self.written.append(b"".join(piece.tobytes() for piece in pieces))
        return b"digest of %d" % len(self.written)


def test_odd_ones() -> None:
    assert scale_name("blk.0.a.weight") == "blk.0.a.scale" and scale_name("a") == "a.scale"
    assert odd_ones(SHAPES, TQ2_0) == {"c.weight": 320, "d.weight": 320} and odd_ones(SHAPES, Q2_0) == {}
    (note,) = fallback_notes(SHAPES, TQ2_0)
    assert note.startswith(
        "2 matrices like c.weight have 320 columns, tq2_0 needs a multiple of 256: they are stored as"
    )
    assert fallback_notes(SHAPES, Q2_0) == []
    assert [n.split()[0] for n in fallback_notes({"x": (1, 320), "y": (1, 64), "z": (1, 64)}, TQ2_0)] == ["2", "1"]
    assert rounding_notes(0.0) == []
    assert rounding_notes(0.00012) == ["scales are rounded to float16, by up to 1.2e-04 of their value"]


@pytest.mark.parametrize(
    ("columns", "groups", "architecture", "first", "lacks"),
    [
        ((256, 768), {0}, "llama", "i2_s", ()),
        ((576, 576, 576, 1536), {0}, "llama", "tl1", ("i2_s", "tl2", "tq2_0")),
        ((576, 1536), {64}, "llama", "q2_0", ("i2_s", "tl1", "tl2", "tq2_0")),
        ((2048, 512), {2048, 512}, "maple", "tq2_0", ("i2_s", "tl1", "tl2")),
        ((1024, 4096), {256}, "minicpm", "tq2_0", ("i2_s", "tl1", "tl2")),
        ((1024, 4096), {128}, "minicpm", "q2_0", ("i2_s", "tq2_0", "tq1_0")),
        ((1024, 4096), {0, 128}, "minicpm", "q2_0", ("i2_s",)),
        ((100, 60), {0}, "llama", "f16", ("i2_s", "tl1", "q2_0")),
    ],
)
def test_what_fits_is_found(
    columns: tuple[int, ...], groups: set[int], architecture: str, first: str, lacks: tuple[str, ...]
) -> None:
    found = fitting({f"blk.{i}.w.weight": (64, k) for i, k in enumerate(columns)}, groups, architecture)
    assert found[0] == first and not set(lacks) & set(found) and {"f16", "f32"} <= set(found)


def test_one_matrix_that_does_not_fit_takes_no_encoding_away_where_the_graph_reads_its_scale() -> None:
    shapes = {"a": (64, 3200), "b": (64, 3200), "c": (64, 8640 // 4)}
    assert fitting(shapes, {0}, "bitnet")[0] == "i2_s"
    assert fitting(shapes, {0}, "gemma3")[0] == "f16"


def test_encodings_that_are_named_fit_all_matrices() -> None:
    with pytest.raises(UserError, match=r"a: 576 columns, .* use --outtype f16 or f32$"):
        check_columns({"a": (64, 576), "b": (64, 100)}, ENCODINGS["i2_s"], "gemma3")


@pytest.mark.parametrize(
    ("shapes", "architecture", "refused"),
    [
        (SHAPES, "llama", None),
        (SHAPES, "gemma3", "c.weight"),
        ({"a": (1, 256)}, "gemma3", None),
        ({"a": (5, 256), "b": (4, 320)}, "qwen3", None),  # exactly half
        ({"a": (5, 256), "b": (5, 320)}, "qwen3", "b"),
        ({"a": (9, 256), "b": (2, 2, 320)}, "bitnet", "b"),
    ],
)
def test_what_most_of_the_weights_are(
    shapes: dict[str, tuple[int, ...]], architecture: str, refused: str | None
) -> None:
    assert "gemma3" not in SCALED_GRAPHS
    if refused is None:
        check_columns(shapes, TQ2_0, architecture)
    else:
        with pytest.raises(UserError, match=f"^{refused}: "):
            check_columns(shapes, TQ2_0, architecture)


def test_rows_of_a_matrix() -> None:
    whole = PlannedTensor("a.weight", (4, 256), TQ2_0.ggml_type)
    assert matrix_rows("a.weight", (4, 256), TQ2_0) == matrix_rows("a.weight", (4, 256), TQ2_0, scaled=True) == [whole]
    row, scale = matrix_rows("c.weight", (4, 320), TQ2_0)
    assert row.ggml_type != TQ2_0.ggml_type and row.shape == (4, 320)
    assert scale == PlannedTensor("c.scale", (1,), GGMLQuantizationType.F32)
    assert matrix_rows("c.weight", (4, 320), TQ2_0, scaled=True) == [row]


def test_where_a_scale_goes() -> None:
    """In the encoding; beside it, exactly, where the encoding is another; those of groups always in the encoding."""
    ternary = np.resize(np.array([1, 0, -1], np.int8), (4, 320))
    exact, rough = 0.375, 0.1
    rows = matrix_rows("c.weight", (4, 320), TQ2_0)
    writer = Writer()
    expected, deviation = write_matrix(writer, rows, TQ2_0, ternary, rough)  # type: ignore[arg-type]
    assert deviation == 0 and writer.written[1] == np.float32(rough).tobytes()
    assert [item.tensor for item in expected] == rows and (expected[0].scale, expected[1].digest) == (
        1.0,
        b"digest of 2",
    )
    assert expected[0].digest == ternary_digest(ternary) and expected[1].encoding is None
    groups = np.full((4, 5), exact, np.float32)
    writer = Writer()
    expected, _ = write_matrix(writer, rows, TQ2_0, ternary, groups)  # type: ignore[arg-type]
    assert np.array_equal(expected[0].scale, groups) and writer.written[1] == np.float32(1).tobytes()
    writer = Writer()
    (only,), deviation = write_matrix(writer, rows[:1], TQ2_0, ternary, rough)  # type: ignore[arg-type]
    assert only.scale == np.float16(rough) and 0 < deviation < 1e-3 and len(writer.written) == 1


def test_floats_with_two_among_them() -> None:
    ternary = np.array([[1, 0, 2, -1]], np.int8)
    row = [PlannedTensor("a", (1, 4), F16.ggml_type)]
    (item,), _ = write_matrix(Writer(), row, F16, ternary, 0.5)  # type: ignore[arg-type]
    assert item.encoding is None and item.digest == b"digest of 1"
    (item,), _ = write_matrix(Writer(), row, F16, ternary.clip(-1, 1), 0.5)  # type: ignore[arg-type]
    assert item.encoding is F16 and item.digest == ternary_digest(ternary.clip(-1, 1)) and item.scale == 0.5
