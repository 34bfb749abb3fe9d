# SPDX-License-Identifier: MIT
"""How everything that measures shows and keeps its results: tables, CSV, JSON, and files of both.

Pictures are drawn on the axes of :func:`trit.base.plots.picture`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from trit.base.errors import UserError
from trit.base.files import atomic_output, check_output
from trit.base.flags import a_path
from trit.base.host import cpu_name
from trit.base.places import ENGINE_BIN, ROOT
from trit.base.provenance import facts

RESULTS = ROOT / "benchmarks" / "results"
_PLACES = ("-o", "--out", "--workdir")

T = TypeVar("T")
Columns = Mapping[str, Callable[[T], str]]


def cells(columns: Columns[T], rows: Iterable[T]) -> list[list[str]]:
    """A heading, and a line for each row; columns: heading -> what stands there."""
    return [list(columns), *([show(row) for show in columns.values()] for row in rows)]


def markdown(table: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table whose first line is the heading; columns after the first ``left`` are aligned to the right."""
    rule = ["---"] * left + ["---:"] * (len(table[0]) - left)
    return "\n".join("| " + " | ".join(line) + " |" for line in (table[0], rule, *table[1:]))


def beside(left: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> list[list[str]]:
    """Two tables of the same rows as one."""
    return [[*one, *other] for one, other in zip(left, right, strict=True)]


def padded(table: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[list[str]]:
    """The cells in columns of equal width; those at the places of ``left`` are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]

    def line(words: Sequence[str]) -> list[str]:
        pairs = enumerate(zip(words, widths, strict=True))
        return [word.ljust(width) if place in left else word.rjust(width) for place, (word, width) in pairs]

    return [line(words) for words in table]


def plain(table: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A padded table for a terminal."""
    return "\n".join("  ".join(line).rstrip() for line in padded(table, left))


_WIDTH = 80


def show(text: str) -> None:
    """Print a text with Markdown tables; on a terminal in columns that fit it, anything else may be pasted as it is."""
    if not sys.stdout.isatty():
        print(text)
        return
    for is_table, group in groupby(text.splitlines(), lambda line: line.startswith("|")):
        lines = list(group)
        print("\n".join(_fitted(lines) if is_table else lines))


def _fitted(lines: Sequence[str]) -> list[str]:
    """A Markdown table in columns; what does not fit in 80 stands below, behind the same first columns."""
    head, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    table = padded([head, *rows], [i for i, mark in enumerate(rule) if not mark.endswith(":")])
    names = next((i for i, mark in enumerate(rule) if mark.endswith(":")), len(rule))
    widths = [len(cell) + 2 for cell in table[0]]
    blocks: list[list[int]] = [[]]
    for column in range(names, len(widths)):
        if blocks[-1] and sum(widths[:names]) + sum(widths[i] for i in [*blocks[-1], column]) - 2 > _WIDTH:
            blocks.append([])
        blocks[-1].append(column)
    shown = [["  ".join(line[i] for i in [*range(names), *block]).rstrip() for line in table] for block in blocks]
    return "\n\n".join("\n".join(block) for block in shown).split("\n")


def sentences(notes: Iterable[str]) -> list[str]:
    """Notes with a capital letter and a full stop."""
    return [f"{note[0].upper()}{note[1:]}." for note in notes]


def check_out(out: Path, kind: str) -> None:
    """To be asked before anything is measured; raises UserError if the results of :func:`keep` cannot be written."""
    check_output("--out", out / f"{slug(cpu_name())}-{kind}.json", in_folder=True)


def write(path: Path, content: str, place: str = "place") -> None:
    """A whole file or none; raises UserError with the advice to choose another place."""
    try:
        with atomic_output(path) as partial:
            partial.write_text(content, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another {place}") from error


def as_json(content: Mapping[str, Any], indent: int = 1) -> str:
    """An object, to be written."""
    return json.dumps(content, indent=indent) + "\n"


def as_csv(rows: Sequence[Mapping[str, Any]], line_end: str = "\n") -> str:
    """Rows, to be written; columns are in the order in which they are met."""
    file = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file, names, lineterminator=line_end)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def slug(name: str) -> str:
    """A name for files: ``AMD EPYC 9B14`` becomes ``amd-epyc-9b14``; what lawyers and marketing added is left out."""
    words = re.sub(r"\((r|tm)\)|@.*|\bcpu\b|\bprocessor\b", " ", name.lower())
    return "-".join(re.findall(r"[a-z0-9]+", words)) or "cpu"


def add_shared_flags(parser: argparse.ArgumentParser, out: Path = RESULTS) -> None:
    """The flags of everything that keeps a Markdown and a JSON file; out: where they go."""
    where = out.relative_to(ROOT) if out.is_absolute() else out
    parser.add_argument("-o", "--out", type=a_path, default=out, help=f"folder of the results (default: {where})")
    parser.add_argument("--bin-dir", type=a_path, default=ENGINE_BIN, help="compiled programs (default: the engine's)")


def about(command: str, argv: Sequence[str], compiler: str) -> dict[str, Any]:
    """Where, when, with what and how it ran; command: from ``trit`` on, argv without where files are kept."""
    told: list[str] = []
    skip = False
    for word in argv:
        if not skip and word.partition("=")[0] not in _PLACES:
            told.append(word)
        skip = not skip and word in _PLACES
    return facts([*command.split(), *told], compiler)


def keep(out: Path, kind: str, ran: Mapping[str, Any], text: str, data: Mapping[str, Any]) -> list[Path]:
    """Write ``<cpu>-<kind>.md`` and ``.json`` into a folder; returns both paths. ran: what :func:`about` says."""
    head = (
        f"# {kind.replace('-', ' ').capitalize()}: {ran['cpu']}\n\n"
        f"{ran['cores']} cores ({ran['logical_cpus']} logical), {ran['compiler']}, commit {ran['commit']}, "
        f"llama.cpp {ran['engine_commit']}, {ran['date']}\n\n    {ran['command']}\n\n"
    )
    contents = {"md": head + text.rstrip() + "\n", "json": as_json({"about": ran, **data})}
    paths = [out / f"{slug(ran['cpu'])}-{kind}.{suffix}" for suffix in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        write(path, content, "folder with --out")
    return paths


def keep_and_show(out: Path, kind: str, ran: Mapping[str, Any], text: str, data: Mapping[str, Any], shown: str) -> None:
    """Keep the results of a committed benchmark; print its main table, and where everything is."""
    paths = keep(out, kind, ran, text, data)
    print(shown)
    print(f"\nwritten: {paths[0]} and {paths[1].name}")
