# SPDX-License-Identifier: MIT
"""How sure a ratio is: ratios of runs that took turns, their median, and its 95 % interval.

Noise of a shared machine meets all runs of a round alike, so what is compared is each run with the other run of the
same round; medians and their bootstrap intervals (Efron 1979) decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 400


class Interval(NamedTuple):
    """A median, and the 95 % interval that it lies in."""

    median: float
    low: float
    high: float


def resampled_medians(values: Sequence[float], seed: int = 1) -> npt.NDArray[np.float64]:
    """Medians of ``RESAMPLES`` samples drawn from the values with replacement: how sure their median is."""
    numbers = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(numbers), (RESAMPLES, len(numbers)))
    return np.asarray(np.median(numbers[picks], axis=1))


def median_interval(values: Sequence[float]) -> Interval:
    """The median of values and its interval."""
    low, high = np.quantile(resampled_medians(values), [0.025, 0.975])
    return Interval(float(np.median(values)), float(low), float(high))


def paired_ratio(ours: Sequence[float], others: Sequence[float]) -> Interval:
    """Ours divided by the other, round by round: the median ratio and its interval."""
    return median_interval([own / other for own, other in zip(ours, others, strict=True)])
