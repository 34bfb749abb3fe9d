# SPDX-License-Identifier: MIT
"""The files of a batch: parts that are whole or not there, and the rows of one that is being made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from trit.base.errors import UserError
from trit.base.files import atomic_output, names_file, sync_folder
from trit.batch.source import PARQUET, parquet_package
from trit.batch.task import Done

JSONL = "jsonl"
FORMATS = (JSONL, PARQUET)
_OK = 200


def part(folder: Path, shard: int, kind: str) -> Path:
    """The file of a shard."""
    return folder / f"part-{shard:05}.{kind}"


def line(out: Mapping[str, Any]) -> str:
    """A row of the output as a line, without its end."""
    text = json.dumps(out, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a letter, as JSON can have it
        return json.dumps(out, separators=(",", ":"))
    return text


def write(path: Path, rows: Sequence[dict[str, Any]], numbered: bool) -> None:
    """Write a part: it gets its name when it is whole and on the disk.

    Args:
        path: of the part; its ending says the format.
        rows: in the input's order.
        numbered: whether ids are the rows' numbers.
    """
    with atomic_output(path) as partial:
        if path.suffix == f".{PARQUET}":
            _write_parquet(partial, rows, numbered)
        else:
            with partial.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(line(row) + "\n" for row in rows)
    sync_folder(path.parent)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a part.

    Raises:
        UserError: it is no such file.
    """
    try:
        if path.suffix == f".{PARQUET}":
            for batch in parquet_package(f"{path}: is Parquet").ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
            return
        with path.open(encoding="utf-8") as file:
            for text in file:
                yield json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); delete it and run the batch again") from None


def is_error(row: Mapping[str, Any]) -> bool:
    """Whether a row of the output has no answer."""
    response = row.get("response")
    return row.get("error") is not None or (response is not None and response["status_code"] != _OK)


def _write_parquet(path: Path, rows: Sequence[dict[str, Any]], numbered: bool) -> None:
    parquet = parquet_package("--output-format parquet: writes Parquet")
    import pyarrow as pa

    tokens = {"id": pa.int32(), "token": pa.string(), "logprob": pa.float64()}
    usage = pa.struct({name: pa.int32() for name in ("prompt_tokens", "completion_tokens", "total_tokens")})
    is_score = "score" in rows[0]
    top = pa.struct({**tokens, "top": pa.list_(pa.struct(tokens))})
    kinds = {
        "id": pa.int64() if numbered else pa.string(),
        "text": pa.string(),
        "embedding": pa.list_(pa.float64()),
        "score": pa.float64(),
        "greedy": pa.bool_(),
        "tokens": pa.list_(pa.int32()),
        "finish_reason": pa.string(),
        "logprobs": pa.list_(pa.float64() if is_score else top),
        "usage": usage,
        "error": pa.string(),
    }
    if not numbered:
        rows = [{**row, "id": None if row["id"] is None else str(row["id"])} for row in rows]
    schema = pa.schema([(name, kinds[name]) for name in rows[0]])
    parquet.write_table(pa.Table.from_pylist(list(rows), schema), path)


class Journal:
    """The rows of a shard that are done before all are: what was written by a run that ended counts in the next."""

    def __init__(self, path: Path) -> None:
        """Name it so that nobody takes it for a part.

        Args:
            path: of the part.
        """
        self._path = path.with_name(f".{path.name}.rows")
        self._file: TextIO | None = None

    def __enter__(self) -> Journal:
        self.done = {}
        whole = 0
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            for text in file:
                try:
                    found = json.loads(text)
                    number, row = found["row"], Done(**found["done"])
                except (ValueError, KeyError, TypeError):
                    break  # it was being written when the run ended
                if not text.endswith(b"\n"):
                    break
                self.done[number] = row
                whole += len(text)
        with names_file(self._path):
            self._file = self._path.open("a", encoding="utf-8", newline="\n")
            self._file.truncate(whole)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            with suppress(OSError):  # a full disk was told before
                self._file.close()

    done: dict[int, Done]

    def add(self, number: int, row: Done) -> None:
        """Keep a row."""
        assert self._file
        self.done[number] = row
        with names_file(self._path):
            print(json.dumps({"row": number, "done": asdict(row)}), file=self._file, flush=True)

    def remove(self) -> None:
        """Delete it: the part is there."""
        self._path.unlink(missing_ok=True)
