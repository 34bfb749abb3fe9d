# SPDX-License-Identifier: MIT
"""Rows of inputs: formats, what cannot be read, and shards that begin where the index says."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trit.base.errors import UserError
from trit.batch import source
from trit.batch.source import Ids, Place, Source


def rows(path: Path, kind: str) -> list[source.Row]:
    return [row for _, row in Source(path, kind).rows()]


def written(tmp_path: Path, content: bytes, name: str = "in.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_bom_crlf_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n  \n{"prompt": "b"}')
    assert source.detect(path) == "jsonl"
    assert [(row.number, row.value, row.fault) for row in rows(path, "jsonl")] == [
        (0, {"prompt": "a"}, ""),
        (1, {"prompt": "b"}, ""),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{nonsense", "is no JSON ("),
        (b'{"a": "\xff"}', "is no text in UTF-8 (byte 8)"),
        (b"[1]", "is no JSON object"),
        (b"[" * 100_000, "is no JSON ("),
    ],
)
def test_a_bad_line_is_a_row_that_says_why(tmp_path: Path, line: bytes, said: str) -> None:
    first, bad, last = rows(written(tmp_path, b'{"a": 1}\n' + line + b'\n{"a": 2}\n'), "jsonl")
    assert (first.fault, last.fault, last.value) == ("", "", {"a": 2})
    assert bad.fault.startswith(f"line 2: {said}")


def test_a_line_that_is_too_long_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_MOST_LINE", 100)
    monkeypatch.setattr(source, "_PIECE", 64)
    path = written(tmp_path, b'{"a": "' + b"x" * 500 + b'"}\n{"a": 2}\n')
    long, after = Source(path, "jsonl").rows()
    assert "MiB" in long[1].fault and after[1].value == {"a": 2}
    assert Source(path, "jsonl").shard(after[0], 1).__next__().value == {"a": 2}


def test_csv_has_commas_quotes_and_line_breaks_in_cells(tmp_path: Path) -> None:
    path = written(
        tmp_path, b'\xef\xbb\xbfname,prompt\r\na,"one, ""two""\r\nthree"\r\n\r\nb\r\nc,\xff\r\nd,e\r\n', "in.csv"
    )
    assert source.detect(path) == "csv"
    first, short, other, last = rows(path, "csv")
    assert first.value == {"name": "a", "prompt": 'one, "two"\r\nthree'}
    assert short.fault == "line 5: has 1 cells, the header has 2"
    assert other.fault == "line 6: is no text in UTF-8"
    assert last.value == {"name": "d", "prompt": "e"} and last.number == 3


TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@settings(max_examples=30, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=12), size=st.integers(1, 5), kind=st.sampled_from(["jsonl", "csv"]))
def test_shards_together_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, texts: Sequence[str], size: int, kind: str
) -> None:
    path = tmp_path_factory.mktemp("in") / "in"
    if kind == "csv":
        cells = [text.replace('"', '""') for text in texts]
        path.write_text("a,b\n" + "".join(f'1,"{cell}"\n' for cell in cells), "utf-8", newline="")
    else:
        path.write_text(
            "".join(json.dumps({"a": "1", "b": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8"
        )
    reader = Source(path, kind)
    index = reader.index(size, None)
    assert index.rows == len(texts) and len(index.places) == -(-len(texts) // size)
    parts = [row for place in index.places for row in reader.shard(place, size)]
    assert [(row.number, row.value) for row in parts] == [(n, {"a": "1", "b": text}) for n, text in enumerate(texts)]


def test_an_id_is_there_once(tmp_path: Path) -> None:
    lines = [{"custom_id": name} for name in ("a", "b", "", 5, "a")]
    path = written(tmp_path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    with Ids(path, "custom_id") as ids, pytest.raises(UserError, match="line 5: custom_id a is that of line 1, too"):
        Source(path, "jsonl").index(10, ids)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "in.jsonl.gz",
            gzip.compress(b"{}", mtime=0),
            "is compressed by gzip, which is not read; unpack it with: gunzip",
        ),
        ("in.xlsx", b"PK\x03\x04....", "is a zip archive or a spreadsheet"),
        ("in.csv", "a,b".encode("utf-16"), "is text in UTF-16, which is not read; save it as UTF-8"),
        ("in.json", b'[{"prompt": "a"}]', "is one JSON list, expected an object a line"),
        ("in.txt", b"hello\n", "does not say what it is"),
        ("in.jsonl", b"", "is empty"),
        ("in.jsonl", b"\n \n", "has no rows"),
    ],
)
def test_what_is_no_input_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        source.detect(written(tmp_path, content, name))


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no rows"):
        Source(written(tmp_path, b"prompt\n", "in.csv"), "csv").index(10, None)


def test_openai_s_form_is_seen(tmp_path: Path) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}}
    assert source.detect(written(tmp_path, b"\n{bad\n" + json.dumps(line).encode())) == "openai"


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def most(count: int) -> int:
        path = written(tmp_path, b'{"prompt": "a short row of a long file"}\n' * count, f"{count}.jsonl")
        tracemalloc.start()
        index = Source(path, "jsonl").index(1000, None)
        assert index.rows == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few, many = most(2_000), most(20_000)
    assert many - few < 20_000


def test_parquet_is_read_from_any_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    table: Any = pa.table({"prompt": [f"row {n}" for n in range(25)], "other": [b"\xff"] * 25})
    parquet.write_table(table, path, row_group_size=10)
    assert source.detect(path) == "parquet"
    reader = Source(path, "parquet", ["prompt"])
    assert reader.index(7, None).rows == 25
    for first in (0, 9, 10, 13, 24):
        found = [row.value for row in reader.shard(Place(first, 0, 1), 3)]
        assert found == [{"prompt": f"row {n}"} for n in range(first, min(first + 3, 25))]


def test_parquet_needs_a_package_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"is Parquet, which needs a package; install it with: .*parquet"):
        source.open_parquet(written(tmp_path, b"PAR1....", "in.parquet"))
