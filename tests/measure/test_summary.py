# SPDX-License-Identifier: MIT
"""The documents' sections on speed come from the committed results, and the pictures show them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import TritError, UserError
from trit.base.generated_section import write_section
from trit.measure.committed import pictures, rivals, summary, terminal, token_profile


def end_to_end(cpu: str, date: str, ours: list[float], rival: list[float] | None) -> dict[str, Any]:
    about = {"cpu": cpu, "cores": 2, "tier": "avx2", "compiler": "gcc 1", "commit": "abc", "date": date}
    tests = []
    for way, speeds in ((("i2_s", True), ours), (("i2_s", False), [1.0]), (("tq2_0", False), rival)):
        if speeds is not None:
            test = {"n_prompt": 0, "n_gen": 64, "threads": 2, "type": way[0], "packed": way[1]}
            tests.append({**test, "tokens_per_second": speeds, "limit_tokens_per_second": [40.0, 50.0, 45.0]})
    return {"about": about, "tests": tests}


def write(folder: Path, name: str, result: object) -> None:
    (folder / name).write_text(json.dumps(result))


def test_medians_ratios_and_shares_newest_first(tmp_path: Path) -> None:
    write(tmp_path, "old-end-to-end.json", end_to_end("Old", "2026-01-01", [9.0], [9.0]))
    write(tmp_path, "new-end-to-end.json", end_to_end("New", "2026-02-01", [30.0, 99.0, 31.5], [7.0, 9.0, 100.0]))
    lines = summary.section(tmp_path).splitlines()
    assert lines[0] == (
        "New, 2 cores, tier avx2: gcc 1, commit abc, 2026-02-01 "
        "([all columns](../benchmarks/results/new-end-to-end.md))"
    )
    assert "| tg64 | 2 | 31.5 | 70 % | 9 | 3.5 |" in lines
    assert [line.partition(",")[0] for line in lines if "tier avx2" in line] == ["New", "Old"]


def comparison(cpu: str) -> dict[str, Any]:
    def row(kind: str, speeds: list[float], ratio: float, resident: int | None, error: float | None) -> dict[str, Any]:
        tests = [{"n_prompt": 0, "n_gen": 32, "threads": 2, "tokens_per_second": speeds, "ratio": {"median": ratio}}]
        loads = [{"seconds": s, "resident_bytes": resident} for s in (1.0, 3.0, 2.0)]
        logits = None if error is None else {"logits": error}
        return {"type": kind, "kernels": "ours", "file_bytes": 800_400_000, "bits": 2.0, "loads": loads, "tests": tests,
                "error": logits}  # fmt: skip

    rows = [row("i2_s", [10.0, 30.0, 20.0], 1.5, 796_000_000, 0.061), row("f16", [2.0], 0.5, None, None)]
    about = {"cpu": cpu, "commit": "abc", "date": "2026-03-01"}
    return {"about": about, "model": "a model", "baseline": "tq2_0", "notes": ["it was BUSY: slow"], "rows": rows}


def test_formats_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, "x-end-to-end.json", end_to_end("X", "2026-01-01", [9.0], [9.0]))
    assert "eight formats" not in summary.section(tmp_path)
    write(tmp_path, "x-comparison.json", comparison("X"))
    lines = summary.section(tmp_path).splitlines()
    (head,) = [line for line in lines if "a model" in line]
    assert head.endswith("(../benchmarks/results/x-comparison.md)). In brackets: ratio to tq2_0. It was BUSY: slow.")
    assert "| i2_s | ours | 800 | 2.00 | 2.00 | 796 | 20 (1.50) | 6.1 % |" in lines
    assert "| f16 | ours | 800 | 2.00 | 2.00 |  | 2 (0.50) |  |" in lines


def test_busy_machines_are_there_if_they_were_measured(tmp_path: Path) -> None:
    write(tmp_path, "x-end-to-end.json", end_to_end("X", "2026-01-01", [9.0], [3.0]))
    assert "fair share" not in summary.section(tmp_path)
    about = {**end_to_end("X", "2026-01-01", [9.0], [3.0])["about"], "logical_cpus": 2, "model": "a model"}
    rows = [
        ("this build", 0, [40.0]),
        ("openmp", 0, [20.0]),
        ("this build", 2, [9.0, 10.0, 11.0]),
        ("openmp", 2, [5.0]),
    ]
    tests = [{"build": name, "beside": count, "tokens_per_second": speeds} for name, count, speeds in rows]
    write(tmp_path, "x-busy.json", {"about": about, "threads": 2, "n_gen": 16, "tests": tests})
    lines = summary.section(tmp_path).splitlines()
    assert "| 2 | 10 | 5 | 50 % | 50 % | 1.80 |" in lines
    (head,) = [line for line in lines if "a model, 2 threads, 2 CPUs" in line]
    assert head.endswith("(../benchmarks/results/x-busy.md)).")


def test_a_result_without_the_rival_or_broken_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "x-end-to-end.json", end_to_end("X", "2026-01-01", [9.0], None))
    with pytest.raises(TritError, match=r"x-end-to-end\.json: lacks i2_s or tq2_0; run trit committed end-to-end"):
        summary.section(tmp_path)
    (tmp_path / "x-end-to-end.json").write_text("{")
    with pytest.raises(TritError, match=r"x-end-to-end\.json is no JSON .* write it again with the command"):
        summary.section(tmp_path)


@pytest.mark.parametrize("name", ["README", "PERFORMANCE", "BENCHMARKS", "TIERS"])
def test_the_documents_are_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert summary.main(["--check"]) == 0, "run: trit committed summary"
    page: Path = getattr(summary, name)
    copy = tmp_path / page.name
    changed = page.read_text(encoding="utf-8").replace(f"{summary.BEGIN}\n", f"{summary.BEGIN}\nold\n")
    copy.write_text(changed)
    monkeypatch.setattr(summary, name, copy)
    assert summary.main(["--check"]) == 1
    assert copy.read_text() == changed, "--check changes nothing"
    monkeypatch.setattr(summary, "draw", list)
    monkeypatch.setattr(summary, "PICTURES", tmp_path)
    monkeypatch.setattr(summary, "ROOT", tmp_path)
    (tmp_path / "terminal.txt").write_text("$ a\nb\n")
    assert summary.main([]) == 0 and summary.main(["--check"]) == 0
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_other_engines_beside_ours(tmp_path: Path) -> None:
    """Medians of the rounds, and how many times as fast ours is; what was not measured is left empty."""
    (path,) = summary.results("rivals")
    result = json.loads(path.read_text())
    write(tmp_path, "x-rivals.json", {**result, "tests": [{**test, "tokens_per_second": [1.0, 50.0, 4.0]} for test in
          result["tests"] if test["engine"] != "trit.cpp"] + [{**test, "tokens_per_second": [8.0]} for test in
          result["tests"] if test["engine"] == "trit.cpp"]})  # fmt: skip
    write(tmp_path, "x-end-to-end.json", end_to_end("X", "2026-01-01", [9.0, 31.0, 12.0], [4.0]))
    text = summary.readme_section(tmp_path)
    assert "([every run](benchmarks/results/x-rivals.json))" in text
    assert "| trit.cpp | 8 |  | 8 |  |" in text and "| ik_llama.cpp | 4 | 2.0 x | 4 | 2.0 x |" in text
    assert "| X | avx2 | tg64 | 12 | 4 | 3.0 x |" in text
    assert "| llama.cpp, tq2_0 | 4 | 4 |  |  | 4 | 4 |" in summary.rivals_section(tmp_path)


def test_every_figure_of_another_engine_is_of_a_named_one() -> None:
    for path, result in summary.results("rivals").items():
        names = rivals.engines(result)
        assert len(set(names)) == len(names) and names[0] == "trit.cpp", path
        assert {row["engine"] for row in [*result["tests"], *result["loads"], *result["busy"]["tests"]]} <= set(names)


def test_a_terminal_is_drawn(tmp_path: Path) -> None:
    picture = terminal.svg("$ a < b\n\nc  d\n")
    assert re.findall(r"<text [^>]*>(.*)</text>", picture) == ["$ a &lt; b", "c  d"]
    assert picture.count('class="typed"') == 1
    drawn = terminal.draw(summary.PICTURES / "terminal.txt", tmp_path / "terminal.svg")
    assert drawn.read_text() == (summary.PICTURES / "terminal.svg").read_text(), "run: trit committed summary"


def test_a_section_needs_its_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("before\n<end>\n<begin>\nafter\n")
    with pytest.raises(UserError, match=r"doc\.md has no lines <begin> and <end>; put them where the text goes"):
        write_section(path, "<begin>", "<end>", "new")
    path.write_text("before\n<begin>\nold\n<end>\nafter\n")
    assert not write_section(path, "<begin>", "<end>", "new", check=True)
    assert not write_section(path, "<begin>", "<end>", "new")
    assert path.read_text() == "before\n<begin>\nnew\n<end>\nafter\n"
    assert write_section(path, "<begin>", "<end>", "new", check=True)


def test_every_committed_result_has_its_picture(tmp_path: Path) -> None:
    drawn = summary.draw(out=tmp_path)
    assert {path.name for path in drawn} == {
        path.name for path in summary.PICTURES.glob("*-*.png") if not path.name.startswith("chat-")
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_the_roofline_s_points_and_roof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product of 4 tokens that takes 1 ms: its place in the picture follows from its size alone."""
    n, k = 6912, 2560
    one = {"tier": "avx2", "packing": "2_bits", "n": n, "k": k, "m": 4, "threads": 1, "weight_bytes": n * k // 4}
    product = {**one, "seconds": [0.001], "gbs": [20.0], "gmacs": [400.0], "share_of_limit": 0.5, "binding": "int8"}
    seen: dict[str, Any] = {}

    class Axis:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **keywords: None

        def plot(self, x: list[float], y: list[float], *args: Any, label: str, **keywords: Any) -> None:
            seen[label] = (x, y)

    pictures._panel(Axis(), [product], 1)
    assert seen["2_bits"] == ([16.0], [pytest.approx(4 * n * k / 0.001 / 1e9)])
    # Reading 20 GB/s, 400 GMAC/s: the roof bends at 20 multiply-accumulates a byte.
    assert seen["limit"][0][1] == pytest.approx(20.0) and seen["limit"][1][1:] == [400.0, 400.0]


def test_where_a_token_s_time_goes_is_drawn(tmp_path: Path) -> None:
    rows = [{"name": "head", "seconds": 1.0}, {"name": "attention", "seconds": 3.0}]
    columns = [{"title": "text", "rows": rows}, {"title": "prompt", "rows": [*rows, {"name": "x", "seconds": 1.0}]}]
    result = {"about": {"cpu": "C", "model": "m"}, "threads": 2, "profile": {"columns": columns}}
    assert pictures._share(columns[0], "attention") == 75.0
    assert pictures.token_profile(result, tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_profile_of_the_median_run_is_kept(
    engine_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real engine on a random model of the bundled one's shape, three times."""
    asked = []

    def ask(*args: Any) -> dict[str, Any]:
        asked.append(real(*args))
        return asked[-1]

    real = token_profile.ask
    monkeypatch.setattr(token_profile, "ask", ask)
    flags = ["--shape", "story", "--head", "f16", "-p", "40", "-n", "9", "-t", "1", "--rounds", "3"]
    assert token_profile.main([*flags, "--workdir", str(tmp_path), "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*-profile.json")
    kept = json.loads(path.read_text())
    times = sorted(run["generation_ms"] for run in asked)
    (chosen,) = [run for run in asked if run["profile"] == kept["profile"]]
    assert chosen["generation_ms"] == times[1]
    assert [column["tokens"] for column in kept["profile"]["columns"]] == [8, kept["prompt_tokens"]]
    assert kept["about"]["command"].endswith(" ".join(flags)) and kept["about"]["compiler"]
    assert "where the time goes, 1 thread" in path.with_suffix(".md").read_text()
    assert "where the time goes, 1 thread" in capsys.readouterr().out


def test_a_failed_run_is_passed_on(engine_bin: Path, tmp_path: Path) -> None:
    with pytest.raises(TritError, match=r"run_inference\.py failed: error: the model .* is not there"):
        token_profile.ask(tmp_path / "no.gguf", 1, 4, 4)
