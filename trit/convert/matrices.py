# SPDX-License-Identifier: MIT
"""A ternary matrix in the file: its encoding, and what is done where its columns are no whole blocks of that.

Such a matrix gets another encoding with scale 1 and its own float32 scale as the tensor ``<name>.scale`` beside it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from trit.base.errors import UserError
from trit.base.flags import called
from trit.convert.read_back import Expected, ternary_digest
from trit.gguf.encoding_table import DEFAULT, INSTEAD
from trit.gguf.encodings import (
    ENCODINGS,
    Bytes,
    Encoding,
    Scale,
    Ternary,
    check_fits,
    check_scale,
    fallback,
    spread_scale,
)
from trit.gguf.types import GGMLQuantizationType
from trit.gguf.writer import PlannedTensor, SplitWriter

# Architectures whose graph in the engine multiplies every product of a layer with the scale tensor beside the matrix.
# The engine reads such a tensor with any architecture; a graph that is not listed might leave it out in silence.
SCALED_GRAPHS = frozenset({"bitnet", "bitnet-b1.58", "llama", "qwen3"})

Shapes = Mapping[str, Sequence[int]]


def scale_name(name: str) -> str:
    """Of the tensor that holds a matrix's scale."""
    return f"{name.removesuffix('.weight')}.scale"


def stacks(shapes: Shapes) -> list[str]:
    """The tensors that hold several matrices, one for each expert."""
    return [name for name, shape in shapes.items() if len(shape) > 2]


def odd_ones(shapes: Shapes, encoding: Encoding) -> dict[str, int]:
    """The matrices whose columns are no whole blocks of the encoding: name -> columns."""
    return {name: shape[-1] for name, shape in shapes.items() if shape[-1] % encoding.block}


def refused_columns(shapes: Shapes, encoding: Encoding, architecture: str) -> dict[str, int]:
    """The matrices that can neither be in an encoding nor get another one: name -> columns."""
    odd = odd_ones(shapes, encoding)
    total = sum(map(math.prod, shapes.values()))
    too_many = 2 * sum(math.prod(shapes[name]) for name in odd) > total
    return {
        name: columns
        for name, columns in odd.items()
        if too_many or architecture not in SCALED_GRAPHS or len(shapes[name]) > 2
    }


def check_columns(shapes: Shapes, encoding: Encoding, architecture: str) -> None:
    """Raise UserError, naming a matrix, if most of the weights cannot be in the encoding that was asked for.

    Or any of them, if the graph has no use for the scale tensor that they would get, or they are several in one tensor.
    """
    if refused := refused_columns(shapes, encoding, architecture):
        name, columns = next(iter(refused.items()))
        check_fits(encoding, name, columns, set(refused.values()))
    for name in stacks(shapes) if encoding.tail_bytes else ():
        whole = [row.name for row in ENCODINGS.values() if not row.tail_bytes and not odd_ones(shapes, row)]
        raise UserError(
            f"{name}: has several matrices, {encoding.name} one scale for all; use {called('--outtype')} "
            f"{' or '.join(whole)}"
        )


def fitting(shapes: Shapes, groups: Collection[int], architecture: str) -> list[str]:
    """The encodings that hold matrices as they are, what is taken where nobody asks for another first.

    Args:
        shapes: Name -> shape of each.
        groups: Inputs that share a scale, of each kind of matrix that there is; 0: all of it.
        architecture: Of the graph.
    """

    def holds(encoding: Encoding) -> bool:
        odd = any(group and (not encoding.scale_inputs or group % encoding.scale_inputs) for group in groups)
        odd = odd or (encoding.tail_bytes > 0 and bool(stacks(shapes)))
        return not odd and not refused_columns(shapes, encoding, architecture)

    first = (DEFAULT, *INSTEAD)
    return [name for name in (*first, *(name for name in ENCODINGS if name not in first)) if holds(ENCODINGS[name])]


