# SPDX-License-Identifier: MIT
"""Write a GGUF file tensor by tensor: first the whole header, then each tensor's bytes in pieces, none kept."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.cli import TritError
from utils.gguf_types import GGMLQuantizationType, GGUFWriter, tensor_nbytes


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
        full = error.errno in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
        hint = f"; it needs {megabytes:.1f} MB" if full else ""
        raise TritError(f"{outfile}: cannot be written ({error.strerror}){hint}; choose another --outfile") from None


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
        """Write header, metadata and tensor table."""
        self.metadata.write_header_to_file()
        self.metadata.write_kv_data_to_file()
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
