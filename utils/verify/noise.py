# SPDX-License-Identifier: MIT
"""A right engine is one more run of the reference: its distances from the runs, judged by theirs from each other.

Rounding to int8 makes two kinds of differences. Sums in another order change everything a little. A value half way
between two integers falls otherwise, moves its token and those behind it by much more: a flip. Flips are few kinds of
outcomes, and runs with noise of float32's size show them. So each place is compared with the run that is nearest there:
what remains is the little of the first kind, and flips that no run has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Quantiles of the engine's distances, and those of the runs' that bound them: flips that no run has may move up to half
# of the places, and the nearest eighth still has to be as near as runs are to each other.
SHARES = ((1 / 8, 1 / 4), (1 / 4, 1 / 2), (1 / 2, 3 / 4))


def nearest(table: Floats) -> tuple[Floats, Floats]:
    """Distances [places] of the engine from the nearest run, and [runs, places] of each run from the nearest other.

    Args:
        table: [n, n, places], from each to each: of the reference, its runs and, last, the engine.
    """
    others = table[:-1, :-1] + np.diag(np.full(len(table) - 1, np.inf))[..., None]
    return table[:-1, -1].min(axis=0), others[:, 1:].min(axis=0)


def all_distances(states: Sequence[Floats], distance: Callable[[Floats, Floats], Floats]) -> Floats:
    """[n, n, places] of n states; ``distance(found, wanted)`` gives [places]."""
    return np.array([[distance(found, wanted) for found in states] for wanted in states])


@dataclass(frozen=True)
class Verdict:
    """What was found and what it had to be.

    Attributes:
        shares: Quantiles of the distances, at the first of ``SHARES``.
        bounds: What they may be at most.
        flips: How many places are further away than the last bound.
        largest: The largest distance.
        largest_bound: What it may be at most.
    """

    shares: list[float]
    bounds: list[float]
    flips: int
    largest: float
    largest_bound: float

    @property
    def passed(self) -> bool:
        """All are within their bounds."""
        return self.excess <= 1

    @property
    def excess(self) -> float:
        """The largest ratio of a distance to its bound."""
        found, bounds = [*self.shares, self.largest], [*self.bounds, self.largest_bound]
        return max(value / bound for value, bound in zip(found, bounds, strict=True))


def judge(error: Floats, noise: Floats, plain: Floats, factor: float, floor: float) -> Verdict:
    """Judge distances of the engine.

    Args:
        error: Its distances from the nearest run [places].
        noise: The runs' from the nearest other, of any shape.
        plain: Of the reference without rounding to int8. A flip is one step of one value, so no flip is further away.
        factor: How many times as far as the runs the engine may be.
        floor: What it may be in any case.
    """
    return Verdict(
        shares=[float(np.quantile(error, share)) for share, _ in SHARES],
        bounds=(bounds := [max(floor, factor * float(np.quantile(noise, share))) for _, share in SHARES]),
        flips=int((error > bounds[-1]).sum()),
        largest=float(error.max()),
        largest_bound=max(floor, factor * float(noise.max()), float(plain.max())),
    )


def listed(values: Sequence[float]) -> str:
    """Numbers as a check's line shows them."""
    return ", ".join(f"{value:.1e}" for value in values)
