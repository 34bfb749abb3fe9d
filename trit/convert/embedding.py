# SPDX-License-Identifier: MIT
"""Embeddings and heads in the type that --quant-embd names: gguf-py's quantisers, and ours for what it lacks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import gguf
import numpy as np
import numpy.typing as npt

from trit.base.errors import UserError
from trit.base.host import usable_cpus
from trit.gguf.encodings import ENCODINGS, check_scale, split_groups
from trit.gguf.k_quants import quantize_k
from trit.gguf.types import GGMLQuantizationType
from trit.gguf.writer import PlannedTensor

Floats = npt.NDArray[np.float32]
Piece = TypeVar("Piece")
Result = TypeVar("Result")

# Also the type of the scales in every block.
F16_MAX = 65504.0
K_BITS = {GGMLQuantizationType.Q4_K: 4, GGMLQuantizationType.Q5_K: 5, GGMLQuantizationType.Q6_K: 6}
# More would only wait for the one thread that writes.
MAX_WORKERS = 8


def quantize_rows(values: Floats, kind: GGMLQuantizationType) -> npt.NDArray[Any]:
    """Float32 [rows, k] -> the rows in a type of the file; k is a multiple of the type's block."""
    if kind in K_BITS:
        return quantize_k(values, K_BITS[kind])
    if kind.name == "Q2_0":
        grouped = split_groups(values, ENCODINGS["q2_0"].block)
        assert grouped is not None  # check_values has refused it
        return ENCODINGS["q2_0"].pack(*grouped).reshape(len(values), -1)
    return np.asarray(gguf.quants.quantize(values, kind))


def embedding_row(name: str, shape: tuple[int, ...], embedding_type: str) -> PlannedTensor:
    """The row in the file of an embedding or head; raises UserError if its columns are no whole blocks of the type."""
    kind = GGMLQuantizationType[embedding_type.upper()]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    if shape[-1] % block:
        raise UserError(
            f"{name}: {shape[-1]} columns, {embedding_type} needs a multiple of {block}; use --quant-embd f16"
        )
    return PlannedTensor(name, shape, kind)


def check_values(values: Floats, kind: GGMLQuantizationType, name: str) -> None:
    """Raise UserError, naming the tensor, if float32 [rows, k] cannot be in a type of the file without harm."""
    peak, type_name = np.abs(values).max(), kind.name.lower()
    if not np.isfinite(peak):
        raise UserError(f"{name}: holds NaN or infinity; the file is broken, download it again")
    if kind not in {GGMLQuantizationType.F32, GGMLQuantizationType.BF16} and peak > F16_MAX:
        raise UserError(f"{name}: holds {peak:g}, too large for {type_name}; use --quant-embd f32")
    if type_name != "q2_0":
        return
    grouped = split_groups(values, ENCODINGS["q2_0"].block)
    if grouped is None:
        raise UserError(f"{name}: is not ternary, and q2_0 would make it so; use --quant-embd q6_k")
    check_scale(ENCODINGS["q2_0"], name, grouped[1], values.shape[1])


def quantize_pieces(pieces: Iterable[Floats], kind: GGMLQuantizationType) -> Iterator[npt.NDArray[Any]]:
    """:func:`quantize_rows` of one piece after the other, as :func:`map_pieces` does it."""
    return map_pieces(lambda piece: quantize_rows(piece, kind), pieces)


def map_pieces(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """``function`` of one piece after the other, several at a time, in their order.

    What the pieces raise comes through; memory is bounded by two pieces for each CPU.
    """
    workers = min(usable_cpus(), MAX_WORKERS)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for piece in pieces:
            waiting.append(pool.submit(function, piece))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
