# SPDX-License-Identifier: MIT
"""GGUF in, GGUF out: every ternary matrix in another encoding, everything else as it was, one tensor at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from trit.base.errors import TritError, UserError
from trit.base.files import atomic_outputs
from trit.convert import vocabulary_check
from trit.convert.embedding import check_values, embedding_row, quantize_pieces
from trit.convert.manifest import Manifest
from trit.convert.matrices import check_columns, fallback_notes, matrix_rows, rounding_notes, scale_name, write_matrix
from trit.convert.metadata import architecture, check_convertible, copy_metadata
from trit.convert.read_back import Expected, verify, verify_vocabulary
from trit.convert.report import Report
from trit.gguf.encode import for_encoding, unpack
from trit.gguf.encodings import ENCODINGS, Encoding, check_fits, fallback
from trit.gguf.identify import Found
from trit.gguf.layouts import LAYOUTS, PUBLISHED_I2_S, TILED
from trit.gguf.order import check_order
from trit.gguf.rotation import PREFIX, is_rotated, may_be_rotated
from trit.gguf.source import FLOATS, PIECE_BYTES, SCALE_SUFFIX, Source
from trit.gguf.types import GGMLQuantizationType, GGUFWriter
from trit.gguf.writer import PlannedTensor, SplitWriter, output_errors, output_paths, part_paths, split_tensors

# Tensors that rows are looked up in or that make logits: copied, or q2_0 if their layout is one that is not loaded.
EMBEDDING, HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        encoding: Of the ternary matrices.
        embedding_type: Type of float embeddings; None: as they are.
        i2_s_layout: What type 36 means in the source, a key of ``I2_S_LAYOUTS``; None: published, if that is plausible.
        kernel_config: Tile sizes of TL1 and TL2.
        no_rotation: The weights are in no rotated basis, though their layout is that of releases that are.
        source: ORG/NAME[@REVISION] that the file is from.
        split_bytes: Most bytes of tensor data per file; None for one file of any size.
        force: Replace files that exist.
    """

    encoding: Encoding
    embedding_type: str | None = None
    i2_s_layout: str | None = None
    kernel_config: Path | None = None
    no_rotation: bool = False
    source: str | None = None
    split_bytes: int | None = None
    force: bool = True


@dataclass(frozen=True)
class _Plan:
    """What becomes of one tensor of the source: its row in the new file, and that of its scale where it gets one.

    Attributes:
        item: Where it comes from.
        rows: Of the new file.
        asked: The encoding that a ternary matrix should have; None: it is copied or, an embedding, quantised.
    """

    item: Found
    rows: list[PlannedTensor]
    asked: Encoding | None


def convert(path: Path, outfile: Path, options: Options, progress: bool = True) -> Report:
    """Convert a GGUF file of any known layout to one file, or to several where ``options.split_bytes`` asks for it.

    Raises:
        UserError: a tensor is not known, not ternary or does not fit the encoding; names the tensor.
        TritError: a file cannot be written, or reads back differently.
    """
    source = Source.open(path, options.i2_s_layout or "published", options.kernel_config)
    if options.split_bytes is None:
        _output_paths(source, outfile, 1, options.force)  # before any weight is read
    try:
        check_convertible(source.header)
        _check_flags(source, options)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    check_order(source, options.i2_s_layout)
    plans = _plan(source, options)
    # Of those whose scale gets a tensor of its own there is something to say.
    scaled = {plan.rows[0].name: plan.rows[0].shape for plan in plans if len(plan.rows) > 1}
    rows = [row for plan in plans for row in plan.rows]
    parts = split_tensors(rows, options.split_bytes)
    paths = _output_paths(source, outfile, len(parts), options.force)
    manifest = Manifest.of(path.parent, source.paths, options.source, progress).or_of(source.header.metadata)
    embedding = next((_type_name(row) for row in rows if row.name == EMBEDDING), None)

    def write_metadata(writer: GGUFWriter) -> list[str]:
        return copy_metadata(writer, source.header, options.encoding.file_type)

    with output_errors(outfile, rows), atomic_outputs(paths) as partials:
        checked = vocabulary_check.check(path, None, architecture(source.header), write_metadata, partials[0])
        writer = SplitWriter(partials, architecture(source.header), parts)
        try:
            changes = write_metadata(writer.metadata)
            manifest.write(writer.metadata, options.encoding.name, embedding)
            writer.begin()
            expected, deviation = _write_tensors(writer, source, plans, progress)
        finally:
            writer.close()
        verified = verify(partials, expected, unpack)
        verify_vocabulary(partials[0], checked.keys)
    notes = [f"corrected: {change}" for change in changes] + _kept_notes(plans)
    notes += fallback_notes(scaled, options.encoding) + rounding_notes(deviation)
    kinds = Counter(plan.item.name for plan in plans if plan.asked)
    names = [file.name for file in source.paths]
    return Report(paths, names, embedding, kinds, notes, f"{verified}; {checked.verified}", checked.warnings)


