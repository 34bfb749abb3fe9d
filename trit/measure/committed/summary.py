# SPDX-License-Identifier: MIT
"""The documents' tables of speeds, and their pictures, from the committed results.

Example: trit committed summary (--check only compares the documents)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from trit.base.errors import EXIT_FAILED, EXIT_OK, TritError
from trit.base.generated_section import write_section
from trit.base.places import ROOT
from trit.engine.llama_bench import Case
from trit.measure.committed import pictures, rivals, terminal
from trit.measure.results import RESULTS
from trit.measure.speed.output import markdown_table

README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "pictures"
BEGIN = "<!-- speed: written by `trit committed summary` -->"
END = "<!-- end of speed -->"
# Where the results are, as seen from docs/.
_FOLDER = "../benchmarks/results"
_RIVAL = ("tq2_0", False)
_OURS = ("i2_s", True)

Result = Mapping[str, Any]


def results(kind: str, folder: Path = RESULTS) -> dict[Path, Result]:
    """The results of one kind, newest first.

    Raises:
        TritError: a file is broken.
    """
    found: dict[Path, Result] = {}
    for path in sorted(folder.glob(f"*-{kind}.json")):
        try:
            found[path] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TritError(f"{path} is no JSON ({error}); write it again with the command in its .md file") from error
    return dict(sorted(found.items(), key=lambda item: str(item[1]["about"]["date"]), reverse=True))


def _case(test: Result) -> Case:
    return Case(test["n_prompt"], test["n_gen"], threads=test["threads"])


def whole_models(found: Mapping[Path, Result]) -> str:
    """One row for each CPU, test and number of threads: ours, the rival's, and the ratio.

    Raises:
        TritError: a result lacks one of the two.
    """
    rows = [["test", "threads", "i2_s", "of limit", "tq2_0, llama.cpp's kernels", "ratio"]]
    text = []
    for path, result in found.items():
        about = result["about"]
        text.append(
            f"{about['cpu']}, {about['cores']} cores, tier {about['tier']}: {about['compiler']}, commit "
            f"{about['commit']}, {about['date']} ([all columns]({_FOLDER}/{path.stem}.md))\n"
        )
        by_way: dict[Case, dict[tuple[str, bool], Result]] = {}
        for test in result["tests"]:
            by_way.setdefault(_case(test), {})[test["type"], test["packed"]] = test
        body = []
        for case, ways in sorted(by_way.items(), key=lambda item: (item[0].n_gen, item[0].n_prompt, item[0].threads)):
            if not {_OURS, _RIVAL} <= set(ways):
                raise TritError(f"{path}: lacks i2_s or tq2_0; run trit committed end-to-end with both types")
            ours, rival = (median(ways[way]["tokens_per_second"]) for way in (_OURS, _RIVAL))
            limit = median(ways[_OURS]["limit_tokens_per_second"])
            share = f"{100 * ours / limit:.0f} %"
            body.append([case.name, str(case.threads), f"{ours:.3g}", share, f"{rival:.3g}", f"{ours / rival:.1f}"])
        text.append(markdown_table([*rows, *body]) + "\n")
    return "\n".join(text).rstrip()


def elsewhere(found: Mapping[Path, Result]) -> str:
    """For README: ours beside llama.cpp's kernels in the same binary, on all threads that were measured."""
    rows = [["CPU", "tier", "test", "i2_s", "tq2_0, llama.cpp", "ours is"]]
    for result in found.values():
        about = result["about"]
        most = max(test["threads"] for test in result["tests"])
        speeds = {
            (_case(test).name, (test["type"], test["packed"])): median(test["tokens_per_second"])
            for test in result["tests"]
            if test["threads"] == most
        }
        for name in dict.fromkeys(name for name, _ in speeds):
            ours, rival = speeds[name, _OURS], speeds[name, _RIVAL]
            row = [about["cpu"], about["tier"], name, f"{ours:.3g}", f"{rival:.3g}", f"{ours / rival:.1f} x"]
            rows.append(row)
    return markdown_table(rows, left=3)


