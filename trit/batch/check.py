# SPDX-License-Identifier: MIT
"""Proof that a batch is complete: every id once and in its place, and one hash over all rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import TritError, UserError
from trit.batch import output
from trit.batch.manifest import NAME, Manifest
from trit.batch.source import OPENAI, id_bytes


@dataclass(frozen=True)
class Proof:
    """What was found.

    Attributes:
        rows: of the batch.
        errors: those of them that are error rows.
        parts: files that they are in.
        ids: sha256 over all ids in order, which is that of the input.
        sha256: over all rows in the input's order, as JSONL.
    """

    rows: int
    errors: int
    parts: int
    ids: str
    sha256: str


def check(folder: Path) -> Proof:
    """Read all parts of a batch.

    Raises:
        UserError: there is no batch, or a part is damaged.
        TritError: it is not complete; says what is missing, or not what it should be.
    """
    manifest = Manifest.read(folder)
    if manifest is None:
        raise UserError(f"{folder}: has no {NAME}; name the folder that trit batch wrote with --out")
    kind = manifest.parameters["output-format"]
    parts = [output.part(folder, number, kind) for number in range(len(manifest.shards))]
    missing = [path.name for path in parts if not path.exists()]
    if missing:
        raise TritError(
            f"{folder}: {len(missing)} of {len(parts)} parts are missing, {missing[0]} the first; run the batch again"
        )
    name = "custom_id" if manifest.input["format"] == OPENAI else "id"
    ids, rows, errors, total = hashlib.sha256(), hashlib.sha256(), 0, 0
    for number, path in enumerate(parts):
        count = 0
        for row in output.read(path):
            ids.update(id_bytes(row[name]))
            rows.update(output.line(row).encode() + b"\n")
            errors += output.is_error(row)
            count += 1
        if count != manifest.rows_of(number):
            raise TritError(
                f"{path}: has {count} rows, expected {manifest.rows_of(number)}; delete it and run the batch again"
            )
        total += count
    if ids.hexdigest() != manifest.ids:
        raise TritError(
            f"{folder}: the ids of its rows are not the input's in order; name another folder and begin anew"
        )
    return Proof(total, errors, len(parts), manifest.ids, rows.hexdigest())
