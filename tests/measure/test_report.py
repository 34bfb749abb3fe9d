# SPDX-License-Identifier: MIT
"""trit.measure.report: how tables, CSV and files of results are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trit.base.errors import UserError
from trit.measure import report

COLUMNS: report.Columns[tuple[str, int]] = {"name": lambda row: row[0], "n": lambda row: str(row[1])}
TABLE = report.cells(COLUMNS, [("a", 1), ("bcdef", 20)])


def test_tables() -> None:
    assert report.markdown(TABLE).splitlines() == ["| name | n |", "| --- | ---: |", "| a | 1 |", "| bcdef | 20 |"]
    assert report.markdown(TABLE, left=2).splitlines()[1] == "| --- | --- |"
    assert report.plain(TABLE).splitlines() == ["name    n", "a       1", "bcdef  20"]
    assert report.plain(TABLE, left=(0, 1)).splitlines() == ["name   n", "a      1", "bcdef  20"]
    assert report.padded(TABLE, left=range(2)) == [["name ", "n "], ["a    ", "1 "], ["bcdef", "20"]]
    assert report.beside(TABLE, [["x"], ["y"], ["z"]])[2] == ["bcdef", "20", "z"]
    with pytest.raises(ValueError, match="shorter"):
        report.beside(TABLE, [["x"]])


def test_csv_has_every_column_in_the_order_of_the_rows() -> None:
    assert report.as_csv([{"a": 1}, {"b": "x", "a": None}]) == "a,b\n1,\n,x\n"
    assert report.as_csv([{"a": 1}], line_end="\r\n") == "a\r\n1\r\n"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x: cannot be written \(.*\); choose another --csv-output"):
        report.write(tmp_path / "file" / "x", "", "--csv-output")


def test_kept_results_say_where_they_come_from(tmp_path: Path) -> None:
    ran = report.about("trit committed kernels", ["--m", "1", "-o", "secret", "--workdir=hidden", "-x"], "gcc 1.2.3")
    assert ran["command"] == ".venv/bin/python -m trit committed kernels --m 1 -x"
    paths = report.keep(tmp_path, "some-kind", {**ran, "cpu": "A CPU"}, "text\n\n", {"tests": [1]})
    assert [path.name for path in paths] == ["a-some-kind.md", "a-some-kind.json"]
    lines = paths[0].read_text().splitlines()
    assert lines[0] == "# Some kind: A CPU" and ran["command"] in lines[4] and lines[-1] == "text"
    kept = json.loads(paths[1].read_text())
    assert kept["tests"] == [1] and kept["about"]["compiler"] == "gcc 1.2.3"
