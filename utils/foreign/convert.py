# SPDX-License-Identifier: MIT
"""GGUF in, GGUF out: every ternary matrix in another encoding, everything else as it was, one tensor at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from utils.cli import TritError, UserError, atomic_output
from utils.convert.embedding import quantize_rows
from utils.convert.writer import PlannedTensor, StreamWriter, output_errors
from utils.foreign.decode import Decoded
from utils.foreign.encode import encode
from utils.foreign.identify import Found
from utils.foreign.layouts import TILED
from utils.foreign.metadata import architecture, check_convertible, copy_metadata
from utils.foreign.order import check_order
from utils.foreign.source import FLOATS, PIECE_BYTES, SCALE_SUFFIX, Source
from utils.gguf_types import GGMLQuantizationType
from utils.weight_encodings import ENCODINGS, Encoding, check_fits

# Tensors that rows are looked up in or that make logits: copied, or q2_0 if their layout is one that is not loaded.
EMBEDDINGS = ("token_embd.weight", "output.weight")


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        encoding: Of the ternary matrices.
        embedding_type: Type of float embeddings; None: as they are.
        i2_s_layout: What type 36 means in the source, a key of ``I2_S_LAYOUTS``; None: published, if that is plausible.
        kernel_config: Tile sizes of TL1 and TL2.
    """

    encoding: Encoding
    embedding_type: str | None = None
    i2_s_layout: str | None = None
    kernel_config: Path | None = None


@dataclass(frozen=True)
class Report:
    """What a conversion did: sizes, how many matrices of each layout, corrections, largest error of a scale, check."""

    source_bytes: int
    file_bytes: int
    layouts: dict[str, int]
    changes: list[str]
    deviation: float
    verified: str


@dataclass
class _Plan:
    """One tensor of the new file: where it comes from, and the encoding of a ternary one."""

    item: Found
    tensor: PlannedTensor
    encoding: Encoding | None
    digest: bytes = field(default=b"")


def convert(path: Path, outfile: Path, options: Options, progress: bool = True) -> Report:
    """Convert a GGUF file of any known layout.

    Raises:
        UserError: a tensor is not known, not ternary or does not fit the encoding; names the tensor.
        TritError: the file cannot be written, or reads back differently.
    """
    if outfile.exists() and outfile.samefile(path):
        raise UserError(f"{outfile}: is the file that is to be converted; give another --outfile")
    source = Source.open(path, options.i2_s_layout or "published", options.kernel_config)
    try:
        check_convertible(source.header)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if options.i2_s_layout is None:
        check_order(source)
    plans = _plan(source, options)
    tensors = [plan.tensor for plan in plans]
    deviation = 0.0
    with output_errors(outfile, tensors), atomic_output(outfile) as partial:
        writer = StreamWriter(partial, architecture(source.header))
        try:
            changes = copy_metadata(writer.metadata, source.header, options.encoding.file_type)
            for tensor in tensors:
                writer.plan(tensor)
            writer.begin()
            total = sum(plan.item.nbytes for plan in plans)
            with tqdm(
                total=total, unit="B", unit_scale=True, desc="converting", disable=None if progress else True
            ) as bar:
                for plan in plans:
                    deviation = max(deviation, _write(writer, source, plan))
                    bar.update(plan.item.nbytes)
        finally:
            writer.close()
        verified = _verify(partial, plans)
    counts: dict[str, int] = {}
    for plan in plans:
        if plan.encoding:
            counts[plan.item.name] = counts.get(plan.item.name, 0) + 1
    return Report(source.header.file_bytes, outfile.stat().st_size, counts, changes, deviation, verified)


def _plan(source: Source, options: Options) -> list[_Plan]:
    """What becomes of every tensor; raises UserError for the first that nothing can be made of."""
    plans = []
    for item in source.found.values():
        tensor = item.tensor
        if item.problem:
            raise UserError(f"{source.path}: {tensor.name} {item.problem}")
        if _is_tile_scale(source, tensor.name):
            continue
        encoding = _encoding(source, item, options)
        if encoding:
            check_fits(encoding, tensor.name, tensor.columns)
            if encoding.tail_bytes and len(tensor.shape) > 2:
                raise UserError(f"{tensor.name}: has several matrices, {encoding.name} one scale; use --outtype q2_0")
            plans.append(_Plan(item, PlannedTensor(tensor.name, tensor.shape, encoding.ggml_type), encoding))
            continue
        kind = tensor.ggml_type
        if options.embedding_type and tensor.name in EMBEDDINGS:
            if item.name not in FLOATS:
                raise UserError(
                    f"{tensor.name}: is {item.name} already, and --quant-embd {options.embedding_type} would quantise "
                    "it twice; leave the flag away to keep it"
                )
            kind = GGMLQuantizationType[options.embedding_type.upper()]
        plans.append(_Plan(item, PlannedTensor(tensor.name, tensor.shape, kind), None))
    if not any(plan.encoding for plan in plans):
        raise UserError(
            f"{source.path}: holds no ternary matrix; an ordinary model cannot be made ternary by conversion"
        )
    return plans


