# SPDX-License-Identifier: MIT
"""GGUF files with our engine's tensor types: the gguf package taught about them, and a light reader of file headers.

gguf-py 0.19 keeps its types in an IntEnum and a size table, so its reader raises on type 36 (i2_s) and its writer has
no size for it; type 42 (q2_0) is newer than it. Importing this module adds the missing members, here and nowhere else.
``read_header`` exists because gguf-py's reader makes several numpy arrays per string: 7 s and 600 MB for a vocabulary
of 128,256 tokens, which would break the converter's memory bound; this one takes 0.3 s.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFValueType, GGUFWriter, constants
from gguf.constants import GGMLQuantizationType

from utils.cli import UserError
from utils.weight_encodings import ENCODINGS, I2_S_TAIL_BYTES

__all__ = [
    "GGMLQuantizationType",
    "GGUFReader",
    "GGUFValueType",
    "GGUFWriter",
    "GgufHeader",
    "TensorEntry",
    "read_header",
]

I2_S = ENCODINGS["i2_s"]
Q2_0 = ENCODINGS["q2_0"]
GGUF_VERSIONS = (2, 3)
# struct formats of GGUF's scalar value types, little-endian.
SCALARS = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.BOOL: "<?",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT64: "<d",
}


def _add_type(name: str, number: int, block: int, block_bytes: int) -> None:
    """Add one member to gguf's enum and one row to its size table, unless gguf knows the number already."""
    if number not in GGMLQuantizationType._value2member_map_:
        member = int.__new__(GGMLQuantizationType, number)
        member._name_ = name
        member._value_ = number
        GGMLQuantizationType._member_names_.append(name)
        GGMLQuantizationType._member_map_[name] = member
        GGMLQuantizationType._value2member_map_[number] = member
    constants.GGML_QUANT_SIZES.setdefault(GGMLQuantizationType(number), (block, block_bytes))


# The 32 bytes after the blocks of an i2_s tensor fit in neither table: gguf-py's reader gives the blocks only.
_add_type("I2_S", I2_S.ggml_type, I2_S.block, I2_S.block_bytes)
_add_type("Q2_0", Q2_0.ggml_type, Q2_0.block, Q2_0.block_bytes)


@dataclass(frozen=True)
class TensorEntry:
    """One row of a GGUF file's tensor table.

    Attributes:
        name: Name in the file.
        shape: Outermost dimension first, as numpy has it (the file has it the other way round).
        ggml_type: Type number.
        offset: Absolute byte offset of the data in the file.
        nbytes: Size of the data, with the tail of i2_s.
    """

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    nbytes: int

    def read(self, path: Path, start: int = 0, stop: int | None = None) -> npt.NDArray[np.uint8]:
        """Bytes [start:stop] of the tensor (all by default) from the file; raises UserError if the file ends before."""
        wanted = (self.nbytes if stop is None else min(stop, self.nbytes)) - start
        data = np.fromfile(path, dtype=np.uint8, count=wanted, offset=self.offset + start)
        if data.size != wanted:
            raise UserError(f"{path}: ends inside {self.name}; convert or download the file again")
        return data


@dataclass(frozen=True)
class GgufHeader:
    """Metadata and tensor table of a GGUF file.

    Attributes:
        metadata: Key -> value; arrays are lists, strings are str.
        types: Key -> (value type, element type of arrays).
        tensors: Name -> entry, in the file's order.
    """

    metadata: dict[str, Any]
    types: dict[str, tuple[GGUFValueType, GGUFValueType | None]]
    tensors: dict[str, TensorEntry]


class _Cursor:
    """Reads GGUF's primitive values one after the other."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self.buffer = buffer
        self.position = 0

    def scalar(self, kind: str) -> Any:
        (value,) = struct.unpack_from(kind, self.buffer, self.position)
        self.position += struct.calcsize(kind)
        return value

    def string(self) -> str:
        length = self.scalar("<Q")
        raw = self.buffer[self.position : self.position + length]
        if len(raw) != length:
            raise struct.error("a string runs past the end of the file")
        self.position += length
        # Tokens are bytes to the engine and need not be valid UTF-8.
        return raw.decode("utf-8", errors="surrogateescape")

    def value(self, kind: GGUFValueType) -> Any:
        return self.string() if kind is GGUFValueType.STRING else self.scalar(SCALARS[kind])


def tensor_nbytes(shape: tuple[int, ...], ggml_type: int) -> int:
    """Bytes of a tensor in a file of our engine: whole blocks, and 32 bytes behind those of i2_s."""
    block, block_bytes = constants.GGML_QUANT_SIZES[GGMLQuantizationType(ggml_type)]
    tail = I2_S_TAIL_BYTES if ggml_type == I2_S.ggml_type else 0
    return int(np.prod(shape, dtype=np.int64)) // block * block_bytes + tail


def read_header(path: Path) -> GgufHeader:
    """Read everything but the tensor data of a little-endian GGUF file.

    Raises:
        UserError: missing, not GGUF, truncated, or with an unknown type; names the file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            return _parse(_Cursor(buffer))
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise UserError(f"{path}: not a whole GGUF file ({error}); convert or download it again") from None


def _parse(cursor: _Cursor) -> GgufHeader:
    if cursor.buffer[:4] != b"GGUF":
        raise ValueError("the first four bytes are not GGUF")
    cursor.position = 4
    version = cursor.scalar("<I")
    if version not in GGUF_VERSIONS:
        raise ValueError(f"GGUF version {version} is unknown")
    tensor_count, key_count = cursor.scalar("<Q"), cursor.scalar("<Q")
    metadata: dict[str, Any] = {}
    types: dict[str, tuple[GGUFValueType, GGUFValueType | None]] = {}
    for _ in range(key_count):
        key, kind, element = cursor.string(), GGUFValueType(cursor.scalar("<I")), None
        if kind is GGUFValueType.ARRAY:
            element = GGUFValueType(cursor.scalar("<I"))
            metadata[key] = [cursor.value(element) for _ in range(cursor.scalar("<Q"))]
        else:
            metadata[key] = cursor.value(kind)
        types[key] = (kind, element)
    rows = []
    for _ in range(tensor_count):
        name = cursor.string()
        dimensions = [cursor.scalar("<Q") for _ in range(cursor.scalar("<I"))]
        rows.append((name, tuple(reversed(dimensions)), cursor.scalar("<I"), cursor.scalar("<Q")))
    alignment = metadata.get("general.alignment", constants.GGUF_DEFAULT_ALIGNMENT)
    start = -(-cursor.position // alignment) * alignment
    tensors = {
        name: TensorEntry(name, shape, ggml_type, start + offset, tensor_nbytes(shape, ggml_type))
        for name, shape, ggml_type, offset in rows
    }
    return GgufHeader(metadata, types, tensors)
