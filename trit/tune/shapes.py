# SPDX-License-Identifier: MIT
"""The ternary matrices of a layer: their shapes, and how often each occurs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from trit.base.errors import UserError
from trit.gguf.encoding_table import BY_NUMBER
from trit.gguf.header import read_raw_header
from trit.models.families import find_family
from trit.models.families.base import Kind
from trit.models.families.defaults import complete
from trit.models.json_files import read_json
from trit.models.shapes import SHAPES, matrices

_LAYER = re.compile(r"blk\.(\d+)\.")


def of_published_shape(name: str) -> Counter[tuple[int, int]]:
    """(n, k) -> matrices in a layer of a shape of trit.convert.from_random.

    Raises:
        UserError: there is no shape of this name.
    """
    if name not in SHAPES:
        raise UserError(f"--shape {name}: expected one of {', '.join(SHAPES)}")
    return Counter(matrices(SHAPES[name]).values())


def of_model(path: Path) -> Counter[tuple[int, int]]:
    """(n, k) -> ternary matrices in the first layer of a GGUF file or a checkpoint folder; empty if there is none.

    Raises:
        UserError: it is neither, or the folder's model is of no family that is known.
    """
    return _of_checkpoint(path) if path.is_dir() else _of_gguf(path)


def _of_gguf(path: Path) -> Counter[tuple[int, int]]:
    return Counter(
        (tensor.shape[-2], tensor.columns)
        for tensor in read_raw_header(path, arrays=False).tensors.values()
        if tensor.ggml_type in BY_NUMBER and len(tensor.shape) >= 2 and _in_first_layer(tensor.name)
    )


def _of_checkpoint(folder: Path) -> Counter[tuple[int, int]]:
    """From config.json alone: the weights may be many gigabytes."""
    config, _ = complete(read_json(folder / "config.json"))
    specs = find_family(config).tensors(config)
    return Counter(
        (spec.shape[0], spec.shape[1]) for spec in specs if spec.kind is Kind.TERNARY and _in_first_layer(spec.target)
    )


def _in_first_layer(name: str) -> bool:
    layer = _LAYER.match(name)
    return layer is not None and int(layer[1]) == 0
