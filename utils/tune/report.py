# SPDX-License-Identifier: MIT
"""What people see of a search: a line for each shape, the sum for a layer, and a picture."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from utils.cli import UserError, atomic_output
from utils.tune.tuner import Tuned


def line(result: Tuned) -> str:
    """One shape: what was tried, what won and by how much."""
    contest = result.contest
    rounds = max(map(len, contest.ratios.values()))
    tried = f"{len(contest.ratios)} way{'s' if len(contest.ratios) > 1 else ''}, {rounds} rounds, {contest.stopped}"
    if contest.winner == contest.default:
        won = f"{contest.default} (the default) stays"
    else:
        _, low, high = contest.interval(contest.winner)
        won = f"{contest.winner}: {100 * contest.gain:+.1f} % (95 %: {100 / high - 100:+.1f} to {100 / low - 100:+.1f})"
    least = f", from {result.choice.least_tokens} tokens" if result.choice.lookup else ""
    return f"{contest.product}: {won}{least} [{tried}]"


def total(results: Sequence[Tuned]) -> list[str]:
    """The time of a whole layer, for each number of threads."""
    lines = []
    for threads in dict.fromkeys(result.choice.threads for result in results):
        pairs = [result.layer_seconds for result in results if result.choice.threads == threads]
        default, tuned = (sum(column) for column in zip(*pairs, strict=True))
        tokens = results[0].contest.product.m
        lines.append(
            f"layer, {tokens} tokens, {threads} thread{'s' if threads > 1 else ''}: {default * 1e3:.2f} ms by default, "
            f"{tuned * 1e3:.2f} ms tuned ({100 * (default / tuned - 1):+.1f} %)"
        )
    return lines


def check_plot(path: Path) -> None:
    """To be asked before anything is measured.

    Raises:
        UserError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(f"--plot {path}: needs matplotlib; install it: {sys.executable} -m pip install matplotlib")


def plot(results: Sequence[Tuned], path: Path, title: str) -> None:
    """Draw every way's times: one panel a shape, a bar a way, the winner dark."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(results), 1, figsize=(9, 1 + 1.9 * len(results)), squeeze=False)
    for axis, result in zip(axes[:, 0], results, strict=True):
        contest = result.contest
        names = sorted(contest.ratios, key=lambda way: contest.interval(way)[0], reverse=True)
        middles = [contest.interval(way) for way in names]
        errors = [[m - low for m, low, _ in middles], [high - m for m, _, high in middles]]
        colours = ["#1b6ca8" if name == contest.winner else "#b8c4ce" for name in names]
        axis.barh(names, [m for m, _, _ in middles], xerr=errors, color=colours, height=0.7)
        axis.axvline(1.0, color="#444444", linewidth=0.8)
        milliseconds = 1e3 * median(contest.seconds[contest.default])
        axis.set_title(f"{contest.product} (1 = {milliseconds:.2f} ms)", fontsize=9, loc="left")
        axis.tick_params(labelsize=7)
    axes[-1, 0].set_xlabel("time, default = 1; bars: median, whiskers: its 95 % interval", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
    pyplot.close(figure)
