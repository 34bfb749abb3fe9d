# SPDX-License-Identifier: MIT
"""How a model's matrices are packed: one packing for all, by the time of a whole layer.

A packing that is fastest for one token may be slow for several, and a matrix is packed once for all that will come.
So what counts is the time of a layer's matrices over a mixture of steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trit.base.statistics import resampled_medians
from trit.engine.tuning_file import STEPS, Shape
from trit.tune.search import BATCH, LEAST_ROUNDS, why_stop, winner
from trit.tune.timer import Product, Timer


@dataclass(frozen=True)
class Candidate:
    """A packing, and how products of each shape are computed with it.

    Attributes:
        name: what it goes by in a contest.
        packing: "2_bits", "5_trits", "tl1" or "tl2".
        ways: shape -> way that ``trit-tune`` knows.
    """

    name: str
    packing: str
    ways: Mapping[Shape, str]


@dataclass
class LayerContest:
    """What was measured on a number of threads.

    Attributes:
        threads: on which.
        counts: shape -> matrices in a layer.
        candidates: the first one is used without tuning.
        ratios: candidate's name -> (shape, tokens) -> its times divided by the first one's, round by round.
        seconds: (shape, tokens) -> times of the first one.
        winner: the candidate to use.
        stopped: why measuring ended: "precise enough", "rounds", "time", "nothing else is possible".
    """

    threads: int
    counts: Mapping[Shape, int]
    candidates: Sequence[Candidate]
    ratios: dict[str, dict[tuple[Shape, int], list[float]]] = field(default_factory=dict)
    seconds: dict[tuple[Shape, int], list[float]] = field(default_factory=dict)
    winner: str = ""
    stopped: str = ""

    @property
    def default(self) -> str:
        """Name of the candidate that is used without tuning."""
        return self.candidates[0].name

    @property
    def packing(self) -> str:
        """The packing to use."""
        return next(one.packing for one in self.candidates if one.name == self.winner)

    @property
    def tables(self) -> dict[str, str]:
        """The packing -> the kernel for few tokens, if the winner has another one than the usual."""
        best = next(one for one in self.candidates if one.name == self.winner)
        few = next(iter(best.ways.values())).partition("+")[0]  # the same for every shape
        return {best.packing: few} if few != best.packing else {}

    def step_seconds(self, name: str, tokens: int) -> float:
        """Seconds of the layer's matrices in a step of so many tokens."""
        return sum(
            count * float(np.median(self.seconds[shape, tokens]) * np.median(self.ratios[name][shape, tokens]))
            for shape, count in self.counts.items()
        )

    def layer_seconds(self, name: str) -> float:
        """Seconds of all steps."""
        return sum(steps * self.step_seconds(name, tokens) for tokens, steps in STEPS.items())

    def interval(self, name: str) -> tuple[float, float, float]:
        """Time of all steps divided by the default's, and its 95 % interval."""
        default = self.layer_seconds(self.default)
        total = np.zeros(1)
        for seed, ((shape, tokens), ratios) in enumerate(self.ratios[name].items()):
            worth = self.counts[shape] * STEPS[tokens] * float(np.median(self.seconds[shape, tokens]))
            total = total + worth * resampled_medians(ratios, seed)
        low, high = np.quantile(total / default, [0.025, 0.975])
        middle = self.layer_seconds(name) / default
        return middle, min(middle, float(low)), max(middle, float(high))


def layer_contest(
    timer: Timer, threads: int, counts: Mapping[Shape, int], candidates: Sequence[Candidate], seconds: float
) -> LayerContest:
    """Find the packing for a layer.

    Args:
        timer: measures.
        threads: on which.
        counts: shape -> matrices in a layer.
        candidates: the first one is used without tuning.
        seconds: budget; at least ``LEAST_ROUNDS`` rounds are measured whatever it is.

    Returns:
        The times and the winner.
    """
    result = LayerContest(threads, counts, candidates)
    end = time.monotonic() + seconds
    rounds = 0
    while not result.stopped:
        for shape in counts:
            for tokens in STEPS:
                _measure(timer, result, shape, tokens)
        rounds += BATCH
        if len(candidates) == 1:
            result.stopped = "nothing else is possible"
        elif rounds >= LEAST_ROUNDS:
            result.stopped = why_stop(
                [result.interval(one.name) for one in candidates[1:]], rounds, time.monotonic() > end
            )
    result.winner = winner(result.default, {one.name: result.interval(one.name) for one in candidates})
    return result


def _measure(timer: Timer, result: LayerContest, shape: Shape, tokens: int) -> None:
    """One batch of rounds: candidates that go the same way share its times."""
    ways = {one.name: one.ways[shape] for one in result.candidates}
    times = timer.rounds(Product(*shape, tokens, result.threads), list(dict.fromkeys(ways.values())), BATCH)
    default = times[ways[result.default]]
    result.seconds.setdefault((shape, tokens), []).extend(default)
    for name, way in ways.items():
        ratios = result.ratios.setdefault(name, {}).setdefault((shape, tokens), [])
        ratios.extend(own / other for own, other in zip(times[way], default, strict=True))


def candidates(
    packings: Iterable[str], default: Candidate, many: Mapping[Shape, str], tables: Mapping[str, str]
) -> list[Candidate]:
    """The default, and every packing with the kernels that were found for many tokens.

    Args:
        packings: that something here reads.
        default: what is used without tuning.
        many: shape -> way to compute products of many tokens from panels of 2 bits.
        tables: packing -> kernel for few tokens; others are as without tuning.
    """
    found = [default]
    for packing in packings:
        ways = {shape: way_of(tables.get(packing, packing), way) for shape, way in many.items()}
        if packing == default.packing and ways == dict(default.ways):
            continue
        found.append(Candidate(packing if packing != default.packing else f"{packing}, tuned", packing, ways))
    return found


def way_of(packing: str, many: str) -> str:
    """The name of a whole way: kernels for many tokens read panels of 2 bits, or such as are made of indices.

    Args:
        packing: or the kernel for few tokens of it.
        many: the way of many tokens.
    """
    return packing if packing == "5_trits" else f"{packing}+{many}"
