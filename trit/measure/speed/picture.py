# SPDX-License-Identifier: MIT
"""What was measured as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trit.base.plots import LINE, PALE, STRONG, picture
from trit.measure.rounds import Result

LATER_COLORS = ("#c05a2c", "#5a8f3c", "#8458a0", "#777777")


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
    labels = list(dict.fromkeys(result.variant.name for result in results))
    palette = [STRONG, PALE, *LATER_COLORS]
    colors = {label: palette[place % len(palette)] for place, label in enumerate(labels)}
    height = 2 + 0.3 * max(len(part) for _, part in panels)
    with picture(path, title, 1, len(panels), (5.5 * len(panels), height)) as axes:
        for axis, (name, part) in zip(axes[0], panels, strict=True):
            _bars(axis, part, colors)
            axis.set_xlabel(f"{name}, tokens/s" + (" (dashed: limit)" if part[0].limits else ""))
        if len(labels) > 1:
            axes[0][0].legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1))


def _bars(axis: Any, results: Sequence[Result], colors: Mapping[str, str]) -> None:
    seen: set[str] = set()
    for place, result in enumerate(results):
        label = result.variant.name
        axis.barh(place, result.speed, color=colors[label], label=None if label in seen else label)
        seen.add(label)
        axis.plot([min(result.speeds), max(result.speeds)], [place, place], color=LINE, linewidth=1)
        if result.limits:
            limit = result.speed / result.share
            axis.plot([limit, limit], [place - 0.4, place + 0.4], color=LINE, linestyle="--", linewidth=1)
    axis.set_yticks(range(len(results)), [result.case.in_words for result in results])
    axis.invert_yaxis()
    axis.set_xlim(left=0)
