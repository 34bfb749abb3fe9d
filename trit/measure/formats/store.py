# SPDX-License-Identifier: MIT
"""The files of a comparison: the same weights in every format, made once and kept in a work folder."""

from __future__ import annotations

import glob
import math
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import UserError
from trit.gguf.types import read_header
from trit.measure.formats.sources import Source, is_matrix
from trit.measure.variants import REFERENCE

# For metadata, vocabulary and the table of tensors of one file: the largest known vocabularies take about 12 MB.
_HEADER_BYTES = 16 << 20
# Left free when all files are there.
_SPARE_BYTES = 1 << 30


def _reason(error: UserError) -> str:
    """Why a format is left out, without the advice to take another one, which is being done."""
    return str(error).split("; use --")[0]


@dataclass(frozen=True)
class Plan:
    """What will be there.

    Attributes:
        sizes: format -> bytes of its tensors.
        left_out: format -> why it is not there.
    """

    sizes: dict[str, int]
    left_out: dict[str, str]

    @classmethod
    def of(cls, source: Source, forms: Iterable[str]) -> Plan:
        """Find out from shapes alone which formats fit, and how large they are."""
        plan = cls({}, {})
        for form in forms:
            for needed in (source.parent(form), form):
                if needed and needed not in plan.sizes and needed not in plan.left_out:
                    plan._add(source, needed)
        return plan

    def _add(self, source: Source, form: str) -> None:
        try:
            self.sizes[form] = sum(row.nbytes for row in source.tensors(form))
        except UserError as error:
            self.left_out[form] = _reason(error)


class Store:
    """The folder of one source's files.

    Attributes:
        source: of the weights.
        plan: what fits; a format that turns out not to hold the weights moves to what is left out.
        folder: of the files.
        files: format -> file, of those that were asked for.
    """

    def __init__(self, workdir: Path, source: Source, forms: Iterable[str]) -> None:
        self.source, self.plan, self._workdir = source, Plan.of(source, forms), workdir
        self.folder = workdir / f"{source.stem}-{source.key}"
        self.files: dict[str, Path] = {}

    def _path(self, form: str) -> Path:
        return self.folder / f"{form}.gguf"

    def check_room(self, forms: Iterable[str]) -> None:
        """Make the folder.

        Raises:
            UserError: it cannot be made, or its disk has no room for the files of these formats that are not there yet,
                and of those that they are made from; with numbers.
        """
        made = {needed for form in forms for needed in (self.source.parent(form), form) if needed in self.plan.sizes}
        missing = [self.plan.sizes[form] for form in made if not self._path(form).is_file()]
        wanted = sum(missing) + _HEADER_BYTES * len(missing)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir {self._workdir}: cannot be made ({error.strerror})") from error
        free = shutil.disk_usage(self.folder).free
        if missing:
            print(f"{wanted / 1e9:.2f} GB to make in {self.folder}, {free / 1e9:.1f} GB are free", file=sys.stderr)
        if missing and wanted + _SPARE_BYTES > free:
            raise UserError(
                f"--workdir {self._workdir}: the models need {wanted / 1e9:.1f} GB, {_SPARE_BYTES / 1e9:.1f} GB have "
                f"to stay free, the disk has {free / 1e9:.1f} GB; choose fewer --types, --layers or another folder"
            )

    def file(self, form: str) -> Path | None:
        """The file of a format, made if it is not there yet; None if the format is left out.

        Raises:
            UserError: not even the reference can be made: this is no model that can be compared.
        """
        if form in self.files or form not in self.plan.sizes:
            return self.files.get(form)
        if form in self.plan.left_out:
            return None
        path = self._path(form)
        try:
            if not path.is_file():
                parent = self.source.parent(form)
                if parent and self.file(parent) is None:
                    raise UserError(self.plan.left_out[parent])
                print(f"making {path}", file=sys.stderr)
                self.source.make(form, path)
        except UserError as error:
            if form == REFERENCE:
                raise
            self.plan.left_out[form] = _reason(error)
            return None
        self.files[form] = path
        return path

    def clean(self) -> None:
        """Delete the files of this source, those of older versions of the code as well."""
        for folder in self._workdir.glob(f"{glob.escape(self.source.stem)}-{'[0-9a-f]' * 8}"):
            shutil.rmtree(folder)


@dataclass(frozen=True)
class Size:
    """Of one file.

    Attributes:
        file_bytes: all of it.
        bits: per weight of the matrices in the blocks, scales included; None in a model without any.
    """

    file_bytes: int
    bits: float | None


def size(path: Path) -> Size:
    """Measure a file by its table of tensors."""
    rows = [row for row in read_header(path).tensors.values() if is_matrix(row.name, row.shape)]
    weights = sum(math.prod(row.shape) for row in rows)
    return Size(path.stat().st_size, 8 * sum(row.nbytes for row in rows) / weights if weights else None)
