# SPDX-License-Identifier: MIT
"""The encodings as things to work with: the rows of ``trit.gguf.encoding_table``, each with its packer and decoder.

A ternary matrix and its scale are as ``trit.gguf.codecs`` says. What an encoding can hold, and what takes its place
where it cannot, is decided here. Plain numpy, so that the kernel tests can import it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trit.base.errors import UserError
from trit.base.flags import called
from trit.gguf.codecs import CODECS, Bytes, Scale, Ternary, row_chunks, spread_scale, times_scale
from trit.gguf.decode import decode
from trit.gguf.encoding_table import TABLE, EncodingRow

__all__ = ["ENCODINGS", "Bytes", "Encoding", "Scale", "Ternary", "spread_scale"]

# What rounding may change a scale by, relative to it: twice what it is for the normal numbers of float16.
MAX_SCALE_DEVIATION = 1e-3
# Group sizes that are looked for in floats, after one group a row: those of llama.cpp's blocks and of Ternary-Bonsai.
GROUPS = (256, 128, 64)


@dataclass(frozen=True)
class Encoding(EncodingRow):
    """One way to store a ternary matrix; what is not said here is said there.

    Attributes:
        pack: (ternary int8 [n, k], scale) -> uint8 [nbytes].
        unpack: (uint8 [nbytes], n, k, tensor name) -> (ternary int8 [n, k], scale); raises UserError on invalid bytes.
            The scale is a float where one fits the whole matrix.
    """

    pack: Callable[[Ternary, Scale], Bytes] = field(kw_only=True)
    unpack: Callable[[Bytes, int, int, str], tuple[Ternary, Scale]] = field(kw_only=True)

    def stored_scale(self, scale: Scale) -> Scale:
        """A float32 scale as this encoding can hold it."""
        with np.errstate(over="ignore"):  # the caller looks at the result: infinity means that the type cannot hold it
            stored = np.asarray(scale).astype(f"<f{self.scale_bits // 8}").astype(np.float32)
        return stored if stored.ndim else float(stored)


def _gathered(scales: npt.NDArray[np.float32]) -> Scale:
    """The one scale of a matrix if its blocks' scales [n, blocks] agree (0 in blocks of zeros), else all of them."""
    scale = float(scales.max(initial=0.0))
    return scale if np.isin(scales, [0.0, scale]).all() else scales


