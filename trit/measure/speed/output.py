# SPDX-License-Identifier: MIT
"""What was measured, as tables for people, and as JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from trit.base.errors import UserError
from trit.base.files import atomic_output
from trit.base.statistics import LEAST_ROUNDS, Interval, paired_ratio
from trit.engine.cost import ModelFile
from trit.measure.rounds import Result
from trit.measure.variants import Variant


def markdown_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The first row is the heading; columns after the first ``left`` are aligned to the right."""
    rule = ["---"] * left + ["---:"] * (len(rows[0]) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def _size(nbytes: float) -> str:
    return f"{nbytes / 2**20:.2f} MiB" if nbytes < 2**30 else f"{nbytes / 2**30:.2f} GiB"


def _count(number: float) -> str:
    return f"{number / 1e6:.2f} M" if number < 1e9 else f"{number / 1e9:.2f} B"


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} \u00b1 {stdev(values) if len(values) > 1 else 0:.2f}"


def speed_table(results: Sequence[Result], files: Mapping[Variant, ModelFile]) -> str:
    """As llama-bench prints it (mean and standard deviation), and the median, on which everything else is built."""
    rows = [["model", "size", "params", "threads", "test", "t/s", "median"]]
    for result in results:
        file, case = files[result.variant], result.case
        about = [result.variant.name, _size(file.nbytes), _count(file.parameters), str(case.threads), case.name]
        rows.append([*about, _mean(result.speeds), f"{result.speed:.2f}"])
    return markdown_table(rows)


def limit_table(results: Sequence[Result]) -> str:
    """Share of what the machine can do, and what a token costs."""
    rows = [
        ["model", "threads", "test", "of limit", "bound by", "limit, t/s", "MB/token", "of it context", "MMAC/token"]
    ]
    rows[0].append("attention")
    for result in results:
        cost, case = result.cost, result.case
        assert cost is not None
        row = [result.variant.name, str(case.threads), case.name, f"{100 * result.share:.0f} %", result.bound]
        row += [f"{result.speed / result.share:.2f}", f"{cost.bytes / 1e6:.3f}", f"{cost.kv_bytes / 1e6:.3f}"]
        rows.append([*row, f"{cost.macs / 1e6:.2f}", f"{cost.attention_macs / 1e6:.2f}"])
    return markdown_table(rows)


def energy_of(result: Result, idle_watts: float) -> dict[str, float] | None:
    """Joules for each token, those above what the machine takes anyway, and watts; None if not measured."""
    if result.use is None:
        return None
    tokens = (result.case.n_prompt + result.case.n_gen) * len(result.use.joules)
    joules, seconds = sum(result.use.joules), sum(result.use.seconds)
    above = (joules - idle_watts * seconds) / tokens
    return {"joules_per_token": joules / tokens, "above_idle": above, "watts": joules / seconds}


def energy_table(results: Sequence[Result], idle_watts: float) -> str:
    """One row for each test."""
    rows = [["model", "threads", "test", "J/token", "above idle", "W"]]
    for result in results:
        if found := energy_of(result, idle_watts):
            numbers = (found["joules_per_token"], found["above_idle"])
            row = [result.variant.name, str(result.case.threads), result.case.name]
            rows.append([*row, *(f"{number:.4g}" for number in numbers), f"{found['watts']:.1f}"])
    return markdown_table(rows)


def ratio_to(result: Result, results: Sequence[Result]) -> Interval | None:
    """How many times as fast the first model is as this one; None for itself, and with too few rounds."""
    first = next(other for other in results if other.case == result.case)
    if first is result or len(result.speeds) < LEAST_ROUNDS:
        return None
    return paired_ratio(first.speeds, result.speeds)


def ratio_table(results: Sequence[Result]) -> str:
    """One row for each test of each model but the first."""
    label = results[0].variant.name
    rows = [["compared with", "threads", "test", f"{label} is times as fast", "95 % interval"]]
    for result in results:
        if ratio := ratio_to(result, results):
            row = [result.variant.name, str(result.case.threads), result.case.name]
            rows.append([*row, f"{ratio.median:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}"])
    return markdown_table(rows)


def as_object(result: Result, results: Sequence[Result], idle_watts: float) -> dict[str, Any]:
    """Everything about one test, for JSON; what was not asked for is null."""
    return {
        "model": result.variant.name,
        "test": result.case.name,
        **asdict(result.case),
        "tokens_per_second": result.speeds,
        "median": result.speed,
        "limit_tokens_per_second": result.limits or None,
        "bound_by": result.bound or None,
        "share_of_limit": result.share if result.limits else None,
        "per_token": asdict(result.cost) if result.cost else None,
        "joules": result.use.joules if result.use else None,
        "energy": energy_of(result, idle_watts),
        "ratio": ratio._asdict() if (ratio := ratio_to(result, results)) else None,
    }


def csv_text(objects: Sequence[Mapping[str, Any]]) -> str:
    """The same as a table: lists are left out, what is inside an object has its name in front."""
    rows = []
    for found in objects:
        row: dict[str, Any] = {}
        for key, value in found.items():
            if isinstance(value, Mapping):
                row |= {f"{key}_{name}": inner for name, inner in value.items()}
            elif value is not None and not isinstance(value, list):
                row[key] = value
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def check_file(flag: str, path: Path | None) -> None:
    """To be asked before anything is measured.

    Raises:
        UserError: nothing can be written there.
    """
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{flag} {path}: is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be written ({error.strerror}); choose another place") from error


def write(path: Path, content: str) -> None:
    """A whole file or none."""
    with atomic_output(path) as partial:
        partial.write_text(content, encoding="utf-8", newline="")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The same, from an object."""
    write(path, json.dumps(content, indent=1) + "\n")