def fallback_notes(shapes: Shapes, encoding: Encoding) -> list[str]:
    """What was done with the matrices that are not in the encoding that was asked for: a line for each size."""
    notes, odd = [], odd_ones(shapes, encoding)
    for k in sorted(set(odd.values())):
        names = [name for name, columns in odd.items() if columns == k]
        notes.append(
            f"{len(names)} matrices like {names[0]} have {k} columns, {encoding.name} needs a multiple of "
            f"{encoding.block}: they are stored as {fallback(encoding, k).name} with scale 1 and their scales beside "
            "them as float32, which loses nothing"
        )
    return notes


def matrix_rows(name: str, shape: tuple[int, ...], asked: Encoding, scaled: bool = False) -> list[PlannedTensor]:
    """The matrix's row in the file, and that of its scale where it needs one.

    Args:
        name: In the file.
        shape: Numpy order.
        asked: The encoding that was asked for.
        scaled: Whether the file gets a tensor with that scale's name anyway: then the matrix keeps its own scale.
    """
    encoding = fallback(asked, shape[-1])
    row = PlannedTensor(name, shape, encoding.ggml_type)
    if encoding is asked or scaled:
        return [row]
    return [row, PlannedTensor(scale_name(name), (1,), GGMLQuantizationType.F32)]


def write_matrix(
    writer: SplitWriter, rows: Sequence[PlannedTensor], asked: Encoding, ternary: Ternary, scale: Scale
) -> tuple[list[Expected], float]:
    """Pack a matrix into the rows that :func:`matrix_rows` has planned.

    Returns:
        What to expect when reading back; the largest deviation of a stored scale, relative to it.

    Raises:
        UserError: the encoding cannot hold the scale; names the tensor.
    """
    tensor, *scale_row = rows
    encoding = fallback(asked, tensor.shape[-1])
    own, beside = scale, 1.0
    # Scales of groups stay in the encoding: one tensor beside it cannot hold them.
    if scale_row and not isinstance(scale, np.ndarray):
        own, beside = 1.0, scale
    deviation = check_scale(encoding, tensor.name, own, tensor.shape[-1])
    digest = writer.write([encoding.pack(ternary, own)])
    if encoding.block == 1 and ternary.max(initial=0) > 1:
        # Floats with +2 among them do not decode to a ternary matrix: the bytes are compared.
        expected = [Expected(tensor, digest)]
    else:
        expected = [Expected(tensor, ternary_digest(ternary), encoding, encoding.stored_scale(own))]
    expected += [Expected(row, writer.write([np.array([beside], dtype=np.float32)])) for row in scale_row]
    return expected, deviation


def write_stack(
    writer: SplitWriter, tensor: PlannedTensor, encoding: Encoding, matrices: Iterable[tuple[Ternary, Scale]]
) -> tuple[list[Expected], float]:
    """Pack several matrices into one tensor, as they come: only one is in memory. As :func:`write_matrix` else."""
    k = tensor.shape[-1]
    digest, scales, deviation = hashlib.blake2b(), [], 0.0

    def pieces() -> Iterator[Bytes]:
        nonlocal deviation
        for ternary, scale in matrices:
            n = len(ternary)
            rows = scale if isinstance(scale, np.ndarray) else np.full((n, 1), scale, dtype=np.float32)
            deviation = max(deviation, check_scale(encoding, tensor.name, rows, k))
            digest.update(np.ascontiguousarray(ternary).data)
            scales.append(np.asarray(encoding.stored_scale(rows)))
            yield encoding.pack(ternary, rows)

    writer.write(pieces())
    groups = max(each.shape[1] for each in scales)
    all_scales = np.concatenate([spread_scale(each, len(each), k, k // groups) for each in scales])
    return [Expected(tensor, digest.digest(), encoding, all_scales)], deviation


def rounding_notes(deviation: float) -> list[str]:
    """What rounding has done to the scales; nothing if nothing."""
    return [f"scales are rounded to float16, by up to {deviation:.1e} of their value"] if deviation else []
