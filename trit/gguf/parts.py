# SPDX-License-Identifier: MIT
"""The files of a model that llama.cpp's gguf-split, or our own converter, has split. Standard library only.

Their names end in -00001-of-0000N.gguf; each has ``split.no``, ``split.count`` and ``split.tensors.count``, the first
one has all other metadata.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from trit.base.errors import UserError
from trit.gguf.header import RawHeader, read_raw_header
from trit.gguf.identify import least_bytes, other_reading

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})")


def whole_name(path: Path) -> str:
    """A file's name without its suffix, and without what says which part of a split model it is."""
    match = _PART.fullmatch(path.stem)
    return match[1] if match else path.stem


def read_parts(path: Path, arrays: bool | Collection[str] = True) -> list[tuple[Path, RawHeader]]:
    """The model's files, in their order, with their headers: the file itself, or it and all parts that follow.

    Raises:
        UserError: a header cannot be read, a file is shorter than its header says, a part is missing or of another
            model, or ``path`` is not the first.
    """
    first = _read_header(path, arrays)
    count, number = _split(path, first)
    if count < 2:
        return [(path, first)]
    match = _PART.fullmatch(path.stem)
    if match is None or (int(match[2]), int(match[3])) != (number + 1, count):
        raise UserError(
            f"{path}: is part {number + 1} of a split model; give it its name "
            f"NAME-{number + 1:05d}-of-{count:05d}.gguf back, by which the parts find each other"
        )
    names = _names(path, match[1], match[3])
    if number != 0:
        raise UserError(f"{path}: is part {number + 1} of a split model; give the first, {names[0].name}")
    parts = [(path, first)]
    tensors = dict.fromkeys(first.tensors, path)
    for i, name in enumerate(names[1:], start=1):
        if not name.is_file():
            raise UserError(f"{name}: is missing; the model is split into {count} files and needs them all")
        header = _read_header(name, arrays)
        if _split(name, header) != (count, i):
            raise UserError(f"{name}: does not say that it is part {i + 1} of {count}; download or split it again")
        if twice := next((tensor for tensor in header.tensors if tensor in tensors), None):
            raise UserError(f"{name}: {twice} is in {tensors[twice].name} too; the files are not of one model")
        tensors |= dict.fromkeys(header.tensors, name)
        parts.append((name, header))
    wanted = first.metadata.get("split.tensors.count", len(tensors))
    if wanted != len(tensors):
        raise UserError(f"{path}: says that the model has {wanted} tensors, its parts have {len(tensors)}")
    return parts


def _read_header(path: Path, arrays: bool | Collection[str]) -> RawHeader:
    """A header whose data is all there, as far as the file's size tells."""
    header = read_raw_header(path, arrays, whole=False)
    needed = least_bytes(header)
    if header.file_bytes < needed:
        raise UserError(
            f"{path}: is cut short: by its header it has at least {needed:,} bytes, found {header.file_bytes:,}; "
            f"download or convert it again{f' (if it is whole: {other})' if (other := other_reading(header)) else ''}"
        )
    return header


def _split(path: Path, header: RawHeader) -> tuple[int, int]:
    """(number of parts, which of them this is); a whole model is part 0 of 1."""
    count, number = header.metadata.get("split.count", 1), header.metadata.get("split.no", 0)
    if not isinstance(count, int) or not isinstance(number, int) or not 0 <= number < max(count, 1):
        raise UserError(f"{path}: its keys split.no {number!r} and split.count {count!r} contradict each other")
    return count, number


def parts_beside(path: Path) -> list[Path]:
    """The file, and by its name alone all parts of the split model to which it belongs."""
    match = _PART.fullmatch(path.stem)
    return _names(path, match[1], match[3]) if match else [path]


def _names(path: Path, whole: str, count: str) -> list[Path]:
    return [path.with_name(f"{whole}-{i + 1:05d}-of-{count}{path.suffix}") for i in range(int(count))]
