# SPDX-License-Identifier: MIT
"""The places of an encoding, each looked at by itself: what is missing or differs is named with its file.

Of the package only tables of the standard library are imported, other places are read as text: where a row is missing,
modules that need it cannot even be imported.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from trit.gguf.encoding_table import OURS, SIGNS, TABLE, TERNARY, EncodingRow
from trit.gguf.layouts import LAYOUTS

ROOT = Path(__file__).resolve().parents[2]
ROW, CODE, ENGINE = "trit/gguf/encoding_table.py", "trit/gguf/codecs.py", "src/matrix/encodings.cpp"
BYTES, WRITER = "docs/formats.md", "tests/support/foreign_files.py"
PATCH, PATCH_NAME = "3rdparty/patches/0001-ternary-types.patch", "3rdparty/patches/0003-ternary-file-types.patch"


def text(place: str) -> str:
    return (ROOT / place).read_text(encoding="utf-8")


def assigned(place: str, name: str) -> ast.expr:
    """What a name of a module stands for."""
    for node in ast.parse(text(place)).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            assert node.value is not None
            return node.value
    raise AssertionError(f"{place} has no {name}")


def keys(place: str, name: str) -> list[str]:
    """The keys of a dict."""
    value = assigned(place, name)
    assert isinstance(value, ast.Dict)
    return [key.value for key in value.keys if isinstance(key, ast.Constant)]


def coded() -> list[str]:
    return keys(CODE, "CODECS")


def written() -> list[str]:
    """Encodings that the tests have a writer for; other engines' layouts left out."""
    return [name for name in keys(WRITER, "WRITERS") if name in TABLE or name not in LAYOUTS]


def in_the_engine() -> dict[str, tuple[str, ...]]:
    """Name -> block, bytes, scale_at, tail, has_code_3 of a row of kEncodings, constants as numbers."""
    constants = dict(re.findall(r"\b(TRIT_I2_S_\w+) = (\d+)", text("include/trit.h")))
    table = text(ENGINE).partition("kEncodings[] = {")[2].partition("\n};")[0]
    rows = [[cell.strip() for cell in row.split(",")] for row in re.findall(r"\{([^{}]*)\}", table)]
    return {row[0].strip('"'): tuple(constants.get(cell, cell) for cell in row[1:6]) for row in rows}


def described() -> dict[str, tuple[str, ...]]:
    """Name -> the other cells of the first table."""
    lines = text(BYTES).partition("\n|---")[2].partition("\n\n")[0].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): tuple(row[1:]) for row in rows}


def description(row: EncodingRow) -> tuple[str, ...]:
    """The cells that a row has in docs/formats.md."""
    bits = 8 * row.block_bytes / row.block
    tail = f" (+ {row.tail_bytes} bytes per tensor)" if row.tail_bytes else ""
    exact = f"{bits:g}" if bits % 1 else f"{bits:.1f}"
    scale = "one F32 per tensor" if row.scale_at is None else "one F16 per block"
    return str(row.ggml_type), str(row.block), str(row.block_bytes), exact + tail, scale, str(row.block)


def in_table() -> Iterator[str]:
    packed = [name for name in in_the_engine() if name != SIGNS.name]
    elsewhere = {CODE: coded(), ENGINE: packed, BYTES: described(), WRITER: written()}
    for other, names in elsewhere.items():
        yield from (f"TABLE has no row {name}, which {other} has" for name in names if name not in TERNARY)
    for what in ("ggml_type", "file_type"):
        numbers = Counter(getattr(row, what) for row in TABLE.values())
        yield from (f"{count} rows of TABLE have the {what} {number}" for number, count in numbers.items() if count > 1)


def in_code() -> Iterator[str]:
    yield from (f"CODECS has no row {name}" for name in TERNARY if name not in coded())


def in_engine() -> Iterator[str]:
    found = in_the_engine()
    for row in (*map(TABLE.__getitem__, TERNARY), SIGNS):
        scale_at = -1 if row.scale_at is None else row.scale_at
        cells = (*map(str, (row.block, row.block_bytes, scale_at, row.tail_bytes)), str(row.holds_two).lower())
        if found.get(row.name) != cells:
            yield f"kEncodings has {row.name} as {found.get(row.name)}, {ROW} as {cells}"


def in_document() -> Iterator[str]:
    found = described()
    for row in map(TABLE.__getitem__, TERNARY):
        if found.get(row.name) != description(row):
            yield f"the first table has {row.name} as {found.get(row.name)}, {ROW} as {description(row)}"
        if not re.search(rf"^(## .*\b{row.name}\b|- `{row.name}`)", text(BYTES), re.MULTILINE):
            yield f"says nothing about the bytes of {row.name}: no heading and no item"


def in_writers() -> Iterator[str]:
    vectors = assigned(WRITER, "VECTORS")
    assert isinstance(vectors, ast.List)
    by_hand = [ast.literal_eval(item.elts[0]) for item in vectors.elts if isinstance(item, ast.Tuple)]
    for name, found in (("WRITERS", written()), ("VECTORS", by_hand)):
        yield from (f"{name} has no {encoding}" for encoding in TERNARY if encoding not in found)


def in_patch(place: str, line: str, what: str) -> Iterator[str]:
    """Numbers that ggml does not know."""
    for row in map(TABLE.__getitem__, OURS):
        number = getattr(row, what)
        if not re.search(line.format(row.name.upper(), number), text(place), re.MULTILINE):
            yield f"adds no {row.name} with the {what} {number}"


PLACES: dict[str, Callable[[], Iterator[str]]] = {
    ROW: in_table,
    CODE: in_code,
    ENGINE: in_engine,
    BYTES: in_document,
    WRITER: in_writers,
    # Besides these five, of an encoding whose number ggml does not know:
    PATCH: partial(in_patch, PATCH, r"^\+ +GGML_TYPE_{} += {},", "ggml_type"),
    PATCH_NAME: partial(in_patch, PATCH_NAME, r"^\+ +LLAMA_FTYPE_MOSTLY_{} += {},", "file_type"),
}


def faults(place: str) -> list[str]:
    """What is wrong with a place, one sentence for each encoding."""
    return [f"{place}: {fault}" for fault in PLACES[place]()]