def _is_tile_scale(source: Source, name: str) -> bool:
    """Whether a tensor is the scale that bitnet.cpp's converter puts beside a TL1 or TL2 tensor."""
    owner = source.found.get(name.removesuffix(SCALE_SUFFIX))
    return name.endswith(SCALE_SUFFIX) and owner is not None and owner.name in TILED


def _encoding(source: Source, item: Found, options: Options) -> Encoding | None:
    """The encoding that a tensor gets in the new file; None: it is copied."""
    tensor = item.tensor
    if tensor.name in EMBEDDINGS:
        return None if item.loads else ENCODINGS["q2_0"]
    if item.layout:
        return options.encoding
    matrix = len(tensor.shape) == 2 and tensor.name.startswith("blk.") and item.name in FLOATS
    return options.encoding if matrix and source.exact_ternary(item) else None


def _write(writer: StreamWriter, source: Source, plan: _Plan) -> float:
    """Write one tensor and note its digest; returns the largest error of a scale."""
    if plan.encoding is None:
        plan.digest = writer.write(_copied(source, plan))
        return 0.0
    decoded = source.matrix(plan.item) if plan.item.layout else source.exact_ternary(plan.item)
    if decoded is None:
        raise TritError(f"{plan.tensor.name}: is not ternary any more; does something write to {source.path}?")
    encoded = encode(decoded, plan.encoding, plan.tensor.name)
    writer.write([encoded.data])
    plan.digest = _digest(encoded.expected, plan.encoding)
    return encoded.deviation


def _copied(source: Source, plan: _Plan) -> Iterator[npt.NDArray[Any]]:
    """The bytes of a tensor that stays what it is, or the rows of an embedding in its new type."""
    item, kind = plan.item, GGMLQuantizationType(plan.tensor.ggml_type)
    if kind == item.tensor.ggml_type:
        for start in range(0, item.nbytes, PIECE_BYTES):
            yield source.bytes(item.tensor, start, min(start + PIECE_BYTES, item.nbytes))
        return
    row_bytes = item.nbytes // item.tensor.rows
    rows = max(1, PIECE_BYTES // row_bytes)
    for start in range(0, item.tensor.rows, rows):
        yield quantize_rows(source.float_rows(item, start, start + rows), kind)


def _digest(decoded: Decoded, encoding: Encoding) -> bytes:
    """Of what the encoding holds: values and scales, or, of plain floats, which have no groups, the weights."""
    digest = hashlib.blake2b()
    if encoding.name not in FLOATS:
        digest.update(np.ascontiguousarray(decoded.values).data)
        digest.update(np.ascontiguousarray(decoded.scales).data)
        return digest.digest()
    n, k = decoded.shape
    groups = decoded.scales.shape[1]
    scales = np.broadcast_to(decoded.scales, (n, groups))
    step = max(1, PIECE_BYTES // (4 * k))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        values = decoded.values[rows].reshape(-1, groups, k // groups) * scales[rows, :, None]
        # -0 and +0 are the same weight.
        digest.update(np.ascontiguousarray(values + np.float32(0)).data)
    return digest.digest()


def _verify(path: Path, plans: list[_Plan]) -> str:
    """Read the new file with the decoders of foreign files and compare all tensors; raises TritError if one differs."""
    written = Source.open(path, arrays=False)
    if list(written.found) != [plan.tensor.name for plan in plans]:
        raise TritError(f"{path}: the tensor table read back is not the one that was written")
    weights = count = 0
    for plan in plans:
        item = written.found[plan.tensor.name]
        if plan.encoding is None:
            digest = hashlib.blake2b()
            for start in range(0, item.nbytes, PIECE_BYTES):
                digest.update(written.bytes(item.tensor, start, min(start + PIECE_BYTES, item.nbytes)).data)
            same = digest.digest() == plan.digest
        else:
            decoded = written.matrix(item) if item.layout else written.exact_ternary(item) or _floats(written, item)
            same = _digest(decoded, plan.encoding) == plan.digest
            count, weights = count + 1, weights + item.tensor.rows * item.tensor.columns
        if not same:
            raise TritError(f"{plan.tensor.name}: reads back with other values than were written; check the disk")
    return (
        f"checked by reading back: {count} ternary tensors ({weights:,} weights) decode to the source's values and "
        f"scales, {len(plans) - count} other tensors hold the bytes that were written"
    )


def _floats(source: Source, item: Found) -> Decoded:
    """A float tensor of weights with several scales: each its own group, sign and magnitude."""
    values = source.floats(item)
    return Decoded(np.sign(values).astype(np.int8), np.abs(values))
