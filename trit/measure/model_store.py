# SPDX-License-Identifier: MIT
"""The files that are measured: the same weights in several formats or with several heads, made once and kept."""

from __future__ import annotations

import glob
import hashlib
import math
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import TritError, UserError
from trit.base.files import atomic_output
from trit.base.places import ENGINE_BIN, PACKAGE, engine_binary
from trit.base.processes import capture, telling_lines
from trit.convert import from_checkpoint, from_gguf
from trit.convert.from_random import OUTTYPES, generate, planned_tensors, with_vocabulary
from trit.convert.matrices import check_columns
from trit.gguf.embedding_types import default_embedding_type
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import GGMLQuantizationType, block_of, read_header
from trit.gguf.writer import PlannedTensor
from trit.measure.variants import REFERENCE
from trit.models.checkpoint import Checkpoint, readable
from trit.models.families import find_family
from trit.models.families.base import Kind
from trit.models.shapes import SHAPES, Shape

# For metadata, vocabulary and the table of tensors of one file: the largest known vocabularies take about 12 MB.
_HEADER_BYTES = 16 << 20
# Left free when all files are there.
_SPARE_BYTES = 1 << 30


class Source(ABC):
    """Where the weights come from.

    Attributes:
        label: for headings.
        stem: beginning of the name of the folder with the files.
        key: changes when the files would.
        head: type of embedding and head in every file: else the head, which is read whole, would decide.
        parents: format -> the format whose file it is made from, if not from the source itself.
    """

    label: str
    stem: str
    key: str
    head: str
    parents: Mapping[str, str] = {}

    @abstractmethod
    def tensors(self, form: str) -> list[PlannedTensor]:
        """What would be in the file of a format; raises UserError if the format does not fit."""

    @abstractmethod
    def make(self, form: str, path: Path) -> None:
        """Write the file of a format.

        Raises:
            UserError: the format cannot hold these weights.
        """


class RandomSource(Source):
    """Random weights in a known shape."""

    def __init__(self, name: str, shape: Shape, head: str | None, layers: int | None) -> None:
        self._name, self._shape = name, with_vocabulary(shape)
        self.head = head or default_embedding_type("i2_s", shape.hidden)
        some = f", {layers} layers" if layers else ""
        self.label = f"random weights in the shape of {name}{some}, head {self.head}"
        self.stem = f"random-{name}-{f'{layers}-layers-' if layers else ''}{self.head}"
        self.key = _key()

    def tensors(self, form: str) -> list[PlannedTensor]:
        """See the base class."""
        return planned_tensors(self._shape, OUTTYPES[form], self.head)

    def make(self, form: str, path: Path) -> None:
        """See the base class."""
        generate(self._name, self._shape, OUTTYPES[form], self.head, path)


class CheckpointSource(Source):
    """A Hugging Face folder, by the converter; q4_0 by llama.cpp's own quantiser."""

    parents: Mapping[str, str] = {"q4_0": REFERENCE}

    def __init__(self, folder: Path, head: str | None, bin_dir: Path = ENGINE_BIN) -> None:
        self._folder, self._bin_dir = folder, bin_dir
        checkpoint = Checkpoint.open(folder)
        with readable(folder):
            family = find_family(checkpoint.config)
            self._specs = from_checkpoint.present(checkpoint, family)
            self._architecture = family.gguf_architecture(checkpoint.config)
        hidden = next(spec.shape[-1] for spec in self._specs if spec.kind is Kind.EMBEDDING)
        self.head = head or default_embedding_type("i2_s", hidden)
        name = folder.resolve().name
        self.label = f"{name}, embedding and head {self.head}"
        self.stem = f"{name}-{self.head}"
        stored = sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors", ".bin", ".model"})
        self.key = _key(f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in stored)

    def tensors(self, form: str) -> list[PlannedTensor]:
        """See the base class."""
        if form in self.parents:
            return q4_0_tensors(self.tensors(self.parents[form]))
        encoding = ENCODINGS[form]
        ternary = {spec.target: spec.shape for spec in self._specs if spec.kind is Kind.TERNARY}
        check_columns(ternary, encoding, self._architecture)
        return [row for spec in self._specs for row in from_checkpoint.planned_rows(spec, encoding, self.head)]

    def make(self, form: str, path: Path) -> None:
        """See the base class."""
        if form not in self.parents:
            with_head(self._folder, form, self.head, path)
            return
        program, parent = engine_binary("llama-quantize", self._bin_dir), path.with_stem(self.parents[form])
        # Embedding and head stay what they are in the file that it is made from.
        kept = ["--token-embedding-type", self.head, "--output-tensor-type", self.head]
        with atomic_output(path) as partial:
            code, output = capture([program, "--pure", *kept, parent, partial, form.upper()], timeout_s=3600)
            if code != 0:
                said = " | ".join(telling_lines(output.splitlines(), 3))
                raise TritError(f"llama-quantize failed on {parent} (exit code {code}): {said}")


