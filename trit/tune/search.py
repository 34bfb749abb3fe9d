# SPDX-License-Identifier: MIT
"""Which of several ways is fastest: paired times, dropped as soon as they cannot win, and a rule to stop.

What is compared is each way's time divided by the default's in the same round (trit.base.statistics). The default stays
unless another way is faster beyond doubt and by more than a hair: the same machine shall give the same answer again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trit.base.statistics import Interval, median_interval
from trit.tune.timer import Product, Timer

BATCH = 4  # rounds between two looks at the results
LEAST_ROUNDS = 16
MOST_ROUNDS = 64
# A way has to be at least so much faster than the default, and than a way that was listed before it.
MARGIN = 0.02
# An interval of this half-width is good enough.
PRECISE = 0.01


@dataclass
class Contest:
    """What was measured for one product.

    Attributes:
        product: what was computed.
        default: the way that is used without tuning.
        ratios: way -> its time divided by the default's, round by round.
        seconds: way -> its times.
        winner: the way to use.
        stopped: why measuring ended: "decided", "precise enough", "rounds", "time", "nothing else is possible".
    """

    product: Product
    default: str
    ratios: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    winner: str = ""
    stopped: str = ""

    def interval(self, way: str) -> Interval:
        """Median of the way's ratios, and the 95 % interval of the median."""
        return median_interval(self.ratios[way])

    @property
    def gain(self) -> float:
        """How much faster the winner is than the default: 0.25 is a quarter more products in the same time."""
        return 1 / self.interval(self.winner)[0] - 1


def contest(timer: Timer, product: Product, default: str, ways: Sequence[str], seconds: float) -> Contest:
    """Find the fastest way.

    Args:
        timer: measures.
        product: what is computed.
        default: the way that is used without tuning; always possible.
        ways: others, those to be preferred first.
        seconds: budget; at least ``LEAST_ROUNDS`` rounds are measured whatever it is.

    Returns:
        The times and the winner.
    """
    result = Contest(product, default)
    alive = [default, *(way for way in ways if way != default)]
    end = time.monotonic() + seconds
    rounds = 0
    while not result.stopped:
        times = timer.rounds(product, alive, BATCH)
        alive = [way for way in alive if way in times]
        for way in alive:
            pairs = zip(times[way], times[default], strict=True)
            result.ratios.setdefault(way, []).extend(own / other for own, other in pairs)
            result.seconds.setdefault(way, []).extend(times[way])
        rounds += BATCH
        if len(alive) == 1 and rounds == BATCH:
            result.stopped = "nothing else is possible"
        elif rounds >= LEAST_ROUNDS:
            alive = _survivors(result, alive)
            result.stopped = _verdict(result, alive, rounds, time.monotonic() > end)
    result.winner = winner(default, {way: result.interval(way) for way in result.ratios})
    return result


def _survivors(result: Contest, alive: Sequence[str]) -> list[str]:
    """The default, and those that may still be the fastest."""
    bounds = {way: result.interval(way) for way in alive}
    best_high = min(high for _, _, high in bounds.values())
    return [way for way in alive if way == result.default or bounds[way][1] <= best_high]


def _verdict(result: Contest, alive: Sequence[str], rounds: int, late: bool) -> str:
    bounds = [result.interval(way) for way in alive if way != result.default]
    if len(alive) == 1 or (len(alive) == 2 and (bounds[0][2] < 1 - MARGIN or bounds[0][1] > 1 - MARGIN)):
        return "decided"
    return why_stop(bounds, rounds, late)


def why_stop(bounds: Sequence[tuple[float, float, float]], rounds: int, late: bool) -> str:
    """Why measuring ends after so many rounds, by the intervals of all but the default; empty if it does not."""
    if all((high - low) / 2 < PRECISE for _, low, high in bounds):
        return "precise enough"
    return "rounds" if rounds >= MOST_ROUNDS else "time" if late else ""


def winner(default: str, intervals: Mapping[str, tuple[float, float, float]]) -> str:
    """The first way that is no more than the margin slower than the fastest; the default if that is no gain.

    Args:
        default: the way to leave only for a sure gain.
        intervals: way -> median time and its 95 % interval, the default's time being 1; those to be preferred first.
    """
    faster = {way: interval for way, interval in intervals.items() if way != default}
    sure = {way: median for way, (median, _, high) in faster.items() if high < 1 and median < 1 - MARGIN}
    if not sure:
        return default
    best = min(sure.values())
    return next(way for way, median in sure.items() if median <= best * (1 + MARGIN))


def least_winning(
    timer: Timer, at: Callable[[int], Product], default: str, way: str, candidates: Sequence[int], seconds: float
) -> int:
    """The fewest tokens for which the way beats the default, by bisection; the last candidate if none.

    Args:
        timer: measures.
        at: tokens -> product.
        default: what is used for fewer tokens.
        way: wins with many tokens.
        candidates: numbers of tokens, rising.
        seconds: budget for all of it.
    """
    low, high = 0, len(candidates) - 1
    steps = max(1, (len(candidates) - 1).bit_length())
    while low < high:
        middle = (low + high) // 2
        result = contest(timer, at(candidates[middle]), default, [way], seconds / steps)
        if result.winner == way:
            high = middle
        else:
            low = middle + 1
    return candidates[low]
