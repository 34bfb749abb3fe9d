# SPDX-License-Identifier: MIT
"""GGUF files of a few kilobytes, byte by byte, so that they can also be wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.foreign_files import Key, write_gguf
from trit.gguf.encodings import ENCODINGS

ROWS, COLUMNS = 64, 256
# The least that our checks let through: an architecture of which no tensor is known.
KEYS: list[Key] = [
    ("general.architecture", 8, None, "stablelm"),
    ("general.name", 8, None, "tiny"),
    ("stablelm.context_length", 4, None, 64),
    ("stablelm.embedding_length", 4, None, COLUMNS),
    ("stablelm.block_count", 4, None, 1),
    ("tokenizer.ggml.model", 8, None, "gpt2"),
    ("tokenizer.ggml.tokens", 9, 8, [*map(chr, range(33, 127)), "\u0120", "\u010a", "ab"]),
    ("tokenizer.ggml.merges", 9, 8, ["a b"]),
]
_ALIGNED = 4096


def tiny_gguf(encoding: str, *, bytes_per_128: int | None = None) -> bytes:
    """A file with a norm of ones and two matrices of an encoding, whose data are zero.

    Args:
        encoding: a key of ``ENCODINGS``.
        bytes_per_128: lay the matrices out with this many bytes per 128 weights, whatever their type says.
    """
    row = ENCODINGS[encoding]
    size = row.nbytes(ROWS, COLUMNS) if bytes_per_128 is None else ROWS * COLUMNS // 128 * bytes_per_128
    tensors = [("output_norm.weight", (COLUMNS,), 0, COLUMNS * 4)]
    tensors += [(f"blk.0.{name}.weight", (COLUMNS, ROWS), row.ggml_type, size) for name in ("attn_q", "attn_k")]
    return _file(tensors, 32)


def tiny_model(path: Path, **keys: Any) -> Path:
    """A model of one vector with further keys: strings, uint32 numbers."""
    more: list[Key] = [
        (name.replace("__", "."), 8 if isinstance(value, str) else 4, None, value) for name, value in keys.items()
    ]
    return write_gguf(path, [*KEYS, *more], [("output_norm.weight", (1,), 0, struct.pack("<f", 1.0))])


def _file(tensors: Sequence[tuple[str, tuple[int, ...], int, int]], alignment: int) -> bytes:
    keys = [*KEYS, ("general.alignment", 4, None, alignment)]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, kind, element, value in keys:
        head += _string(key) + struct.pack("<I", kind)
        if isinstance(value, list):
            head += struct.pack("<IQ", element, len(value)) + b"".join(map(_string, value))
        else:
            head += _string(value) if isinstance(value, str) else struct.pack("<I", value)
    data = b""
    for name, dimensions, kind, nbytes in tensors:
        head += _string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, len(data))
        own = struct.pack("<f", 1.0) * (nbytes // 4) if kind == 0 else bytes(nbytes)
        data += own + bytes(-len(own) % alignment)
    return head + bytes(-len(head) % alignment) + data


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(raw := text.encode())) + raw


# A model of one vector. Its alignment lets up to 4,000 bytes follow, whatever they are.
EMPTY = _file([("output_norm.weight", (1,), 0, 4)], _ALIGNED)[: 4 - _ALIGNED]
