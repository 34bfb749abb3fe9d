# SPDX-License-Identifier: MIT
"""Everything of a GGUF file but its tensor data, read with the standard library only and without trust in the file.

Every count, length and offset is compared with the bytes that are there before anything is allocated for it, so a
damaged or hostile file costs one sentence and a bounded amount of memory. Nothing is assumed about tensor types: what
a number means is for ``trit.gguf.layouts`` and ``trit.gguf.types`` to say. ``run_inference.py`` reads headers with this
before it starts the engine; long arrays, which are nearly all of a header, can be skipped.

Format: docs/gguf.md of ggml.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.base.files import check_input

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
# Most that a header may ask for; real files stay far below (a vocabulary of 262,144 tokens has 0.6 million merges).
MAX_KEYS, MAX_TENSORS, MAX_ELEMENTS = 1 << 14, 1 << 16, 1 << 22
MAX_STRING_BYTES, MAX_STRINGS_BYTES, MAX_NAME_BYTES = 1 << 24, 1 << 27, 1 << 10
MAX_DIMENSIONS, MAX_ALIGNMENT = 4, 1 << 20
MAX_WEIGHTS = 1 << 48
# Arrays of so few elements are read beside those that are asked for: hyper-parameters that differ between layers.
SHORT_ARRAY = 1 << 10
# GGUF's value types: number -> struct format of one value, little-endian.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class RawTensor:
    """One row of the tensor table, as it stands in the file.

    Attributes:
        name: Name in the file.
        shape: Outermost dimension first, as numpy has it.
        ggml_type: Type number, whatever it means.
        offset: Absolute byte offset of the data.
        span: Bytes from there to the next tensor's data, or to the end of the file: padding included.
    """

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    span: int

    @property
    def rows(self) -> int:
        """Product of all dimensions but the innermost."""
        return math.prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """The innermost dimension."""
        return self.shape[-1]


@dataclass(frozen=True)
class RawHeader:
    """Metadata and tensor table.

    Attributes:
        metadata: Key -> value; arrays are lists (or None where they were skipped), strings are str.
        types: Key -> (value type, element type of arrays or None), as numbers.
        counts: Key of an array -> number of its elements, also where they were skipped.
        tensors: Name -> row of the table, in the file's order.
        alignment: Every tensor's offset is a multiple of this.
        data_offset: Where the data section begins.
        file_bytes: Size of the file.
    """

    metadata: dict[str, Any]
    types: dict[str, tuple[int, int | None]]
    counts: dict[str, int]
    tensors: dict[str, RawTensor]
    alignment: int
    data_offset: int
    file_bytes: int


def read_raw_header(path: Path, arrays: bool | Collection[str] = True, whole: bool = True) -> RawHeader:
    """Read the header of a little-endian GGUF file.

    Args:
        path: The file.
        arrays: Whether to read arrays, or the keys of the long ones to read; others are stepped over (value None).
        whole: Whether to refuse a file that ends before the last tensor's data begins; otherwise its span is 0.

    Raises:
        UserError: missing, not GGUF, big-endian, truncated, or with a table that contradicts itself; names the file.
    """
    check_input(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            return _parse(_Cursor(buffer, arrays), whole)
    except struct.error:
        reason = f"it ends inside its header, after {path.stat().st_size:,} bytes"
    except (OSError, ValueError, OverflowError) as error:
        reason = str(error)
    raise UserError(f"{path}: not a whole GGUF file ({reason}); convert or download it again")


class _Cursor:
    """Reads GGUF's primitive values one after the other; every read is checked against the end of the file."""

    def __init__(self, buffer: mmap.mmap, arrays: bool | Collection[str]) -> None:
        self.buffer = buffer
        self.arrays = arrays
        self.counts: dict[str, int] = {}
        self.position = 0
        self.elements_left = MAX_ELEMENTS
        self.strings_left = MAX_STRINGS_BYTES

    def scalar(self, kind: str) -> Any:
        (value,) = struct.unpack_from("<" + kind, self.buffer, self.position)
        self.position += struct.calcsize("<" + kind)
        return value

    def count(self, what: str, most: int, least_bytes: int) -> int:
        """A count of things that take at least ``least_bytes`` each in the rest of the file."""
        value = int(self.scalar("Q"))
        if value > most or value * least_bytes > len(self.buffer) - self.position:
            raise ValueError(f"says that it has {value} {what}, which its size cannot hold")
        return value

    def string(self, most: int = MAX_STRING_BYTES) -> bytes:
        length = self.scalar("Q")
        if length > min(most, len(self.buffer) - self.position, self.strings_left):
            raise ValueError(f"a string of {length} bytes at offset {self.position} runs too far")
        self.strings_left -= length
        self.position += length
        return self.buffer[self.position - length : self.position]

    def name(self) -> str:
        """A key or the name of a tensor, which have to be UTF-8."""
        try:
            return self.string(MAX_NAME_BYTES).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("a key or name is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind == STRING:
            # Tokens are bytes to the engine and need not be valid UTF-8.
            return self.string().decode("utf-8", errors="surrogateescape")
        if kind not in SCALARS:
            raise ValueError(f"value type {kind} is unknown")
        return self.scalar(SCALARS[kind])

    def array(self, key: str, element: int) -> list[Any] | None:
        if element != STRING and element not in SCALARS:
            raise ValueError(f"an array of value type {element} is unknown")
        size = 8 if element == STRING else struct.calcsize("<" + SCALARS[element])
        count = self.count("array elements", self.elements_left, size)
        self.elements_left -= count
        self.counts[key] = count
        wanted = self.arrays if isinstance(self.arrays, bool) else key in self.arrays or count <= SHORT_ARRAY
        if element != STRING:
            start = self.position
            self.position += count * size
            return list(struct.unpack_from(f"<{count}{SCALARS[element]}", self.buffer, start)) if wanted else None
        if wanted:
            return self.strings(count)
        self.skip_strings(count)
        return None

    def strings(self, count: int) -> list[str]:
        """The next strings; a loop of its own, because vocabularies have hundreds of thousands."""
        buffer, place, left, unpack = self.buffer, self.position, self.strings_left, _LENGTH.unpack_from
        values = []
        for _ in range(count):
            (length,) = unpack(buffer, place)
            place += 8 + length
            left -= length
            if left < 0 or place > len(buffer):
                raise ValueError(f"a string of {length} bytes runs too far")
            values.append(buffer[place - length : place].decode("utf-8", "surrogateescape"))
        self.position, self.strings_left = place, left
        return values

    def skip_strings(self, count: int) -> None:
        """Step over the next strings."""
        buffer, place, unpack = self.buffer, self.position, _LENGTH.unpack_from
        for _ in range(count):
            place += 8 + unpack(buffer, place)[0]
        if place > len(buffer):
            raise ValueError("a string runs past the end of the file")
        self.position = place


def _parse(cursor: _Cursor, whole: bool) -> RawHeader:
    if cursor.buffer[:4] != MAGIC:
        raise ValueError("the first four bytes are not GGUF")
    cursor.position = 4
    version = cursor.scalar("I")
    if version not in VERSIONS:
        if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
            raise ValueError("it is big-endian, made with --bigendian; only little-endian files are read")
        raise ValueError(f"GGUF version {version} is unknown")
    tensor_count = cursor.count("tensors", MAX_TENSORS, 8 + 4 + 8 + 4 + 8)
    key_count = cursor.count("keys", MAX_KEYS, 8 + 4 + 1)
    metadata: dict[str, Any] = {}
    types: dict[str, tuple[int, int | None]] = {}
    for _ in range(key_count):
        key, kind, element = cursor.name(), cursor.scalar("I"), None
        if key in metadata:
            raise ValueError(f"the key {key} is there twice")
        if kind == ARRAY:
            element = cursor.scalar("I")
            metadata[key] = cursor.array(key, element)
        else:
            metadata[key] = cursor.value(kind)
        types[key] = (kind, element)
    rows = [_tensor_row(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment}, expected a power of two")
    size = len(cursor.buffer)
    start = -(-cursor.position // alignment) * alignment
    tensors = _table(rows, start, alignment, size, whole)
    return RawHeader(metadata, types, cursor.counts, tensors, alignment, start, size)


def _tensor_row(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape (numpy order), type number and relative offset of the next tensor."""
    name, count = cursor.name(), cursor.scalar("I")
    if not 1 <= count <= MAX_DIMENSIONS:
        raise ValueError(f"{name}: has {count} dimensions, expected 1 to {MAX_DIMENSIONS}")
    shape = tuple(cursor.scalar("Q") for _ in range(count))[::-1]
    if not 0 < math.prod(shape) <= MAX_WEIGHTS:
        raise ValueError(f"{name}: has the shape {list(shape)}")
    return name, shape, cursor.scalar("I"), cursor.scalar("Q")


def _table(
    rows: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int, file_bytes: int, whole: bool
) -> dict[str, RawTensor]:
    """The tensor table with absolute offsets and spans; raises ValueError if tensors collide or leave the file."""
    offsets = sorted({offset for _, _, _, offset in rows})
    ends = dict(zip(offsets, [*offsets[1:], file_bytes - start], strict=False))
    taken: set[int] = set()
    tensors: dict[str, RawTensor] = {}
    for name, shape, ggml_type, offset in rows:
        if name in tensors:
            raise ValueError(f"the tensor {name} is there twice")
        span = ends[offset] - offset
        if offset % alignment:
            raise ValueError(f"{name}: its offset {offset} is no multiple of {alignment}")
        if offset in taken or (whole and span <= 0):
            place = "where another tensor is" if offset in taken else "behind the end of the file"
            raise ValueError(f"{name}: its data would be at offset {start + offset}, {place}")
        taken.add(offset)
        tensors[name] = RawTensor(name, shape, ggml_type, start + offset, max(span, 0))
    return tensors
