# SPDX-License-Identifier: MIT
"""Where the weights of a comparison come from: random ones in a known shape, or a checkpoint's."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from trit.base.errors import TritError, UserError
from trit.base.files import atomic_output
from trit.base.places import ENGINE_BIN, ROOT, engine_binary
from trit.base.processes import capture, telling_lines
from trit.convert.embedding import embedding_row
from trit.convert.from_checkpoint import Options, convert, present
from trit.convert.from_random import OUTTYPES, generate, planned_tensors, with_vocabulary
from trit.convert.matrices import check_columns, matrix_rows
from trit.gguf.embedding_types import default_embedding_type
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import GGMLQuantizationType, block_of
from trit.gguf.writer import PlannedTensor
from trit.measure.variants import REFERENCE
from trit.models.checkpoint import Checkpoint
from trit.models.families import find_family
from trit.models.families.base import Kind, TensorSpec
from trit.models.shapes import Shape

Q4_0 = "q4_0"


class Source(ABC):
    """Where the weights come from.

    Attributes:
        label: for headings.
        stem: beginning of the name of the folder with the files.
        key: changes when the files would.
        head: type of embedding and head in every file: else the head, which is read whole, would decide.
    """

    label: str
    stem: str
    key: str
    head: str

    @abstractmethod
    def tensors(self, form: str) -> list[PlannedTensor]:
        """What would be in the file of a format; raises UserError if the format does not fit."""

    @abstractmethod
    def make(self, form: str, path: Path) -> None:
        """Write the file of a format.

        Raises:
            UserError: the format cannot hold these weights.
        """

    def parent(self, form: str) -> str | None:
        """The format whose file this one is made from; None: from the source itself."""
        return None


class RandomSource(Source):
    """Random weights in a known shape."""

    def __init__(self, name: str, shape: Shape, head: str | None, layers: int | None) -> None:
        self._name, self._shape = name, with_vocabulary(shape)
        self.head = head or default_embedding_type("i2_s", shape.hidden)
        some = f", {layers} layers" if layers else ""
        self.label = f"random weights in the shape of {name}{some}, head {self.head}"
        self.stem = f"random-{name}-{f'{layers}-layers-' if layers else ''}{self.head}"
        self.key = _digest(map(_content, _sources()))

    def tensors(self, form: str) -> list[PlannedTensor]:
        """See the base class."""
        return planned_tensors(self._shape, OUTTYPES[form], self.head)

    def make(self, form: str, path: Path) -> None:
        """See the base class."""
        generate(self._name, self._shape, OUTTYPES[form], self.head, path)


class CheckpointSource(Source):
    """A Hugging Face folder, by the converter."""

    def __init__(self, folder: Path, head: str | None, bin_dir: Path = ENGINE_BIN) -> None:
        self._folder, self._bin_dir = folder, bin_dir
        checkpoint = Checkpoint.open(folder).with_prefix("model.")
        try:
            family = find_family(checkpoint.config)
            self._specs = present(checkpoint, family.tensors(checkpoint.config))
            self._architecture = family.gguf_architecture(checkpoint.config)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{folder}: config.json lacks something or is of another form ({error!r}); convert the folder with "
                "python3 -m utils.convert to see what"
            ) from error
        hidden = next(spec.shape[-1] for spec in self._specs if spec.kind is Kind.EMBEDDING)
        self.head = head or default_embedding_type("i2_s", hidden)
        name = folder.resolve().name
        self.label = f"{name}, embedding and head {self.head}"
        self.stem = f"{name}-{self.head}"
        stored = sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors", ".bin", ".model"})
        facts = [f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}".encode() for path in stored]
        self.key = _digest([*facts, *map(_content, _sources())])

    def tensors(self, form: str) -> list[PlannedTensor]:
        """See the base class."""
        if form == Q4_0:
            return q4_0_tensors(self.tensors(REFERENCE))
        encoding = ENCODINGS[form]
        check_columns(
            {spec.target: spec.shape for spec in self._specs if spec.kind is Kind.TERNARY}, encoding, self._architecture
        )
        return [row for spec in self._specs for row in self._rows(spec, form)]

    def _rows(self, spec: TensorSpec, form: str) -> list[PlannedTensor]:
        if spec.kind is Kind.TERNARY:
            return matrix_rows(spec.target, spec.shape, ENCODINGS[form])
        if spec.kind is Kind.EMBEDDING:
            return [embedding_row(spec.target, spec.shape, self.head)]
        return [PlannedTensor(spec.target, spec.shape, GGMLQuantizationType.F32)]

    def make(self, form: str, path: Path) -> None:
        """See the base class."""
        if form == Q4_0:
            self._quantize(path)
        else:
            convert(self._folder, path, Options(ENCODINGS[form], self.head))

    def parent(self, form: str) -> str | None:
        """See the base class."""
        return REFERENCE if form == Q4_0 else None

    def _quantize(self, path: Path) -> None:
        """q4_0 by llama.cpp's own quantiser; embedding and head stay what they are in the f16 file beside it."""
        program, reference = engine_binary("llama-quantize", self._bin_dir), path.with_stem(REFERENCE)
        kept = ["--token-embedding-type", self.head, "--output-tensor-type", self.head]
        with atomic_output(path) as partial:
            code, output = capture([program, "--pure", *kept, reference, partial, "Q4_0"], timeout_s=3600)
            if code != 0:
                said = " | ".join(telling_lines(output.splitlines(), 3))
                raise TritError(f"llama-quantize failed on {reference} (exit code {code}): {said}")


def _sources() -> list[Path]:
    """Our own files that decide what is in a model's file."""
    return sorted(path for room in ("convert", "gguf") for path in (ROOT / "trit" / room).rglob("*.py"))


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _digest(pieces: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(pieces)).hexdigest()[:8]


def is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of a file is one of the matrices whose format is compared: not embedding, head and norms."""
    return name.startswith("blk.") and len(shape) > 1


def q4_0_tensors(reference: Sequence[PlannedTensor]) -> list[PlannedTensor]:
    """What ``llama-quantize --pure`` makes of an f16 file: matrices of whole blocks in q4_0, everything else as it is.

    Raises:
        UserError: no matrix has whole blocks.
    """
    block = block_of(Q4_0)
    fits = [is_matrix(row.name, row.shape) and row.shape[-1] % block == 0 for row in reference]
    if not any(fits):
        raise UserError(f"no matrix has a multiple of {block} columns")
    return [
        PlannedTensor(row.name, row.shape, GGMLQuantizationType.Q4_0) if fit else row
        for row, fit in zip(reference, fits, strict=True)
    ]
