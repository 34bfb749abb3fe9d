# SPDX-License-Identifier: MIT
"""The documents' tables of speeds, and their pictures, from the committed results.

Example: trit committed summary (--check only compares the documents)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from trit.base.errors import EXIT_FAILED, EXIT_OK, TritError
from trit.base.flags import ArgumentParser
from trit.base.generated_section import write_section
from trit.base.places import ROOT
from trit.engine.llama_bench import Case
from trit.measure.committed import arm, busy, pictures, rivals, terminal
from trit.measure.report import RESULTS, markdown, sentences

README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
TIERS = ROOT / "docs" / "tiers.md"
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


def _all_columns(path: Path) -> str:
    return f"([all columns]({_FOLDER}/{path.stem}.md))"


def whole_models(found: Mapping[Path, Result]) -> str:
    """One row for each CPU, test and number of threads: ours, the rival's, and the ratio.

    Raises:
        TritError: a result lacks one of the two.
    """
    text = []
    for path, result in found.items():
        ran = result["about"]
        text.append(
            f"{ran['cpu']}, {ran['cores']} cores, tier {ran['tier']}: {ran['compiler']}, commit {ran['commit']}, "
            f"{ran['date']} {_all_columns(path)}\n"
        )
        tests = {(_case(test), test["type"], test["packed"]): test for test in result["tests"]}
        rows = [["test", "threads", "i2_s", "of limit", "tq2_0, llama.cpp's kernels", "ratio"]]
        for case in sorted({case for case, *_ in tests}, key=lambda case: (case.n_gen, case.n_prompt, case.threads)):
            ours, rival = (tests.get((case, *one)) for one in (_OURS, _RIVAL))
            if ours is None or rival is None:
                raise TritError(f"{path}: lacks i2_s or tq2_0; run trit committed end-to-end with both types")
            speed, other = median(ours["tokens_per_second"]), median(rival["tokens_per_second"])
            share = f"{100 * speed / median(ours['limit_tokens_per_second']):.0f} %"
            rows.append([case.name, str(case.threads), f"{speed:.3g}", share, f"{other:.3g}", f"{speed / other:.1f}"])
        text.append(markdown(rows) + "\n")
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
    return markdown(rows, left=3)


def formats(found: Mapping[Path, Result]) -> str:
    """One row for each format: size, load time, memory, speed with its ratio to the baseline, error against f16."""
    text = []
    for path, result in found.items():
        heads = [_case(test).in_words for test in result["rows"][0]["tests"]]
        rows = [["format", "kernels", "file, MB", "bits/weight", "load, s", "resident, MB", *heads, "logits"]]
        for row in result["rows"]:
            resident = [load["resident_bytes"] for load in row["loads"] if load["resident_bytes"] is not None]
            speeds = [(median(test["tokens_per_second"]), test["ratio"]["median"]) for test in row["tests"]]
            file = [f"{row['file_bytes'] / 1e6:.0f}", f"{row['bits']:.2f}"]
            load = [
                f"{median(load['seconds'] for load in row['loads']):.2f}",
                f"{median(resident) / 1e6:.0f}" if resident else "",
            ]
            error = f"{100 * row['error']['logits']:.1f} %" if row["error"] else ""
            shown = [f"{speed:.3g} ({ratio:.2f})" for speed, ratio in speeds]
            rows.append([row["type"], row["kernels"], *file, *load, *shown, error])
        ran = result["about"]
        head = f"{ran['cpu']}, {result['model']}; commit {ran['commit']}, {ran['date']} {_all_columns(path)}. "
        head += " ".join([f"In brackets: ratio to {result['baseline']}.", *sentences(result["notes"])])
        text.append(f"{head}\n\n{markdown(rows)}")
    return "\n\n".join(text)


def busy_machines(found: Mapping[Path, Result]) -> str:
    """One table for each CPU, a row for each number of other programs."""
    text = []
    for path, result in found.items():
        ran = result["about"]
        speeds = {(test["build"], test["beside"]): test["tokens_per_second"] for test in result["tests"]}
        names = list(dict.fromkeys(name for name, _ in speeds))
        head = f"{ran['cpu']}, {ran['model']}, {result['threads']} threads, {ran['logical_cpus']} CPUs, tokens/s; "
        head += f"commit {ran['commit']}, {ran['date']} {_all_columns(path)}."
        text.append(f"{head}\n\n{markdown(busy.as_table(speeds, names, result['threads'], ran['logical_cpus']))}")
    return "\n\n".join(text)


def readme_section(folder: Path = RESULTS) -> str:
    """What stands between the two lines in README: other engines, then llama.cpp's kernels on other CPUs."""
    head = "On other CPUs, beside llama.cpp's kernels in the same binary ([more](docs/performance.md#whole-models)):"
    beside = rivals.short_table(results("rivals", folder), "benchmarks/results")
    return f"{beside}\n\n{head}\n\n{elsewhere(results('end-to-end', folder))}"


def rivals_section(folder: Path = RESULTS) -> str:
    """What stands between the two lines in docs/benchmarks.md."""
    return rivals.full_tables(results("rivals", folder), _FOLDER)


def arm_section(folder: Path = RESULTS) -> str:
    """What stands between the two lines in docs/tiers.md: predictions of the first compiler's loops."""
    (result,) = results(arm.KIND, folder).values()
    about = result["about"]
    compiler, version = next(iter(about["compilers"].items()))
    head = f"{version}, {about['mca']}; commit {about['commit']}, {about['date']} "
    head += f"([all tiers, and gcc]({_FOLDER}/{arm.STEM}.md)).\n{arm.CLOCKS}"
    shown = [one for one in result["loops"] if one["compiler"] == compiler and one["tier"] != "neon"]
    return f"{head}\n\n{arm.table(shown)}"


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
    if beside := results("busy", folder):
        parts.append(
            "Beside other programs that each want a CPU (`trit committed busy`). A fair share is what is left if all\n"
            "threads get as much of the CPUs."
        )
        parts.append(busy_machines(beside))
    return "\n\n".join(parts)


def draw(folder: Path = RESULTS, out: Path = PICTURES) -> list[Path]:
    """All pictures; their paths."""
    kinds = {"kernels": pictures.roofline, "profile": pictures.token_profile, "rivals": pictures.other_engines}
    found = [(deed, path, result) for kind, deed in kinds.items() for path, result in results(kind, folder).items()]
    return [deed(result, out / f"{path.stem}.png") for deed, path, result in found]


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the sections and the pictures, or fail if ``--check`` finds a section out of date."""
    parser = ArgumentParser(prog="trit committed summary", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a document is out of date")
    args = parser.parse_args(argv)
    pages: dict[Path, Callable[[], str]] = {
        README: readme_section,
        PERFORMANCE: section,
        BENCHMARKS: rivals_section,
        TIERS: arm_section,
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
