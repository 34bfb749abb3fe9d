# SPDX-License-Identifier: MIT
"""Which layout the tensors of a GGUF file have: the type number and the size have to agree.

Standard library only, like ``layouts``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trit.gguf.header import RawHeader, RawTensor
from trit.gguf.layouts import (
    FLAT_I2_S,
    I2_S_LAYOUTS,
    LAYOUTS,
    PLAIN,
    REFUSED,
    TILED,
    Layout,
    Refused,
    fits,
    guess,
    named_by_size,
)


@dataclass(frozen=True)
class Found:
    """What a tensor is.

    Attributes:
        tensor: Its row of the table.
        name: Name of its layout or type; "type N" if it is not known.
        layout: Its ternary layout, None if it has none.
        nbytes: Size of its data without padding; 0 if it is not known.
        problem: Why it cannot be read, as one clause; None if it can.
    """

    tensor: RawTensor
    name: str
    layout: Layout | None
    nbytes: int
    problem: str | None = None

    @property
    def loads(self) -> bool:
        """Whether our engine loads it as it is."""
        return self.problem is None and (self.layout is None or self.layout.loads)


def identify(header: RawHeader, i2_s_layout: str = "published") -> list[Found]:
    """What every tensor of a file is, in the file's order.

    Args:
        header: Of the file.
        i2_s_layout: Key of ``I2_S_LAYOUTS``: what type 36 means; sizes cannot tell.
    """
    skipped = {*I2_S_LAYOUTS.values(), FLAT_I2_S} - {I2_S_LAYOUTS[i2_s_layout]}
    if i2_s_layout == "published":
        skipped.remove(FLAT_I2_S)
    candidates = {
        tensor.name: [
            (layout, size)
            for layout in LAYOUTS.values()
            if tensor.ggml_type in layout.ids and layout.name not in skipped
            for size in _sizes(layout, tensor, header.alignment)
        ]
        for tensor in header.tensors.values()
    }
    certain = {
        (header.tensors[name].ggml_type, rows[0][0].name)
        for name, rows in candidates.items()
        if len({layout.name for layout, _ in rows}) == 1
    }
    return [_settle(tensor, candidates[tensor.name], certain, header) for tensor in header.tensors.values()]


def _sizes(layout: Layout, tensor: RawTensor, alignment: int) -> list[int]:
    """The sizes of a layout that fit a tensor."""
    if tensor.columns % layout.columns:
        return []
    return [size for size in layout.sizes(tensor.rows, tensor.columns) if fits(size, tensor.span, alignment)]


def _is_last(tensor: RawTensor, header: RawHeader) -> bool:
    return all(other.offset <= tensor.offset for other in header.tensors.values())


def _settle(
    tensor: RawTensor, rows: list[tuple[Layout, int]], certain: Iterable[tuple[int, str]], header: RawHeader
) -> Found:
    """One layout of those that fit; a small tensor that fits two is what its larger neighbours are."""
    if len({layout.name for layout, _ in rows}) > 1:
        agreed = [row for row in rows if (tensor.ggml_type, row[0].name) in certain]
        # None of the file's tensors can tell: it is what the number means in llama.cpp. Only TL1 of bitnet.cpp, which
        # tl1's size tells apart if the alignment is 32, as both write it, is not taken for what would load.
        tiled = [row for row in rows if row[0].name in TILED]
        rows = agreed or tiled or [row for row in rows if row[0].loads] or rows
    if rows:
        layout, size = rows[0]
        return Found(tensor, layout.name, layout, size)
    if tensor.ggml_type in PLAIN:
        name, block, block_bytes = PLAIN[tensor.ggml_type]
        size = tensor.rows * tensor.columns // block * block_bytes
        whole, fitting = tensor.columns % block == 0, fits(size, tensor.span, header.alignment)
        other = named_by_size(tensor.ggml_type, tensor.rows, tensor.columns, tensor.span, header.alignment)
        if other and not (whole and fitting):
            return Found(tensor, f"type {tensor.ggml_type}", None, 0, _has(tensor, other))
        # What stands behind the last tensor is nobody's: padded downloads have such bytes.
        if whole and (fitting or (0 < size <= tensor.span and _is_last(tensor, header))):
            return Found(tensor, name, None, size)
        problem = f"as {name} takes {size} bytes and has {tensor.span}"
        if tensor.span < size:
            problem += ": the file is cut short, download or convert it again"
        if not whole:
            problem = f"has {tensor.columns} columns, which {name} cannot have"
        return Found(tensor, name, None, 0, problem)
    return Found(tensor, f"type {tensor.ggml_type}", None, 0, _why(tensor, header))


def _why(tensor: RawTensor, header: RawHeader) -> str:
    """Why a tensor of a number that is not llama.cpp's, or of another size than its number says, is not read."""
    known = [layout for layout in LAYOUTS.values() if tensor.ggml_type in layout.ids]
    text = guess(tensor.ggml_type, tensor.rows, tensor.columns, tensor.span, header.alignment)
    if known and tensor.columns % min(layout.columns for layout in known):
        text = f"{tensor.columns} columns are not possible for {known[0].name}"
    elif tensor.offset + tensor.span == header.file_bytes and tensor.span < _smallest(tensor, known):
        text += "; or the file is cut short here, then download or convert it again"
    return _has(tensor, text)


def _has(tensor: RawTensor, what: str) -> str:
    shape = "x".join(map(str, tensor.shape))
    return f"has type {tensor.ggml_type} and {tensor.span} bytes for {shape} weights: {what}"


def _smallest(tensor: RawTensor, layouts: Iterable[Layout]) -> int:
    """The least bytes that a tensor can have in any of the layouts."""
    fitting = (layout for layout in layouts if tensor.columns % layout.columns == 0)
    return min((size for layout in fitting for size in layout.sizes(tensor.rows, tensor.columns)), default=0)


def least_bytes(header: RawHeader) -> int:
    """Bytes that a file has at least: up to the end of its last tensor's data, in the smallest layout of its type."""
    last = max(header.tensors.values(), key=lambda tensor: tensor.offset, default=None)
    if last is None:
        return 0
    if last.ggml_type in PLAIN:
        _, block, block_bytes = PLAIN[last.ggml_type]
        return last.offset + last.rows * last.columns // block * block_bytes
    rows: list[Layout | Refused] = [*LAYOUTS.values(), *REFUSED]
    possible = [row.sizes(last.rows, last.columns) for row in rows if last.ggml_type in row.ids and row.sizes]
    return last.offset + min((size for sizes in possible for size in sizes if size > 0), default=1)


def other_reading(header: RawHeader) -> str:
    """What the last tensor of a file that seems too short may be instead: a layout whose size is not known; or ""."""
    last = max(header.tensors.values(), key=lambda tensor: tensor.offset)
    what = [row.what for row in REFUSED if last.ggml_type in row.ids and not row.sizes]
    return f"{last.name} has type {last.ggml_type}, {what[0]}" if what else ""
