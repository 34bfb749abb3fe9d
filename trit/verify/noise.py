# SPDX-License-Identifier: MIT
"""A right engine is one more run of the reference: its distances from the runs, judged by theirs from each other.

Rounding to int8 makes differences of two kinds. Sums in another order change everything a little. A value half way
between two integers falls otherwise and moves its token, and those behind it, by far more: a flip. Runs with noise of
about float32's size show which flips there are. So each place (position, token or text) is compared with the run that
is nearest there, and what is left is of the first kind, but for flips that no run has. An error of the engine moves
every place, and by something that is no flip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# The nearest of the places, this share, have to be as near as those of a run.
CLEAR = 1 / 8
# Quantiles that are shown.
SHARES = (CLEAR, 1 / 4, 1 / 2)
# Flips: up to half of the places (one in an early token moves all behind it), or so many times those of a run.
FLIPS_FACTOR = 2


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
        shares: Quantiles of the distances, at ``SHARES``.
        bound: What the first of them may be at most.
        flips: How many places are further away than that.
        flips_bound: How many may be.
        largest: The largest distance.
        largest_bound: What it may be at most.
    """

    shares: list[float]
    bound: float
    flips: int
    flips_bound: int
    largest: float
    largest_bound: float

    @property
    def excess(self) -> float:
        """How many times its bound the worst of the three is."""
        return max(self.shares[0] / self.bound, self.flips / self.flips_bound, self.largest / self.largest_bound)

    @property
    def passed(self) -> bool:
        """All are within their bounds."""
        return self.excess <= 1

    @property
    def measured(self) -> str:
        """What was found, in words."""
        shown = ", ".join(f"{value:.1e}" for value in self.shares)
        return f"{shown} at 1/8, 1/4 and 1/2, {self.flips} further than the bound, largest {self.largest:.1e}"

    @property
    def bounds(self) -> str:
        """What it had to be, in words."""
        return f"at 1/8 at most {self.bound:.1e}, at most {self.flips_bound} further, largest {self.largest_bound:.1e}"

    def values(self) -> dict[str, float]:
        """The numbers that every check has, for ``--json``."""
        return {
            "bound": self.bound,
            "flips": self.flips,
            "flips_bound": self.flips_bound,
            "largest_bound": self.largest_bound,
            "excess": self.excess,
        }


def judge(error: Floats, noise: Floats, plain: Floats, factor: float, floor: float) -> Verdict:
    """Judge distances of the engine by those of the median run: flips of one run are not independent of each other.

    Args:
        error: The engine's distances from the nearest run [places].
        noise: Each run's from the nearest other [runs, places]; one run may be [places].
        plain: Of the reference without rounding to int8. A flip is one step of one value: no flip is further away.
        factor: How many times as far as a run the engine may be.
        floor: How far it may be in any case.
    """
    runs = np.atleast_2d(noise)
    bound = max(floor, factor * float(np.median(np.quantile(runs, CLEAR, axis=-1))))
    flips = FLIPS_FACTOR * float(np.median((runs > bound).sum(axis=-1)))
    return Verdict(
        shares=[float(value) for value in np.quantile(error, SHARES)],
        bound=bound,
        flips=int((error > bound).sum()),
        flips_bound=min(error.size, max(error.size // 2, int(flips))),
        largest=float(error.max()),
        largest_bound=max(floor, factor * float(runs.max()), float(plain.max())),
    )
