# SPDX-License-Identifier: MIT
"""GGUF files with our engine's tensor types: the gguf package taught about them, and file headers in its terms.

gguf-py 0.19 keeps its types in an IntEnum and a size table, so its reader raises on types 36 to 38 (i2_s, tl2, tl1) and
its writer has no sizes for them; type 42 (q2_0) is newer than it. Importing this module adds the missing members, here
and nowhere else.
``read_header`` exists because gguf-py's reader makes several numpy arrays per string: 7 s and 600 MB for a vocabulary
of 128,256 tokens, which would break the converter's memory bound; ``trit.gguf.header`` takes 0.3 s.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFValueType, GGUFWriter, constants
from gguf.constants import GGMLQuantizationType

from trit.base.errors import UserError
from trit.base.places import python_command
from trit.gguf.encodings import ENCODINGS
from trit.gguf.header import read_raw_header

__all__ = [
    "GGMLQuantizationType",
    "GGUFReader",
    "GGUFValueType",
    "GGUFWriter",
    "GgufHeader",
    "TensorEntry",
    "block_of",
    "quiet_gguf_package",
    "read_header",
]

# Bytes after the blocks of a tensor. They fit in neither of gguf's tables: its reader gives the blocks only.
TAIL_BYTES = {row.ggml_type: row.tail_bytes for row in ENCODINGS.values()}


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


for _row in ENCODINGS.values():
    _add_type(_row.name.upper(), _row.ggml_type, _row.block, _row.block_bytes)


@dataclass(frozen=True)
class TensorEntry:
    """One row of a GGUF file's tensor table.

    Attributes:
        name: Name in the file.
        shape: Outermost dimension first, as numpy has it (the file has it the other way round).
        ggml_type: Type number.
        offset: Absolute byte offset of the data in the file.
        nbytes: Size of the data, with the tail of i2_s, tl1 and tl2.
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


def block_of(name: str) -> int:
    """Values per block of a type such as ``q6_k``: the columns of a matrix are a multiple of it."""
    return int(constants.GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]][0])


def quiet_gguf_package() -> None:
    """The gguf package warns about files and keys that a checkpoint may well lack; commands call this first."""
    logging.getLogger("gguf").setLevel(logging.ERROR)


def tensor_nbytes(shape: tuple[int, ...], ggml_type: int) -> int:
    """Bytes of a tensor in a file of our engine: whole blocks, and what follows them in i2_s, tl1 and tl2."""
    block, block_bytes = constants.GGML_QUANT_SIZES[GGMLQuantizationType(ggml_type)]
    return int(np.prod(shape, dtype=np.int64)) // block * block_bytes + TAIL_BYTES.get(ggml_type, 0)


def read_header(path: Path) -> GgufHeader:
    """Read everything but the tensor data of a little-endian GGUF file whose types the engine knows.

    Raises:
        UserError: missing, not GGUF, truncated, or with an unknown type; names the file.
    """
    raw = read_raw_header(path)
    types = {
        key: (GGUFValueType(kind), None if element is None else GGUFValueType(element))
        for key, (kind, element) in raw.types.items()
    }
    tensors = {}
    for tensor in raw.tensors.values():
        try:
            nbytes = tensor_nbytes(tensor.shape, tensor.ggml_type)
        except (KeyError, ValueError):
            raise UserError(
                f"{path}: {tensor.name} has the unknown type {tensor.ggml_type}; "
                f"see what the file is with: {python_command('-m trit.inspect')} {path}"
            ) from None
        if nbytes > tensor.span:
            raise UserError(
                f"{path}: not a whole GGUF file ({tensor.name} needs {nbytes} bytes and has {tensor.span}); "
                "convert or download it again"
            )
        tensors[tensor.name] = TensorEntry(tensor.name, tensor.shape, tensor.ggml_type, tensor.offset, nbytes)
    return GgufHeader(raw.metadata, types, tensors)