def _output_paths(source: Source, outfile: Path, count: int, force: bool) -> list[Path]:
    """As :func:`output_paths`; a file that is to be converted is never replaced."""
    for part in part_paths(outfile, count):
        if part.exists() and any(part.samefile(path) for path in source.paths):
            raise UserError(f"{part}: is the file that is to be converted; give another --outfile")
    return output_paths(outfile, count, force)


def _check_flags(source: Source, options: Options) -> None:
    """Raise UserError if an option is about tensors that the source does not have: it was meant for another file."""
    numbers = {item.tensor.ggml_type for item in source.found.values()}
    if options.i2_s_layout and not numbers & set(LAYOUTS[PUBLISHED_I2_S].ids):
        raise UserError("holds no i2_s, so leave --i2-s-layout away")
    if options.kernel_config and not any(item.name in TILED for item in source.found.values()):
        raise UserError("holds no TL1 or TL2, so leave --kernel-config away")
    if options.no_rotation and is_rotated(source.header):
        raise UserError(f"says that its weights are rotated ({PREFIX}* keys), so leave --no-rotation away")
    if not options.no_rotation and (name := may_be_rotated(source.header, source.found.values())):
        raise UserError(
            f"{name} has the layout of Ternary-Bonsai-2, whose weights are rotated, but the file has no {PREFIX}* "
            "keys, so its answers may be nonsense; take its maker's file, or pass --no-rotation if the model is another"
        )


def _type_name(row: PlannedTensor) -> str:
    return GGMLQuantizationType(row.ggml_type).name.lower()


def _plan(source: Source, options: Options) -> list[_Plan]:
    """What becomes of every tensor; raises UserError for the first that nothing can be made of."""
    plans = []
    for item in source.found.values():
        tensor = item.tensor
        if item.problem:
            raise UserError(f"{source.path}: {tensor.name} {item.problem}")
        if _is_tile_scale(source, tensor.name):
            continue
        if tensor.name in (EMBEDDING, HEAD):
            plans.append(_plan_embedding(item, options.embedding_type))
        elif _is_ternary(source, item):
            scaled = scale_name(tensor.name) in source.found
            rows = matrix_rows(tensor.name, tensor.shape, options.encoding, scaled)
            plans.append(_Plan(item, rows, options.encoding))
        else:
            plans.append(_Plan(item, [PlannedTensor(tensor.name, tensor.shape, tensor.ggml_type)], None))
    matrices = {plan.rows[0].name: plan.rows[0].shape for plan in plans if plan.asked is options.encoding}
    check_columns(matrices, options.encoding, architecture(source.header))
    if not plans:
        raise UserError(f"{source.path}: holds no weights, only metadata; there is nothing to convert")
    if not any(plan.asked for plan in plans):
        raise UserError(
            f"{source.path}: holds no ternary matrix; an ordinary model cannot be made ternary by conversion, and "
            "master weights of BitLinear training are converted from their checkpoint folder"
        )
    return plans


def _kept_notes(plans: list[_Plan]) -> list[str]:
    """A line about the matrices of layers that are not ternary and stay what they are, if there are any."""
    kept = [plan.item for plan in plans if plan.asked is None and len(plan.item.tensor.shape) > 1]
    names = [item.tensor.name for item in kept if item.tensor.name.startswith("blk.")]
    if not names:
        return []
    return [f"{len(names)} matrices of layers are not ternary and stay as they are, {names[0]} is the first"]


