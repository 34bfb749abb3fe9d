# SPDX-License-Identifier: MIT
"""Rows of an input file, in order and piece by piece: JSONL, OpenAI's batch form, CSV or Parquet.

Nothing that is kept grows with the file, but for a place for each shard.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from trit.base.errors import UserError
from trit.base.files import check_input
from trit.base.places import python_command

OPENAI, JSONL, CSV, PARQUET = "openai", "jsonl", "csv", "parquet"
FORMATS = (JSONL, OPENAI, CSV, PARQUET)
_BOM = b"\xef\xbb\xbf"
# The engine's server takes bodies of 8 MiB.
_MOST_LINE = 16 << 20
_PIECE = 1 << 20
_HEAD_BYTES = 1 << 16
# First bytes -> what such a file is, and how its content is had.
_PACKED = {
    b"\x1f\x8b": ("compressed by gzip", "unpack it with: gunzip"),
    b"BZh": ("compressed by bzip2", "unpack it with: bunzip2"),
    b"\xfd7zXZ": ("compressed by xz", "unpack it with: unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "unpack it with: unzstd"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save it as CSV"),
    b"\xff\xfe": ("text in UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("text in UTF-16", "save it as UTF-8"),
}
_ID_CACHE_KIB = 16 << 10
_PARQUET_ROWS = 1024  # that are in memory at a time


@dataclass(frozen=True)
class Row:
    """A row of the input.

    Attributes:
        number: from 0.
        value: what it says, by column.
        fault: a sentence, if it says nothing that can be read.
    """

    number: int
    value: dict[str, Any]
    fault: str = ""


@dataclass(frozen=True)
class Place:
    """Where a row begins: its number from 0, its offset in bytes, its line from 1."""

    number: int
    offset: int
    line: int


@dataclass(frozen=True)
class Index:
    """What one pass over the input tells.

    Attributes:
        rows: how many there are.
        places: the first row of each shard.
        ids: sha256 over the ids of all rows, in order.
    """

    rows: int
    places: list[Place]
    ids: str


class Source:
    """An input file in one of the formats."""

    def __init__(self, path: Path, kind: str, columns: Sequence[str] | None = None) -> None:
        """Open nothing yet.

        Args:
            path: of the file, which was checked.
            kind: one of ``FORMATS``.
            columns: those that are needed; None: all. Only Parquet has it easier with fewer.
        """
        self.path, self.kind, self._columns = path, kind, columns

    def shard(self, place: Place, size: int) -> Iterator[Row]:
        """The rows of one shard; fewer than ``size`` at the file's end."""
        return (row for _, row in islice(self.rows(place), size))

    def rows(self, place: Place | None = None) -> Iterator[tuple[Place, Row]]:
        """All rows from a place on, each with its own."""
        place = place or Place(0, 0, 1)
        if self.kind == PARQUET:
            yield from self._parquet_rows(place)
        elif self.kind == CSV:
            yield from self._csv_rows(place)
        else:
            for found, line in self._lines(place):
                yield found, _json_row(found, line)

    def index(self, size: int, ids: Ids | None) -> Index:
        """Go through the file once.

        Args:
            size: rows of a shard.
            ids: takes note of each row's id; None: rows are called by their numbers, and need not be read for it.

        Raises:
            UserError: there is no row, or two rows have one id.
        """
        places: list[Place] = []
        count, digest = 0, hashlib.sha256()
        quick = ids is None and self.kind in (JSONL, OPENAI)
        nothing = Row(0, {})
        found = ((place, nothing) for place, _ in self._lines(Place(0, 0, 1))) if quick else self.rows()
        for place, row in found:
            if count % size == 0:
                places.append(place)
            name = ids.note(place, row) if ids else count
            digest.update(id_bytes(name))
            count += 1
        if not count:
            raise UserError(f"{self.path}: has no rows; put a prompt a row there")
        return Index(count, places, digest.hexdigest())

    def _lines(self, place: Place) -> Iterator[tuple[Place, bytes | None]]:
        """The lines that are not blank, without the mark in front of the first; None: one is too long."""
        number, offset, line = place.number, place.offset, place.line
        with self.path.open("rb") as file:
            file.seek(offset)
            while text := file.readline(_MOST_LINE + 1):
                found = Place(number, offset, line)
                offset += len(text)
                line += 1
                too_long = len(text) > _MOST_LINE
                rest = text
                while too_long and not rest.endswith(b"\n") and (rest := file.readline(_PIECE)):
                    offset += len(rest)
                if found.offset == 0:
                    text = text.removeprefix(_BOM)
                if text.strip():
                    yield found, None if too_long else text
                    number += 1

    def _csv_rows(self, place: Place) -> Iterator[tuple[Place, Row]]:
        csv.field_size_limit(_MOST_LINE)
        with self.path.open("rb") as file:
            text = _Text(file, 0, 1)
            header = next(csv.reader(text), [])
            if place.offset:
                text = _Text(file, place.offset, place.line)
            number = place.number
            reader = csv.reader(text)
            while True:
                found = Place(number, text.offset, text.line)
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield found, Row(number, {}, f"line {found.line}: is no CSV ({error})")
                    reader = csv.reader(text)
                    number += 1
                    continue
                if not cells:
                    continue
                yield found, _csv_row(found, header, cells)
                number += 1

    def _parquet_rows(self, place: Place) -> Iterator[tuple[Place, Row]]:
        with closing(open_parquet(self.path)) as file:
            groups, first = [], 0
            skip = place.number
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if first + rows > place.number:
                    groups.append(group)
                else:
                    skip -= rows
                first += rows
            number = place.number
            try:
                for batch in file.iter_batches(_PARQUET_ROWS, row_groups=groups, columns=self._columns):
                    passed = min(skip, batch.num_rows)
                    skip -= passed
                    for value in batch.slice(passed).to_pylist():
                        yield Place(number, 0, number + 1), Row(number, value)
                        number += 1
            except OSError as error:
                raise UserError(f"{self.path}: is damaged ({error}); make or download it again") from None


