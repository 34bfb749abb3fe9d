# SPDX-License-Identifier: MIT
"""What a batch is: its input, its model, and all that changes a result. Written first, and never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.base.files import atomic_output, check_input, sync_folder
from trit.batch.source import Place

NAME = "manifest.json"
_FORMAT = 1
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Manifest:
    """A batch.

    Attributes:
        version: of trit.
        input: its name, format, size in bytes, sha256.
        model: its name, size in bytes, sha256.
        parameters: what changes a result, by the name of its flag.
        shard_size: rows of a shard; the last one has what is left.
        rows: of the input.
        ids: sha256 over the rows' ids, in order.
        shards: offset and line of the first row of each.
    """

    version: str
    input: Mapping[str, Any]
    model: Mapping[str, Any]
    parameters: Mapping[str, Any]
    shard_size: int
    rows: int
    ids: str
    shards: list[list[int]]

    def place(self, shard: int) -> Place:
        """Where a shard begins."""
        offset, line = self.shards[shard]
        return Place(shard * self.shard_size, offset, line)

    def rows_of(self, shard: int) -> int:
        """How many rows a shard has."""
        return min(self.shard_size, self.rows - shard * self.shard_size)

    def facts(self) -> dict[str, Any]:
        """All that has to be the same when a batch is gone on with, by what people call it."""
        facts = {
            "version": self.version,
            "input bytes": self.input["bytes"],
            "input sha256": self.input["sha256"],
            "input format": self.input["format"],
            "model sha256": self.model["sha256"],
            "shard-size": self.shard_size,
        }
        return facts | dict(self.parameters)

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1)
        with atomic_output(folder / NAME) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
        sync_folder(folder)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """That of a folder; None: there is none.

        Raises:
            UserError: it cannot be read, or is that of another version of this form.
        """
        path = folder / NAME
        if not path.exists():
            return None
        check_input(path, _MOST_BYTES)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            form = found.pop("format")
            if form != _FORMAT:
                raise UserError(f"{path}: has form {form}, expected {_FORMAT}; go on with the trit that wrote it")
            return cls(**found)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{path}: is no manifest of trit batch; name another folder with --out") from None


def refuse_difference(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Compare the facts of the batch in a folder with those that are wanted.

    Raises:
        UserError: they differ; says in what.
    """
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        told = "; ".join(f"{name} {_shown(there.get(name))} there, {_shown(here.get(name))} here" for name in names)
        raise UserError(
            f"--out {folder}: holds another batch ({told}); give what it was begun with, or name another folder"
        )


def _shown(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 64 else text[:64] + "..."
