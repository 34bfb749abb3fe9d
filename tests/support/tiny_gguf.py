# SPDX-License-Identifier: MIT
"""GGUF files of a few kilobytes, byte by byte, so that they can also be wrong."""

from __future__ import annotations

import struct

from trit.gguf.encodings import ENCODINGS

ROWS, COLUMNS = 64, 256
# No keys and no tensors, so that anything may follow.
EMPTY = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)


def tiny_gguf(encoding: str, *, bytes_per_128: int | None = None) -> bytes:
    """A file with a norm and two matrices of an encoding, all data zero.

    Args:
        encoding: a key of ``ENCODINGS``.
        bytes_per_128: lay the matrices out with this many bytes per 128 weights, whatever their type says.
    """
    row = ENCODINGS[encoding]
    size = row.nbytes(ROWS, COLUMNS) if bytes_per_128 is None else ROWS * COLUMNS // 128 * bytes_per_128
    tensors = [("output_norm.weight", (COLUMNS,), 0, COLUMNS * 4)]
    tensors += [(f"blk.0.{name}.weight", (COLUMNS, ROWS), row.ggml_type, size) for name in ("attn_q", "attn_k")]
    metadata = [("general.architecture", "llama"), ("general.name", "tiny")]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata:
        head += _string(key) + struct.pack("<I", 8) + _string(value)
    data = b""
    for name, dimensions, kind, nbytes in tensors:
        head += _string(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, len(data))
        data += bytes(-(-nbytes // 32) * 32)
    return head + bytes(-len(head) % 32) + data


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()