class _Text:
    """Lines of a file as text, with the place of the next one; what is no UTF-8 becomes lone surrogates."""

    def __init__(self, file: BinaryIO, offset: int, line: int) -> None:
        self._file, self.offset, self.line = file, offset, line
        file.seek(offset)

    def __iter__(self) -> _Text:
        return self

    def __next__(self) -> str:
        text = self._file.readline(_MOST_LINE)
        if not text:
            raise StopIteration
        first = self.offset == 0
        self.offset += len(text)
        self.line += 1
        return (text.removeprefix(_BOM) if first else text).decode("utf-8", "surrogateescape")


class Ids:
    """The ids of rows: each once. They are kept on disk."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        self._table = sqlite3.connect("")
        self._table.execute(f"PRAGMA cache_size = -{_ID_CACHE_KIB}")
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, line INTEGER) WITHOUT ROWID")

    def __enter__(self) -> Ids:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def note(self, place: Place, row: Row) -> str | int | None:
        """Take note of a row's id, and return it; None where it has none.

        Raises:
            UserError: an earlier row has it.
        """
        name = id_of(row, self._column)
        if name is None:
            return None
        values = (str(name), place.line)
        if not self._table.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", values).rowcount:
            (line,) = self._table.execute("SELECT line FROM ids WHERE id = ?", values[:1]).fetchone()
            raise UserError(
                f"{self._path}, line {place.line}: {self._column} {name} is that of line {line}, too; give each row "
                "its own"
            )
        return name


def id_of(row: Row, column: str) -> str | int | None:
    """What a column calls a row: a text that is not empty, or a whole number; else None."""
    found = row.value.get(column)
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    # Half of a letter, as JSON can have it, is no text.
    return found if isinstance(found, str) and found and not re.search("[\ud800-\udfff]", found) else None


def id_bytes(name: str | int | None) -> bytes:
    """What an id adds to a digest."""
    return json.dumps(name).encode() + b"\n"


def digest(path: Path) -> str:
    """The sha256 of a file's bytes."""
    total = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    return total.hexdigest()


def detect(path: Path, said: str | None = None) -> str:
    """The format of an input, by its content, and of CSV by its name.

    Args:
        path: of the file.
        said: the format, if it was given.

    Raises:
        UserError: it is not there, empty, packed, or none of the formats.
    """
    check_input(path)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for magic, (what, how) in _PACKED.items():
        if head.startswith(magic):
            raise UserError(f"{path}: is {what}, which is not read; {how}")
    if said:
        return said
    if head.startswith(b"PAR1"):
        return PARQUET
    start = head.removeprefix(_BOM).lstrip()
    if path.suffix.lower() == ".csv":
        return CSV
    if start.startswith(b"{"):
        row = _first(path)
        return OPENAI if {"custom_id", "url", "body"} <= row.value.keys() else JSONL
    if not start:
        raise UserError(f"{path}: has no rows; put a prompt a row there")
    if start.startswith(b"["):
        raise UserError(f"{path}: is one JSON list, expected an object a line; write it with: jq -c .[] FILE")
    raise UserError(
        f"{path}: does not say what it is, expected JSONL, CSV or Parquet; say so with --format {'|'.join(FORMATS)}"
    )


def _first(path: Path) -> Row:
    """The first row that can be read."""
    empty = Row(0, {})
    return next((row for _, row in islice(Source(path, JSONL).rows(), 100) if not row.fault), empty)


def first_row(source: Source) -> Row | None:
    """The first row that can be read, near the beginning; None: there is none."""
    return next((row for _, row in islice(source.rows(), 100) if not row.fault), None)


def open_parquet(path: Path) -> Any:
    """The reader of a Parquet file.

    Raises:
        UserError: the package is not there, or the file is damaged.
    """
    parquet = parquet_package(f"{path}: is Parquet")
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no Parquet file that can be read ({error}); make or download it again") from None


def parquet_package(why: str) -> Any:
    """The module ``pyarrow.parquet``; why: what needs it, for the sentence.

    Raises:
        UserError: it is not there.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        how = python_command("-m pip install -r requirements-parquet.txt")
        raise UserError(f"{why}, which needs a package; install it with: {how}") from None
    return parquet


def _json_row(place: Place, line: bytes | None) -> Row:
    def bad(why: str) -> Row:
        return Row(place.number, {}, f"line {place.line}: {why}")

    if line is None:
        return bad(f"has more than {_MOST_LINE >> 20} MiB")
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return bad(f"is no text in UTF-8 (byte {error.start + 1})")
    except (ValueError, RecursionError) as error:
        return bad(f"is no JSON ({error})")
    return Row(place.number, value) if isinstance(value, dict) else bad("is no JSON object")


def _csv_row(place: Place, header: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) != len(header):
        fault = f"has {len(cells)} cells, the header has {len(header)}"
    elif any("\udc80" <= letter <= "\udcff" for cell in cells if not cell.isascii() for letter in cell):
        fault = "is no text in UTF-8"
    else:
        return Row(place.number, dict(zip(header, cells, strict=True)))
    return Row(place.number, {}, f"line {place.line}: {fault}")
