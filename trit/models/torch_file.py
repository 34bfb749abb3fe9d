# SPDX-License-Identifier: MIT
"""The tensor table of a ``.bin`` checkpoint, which torch writes: a zip archive of a pickle and the tensors' bytes.

torch reads the pickle, with ``weights_only``: nothing in the file is executed. The bytes lie in the file uncompressed,
so from here on a tensor is an offset, as in a safetensors file, and torch's mapping of the file is never touched.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.base.places import python_command

# Names as safetensors has them, by torch's.
DTYPES = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float64": "F64",
    "torch.uint8": "U8",
}
LOCAL_HEADER_BYTES = 30


def torch_tensors(path: Path) -> Iterator[tuple[str, int, str, tuple[int, ...]]]:
    """(name, byte offset in the file, dtype as safetensors names it, shape) of every tensor of a ``.bin`` file.

    Raises:
        UserError: torch is missing, or the file is broken, holds other things than tensors, or is of a form that cannot
            be read in place; names the file or the tensor.
    """
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: reading .bin files needs torch; install it with: "
            f"{python_command('-m pip install -r requirements-train.txt')}, or download the model as safetensors"
        ) from None
    try:
        records = _records(path)
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # a broken pickle may raise anything
        reason = str(error).split("\n")[0].split(". ")[0]
        raise UserError(f"{path}: not a torch checkpoint of plain tensors ({reason}); download it again") from None
    tensors = list(state.values()) if isinstance(state, dict) else []
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        raise UserError(f"{path}: holds other things than named tensors; expected a model's state_dict")
    base = _base({tensor.untyped_storage().data_ptr() for tensor in tensors}, records)
    if base is None:
        raise UserError(f"{path}: its tensors cannot be found in the file; save the model as safetensors")
    for name, tensor in state.items():
        if not tensor.is_contiguous():
            raise UserError(f"{name}: is a view with other strides in {path.name}; save the model as safetensors")
        dtype = DTYPES.get(str(tensor.dtype))
        if dtype is None:
            raise UserError(f"{name}: stored as {tensor.dtype} in {path.name}; expected one of {', '.join(DTYPES)}")
        yield str(name), tensor.data_ptr() - base, dtype, tuple(tensor.shape)


def _records(path: Path) -> set[int]:
    """Offsets in the file of the archive's records of tensor data.

    Raises:
        ValueError: a record is compressed, or the bytes are big-endian.
    """
    offsets = set()
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for record in archive.infolist():
            if record.filename.endswith("/byteorder") and archive.read(record) != b"little":
                raise ValueError("its bytes are big-endian")
            if "/data/" not in record.filename:
                continue
            if record.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{record.filename} is compressed")
            file.seek(record.header_offset)
            name_bytes, extra_bytes = struct.unpack_from("<HH", file.read(LOCAL_HEADER_BYTES), 26)
            offsets.add(record.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes)
    return offsets


def _base(addresses: set[int], records: set[int]) -> int | None:
    """Where torch has mapped the file: the one page from which every tensor's bytes are at a record's offset."""
    first = min(addresses)
    for offset in sorted(records):
        base: Any = first - offset
        if base % mmap.PAGESIZE == 0 and all(address - base in records for address in addresses):
            return int(base)
    return None
