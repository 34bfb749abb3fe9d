# SPDX-License-Identifier: MIT
"""The ternary matrices of a layer: their shapes, and how often each occurs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from utils.cli import UserError
from utils.generate_dummy_model import SHAPES, matrices
from utils.gguf_header import read_raw_header
from utils.weight_encodings import ENCODINGS

_LAYER = re.compile(r"blk\.(\d+)\.")


def of_published_shape(name: str) -> Counter[tuple[int, int]]:
    """(n, k) -> matrices in a layer of a shape of utils.generate_dummy_model.

    Raises:
        UserError: there is no shape of this name.
    """
    if name not in SHAPES:
        raise UserError(f"--shape {name}: expected one of {', '.join(SHAPES)}")
    return Counter(matrices(SHAPES[name]).values())


def of_model(path: Path) -> Counter[tuple[int, int]]:
    """(n, k) -> matrices in the first layer of a GGUF file, of encodings that our kernels read; empty if there is none.

    Raises:
        UserError: the file is no GGUF file.
    """
    types = {row.ggml_type for row in ENCODINGS.values() if row.name not in ("f16", "f32")}
    found: Counter[tuple[int, int]] = Counter()
    for tensor in read_raw_header(path, arrays=False).tensors.values():
        layer = _LAYER.match(tensor.name)
        if layer and int(layer[1]) == 0 and tensor.ggml_type in types and len(tensor.shape) >= 2:
            found[tensor.shape[-2], tensor.columns] += 1
    return found
