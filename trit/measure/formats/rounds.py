# SPDX-License-Identifier: MIT
"""All ways take turns: load time, memory and speed of each, one round after the other."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from trit.base.places import ENGINE_BIN
from trit.base.statistics import in_turns
from trit.engine import llama_bench, loading
from trit.engine.llama_bench import Case, Observer
from trit.measure.formats import store
from trit.measure.formats.report import Row
from trit.measure.formats.ways import Way


def measure(
    files: Mapping[str, Path],
    ways: Sequence[Way],
    cases: Sequence[Case],
    rounds: int,
    observer: Observer | None = None,
    bin_dir: Path = ENGINE_BIN,
) -> list[Row]:
    """Measure; every other round backwards, so that no way is always first.

    Args:
        files: format -> file.
        ways: the rows, in the order of the result.
        cases: prompts and generated texts, each on a number of threads.
        rounds: how often.
        observer: of the repetitions of llama-bench.
        bin_dir: folder of the compiled programs.
    """
    rows = [Row(way, store.size(files[way.format])) for way in ways]
    prompt, threads = max(case.n_prompt for case in cases), max(case.threads for case in cases)
    for number, row in in_turns(rows, rounds):
        print(f"round {number + 1} of {rounds}: {row.way.name}", file=sys.stderr)
        path = files[row.way.format]
        row.loads.append(loading.measure(path, row.way.packed, prompt, threads, bin_dir))
        found = llama_bench.run(path, cases, repack=row.way.packed, bin_dir=bin_dir, observer=observer)
        for case, (speed,) in found.items():
            row.speeds.setdefault(case, []).append(speed)
    return rows
