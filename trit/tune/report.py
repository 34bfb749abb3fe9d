# SPDX-License-Identifier: MIT
"""What people see of a search: a line for each shape, a table of packings, and a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from trit.base.plots import LINE, PALE, STRONG, picture
from trit.engine.tuning_file import STEPS
from trit.tune.layer import LayerContest
from trit.tune.search import Contest
from trit.tune.tuner import Result, Tuned


def lines(result: Tuned | LayerContest | Contest) -> list[str]:
    """What there is to say of one search."""
    if isinstance(result, LayerContest):
        return layer_lines(result)
    return [line(result) if isinstance(result, Tuned) else contest_line(result)]


def line(result: Tuned) -> str:
    """One shape: what was tried, what won and by how much."""
    least = f", from {result.choice.least_tokens} tokens" if result.choice.lookup else ""
    return contest_line(result.contest, least)


def contest_line(contest: Contest, more: str = "") -> str:
    """One contest; more: what there is to say of the winner."""
    rounds = max(map(len, contest.ratios.values()))
    tried = f"{len(contest.ratios)} way{'s' if len(contest.ratios) > 1 else ''}, {rounds} rounds, {contest.stopped}"
    return f"{contest.product}: {_won(contest)}{more} [{tried}]"


def _won(contest: Contest) -> str:
    if contest.winner == contest.default:
        return f"{contest.default} (the default) stays"
    _, low, high = contest.interval(contest.winner)
    return f"{contest.winner}: {100 * contest.gain:+.1f} % (95 %: {100 / high - 100:+.1f} to {100 / low - 100:+.1f})"


def layer_lines(result: LayerContest) -> list[str]:
    """A number of threads: what each packing takes, which one won, and what the tuning is worth together."""
    on = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    lines = []
    for one in result.candidates:
        median, low, high = result.interval(one.name)
        steps = ", ".join(f"{tokens}: {1e3 * result.step_seconds(one.name, tokens):.3f}" for tokens in STEPS)
        mark = "*" if one.name == result.winner else " "
        lines.append(f"{mark} {one.name}, {on}: {median:.3f} ({low:.3f} to {high:.3f}); ms a step of tokens {steps}")
    default, tuned = result.layer_seconds(result.default), result.layer_seconds(result.winner)
    rounds = max(map(len, result.seconds.values()))
    lines.append(
        f"layer, {on}: {result.winner}, {default * 1e3:.1f} ms by default, {tuned * 1e3:.1f} ms tuned "
        f"({100 * (default / tuned - 1):+.1f} %) [{len(result.candidates)} packings, {rounds} rounds, {result.stopped}]"
    )
    return lines


def plot(result: Result, path: Path, title: str) -> None:
    """Draw every way's times: one panel a shape or layer, a bar a way or packing, the winner dark."""
    contests: list[tuple[Contest | LayerContest, str]] = [
        (one.contest, f"{one.contest.product} (1 = {1e3 * median(one.contest.seconds[one.contest.default]):.2f} ms)")
        for one in result.shapes
    ]
    for layer in result.layers:
        steps = ", ".join(f"{steps} of {tokens}" for tokens, steps in STEPS.items())
        contests.append(
            (layer, f"a layer's packing, steps of tokens: {steps}; {layer.threads} threads "
             f"(1 = {1e3 * layer.layer_seconds(layer.default):.0f} ms)")
        )  # fmt: skip
    with picture(path, title, len(contests), 1, (9, 1 + 1.9 * len(contests))) as axes:
        for axis, (contest, text) in zip(axes[:, 0], contests, strict=True):
            names = sorted(contest.ratios, key=lambda way: contest.interval(way)[0], reverse=True)
            middles = [contest.interval(way) for way in names]
            errors = [[m - low for m, low, _ in middles], [high - m for m, _, high in middles]]
            colours = [STRONG if name == contest.winner else PALE for name in names]
            axis.barh(names, [m for m, _, _ in middles], xerr=errors, color=colours, height=0.7)
            axis.axvline(1.0, color=LINE, linewidth=0.8)
            axis.set_title(text, fontsize=9, loc="left")
            axis.tick_params(labelsize=7)
        axes[-1, 0].set_xlabel("time, default = 1; bars: median, whiskers: its 95 % interval", fontsize=8)
