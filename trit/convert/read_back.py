# SPDX-License-Identifier: MIT
"""Read written GGUF files back and compare every tensor with what the source said it should hold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trit.base.errors import TritError
from trit.gguf.encodings import Bytes, Encoding, Scale, Ternary, same_values
from trit.gguf.types import TensorEntry, read_header
from trit.gguf.writer import PlannedTensor

PIECE_BYTES = 1 << 24


@dataclass(frozen=True)
class Expected:
    """What one tensor of the file has to hold.

    Attributes:
        tensor: Its row of the tensor table.
        digest: Of the ternary int8 matrix that came from the source (ternary tensors), else of the stored bytes.
        encoding: Of a ternary tensor; None for the other tensors.
        scale: The scale of a ternary tensor as its encoding can hold it.
    """

    tensor: PlannedTensor
    digest: bytes
    encoding: Encoding | None = None
    scale: Scale = 1.0


def ternary_digest(ternary: Ternary) -> bytes:
    """Digest of a ternary matrix, whatever its encoding."""
    return hashlib.blake2b(np.ascontiguousarray(ternary).data).digest()


def _stored_digest(entry: TensorEntry, path: Path) -> bytes:
    """Digest of a tensor's bytes in the file, read piece by piece: embeddings are large."""
    digest = hashlib.blake2b()
    for start in range(0, entry.nbytes, PIECE_BYTES):
        digest.update(entry.read(path, start, start + PIECE_BYTES).data)
    return digest.digest()


def unpack(encoding: Encoding, data: Bytes, n: int, k: int, name: str) -> tuple[Ternary, Scale]:
    """Decode a matrix with the encoding's own function."""
    return encoding.unpack(data, n, k, name)


def verify(
    paths: Sequence[Path],
    expected: Sequence[Expected],
    unpack: Callable[[Encoding, Bytes, int, int, str], tuple[Ternary, Scale]] = unpack,
) -> str:
    """Decode every ternary tensor of the files and compare values and scale; compare the other tensors' bytes.

    Args:
        paths: The files of the model.
        expected: What they should hold, in their order.
        unpack: Decodes a matrix.

    Returns:
        One line that says what was checked.

    Raises:
        TritError: anything differs; names the tensor.
    """
    table = {name: (path, entry) for path in paths for name, entry in read_header(path).tensors.items()}
    if list(table) != [item.tensor.name for item in expected]:
        raise TritError(f"{paths[0]}: the tensor table read back is not the one that was written")
    ternary_count = weights = 0
    for item in expected:
        (path, entry), tensor = table[item.tensor.name], item.tensor
        if (entry.shape, entry.ggml_type) != (tensor.shape, tensor.ggml_type):
            raise TritError(f"{tensor.name}: reads back as type {entry.ggml_type} {entry.shape}, expected {tensor}")
        if item.encoding is None:
            same = _stored_digest(entry, path) == item.digest
        else:
            n, k = math.prod(tensor.shape[:-1]), tensor.shape[-1]
            ternary, scale = unpack(item.encoding, entry.read(path), n, k, tensor.name)
            same = ternary_digest(ternary) == item.digest and same_values(ternary, scale, item.scale)
            ternary_count, weights = ternary_count + 1, weights + n * k
        if not same:
            raise TritError(
                f"{tensor.name}: reads back with other values than were written to {path.name}; check the disk"
            )
    rest = len(expected) - ternary_count
    return (
        f"checked by reading back: {ternary_count} ternary tensors ({weights:,} weights) decode to the source's "
        f"values and scales, {rest} other tensors hold the bytes that were written"
    )


def verify_vocabulary(path: Path, expected: Mapping[str, Any]) -> None:
    """Compare the vocabulary of a written file with the one that was checked.

    Args:
        path: The file that has the metadata.
        expected: Its ``tokenizer.*`` keys.

    Raises:
        TritError: a key differs; names it.
    """
    found = tokenizer_keys(path)
    for key in [*expected, *found]:
        if found.get(key) != expected.get(key):
            raise TritError(f"{key}: reads back otherwise than it was written to {path.name}; check the disk")


def tokenizer_keys(path: Path) -> dict[str, Any]:
    """The ``tokenizer.*`` keys of a GGUF file."""
    return {key: value for key, value in read_header(path).metadata.items() if key.startswith("tokenizer.")}
