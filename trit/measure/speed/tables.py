# SPDX-License-Identifier: MIT
"""What was measured of models: tables and a picture for people, objects for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from trit.base.plots import LINE, PALE, STRONG, picture
from trit.base.statistics import LEAST_ROUNDS, Interval, paired_ratio
from trit.engine.cost import Cost, ModelFile
from trit.measure.report import Columns, beside, cells, markdown
from trit.measure.rounds import Result
from trit.measure.variants import Variant

LATER_COLORS = ("#c05a2c", "#5a8f3c", "#8458a0", "#777777")
_ABOUT: Columns[Result] = {
    "model": lambda result: result.variant.name,
    "threads": lambda result: str(result.case.threads),
    "test": lambda result: result.case.name,
}


def _size(nbytes: float) -> str:
    return f"{nbytes / 2**20:.2f} MiB" if nbytes < 2**30 else f"{nbytes / 2**30:.2f} GiB"


def _count(number: float) -> str:
    return f"{number / 1e6:.2f} M" if number < 1e9 else f"{number / 1e9:.2f} B"


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} \u00b1 {stdev(values) if len(values) > 1 else 0:.2f}"


def speed_table(results: Sequence[Result], files: Mapping[Variant, ModelFile]) -> str:
    """As llama-bench prints it (mean and standard deviation), and the median, on which everything else is built."""
    columns: Columns[Result] = {
        "model": _ABOUT["model"],
        "size": lambda result: _size(files[result.variant].nbytes),
        "params": lambda result: _count(files[result.variant].parameters),
        **_ABOUT,
        "t/s": lambda result: _mean(result.speeds),
        "median": lambda result: f"{result.speed:.2f}",
    }
    return markdown(cells(columns, results))


def limit_table(results: Sequence[Result]) -> str:
    """Share of what the machine can do, and what a token costs."""

    def cost(result: Result) -> Cost:
        assert result.cost is not None
        return result.cost

    columns: Columns[Result] = {
        **_ABOUT,
        "of limit": lambda result: f"{100 * result.share:.0f} %",
        "bound by": lambda result: result.bound,
        "limit, t/s": lambda result: f"{result.speed / result.share:.2f}",
        "MB/token": lambda result: f"{cost(result).bytes / 1e6:.3f}",
        "of it context": lambda result: f"{cost(result).kv_bytes / 1e6:.3f}",
        "MMAC/token": lambda result: f"{cost(result).macs / 1e6:.2f}",
        "attention": lambda result: f"{cost(result).attention_macs / 1e6:.2f}",
    }
    return markdown(cells(columns, results))


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
    found = [(result, energy) for result in results if (energy := energy_of(result, idle_watts))]
    shown = [[f"{e['joules_per_token']:.4g}", f"{e['above_idle']:.4g}", f"{e['watts']:.1f}"] for _, e in found]
    names = cells(_ABOUT, [result for result, _ in found])
    return markdown(beside(names, [["J/token", "above idle", "W"], *shown]))


def ratio_to(result: Result, results: Sequence[Result]) -> Interval | None:
    """How many times as fast the first model is as this one; None for itself, and with too few rounds."""
    first = next(other for other in results if other.case == result.case)
    if first is result or len(result.speeds) < LEAST_ROUNDS:
        return None
    return paired_ratio(first.speeds, result.speeds)


def ratio_table(results: Sequence[Result]) -> str:
    """One row for each test of each model but the first."""
    found = [(result, ratio) for result in results if (ratio := ratio_to(result, results))]
    heading = [f"{results[0].variant.name} is times as fast", "95 % interval"]
    shown = [[f"{ratio.median:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}"] for _, ratio in found]
    columns = {"compared with" if name == "model" else name: show for name, show in _ABOUT.items()}
    return markdown(beside(cells(columns, [result for result, _ in found]), [heading, *shown]))


def as_object(result: Result, results: Sequence[Result], idle_watts: float) -> dict[str, Any]:
    """Everything about one test, for JSON; what was not asked for is null."""
    ratio = ratio_to(result, results)
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
        "ratio": ratio._asdict() if ratio else None,
    }


def flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """An object for CSV: lists are left out, what is inside an object has its name in front."""
    row: dict[str, Any] = {}
    for key, value in found.items():
        if isinstance(value, Mapping):
            row |= {f"{key}_{name}": inner for name, inner in value.items()}
        elif value is not None and not isinstance(value, list):
            row[key] = value
    return row


def plot(path: Path, title: str, results: Sequence[Result]) -> None:
    """Bars of tokens per second, prompts and text apart.

    Args:
        path: the PNG file.
        title: above everything.
        results: thin lines go from their slowest to their fastest run, dashed ones mark limits.
    """
    order = {case: place for place, case in enumerate(dict.fromkeys(result.case for result in results))}
    found = sorted(results, key=lambda result: order[result.case])  # models beside each other
    prompts = [result for result in found if result.case.n_prompt]
    texts = [result for result in found if not result.case.n_prompt]
    panels = [(name, part) for name, part in (("prompt", prompts), ("text", texts)) if part]
    names = list(dict.fromkeys(result.variant.name for result in results))
    palette = [STRONG, PALE, *LATER_COLORS]
    colors = {name: palette[place % len(palette)] for place, name in enumerate(names)}
    height = 2 + 0.3 * max(len(part) for _, part in panels)
    with picture(path, title, 1, len(panels), (5.5 * len(panels), height)) as axes:
        for axis, (name, part) in zip(axes[0], panels, strict=True):
            _bars(axis, part, colors)
            axis.set_xlabel(f"{name}, tokens/s" + (" (dashed: limit)" if part[0].limits else ""))
        if len(names) > 1:
            axes[0][0].legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1))


def _bars(axis: Any, results: Sequence[Result], colors: Mapping[str, str]) -> None:
    seen: set[str] = set()
    for place, result in enumerate(results):
        name = result.variant.name
        axis.barh(place, result.speed, color=colors[name], label=None if name in seen else name)
        seen.add(name)
        axis.plot([min(result.speeds), max(result.speeds)], [place, place], color=LINE, linewidth=1)
        if result.limits:
            limit = result.speed / result.share
            axis.plot([limit, limit], [place - 0.4, place + 0.4], color=LINE, linestyle="--", linewidth=1)
    axis.set_yticks(range(len(results)), [result.case.in_words for result in results])
    axis.invert_yaxis()
    axis.set_xlim(left=0)