def _is_tile_scale(source: Source, name: str) -> bool:
    """Whether a tensor is the scale that bitnet.cpp's converter puts beside a TL1 or TL2 tensor."""
    owner = source.found.get(name.removesuffix(SCALE_SUFFIX))
    return name.endswith(SCALE_SUFFIX) and owner is not None and owner.name in TILED


def _is_ternary(source: Source, item: Found) -> bool:
    """Whether a tensor that is no embedding holds a ternary matrix."""
    if item.layout:
        return True
    matrix = len(item.tensor.shape) == 2 and item.tensor.name.startswith("blk.") and item.name in FLOATS
    return matrix and source.exact_ternary(item) is not None


def _plan_embedding(item: Found, embedding_type: str | None) -> _Plan:
    """An embedding or head stays as it is, unless a type is asked for or the engine does not load its layout.

    Raises:
        UserError: it would be quantised a second time, or its columns do not fit; names the tensor.
    """
    tensor, q2_0 = item.tensor, ENCODINGS["q2_0"]
    if embedding_type not in (None, item.name if item.loads else q2_0.name):
        assert embedding_type is not None
        if item.name not in FLOATS:
            raise UserError(
                f"{tensor.name}: is {item.name} already, and --quant-embd {embedding_type} would quantise "
                "it twice; leave the flag away to keep it"
            )
        return _Plan(item, [embedding_row(tensor.name, tensor.shape, embedding_type)], None)
    if item.loads:
        return _Plan(item, [PlannedTensor(tensor.name, tensor.shape, tensor.ggml_type)], None)
    check_fits(q2_0, tensor.name, tensor.columns)
    return _Plan(item, [PlannedTensor(tensor.name, tensor.shape, q2_0.ggml_type)], q2_0)


def _write_tensors(
    writer: SplitWriter, source: Source, plans: list[_Plan], progress: bool
) -> tuple[list[Expected], float]:
    """Stream every tensor into the file; returns what to expect when reading back, the largest error of a scale."""
    expected: list[Expected] = []
    deviation = 0.0
    total = sum(plan.item.nbytes for plan in plans)
    with tqdm(total=total, unit="B", unit_scale=True, desc="converting", disable=None if progress else True) as bar:
        for plan in plans:
            if plan.asked is None:
                expected.append(Expected(plan.rows[0], writer.write(_copied(source, plan))))
            else:
                written, rounded = _write_matrix(writer, source, plan, plan.asked)
                expected += written
                deviation = max(deviation, rounded)
            bar.update(plan.item.nbytes)
    return expected, deviation


def _write_matrix(writer: SplitWriter, source: Source, plan: _Plan, asked: Encoding) -> tuple[list[Expected], float]:
    """Write one ternary matrix; returns what :func:`trit.convert.matrices.write_matrix` does."""
    decoded = source.matrix(plan.item) if plan.item.layout else source.exact_ternary(plan.item)
    name = plan.rows[0].name
    if decoded is None:
        raise TritError(f"{name}: is not ternary any more; does something write to {source.path}?")
    ternary, scale = for_encoding(decoded, fallback(asked, plan.rows[0].shape[-1]), name)
    return write_matrix(writer, plan.rows, asked, ternary, scale)


def _copied(source: Source, plan: _Plan) -> Iterator[npt.NDArray[Any]]:
    """The bytes of a tensor that stays what it is, or the rows of an embedding in its new type."""
    item, kind = plan.item, GGMLQuantizationType(plan.rows[0].ggml_type)
    if kind != item.tensor.ggml_type:
        yield from quantize_pieces(_float_pieces(source, item, kind), kind)
        return
    for start in range(0, item.nbytes, PIECE_BYTES):
        yield source.bytes(item.tensor, start, min(start + PIECE_BYTES, item.nbytes))


def _float_pieces(source: Source, item: Found, kind: GGMLQuantizationType) -> Iterator[npt.NDArray[np.float32]]:
    """The values of a float tensor, a few rows at a time; raises UserError if the type cannot hold them."""
    rows = max(1, PIECE_BYTES // (4 * item.tensor.columns))
    for start in range(0, item.tensor.rows, rows):
        values = source.float_rows(item, start, start + rows)
        check_values(values, kind, item.tensor.name)
        yield values