def _key(facts: Iterable[str] = ()) -> str:
    """A short hash of facts, and of our own code that decides what is in a model's file."""
    code = sorted(path for room in ("convert", "gguf") for path in (PACKAGE / room).rglob("*.py"))
    pieces = [*(fact.encode() for fact in facts), *(path.read_bytes() for path in code)]
    return hashlib.sha256(b"\0".join(pieces)).hexdigest()[:8]


def is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of a file is one of the matrices whose format is compared: not embedding, head and norms."""
    return name.startswith("blk.") and len(shape) > 1


def q4_0_tensors(reference: Sequence[PlannedTensor]) -> list[PlannedTensor]:
    """What ``llama-quantize --pure`` makes of an f16 file: matrices of whole blocks in q4_0, everything else as it is.

    Raises:
        UserError: no matrix has whole blocks.
    """
    block = block_of("q4_0")
    fits = [is_matrix(row.name, row.shape) and row.shape[-1] % block == 0 for row in reference]
    if not any(fits):
        raise UserError(f"no matrix has a multiple of {block} columns")
    return [
        PlannedTensor(row.name, row.shape, GGMLQuantizationType.Q4_0) if fit else row
        for row, fit in zip(reference, fits, strict=True)
    ]


class Store:
    """The files of one source in several formats, each made when it is asked for.

    Attributes:
        source: of the weights.
        folder: of the files.
        sizes: format -> bytes of its tensors, from shapes alone; of the formats that fit.
        left_out: format -> why it is not there; one that turns out not to hold the weights is added.
        files: format -> file, of those that were asked for.
    """

    def __init__(self, workdir: Path, source: Source, forms: Iterable[str]) -> None:
        self.source, self._workdir = source, workdir
        self.folder = workdir / f"{source.stem}-{source.key}"
        self.sizes: dict[str, int] = {}
        self.left_out: dict[str, str] = {}
        self.files: dict[str, Path] = {}
        for form in self._with_parents(forms):
            try:
                self.sizes[form] = sum(row.nbytes for row in source.tensors(form))
            except UserError as error:
                self.left_out[form] = _reason(error)

    def _with_parents(self, forms: Iterable[str]) -> list[str]:
        """The formats, behind those that they are made from; each once."""
        needed = [one for form in forms for one in (self.source.parents.get(form), form) if one]
        return list(dict.fromkeys(needed))

    def _path(self, form: str) -> Path:
        return self.folder / f"{form}.gguf"

    def check_space(self, forms: Iterable[str]) -> None:
        """Make the folder.

        Raises:
            UserError: it cannot be made, or its disk has no space for the files of these formats that are not there
                yet, and of those that they are made from; with numbers.
        """
        needed = [form for form in self._with_parents(forms) if form in self.sizes]
        missing = [self.sizes[form] for form in needed if not self._path(form).is_file()]
        wanted = sum(missing) + _HEADER_BYTES * len(missing)
        make_folder("--workdir", self._workdir)
        self.folder.mkdir(exist_ok=True)
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
        if form in self.files or form not in self.sizes:
            return self.files.get(form)
        if form in self.left_out:
            return None
        parent = self.source.parents.get(form)
        try:
            if parent and not self._path(form).is_file() and self.file(parent) is None:
                raise UserError(self.left_out[parent])
            self.files[form] = kept(self._path(form), lambda path: self.source.make(form, path))
        except UserError as error:
            if form == REFERENCE:
                raise
            self.left_out[form] = _reason(error)
        return self.files.get(form)

    def clean(self) -> None:
        """Delete the files of this source, those of older versions of the code as well."""
        for folder in self._workdir.glob(f"{glob.escape(self.source.stem)}-{'[0-9a-f]' * 8}"):
            shutil.rmtree(folder)


def _reason(error: UserError) -> str:
    """Why a format is left out, without the advice to take another one, which is being done."""
    return str(error).split("; use --")[0]


def make_folder(flag: str, folder: Path) -> None:
    """Make the folder that a flag names; raises UserError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot be made ({error.strerror})") from error


def kept(path: Path, make: Callable[[Path], object]) -> Path:
    """A file, made if it is not there yet."""
    if not path.is_file():
        print(f"making {path}", file=sys.stderr)
        make(path)
    return path


def random_model(workdir: Path, shape: str, head: str, form: str) -> Path:
    """The random model of the committed benchmarks; raises UserError if it cannot be made."""
    folder, name = workdir.expanduser(), f"random {shape}"
    make_folder("--workdir", folder)
    path = folder / f"random-{shape}-head-{head}-{form}.gguf"
    return kept(path, lambda path: generate(name, SHAPES[shape], OUTTYPES[form], head, path))


def with_head(source: Path, outtype: str, head: str, outfile: Path) -> None:
    """Write a ternary model with a type of embedding and head; what is there is replaced.

    Args:
        source: a checkpoint's folder, or a GGUF file whose head is float.
        outtype: of the ternary matrices.
        head: the type.
        outfile: where the file goes.

    Raises:
        UserError: the model cannot be converted.
    """
    if source.is_dir():
        from_checkpoint.convert(source, outfile, from_checkpoint.Options(ENCODINGS[outtype], head))
    else:
        from_gguf.convert(source, outfile, from_gguf.Options(ENCODINGS[outtype], head))


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
