# SPDX-License-Identifier: MIT
"""One shard: what becomes of it follows from the manifest, its number and the engine, whoever computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path

from trit.base.errors import TritError
from trit.batch import output, task
from trit.batch.engine import Client, Engine
from trit.batch.manifest import Manifest
from trit.batch.source import Row, Source
from trit.batch.task import Done, RowFault

# Letters that two prompts have to share so that one goes behind the other, whatever their lengths.
_SHARED = 64


def run(
    manifest: Manifest, number: int, source: Path, folder: Path, engine: Engine, told: Callable[[Done, bool], None]
) -> Path | None:
    """Compute a shard; what an earlier run had done of it is not computed again.

    Args:
        manifest: of the batch.
        number: of the shard.
        source: the input that the manifest is of.
        folder: gets the file.
        engine: with the manifest's model.
        told: gets each row as it is done, and whether that was now.

    Returns:
        The file, which is whole; None: the engine was asked to stop before.

    Raises:
        TritError: the engine keeps dying, or the input is another one by now.
    """
    work = task.make(manifest.input["format"], manifest.parameters)
    reader = Source(source, manifest.input["format"], work.columns)
    rows = list(reader.shard(manifest.place(number), manifest.rows_of(number)))
    if len(rows) != manifest.rows_of(number):
        raise TritError(f"{source}: was changed while it was read; put it back as it was and run this again")
    path = output.part(folder, number, manifest.parameters["output-format"])
    with output.Journal(path) as journal:

        def done(row: Row, found: Done) -> None:
            journal.add(row.number, found)
            told(found, True)

        def ask(client: Client, row: Row) -> Done:
            try:
                return work.ask(client, row)
            except RowFault as fault:
                return work.failed(row, str(fault))

        for found in journal.done.values():
            told(found, False)
        texts: list[tuple[str, Row]] = []
        for row in rows:
            if row.number in journal.done:
                continue
            try:
                if row.fault:
                    raise RowFault(row.fault)
                texts.append((work.text(row), row))
            except RowFault as fault:
                done(row, work.failed(row, str(fault)))
        engine.answer(in_order(texts), ask, done, lambda row, why: done(row, work.failed(row, why)), work.each)
        if len(journal.done) < len(rows):
            return None
        numbered = manifest.parameters.get("id-column") is None
        output.write(path, [journal.done[row.number].out for row in rows], numbered)
        journal.remove()
    return path


def in_order(texts: Sequence[tuple[str, Row]]) -> list[Row]:
    """Rows in the order in which they cost the least: common beginnings together, then the longest first.

    The engine computes what a prompt shares with another one once; long rows at the end would leave slots idle.
    """
    ordered = sorted(texts, key=lambda pair: (pair[0], pair[1].number))
    groups: list[list[tuple[str, Row]]] = [ordered[:1]] if ordered else []
    for before, after in pairwise(ordered):
        if len(commonprefix([before[0][:_SHARED], after[0][:_SHARED]])) == _SHARED:
            groups[-1].append(after)
        else:
            groups.append([after])
    groups.sort(key=lambda group: -max(len(text) for text, _ in group))
    return [row for group in groups for _, row in group]