def same_values(ternary: Ternary, a: Scale, b: Scale) -> bool:
    """Whether ``ternary * a`` equals ``ternary * b``: the scales of groups of zeros do not matter."""
    n, k = ternary.shape
    group = math.gcd(*[k // scale.shape[1] if isinstance(scale, np.ndarray) else k for scale in (a, b)])
    used = ternary.reshape(n, k // group, group).any(axis=-1)
    return bool((spread_scale(a, n, k, group) == spread_scale(b, n, k, group))[used].all())


def split_groups(values: npt.NDArray[np.float32], group: int) -> tuple[Ternary, npt.NDArray[np.float32]] | None:
    """Float32 [n, k] -> ternary int8 [n, k] and scales [n, k / group] if every group is exactly -s, 0 and +s."""
    n, k = values.shape
    signs = np.sign(values)
    scales = np.abs(values).reshape(n, k // group, group).max(axis=-1)
    if not np.array_equal(values, signs * scales.repeat(group, axis=1)):
        return None
    return signs.astype(np.int8), scales


def group_sizes(k: int) -> tuple[int, ...]:
    """Sizes of groups that are tried on rows of k floats, the largest first."""
    return (k, *[group for group in GROUPS if group < k and k % group == 0])


def exact_ternary(
    pieces: Callable[[], Iterable[npt.NDArray[np.float32]]], n: int, k: int
) -> tuple[Ternary, Scale] | None:
    """The ternary matrix that floats hold exactly, with one scale for all of it, for each row, or for each group.

    Args:
        pieces: Gives the rows from the first to the last, float32 [some, k] at a time; called again for every size of
            groups that is tried, and mostly left after its first piece where the floats are not ternary.
        n: Rows.
        k: Columns.

    Returns:
        None if there is none. The scale of a matrix of zeros is 0.
    """
    for group in group_sizes(k):
        ternary, scales = np.empty((n, k), dtype=np.int8), np.empty((n, k // group), dtype=np.float32)
        done = 0
        for values in pieces():
            part = split_groups(values, group)
            if part is None:
                break
            rows = slice(done, done + len(values))
            ternary[rows], scales[rows] = part
            done = rows.stop
        else:
            scale = _gathered(scales)
            # A few values can be ternary by chance.
            if isinstance(scale, float) or group >= min(GROUPS):
                return ternary, scale
    return None


def _pack_float(dtype: str) -> Callable[[Ternary, Scale], Bytes]:
    """Packer for plain floats: every value is -s, 0 or +s, with s the scale rounded to ``dtype``."""

    def pack(ternary: Ternary, scale: Scale) -> Bytes:
        out = np.empty(ternary.shape, dtype=dtype)
        for rows in row_chunks(*ternary.shape):
            out[rows] = times_scale(ternary, scale, rows)
        return out.reshape(-1).view(np.uint8)

    return pack


def _unpack_float(dtype: str) -> Callable[[Bytes, int, int, str], tuple[Ternary, Scale]]:
    def unpack(data: Bytes, n: int, k: int, name: str) -> tuple[Ternary, Scale]:
        values = data.view(dtype).reshape(n, k)
        found = exact_ternary(lambda: (values[rows].astype(np.float32) for rows in row_chunks(n, k)), n, k)
        if found is not None:
            return found
        raise UserError(
            f"{name}: not every value is -s, 0 or +s, with one scale s for the matrix, a row, or a group of "
            f"{' or '.join(map(str, GROUPS))} inputs, so it is not ternary"
        )

    return unpack


def _unpack(row: EncodingRow) -> Callable[[Bytes, int, int, str], tuple[Ternary, Scale]]:
    """The one decoder, and one scale where that is enough; a weight of +2 is refused."""

    def unpack(data: Bytes, n: int, k: int, name: str) -> tuple[Ternary, Scale]:
        decoded = decode(row.name, data, n, k, name)
        if row.holds_two and decoded.values.max(initial=0) > 1:
            at, column = np.argwhere(decoded.values > 1)[0]
            raise UserError(f"{name}: row {at}, column {column} holds +2, so it is not ternary")
        return decoded.values, _gathered(decoded.scales)

    return unpack


def _ternary(row: EncodingRow) -> Encoding:
    return Encoding(**vars(row), pack=CODECS[row.name].pack, unpack=_unpack(row))


def _float(row: EncodingRow) -> Encoding:
    dtype = f"<f{row.block_bytes}"
    return Encoding(**vars(row), pack=_pack_float(dtype), unpack=_unpack_float(dtype))


ENCODINGS: dict[str, Encoding] = {row.name: _ternary(row) if row.ternary else _float(row) for row in TABLE.values()}


class Blocked(Protocol):
    """A type with a name and blocks."""

    @property
    def name(self) -> str:
        """What ``--outtype`` calls it."""

    @property
    def block(self) -> int:
        """The number of inputs k has to be a multiple of this."""


def check_fits(encoding: Blocked, name: str, k: int, beside: Iterable[int] = ()) -> None:
    """Raise UserError, naming the tensor and a way out, if k inputs are not a whole number of blocks.

    ``beside`` are the inputs of other tensors that have to have the same encoding.
    """
    if k % encoding.block == 0:
        return
    whole = [row.name for row in ENCODINGS.values() if not any(size % row.block for size in (k, *beside))]
    others = " or ".join(whole)
    wanted = f"{encoding.name} needs a multiple of {encoding.block}"
    raise UserError(f"{name}: {k} columns, {wanted}; use {called('--outtype')} {others}")


def fallback(encoding: Encoding, k: int) -> Encoding:
    """The encoding for a matrix with k inputs: ``encoding`` if they are whole blocks of it, else one that takes them.

    In place of another encoding the matrix gets scale 1, which every encoding holds exactly, and its own scale is a
    tensor of its own, so nothing is lost.
    """
    if k % encoding.block == 0:
        return encoding
    return ENCODINGS["q2_0" if k % ENCODINGS["q2_0"].block == 0 else "f16"]


def check_scale(encoding: Encoding, name: str, scale: Scale, k: int) -> float:
    """Look whether an encoding can hold a usable form of the scale of a matrix with k inputs.

    Returns:
        The largest deviation of a stored scale from its value, relative to it.

    Raises:
        UserError: it cannot; names the tensor and a way out.
    """
    group = k // scale.shape[1] if isinstance(scale, np.ndarray) else 0
    if group and (not encoding.scale_inputs or group % encoding.scale_inputs):
        others = [row.name for row in ENCODINGS.values() if row.scale_inputs and group % row.scale_inputs == 0]
        room = f"one for {encoding.scale_inputs} inputs" if encoding.scale_inputs else "one for the matrix"
        raise UserError(
            f"{name}: has a scale for every {group} inputs, {encoding.name} holds {room}; "
            f"use {called('--outtype')} {' or '.join(others)}"
        )
    wanted, stored = np.atleast_1d(scale), np.atleast_1d(encoding.stored_scale(scale))
    used = wanted != 0 if group else np.full(1, True)  # a group of zeros has no scale
    with np.errstate(all="ignore"):
        deviations = np.abs(stored[used] / wanted[used] - 1)
    # Negated, so that NaN counts as a deviation.
    if not ((stored[used] > 0) & (deviations <= MAX_SCALE_DEVIATION)).all():
        worst = int(np.nan_to_num(deviations, nan=np.inf).argmax())
        raise UserError(
            f"{name}: its scale {wanted[used][worst]:g} becomes {stored[used][worst]:g} in {encoding.name}; "
            f"use {called('--outtype')} {'f32' if group else 'i2_s or f32'}"
        )
    return float(deviations.max(initial=0.0))
