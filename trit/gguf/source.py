# SPDX-License-Identifier: MIT
"""A GGUF file or the files of a split one as a source of ternary matrices: what is in it, and reading one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trit.base.errors import UserError
from trit.gguf.decode import Bytes, Decoded, decode
from trit.gguf.encodings import exact_ternary
from trit.gguf.header import RawHeader, RawTensor
from trit.gguf.identify import Found, identify
from trit.gguf.layouts import TILED
from trit.gguf.parts import read_parts
from trit.gguf.tiles import Tiles, decode_tiled, read_kernel_config

# Float tensors that may hold a ternary matrix as it is: type name -> numpy dtype (bfloat16 as the upper half of f32).
FLOATS = {"f32": "<f4", "f16": "<f2", "bf16": "<u2"}
PIECE_BYTES = 1 << 24
SCALE_SUFFIX = "_scale"


@dataclass(frozen=True)
class Source:
    """An open GGUF model.

    Attributes:
        path: Of the file, or of the first of its files.
        header: Its metadata and the tables of all its files.
        found: Name -> what the tensor is.
        files: Name -> the file that the tensor is in.
        tiles: Tile sizes by shape, for TL1 and TL2.
    """

    path: Path
    header: RawHeader
    found: dict[str, Found]
    files: dict[str, Path]
    tiles: dict[tuple[int, int], Tiles] = field(default_factory=dict)

    @classmethod
    def open(
        cls, path: Path, i2_s_layout: str = "published", kernel_config: Path | None = None, arrays: bool = True
    ) -> Source:
        """Read the header and find out what the tensors are; raises UserError if the file is no whole GGUF."""
        parts = read_parts(path, arrays)
        found = {item.tensor.name: item for _, part in parts for item in identify(part, i2_s_layout)}
        files = {name: file for file, part in parts for name in part.tensors}
        tensors = {name: item.tensor for name, item in found.items()}
        header = replace(parts[0][1], tensors=tensors, file_bytes=sum(part.file_bytes for _, part in parts))
        return cls(path, header, found, files, read_kernel_config(kernel_config) if kernel_config else {})

    @property
    def paths(self) -> list[Path]:
        """The model's files, the first one first."""
        return list(dict.fromkeys([self.path, *self.files.values()]))

    def bytes(self, tensor: RawTensor, start: int, stop: int) -> Bytes:
        """Bytes [start:stop] of a tensor; raises UserError if the file has become shorter."""
        path = self.files[tensor.name]
        data = np.fromfile(path, dtype=np.uint8, count=stop - start, offset=tensor.offset + start)
        if data.size != stop - start:
            raise UserError(f"{path}: ends inside {tensor.name}; convert or download the file again")
        return data

    def matrix(self, item: Found) -> Decoded:
        """Decode a tensor that has a layout; a tensor of more than two dimensions as one tall matrix.

        Raises:
            UserError: invalid codes or scales, or tile sizes that are missing or wrong; names the tensor.
        """
        tensor = item.tensor
        data = self.bytes(tensor, 0, item.nbytes)
        if item.name in TILED:
            return self._tiled(item, data)
        return decode(item.name, data, tensor.rows, tensor.columns, tensor.name)

    def _tiled(self, item: Found, data: Bytes) -> Decoded:
        tensor = item.tensor
        tiles = self.tiles.get((tensor.rows, tensor.columns))
        if tiles is None:
            shape = f"m = {tensor.rows}, k = {tensor.columns}"
            raise UserError(
                f"{tensor.name}: is {item.name} of bitnet.cpp, whose tiles stand in no model file; give the "
                f"kernel_config.ini of the build that made it (with a section for {shape}): --kernel-config FILE",
                flags=["--kernel-config"],
            )
        scale = self._scale(item, data)
        return decode_tiled(item.name, data, scale, tensor.rows, tensor.columns, tiles, tensor.name)

    def _scale(self, item: Found, data: Bytes) -> float:
        """The scale of a TL1 or TL2 tensor: the tensor NAME_scale if there is one, else the last 32 bytes' first 4."""
        beside = self.found.get(item.tensor.name + SCALE_SUFFIX)
        if beside is not None and beside.name == "f32" and beside.nbytes == 4:
            return float(self.bytes(beside.tensor, 0, 4).view("<f4")[0])
        codes = item.layout.sizes(item.tensor.rows, item.tensor.columns)[0] if item.layout else 0
        if item.nbytes < codes + 32:
            raise UserError(f"{item.tensor.name}: has no scale, neither behind it nor as {item.tensor.name}_scale")
        return float(data[-32:-28].view("<f4")[0])

    def float_rows(self, item: Found, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows [start:stop] of a float tensor, float32 [rows, k]."""
        row_bytes = item.nbytes // item.tensor.rows
        data = self.bytes(item.tensor, start * row_bytes, min(stop, item.tensor.rows) * row_bytes)
        return _as_float32(data.view(FLOATS[item.name])).reshape(-1, item.tensor.columns)

    def floats(self, item: Found) -> npt.NDArray[np.float32]:
        """All values of a float tensor, float32 [n, k]."""
        tensor = item.tensor
        values = self.bytes(tensor, 0, item.nbytes).view(FLOATS[item.name])
        return _as_float32(values).reshape(tensor.rows, tensor.columns)

    def exact_ternary(self, item: Found) -> Decoded | None:
        """The matrix of a float tensor whose every value is -s, 0 or +s; None, mostly soon, if it is not.

        One s for the whole tensor, for each row, or for each group of a row. A tensor of zeros is no such matrix.
        """
        n, k = item.tensor.rows, item.tensor.columns
        step = max(1, PIECE_BYTES // (4 * k))
        found = exact_ternary(lambda: (self.float_rows(item, start, start + step) for start in range(0, n, step)), n, k)
        if found is None or not np.any(found[1]):
            return None
        ternary, scale = found
        if not np.isfinite(scale).all():
            raise UserError(f"{item.tensor.name}: holds infinity; the file is broken, download or convert it again")
        return Decoded(ternary, np.atleast_2d(np.asarray(scale, dtype=np.float32)))


def _as_float32(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)
