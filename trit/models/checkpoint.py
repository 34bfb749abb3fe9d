# SPDX-License-Identifier: MIT
"""Read a Hugging Face checkpoint folder: config.json and the tensors of one or many safetensors or ``.bin`` files.

The safetensors package checks each file (header, offsets, length). It cannot give bfloat16 to numpy, so the bytes are
read here, by rows, from the offsets in the header. Nothing is memory-mapped: mapped pages would count as peak memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from trit.base.errors import UserError
from trit.models.torch_file import torch_tensors

Floats = npt.NDArray[np.float32]

# numpy's dtypes of the stored values; numpy has no bfloat16, so it is read as the upper half of a float32.
STORED = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "U8": "|u1"}
# What a folder may have, the first that is there counts: name of the only file, and of the index of many.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Values that are converted to float32 at once.
CHUNK_VALUES = 1 << 20


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: file, byte offset of its data, dtype as safetensors names it, shape."""

    name: str
    path: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """The stored values [start:stop] of the flattened tensor, bfloat16 as uint16 bit patterns.

        Raises:
            UserError: the file is shorter than its header said when it was opened.
        """
        dtype = np.dtype(STORED[self.dtype])
        values = np.fromfile(self.path, dtype=dtype, count=stop - start, offset=self.offset + start * dtype.itemsize)
        if values.size != stop - start:
            raise UserError(f"{self.path}: ends inside {self.name}; download the file again")
        return values

    def floats(self, row: int = 1) -> Iterator[Floats]:
        """The values as flat float32 pieces of about ``CHUNK_VALUES``, each a multiple of ``row`` long.

        Raises:
            UserError: the tensor is not floating point, or holds NaN or infinity; names the tensor.
        """
        if self.dtype == "U8":
            raise UserError(f"{self.name}: expected floating-point values, found {self.dtype}")
        step = max(CHUNK_VALUES // row, 1) * row
        for start in range(0, self.size, step):
            values = self.read(start, min(start + step, self.size))
            if self.dtype == "BF16":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            values = values.astype(np.float32, copy=False)
            if not np.isfinite(values).all():
                raise UserError(f"{self.name}: holds NaN or infinity in {self.path.name}; the checkpoint is broken")
            yield values


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        UserError: the file is missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: has no {path.name}; expected a Hugging Face checkpoint folder") from None
    except (OSError, ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, endless digits, endless nesting
        raise UserError(f"{path}: cannot be read as JSON ({error}); download the file again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _open_file(path: Path) -> Iterator[StoredTensor]:
    """The tensors of one safetensors or ``.bin`` file.

    Raises:
        UserError: the file is missing, truncated, corrupt, or holds a tensor type that no BitNet checkpoint has.
    """
    if not path.is_file():
        raise UserError(f"{path.parent}: {path.name} is missing; download the checkpoint again")
    if path.suffix == ".bin":
        for name, offset, dtype, shape in torch_tensors(path):
            yield StoredTensor(name, path, offset, dtype, shape)
        return
    try:
        with safe_open(path, framework="numpy"):  # the package's own checks: header, overlaps, length of the file
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); download it again") from None
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in STORED:
            raise UserError(f"{name}: stored as {entry['dtype']} in {path.name}; expected one of {', '.join(STORED)}")
        offset = 8 + header_bytes + entry["data_offsets"][0]
        yield StoredTensor(name, path, offset, entry["dtype"], tuple(entry["shape"]))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder: its config.json and every tensor of its files, by name."""

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Read the configuration and the tensor tables, no tensor data.

        Raises:
            UserError: something is missing or broken; names the file.
        """
        if not directory.is_dir():
            raise UserError(f"{directory}: not a folder; expected a Hugging Face checkpoint folder")
        config = read_json(directory / "config.json")
        for single in WEIGHTS:
            index = directory / f"{single}.index.json"
            if index.is_file():
                weight_map = read_json(index).get("weight_map")
                if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
                    raise UserError(f"{index}: has no weight_map of file names; download the file again")
                files = sorted(set(weight_map.values()))
                break
            if (directory / single).is_file():
                weight_map, files = None, [single]
                break
        else:
            suffixes = {".bin", ".safetensors", ".pt", ".pth", ".gguf"}
            found = ", ".join(sorted(path.name for path in directory.iterdir() if path.suffix in suffixes))
            expected = " or ".join(f"{name} or {name}.index.json" for name in WEIGHTS)
            raise UserError(f"{directory}: has no {expected} (found {found or 'no weights'})")
        tensors: dict[str, StoredTensor] = {}
        for file in files:
            for tensor in _open_file(directory / file):
                if tensor.name in tensors:
                    raise UserError(f"{tensor.name}: is in both {tensors[tensor.name].path.name} and {file}")
                tensors[tensor.name] = tensor
        for name, file in (weight_map or {}).items():
            if name not in tensors:
                raise UserError(f"{name}: the index says it is in {file}, but it is not; download the checkpoint again")
        layers = config.get("num_hidden_layers")
        if isinstance(layers, int) and layers > len(
            tensors
        ):  # also: no list of so many layers' tensors fits into memory
            raise UserError(
                f"{directory / 'config.json'}: num_hidden_layers is {layers}, more than there are tensors "
                f"({len(tensors)}); the checkpoint is not whole"
            )
        return cls(directory, config, tensors)

    def with_prefix(self, prefix: str) -> Checkpoint:
        """The checkpoint with ``prefix`` before every name, unless a name has it: base models are saved without it."""
        if any(name.startswith(prefix) for name in self.tensors):
            return self
        return replace(self, tensors={prefix + name: tensor for name, tensor in self.tensors.items()})
