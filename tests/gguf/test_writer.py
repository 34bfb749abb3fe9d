# SPDX-License-Identifier: MIT
"""Writing GGUF files: where the tensor table begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trit.gguf.header import read_raw_header
from trit.gguf.types import GGMLQuantizationType
from trit.gguf.writer import PADDING, PlannedTensor, StreamWriter


def written(path: Path, name: str, alignment: int | None) -> bytes:
    """A file's bytes from the tensor table on."""
    writer = StreamWriter(path, "llama")
    writer.metadata.add_string("general.name", name)
    if alignment:
        writer.metadata.add_custom_alignment(alignment)
    # A file that is converted again brings its own.
    writer.metadata.add_string(PADDING, " " * 7)
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    writer.plan(PlannedTensor("a.weight", values.shape, GGMLQuantizationType.F32))
    writer.begin()
    writer.write([values])
    writer.close()
    raw = path.read_bytes()
    # A tensor's row begins with the length of its name.
    return raw[raw.index(b"a.weight") - 8 :]


@pytest.mark.parametrize("alignment", [None, 64])
def test_files_of_the_same_tensors_are_the_same_bytes_from_the_table_on(tmp_path: Path, alignment: int | None) -> None:
    boundary = alignment or 32
    found = set()
    for length in range(1, 70):
        path = tmp_path / f"{length}.gguf"
        tail = written(path, "n" * length, alignment)
        found.add(tail)
        header = read_raw_header(path)
        assert (path.stat().st_size - len(tail)) % boundary == 0
        assert header.metadata["general.name"] == "n" * length and header.data_offset % boundary == 0
        assert list(header.metadata)[-1] == PADDING and set(header.metadata[PADDING]) <= {" "}
    assert len(found) == 1
