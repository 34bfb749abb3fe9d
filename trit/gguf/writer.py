# SPDX-License-Identifier: MIT
"""Write a GGUF file tensor by tensor: first the whole header, then each tensor's bytes in pieces, none kept."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trit.base.errors import TritError, UserError
from trit.base.files import check_output, refuse_node
from trit.gguf.types import GGMLQuantizationType, GGUFValueType, GGUFWriter, tensor_nbytes

# The last key of a file's metadata: spaces up to the tensor table.
PADDING = "trit.padding"


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that will be in the file: name, shape (numpy order), type number, size in bytes."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int

    @property
    def nbytes(self) -> int:
        """Size of its data in the file."""
        return tensor_nbytes(self.shape, self.ggml_type)


@contextmanager
def output_errors(outfile: Path, planned: Iterable[PlannedTensor]) -> Iterator[None]:
    """Turn what the system says about an output file (no space, no permission) into one TritError."""
    try:
        yield
    except OSError as error:
        megabytes = sum(tensor.nbytes for tensor in planned) / 1e6
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        why = "the disk is full" if full else error.strerror
        need = f"; it needs {megabytes:.1f} MB" if full or error.errno == errno.EFBIG else ""
        remedy = "free some space" if full else "choose another place"
        raise TritError(f"{outfile}: cannot be written ({why}){need}; {remedy}") from None


class StreamWriter:
    """gguf-py's writer for the header, our own loop for the data, because gguf-py wants whole tensors."""

    def __init__(self, path: Path, architecture: str) -> None:
        self.metadata = GGUFWriter(path, architecture)
        self._planned: list[PlannedTensor] = []
        self._next = 0

    def plan(self, tensor: PlannedTensor) -> None:
        """Add a row to the tensor table; all rows come before :meth:`begin`, data follows in the same order."""
        self._planned.append(tensor)
        # With any dtype but uint8 gguf-py takes the shape as given, in weights.
        dtype, kind = np.dtype(np.float32), GGMLQuantizationType(tensor.ggml_type)
        self.metadata.add_tensor_info(tensor.name, tensor.shape, dtype, tensor.nbytes, raw_dtype=kind)

    def begin(self) -> None:
        """Write header, metadata and tensor table.

        The last key is filled up with spaces until the table begins at a multiple of the alignment: from there on two
        files of the same tensors are the same bytes, whatever their names and sources.
        """
        self.metadata.kv_data[0].pop(PADDING, None)
        self.metadata.add_key_value(PADDING, "", GGUFValueType.STRING)  # add_string() leaves out what is empty
        self.metadata.write_header_to_file()
        self.metadata.write_kv_data_to_file()
        missing = -self._file.tell() % self.metadata.data_alignment
        self._file.seek(-8, os.SEEK_CUR)
        self._file.write(struct.pack("<Q", missing) + b" " * missing)
        self.metadata.write_ti_data_to_file()
        self.metadata.write_padding(self._file, self._file.tell())

    @property
    def _file(self) -> Any:
        assert self.metadata.fout is not None
        return self.metadata.fout[0]

    def write(self, pieces: Iterable[npt.NDArray[Any]]) -> bytes:
        """Write the next tensor's data from its consecutive pieces; returns the digest of its bytes."""
        tensor = self._planned[self._next]
        self._next += 1
        digest, done = hashlib.blake2b(), 0
        for piece in pieces:
            raw = np.ascontiguousarray(piece).data.cast("B")
            digest.update(raw)
            self._file.write(raw)
            done += len(raw)
        if done != tensor.nbytes:
            raise TritError(f"{tensor.name}: made {done} bytes, its type and shape ask for {tensor.nbytes}; a bug here")
        self.metadata.write_padding(self._file, done)
        return digest.digest()

    def close(self) -> None:
        """Flush and close; safe to call twice."""
        self.metadata.close()


class SplitWriter:
    """A model in one file, or in several that the engine reads as one.

    Of several the first has all metadata; each has the keys ``split.no``, ``split.count`` and ``split.tensors.count``,
    as llama.cpp's gguf-split gives them.
    """

    def __init__(self, paths: Sequence[Path], architecture: str, parts: Sequence[Sequence[PlannedTensor]]) -> None:
        self._writers = [StreamWriter(path, architecture) for path in paths]
        self._parts = parts
        self._part = self._written = 0
        for i, (writer, part) in enumerate(zip(self._writers, parts, strict=True)):
            if len(parts) > 1:
                writer.metadata.add_uint16("split.no", i)
                writer.metadata.add_uint16("split.count", len(parts))
                writer.metadata.add_int32("split.tensors.count", sum(len(part) for part in parts))
            for tensor in part:
                writer.plan(tensor)

    @property
    def metadata(self) -> GGUFWriter:
        """The writer that the model's metadata go into."""
        return self._writers[0].metadata

    def begin(self) -> None:
        """Write header, metadata and tensor table of every file."""
        for writer in self._writers:
            writer.begin()

    def write(self, pieces: Iterable[npt.NDArray[Any]]) -> bytes:
        """As :meth:`StreamWriter.write`, into the file that the next tensor belongs to."""
        while self._written == len(self._parts[self._part]):
            self._part, self._written = self._part + 1, 0
        self._written += 1
        return self._writers[self._part].write(pieces)

    def close(self) -> None:
        """Flush and close all; safe to call twice."""
        for writer in self._writers:
            writer.close()


def parse_size(text: str) -> int:
    """``500M`` or ``2G`` -> bytes, in powers of 1000 as llama.cpp's gguf-split has it; raises UserError."""
    match = re.fullmatch(r"([1-9]\d{0,5})([MG])", text)
    if not match:
        raise UserError(f"--split-max-size {text}: expected a number and M or G, such as 2G")
    return int(match[1]) * {"M": 10**6, "G": 10**9}[match[2]]


def split_tensors(planned: Sequence[PlannedTensor], max_bytes: int | None) -> list[list[PlannedTensor]]:
    """The tensors in their order, in runs of at most ``max_bytes`` of data; a larger tensor is a run of its own."""
    runs: list[list[PlannedTensor]] = [[]]
    room = max_bytes
    for tensor in planned:
        if room is not None and max_bytes is not None:
            if runs[-1] and tensor.nbytes > room:
                runs.append([])
                room = max_bytes
            room -= tensor.nbytes
        runs[-1].append(tensor)
    return runs


def output_paths(outfile: Path, count: int, force: bool) -> list[Path]:
    """The names of the files to write.

    Raises:
        UserError: one is taken and not to be replaced, or is a checkpoint's, a folder's, a pipe's or a device's; or
            their folder is not there.
    """
    if outfile.suffix in {".safetensors", ".json", ".bin"}:
        raise UserError(f"{outfile}: is the name of a checkpoint's file; give --outfile a name that ends in .gguf")
    paths = part_paths(outfile, count)
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; give --outfile the name of a file in it")
        refuse_node(path)
        if path.exists() and not force:
            raise UserError(f"{path}: exists already; pass --force to replace it")
    check_output("--outfile", paths[0])
    return paths


def part_paths(outfile: Path, count: int) -> list[Path]:
    """The files of a model: ``outfile`` itself, or NAME-00001-of-0000N.gguf beside it."""
    if count == 1:
        return [outfile]
    return [outfile.with_name(f"{outfile.stem}-{i + 1:05d}-of-{count:05d}{outfile.suffix}") for i in range(count)]
