# SPDX-License-Identifier: MIT
"""Tables on a terminal and in a pipe, what is shown after Ctrl-C, limits that are kept for a day."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trit.base.errors import EXIT_INTERRUPTED, run_main
from trit.base.progress import until_now
from trit.engine import llama_bench
from trit.engine.llama_bench import Case
from trit.engine.roofline import parse
from trit.measure import heads, report, rounds
from trit.measure import roofline as command
from trit.measure.committed import end_to_end, kernels
from trit.measure.formats import command as compare
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


def test_results_so_far_as_a_table() -> None:
    so_far = rounds.SoFar()
    assert so_far.table() == ""
    for variant, speeds in ((Variant("one"), [3.0, 5.0]), (Variant("other", packed=False), [7.0])):
        so_far.before(0, variant)
        so_far.finished(Case(8, 0, threads=1), speeds)
    so_far.finished(Case(0, 4, threads=2), [9.0])
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in so_far.table().splitlines()]
    assert lines[0] == ["tokens/s", "pp8 -t 1", "tg4 -t 2"]
    assert lines[2:] == [["one", "4.0", "-"], [Variant("other", packed=False).name, "7.0", "9.0"]]


def test_until_now_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    found: list[str] = []
    for expected in ("", "a table\n"):
        with pytest.raises(KeyboardInterrupt), until_now(lambda: "\n".join(found)):
            raise KeyboardInterrupt
        assert capsys.readouterr().out == expected
        found.append("a table")
    with pytest.raises(ValueError), until_now(lambda: "a table"):
        raise ValueError
    with until_now(lambda: "a table"):
        pass
    assert capsys.readouterr() == ("", "")


def stop_in_the_second_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama-bench gives 12 tokens/s, and somebody presses Ctrl-C in its second run."""
    asked: list[object] = []

    def run(path: object, cases: Sequence[Case], *, observers: Sequence[rounds.Observer], **_: object) -> object:
        asked.append(path)
        if len(asked) == 2:
            raise KeyboardInterrupt
        for case in cases:
            for observer in observers:
                observer.finished(case, [12.0])
        return {case: [12.0] for case in cases}

    monkeypatch.setattr(llama_bench, "run", run)


def test_interrupted_heads_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_in_the_second_run(monkeypatch)
    monkeypatch.setattr(heads, "_bench_dir", lambda given: tmp_path)
    monkeypatch.setattr(heads, "_columns_of", lambda source: 256)
    monkeypatch.setattr(heads, "_make", lambda args, kind, path: None)
    flags = ["-i", str(tmp_path), "-t", "f16", "q8_0", "--threads", "1", "--stats-dir", str(tmp_path / "stats")]
    assert run_main(heads.main, flags) == EXIT_INTERRUPTED
    out, err = capsys.readouterr()
    assert "| f16" in out and "12.0" in out and "q8_0" not in out
    assert "stopped; what was measured until now" in err and not (tmp_path / "stats").exists()


def test_an_interrupted_comparison_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_in_the_second_run(monkeypatch)
    monkeypatch.setattr(rounds.Loads, "before", lambda self, number, variant: None)
    store = SimpleNamespace(
        files={"i2_s": tmp_path, "tl2": tmp_path}, left_out={}, file=lambda form: tmp_path, source=None
    )
    args = argparse.Namespace(
        threads=[1], prompt=[8], generate=[4], no_error=True, rounds=2, bin_dir=tmp_path, types=[Variant("i2_s")]
    )
    with pytest.raises(KeyboardInterrupt):
        compare._run(args, [Variant("tl2")], store)  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert "| i2_s" in out and out.count("12.0") == 2 and "tl2" not in out
    assert "stopped; what was measured until now" in err


def test_an_interrupted_end_to_end_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_in_the_second_run(monkeypatch)
    monkeypatch.setattr(end_to_end, "random_model", lambda workdir, shape, head, name: tmp_path / name)
    monkeypatch.setattr(end_to_end.cost.ModelFile, "read", lambda path: None)
    monkeypatch.setattr(end_to_end, "Limits", lambda *_, **__: rounds.Observer())
    assert run_main(end_to_end.main, ["-t", "1", "-p", "8", "--out", str(tmp_path / "out")]) == EXIT_INTERRUPTED
    out, err = capsys.readouterr()
    assert [line.split("|")[1].strip() for line in out.splitlines()][2:] == ["i2_s"] and "12.0" in out
    assert "stopped; what was measured until now" in err and not (tmp_path / "out").exists()


def test_interrupted_kernels_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"kind": "product", "tier": "quick", "packing": "2_bits", "n": 64, "k": 64, "m": 1, "threads": 1}
    line |= {"weight_bytes": 1024, "seconds": [1e-6], "int8_gmacs": [10.0, 10.0], "read_gbs": [10.0, 10.0]}

    def stop(command: object, what: str, *, on_object: Callable[[dict[str, Any]], None]) -> None:
        on_object(line)
        raise KeyboardInterrupt

    monkeypatch.setattr(kernels, "engine_binary", lambda name, folder: tmp_path / name)
    monkeypatch.setattr(kernels, "json_lines", stop)
    assert run_main(kernels.main, ["--out", str(tmp_path / "out")]) == EXIT_INTERRUPTED
    out, err = capsys.readouterr()
    assert "| quick" in out and "stopped; what was measured until now" in err
    assert not (tmp_path / "out").exists()


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
