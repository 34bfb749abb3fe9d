# SPDX-License-Identifier: MIT
"""Other engines beside ours on one machine: tables made of the committed ``*-rivals.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from trit.measure.report import markdown

Result = Mapping[str, Any]


class Test(NamedTuple):
    """What was run: tokens of a prompt, tokens generated behind ``depth`` others, by so many sequences at once."""

    n_prompt: int
    n_gen: int
    depth: int
    sequences: int
    threads: int


# One sequence, as everybody measures it.
PREFILL, DECODE = Test(128, 0, 0, 1, 2), Test(0, 32, 0, 1, 2)
_ALONE = (Test(128, 0, 0, 1, 1), PREFILL, Test(512, 0, 0, 1, 1), Test(512, 0, 0, 1, 2), Test(0, 32, 0, 1, 1), DECODE)
_SEVERAL = tuple(Test(0, 24, 32, count, 2) for count in (1, 2, 4, 8))
_BEHIND = (Test(2048, 0, 0, 1, 2), Test(0, 24, 2048, 1, 2))


def engines(result: Result) -> list[str]:
    """Their names, ours first."""
    return [str(engine["name"]) for engine in result["engines"]]


def speed(result: Result, engine: str, test: Test) -> float | None:
    """Median tokens per second; None: not measured."""
    for row in result["tests"]:
        if row["engine"] == engine and all(row[name] == value for name, value in test._asdict().items()):
            return float(median(row["tokens_per_second"]))
    return None


def short_table(found: Mapping[Path, Result], folder: str) -> str:
    """For README: prefill and decode on two threads, and how many times as fast ours is.

    Args:
        found: the results, by their files.
        folder: where the files are, as seen from the document.
    """
    text = []
    for path, result in found.items():
        about = result["about"]
        rows = [["engine", "prefill, pp128", "ours is", "decode, tg32", "ours is"]]
        for engine in engines(result):
            row = [engine]
            for test in (PREFILL, DECODE):
                mine, ours = speed(result, engine, test), speed(result, engines(result)[0], test)
                assert mine is not None and ours is not None
                row += [f"{mine:.3g}", "" if engine == engines(result)[0] else f"{ours / mine:.1f} x"]
            rows.append(row)
        head = f"{about['cpu']}, {about['cores']} cores, tier {about['tier']}, {about['date']}"
        text.append(f"{head} ([every run]({folder}/{path.name}))\n\n{markdown(rows)}")
    return "\n\n".join(text)


def full_tables(found: Mapping[Path, Result], folder: str) -> str:
    """For docs/benchmarks.md: every test that was run, how each engine was built, our tiers, loading, more threads."""
    text = []
    for path, result in found.items():
        about = result["about"]
        text.append(
            f"{about['cpu']}, {about['cores']} cores ({about['machine']}); {about['compiler']}, commit "
            f"{about['commit']}, {about['date']} ([every run]({folder}/{path.name})).\n"
            f"How: {about['how']}. Noise: {result['noise']}."
        )
        built = [["engine", "file", "built as"]]
        built += [[engine["name"], engine["file"], engine["built"]] for engine in result["engines"]]
        text.append(markdown(built, left=3))
        for tests, what in ((_ALONE, "One sequence"), (_SEVERAL, "Decode of several"), (_BEHIND, "Behind a context")):
            text.append(f"{what}, tokens/s, medians:\n\n{_speeds(result, tests)}")
        for rows, of, what in (("tiers", "tier", "Our tiers"), ("variants", "variant", "Our variants")):
            text.append(f"{what}, tokens/s, medians:\n\n{_ours(result[rows], of)}")
        loads = [["engine", "load, s", "peak memory, MB"]]
        loads += [[load["engine"], f"{load['seconds']:.2f}", f"{load['peak_mb']:.0f}"] for load in result["loads"]]
        text.append(f"Loading from the page cache:\n\n{markdown(loads)}")
        text.append(_busy(result["busy"]))
        text.append(_more_threads(result["more_threads"]))
    return "\n\n".join(text)


def _ours(rows: list[Mapping[str, Any]], of: str) -> str:
    tests = list(dict.fromkeys(Test(*(row[name] for name in Test._fields)) for row in rows))
    speeds = {(row[of], Test(*(row[name] for name in Test._fields))): median(row["tokens_per_second"]) for row in rows}
    body = [[name, *(f"{speeds[name, test]:.3g}" for test in tests)] for name in dict.fromkeys(row[of] for row in rows)]
    return markdown([[of, *map(_heading, tests)], *body])


def _speeds(result: Result, tests: tuple[Test, ...]) -> str:
    rows = [["engine", *(_heading(test) for test in tests)]]
    for engine in engines(result):
        speeds = [speed(result, engine, test) for test in tests]
        rows.append([engine, *("" if value is None else f"{value:.3g}" for value in speeds)])
    return markdown(rows)


def _heading(test: Test) -> str:
    name = f"pp{test.n_prompt}" if test.n_prompt else f"tg{test.n_gen}"
    behind = f" behind {test.depth}" if test.depth else ""
    several = f", {test.sequences} sequences" if test.sequences > 1 else ""
    return f"{name}{behind}{several}, {test.threads} thread{'s' if test.threads > 1 else ''}"


def _busy(busy: Mapping[str, Any]) -> str:
    rows = [["engine", "pp128", "tg32"]]
    for engine in dict.fromkeys(test["engine"] for test in busy["tests"]):
        speeds = {
            test["n_gen"]: median(test["tokens_per_second"]) for test in busy["tests"] if test["engine"] == engine
        }
        rows.append([engine, f"{speeds[0]:.3g}", f"{speeds[32]:.3g}"])
    return f"Beside {busy['what']}:\n\n{markdown(rows)}"


def _more_threads(more: Mapping[str, Any]) -> str:
    rows = [["threads", "pp128, i2_s", "pp128, tq2_0", "tg32, i2_s", "tg32, tq2_0"]]
    for place, threads in enumerate(more["threads"]):
        cells = [more[test][kind][place] for test in ("pp128", "tg32") for kind in ("i2_s", "tq2_0")]
        rows.append([str(threads), *(f"{cell:,.0f}" if cell >= 100 else f"{cell:.3g}" for cell in cells)])
    return f"On a {more['what']}:\n\n{markdown(rows)}"