def formats(found: Mapping[Path, Result]) -> str:
    """One row for each format: size, load time, memory, speed with its ratio to the baseline, error against f16."""
    text = []
    for path, result in found.items():
        about = result["about"]
        heads = [_case(test).in_words for test in result["rows"][0]["tests"]]
        rows = [["format", "kernels", "file, MB", "bits/weight", "load, s", "resident, MB", *heads, "logits"]]
        for row in result["rows"]:
            speeds = [median(test["tokens_per_second"]) for test in row["tests"]]
            ratios = [test["ratio"]["median"] for test in row["tests"]]
            loads = row["loads"]
            resident = [load["resident_bytes"] for load in loads if load["resident_bytes"] is not None]
            error = row["error"]
            rows.append(
                [
                    row["type"],
                    row["kernels"],
                    f"{row['file_bytes'] / 1e6:.0f}",
                    f"{row['bits']:.2f}",
                    f"{median(load['seconds'] for load in loads):.2f}",
                    f"{median(resident) / 1e6:.0f}" if resident else "",
                    *(f"{speed:.3g} ({ratio:.2f})" for speed, ratio in zip(speeds, ratios, strict=True)),
                    f"{100 * error['logits']:.1f} %" if error else "",
                ]
            )
        notes = "".join(f" {note[0].upper()}{note[1:]}." for note in result["notes"])
        head = f"{about['cpu']}, {result['model']}; commit {about['commit']}, {about['date']} "
        head += f"([all columns]({_FOLDER}/{path.stem}.md)). In brackets: ratio to {result['baseline']}."
        text.append(f"{head}{notes}\n\n{markdown_table(rows)}")
    return "\n\n".join(text)


def readme_section(folder: Path = RESULTS) -> str:
    """What stands between the two lines in README: other engines, then llama.cpp's kernels on other CPUs."""
    head = "On other CPUs, beside llama.cpp's kernels in the same binary ([more](docs/performance.md#whole-models)):"
    beside = rivals.short_table(results("rivals", folder), "benchmarks/results")
    return f"{beside}\n\n{head}\n\n{elsewhere(results('end-to-end', folder))}"


def rivals_section(folder: Path = RESULTS) -> str:
    """What stands between the two lines in docs/benchmarks.md."""
    return rivals.full_tables(results("rivals", folder), _FOLDER)


def section(folder: Path = RESULTS) -> str:
    """What stands between the two lines in docs/performance.md."""
    parts = [whole_models(results("end-to-end", folder))]
    if compared := results("comparison", folder):
        parts.append(
            "The same weights in eight formats, all run by this engine (`trit compare`). *Logits* says how far they\n"
            "are from the f16 file's. Most of it is activation quantisation to int8. These models are trained with\n"
            "it, and f16 leaves it out."
        )
        parts.append(formats(compared))
    return "\n\n".join(parts)


def draw(folder: Path = RESULTS, out: Path = PICTURES) -> list[Path]:
    """All pictures; their paths."""
    drawn = []
    for path, result in results("kernels", folder).items():
        drawn.append(pictures.roofline(result, out / f"{path.stem}.png"))
    for path, result in results("profile", folder).items():
        drawn.append(pictures.token_profile(result, out / f"{path.stem}.png"))
    for path, result in results("rivals", folder).items():
        drawn.append(pictures.other_engines(result, out / f"{path.stem}.png"))
    return drawn


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the sections and the pictures, or fail if ``--check`` finds a section out of date."""
    parser = argparse.ArgumentParser(prog="trit committed summary", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a document is out of date")
    args = parser.parse_args(argv)
    pages: dict[Path, Callable[[], str]] = {
        README: readme_section,
        PERFORMANCE: section,
        BENCHMARKS: rivals_section,
    }
    fresh = True
    for page, write in pages.items():
        current = write_section(page, BEGIN, END, write(), check=args.check)
        print(f"{page.name}: the section on speed {'is' if current else 'was not'} up to date")
        fresh = fresh and current
    if args.check:
        return EXIT_OK if fresh else EXIT_FAILED
    for path in [*draw(), terminal.draw(PICTURES / "terminal.txt", PICTURES / "terminal.svg")]:
        print(f"drawn: {path.relative_to(ROOT)}")
    return EXIT_OK
