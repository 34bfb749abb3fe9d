# SPDX-License-Identifier: MIT
"""Tables on a terminal and in a pipe, what is shown after Ctrl-C, limits that are kept for a day."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import EXIT_INTERRUPTED, run_main
from trit.engine import llama_bench
from trit.engine.llama_bench import Case
from trit.engine.roofline import parse
from trit.measure import report, rounds
from trit.measure import roofline as command
from trit.measure.variants import Variant
from trit.verify.report import judged, table

OBJECTS: list[dict[str, Any]] = [
    {"kind": "head", "compiler": "gcc 1.2.3", "megabytes": 8},
    {"kind": "tier", "tier": "quick", "packings": ["2_bits"]},
    {"kind": "int8", "tier": "quick", "threads": 1, "gmacs": [90.0, 110.0]},
    {"kind": "read", "tier": "quick", "threads": 1, "pages": "huge", "ahead": 256, "gbs": [7.0, 9.0]},
]
WIDE = report.markdown(
    [
        ["model", *(f"column {i}" for i in range(12))],
        ["a-model-of-some-size.gguf", *(f"{i}.25" for i in range(12))],
        ["b", *("1" for _ in range(12))],
    ]
)


def test_tables_fit_a_terminal_and_are_markdown_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"Before.\n\n{WIDE}\n\nAfter."
    report.show(text)
    assert capsys.readouterr().out == f"{text}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    report.show(text)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 and "|" not in line for line in lines)
    assert (lines[0], lines[-1]) == ("Before.", "After.")
    # The first column stands in every part; every cell is there once.
    assert len([line for line in lines if line.startswith("a-model-of-some-size.gguf")]) == 3
    assert sorted(word for line in lines if line.startswith("a-") for word in line.split()[1:]) == sorted(
        f"{i}.25" for i in range(12)
    )


def test_lines_of_verify_are_not_too_long() -> None:
    checks = [judged("layer 12", True, "measured " * 20, "bound " * 12), judged("short", False, "1", "2")]
    lines = table(checks).splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert " ".join(" ".join(lines).split()).count("measured") == 21
    assert lines[-1].split() == ["short", "FAIL", "1", "(2)"]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tiers that were measured."""
    (tmp_path / command.PROGRAM).touch()
    monkeypatch.setattr(command, "CACHE", tmp_path / "limits.json")
    monkeypatch.setattr(command, "engine_binary", lambda name, folder: tmp_path / name)
    asked: list[str] = []

    def measure(threads: object, *, tier: str, on_object: Callable[[dict[str, Any]], None], **_: object) -> object:
        asked.append(tier)
        for found in OBJECTS:
            on_object(found)
        if tier == "interrupted":
            raise KeyboardInterrupt
        return parse(OBJECTS)

    monkeypatch.setattr(command, "measure", measure)
    return asked


def test_limits_are_those_of_the_chosen_tier_and_kept_for_a_day(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([]) == command.main([]) == 0
    assert calls == ["chosen"]
    first, second = capsys.readouterr().out.split("gcc 1.2.3")[1:]
    assert "110.0" in first and "110.0" in second
    command.main(["--again"])
    command.main(["--tier", "all"])
    assert calls == ["chosen", "chosen", "all"]
    command.main(["--tier", "all"])
    assert len(calls) == 3
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    command.main(["--tier", "all"])
    assert len(calls) == 4
    # Another build may have other kernels.
    os.utime(command.CACHE.with_name(command.PROGRAM), (1, 1))
    command.main(["--tier", "all"])
    assert len(calls) == 5
    command.CACHE.write_text("{")
    command.main(["--tier", "all"])
    assert len(calls) == 6


def test_interrupted_limits_are_shown_and_not_kept(calls: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(command.main, ["--tier", "interrupted"]) == EXIT_INTERRUPTED
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[:3] == ["quick", "1", "110.0"]
    assert "stopped; what was measured until now" in err
    assert not command.CACHE.exists()


def test_results_so_far() -> None:
    so_far = rounds.SoFar()
    one, other, case = Variant("one"), Variant("other"), Case(8, 0, threads=1)
    for number in range(2):
        for variant in (one, other):
            so_far.before(number, variant)
            if (number, variant) != (1, other):
                so_far.finished(case, [10.0 + number])
    assert {key[0].name: result.speeds for key, result in so_far.results.items()} == {"one": [10, 11], "other": [10]}


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_a_comma_in_a_path_parts_no_models(tmp_path: Path) -> None:
    """llama-bench takes a list behind -m."""
    folder = tmp_path / "a,b"
    folder.mkdir()
    for name in ("x,1-00001-of-00002.gguf", "x,1-00002-of-00002.gguf"):
        (folder / name).write_text(name)
    with llama_bench._without_comma(folder / "x,1-00001-of-00002.gguf") as path:
        assert "," not in str(path)
        assert path.read_text() == "x,1-00001-of-00002.gguf"
        assert path.with_name("x_1-00002-of-00002.gguf").read_text() == "x,1-00002-of-00002.gguf"
    assert not path.exists()
    plain = tmp_path / "plain.gguf"
    with llama_bench._without_comma(plain) as path:
        assert path == plain
