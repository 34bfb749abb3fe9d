# SPDX-License-Identifier: MIT
"""From the shapes of a layer to a choice for each: what is tried, for how long, and what it is worth together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from utils.tune.search import Contest, contest, least_winning
from utils.tune.store import Choice
from utils.tune.timer import Kernel, Product, Timer

OWN = "2_bits"  # the tier's own kernel
PREFILL_TOKENS = 128
PANEL_ROWS = 64
# Panels of one call that are tried: tables and sums of fewer rows stay in smaller caches.
PANELS = (10, 20, 40, 80)
# Part of a shape's time that goes to the fewest tokens.
LEAST_PART = 0.25


@dataclass(frozen=True)
class Tuned:
    """One shape on one number of threads: the choice, and what led to it."""

    choice: Choice
    contest: Contest
    count: int

    @property
    def layer_seconds(self) -> tuple[float, float]:
        """Seconds that a layer spends on this shape's matrices for the measured tokens: default, chosen."""
        times = self.contest.seconds
        default = sorted(times[self.contest.default])[len(times[self.contest.default]) // 2]
        return self.count * default, self.count * default * self.contest.interval(self.contest.winner)[0]


def ways(kernels: Iterable[Kernel], n: int) -> list[str]:
    """Look-up kernels with numbers of panels that make a difference for n rows; most panels first."""
    found = []
    panels = -(-n // PANEL_ROWS)
    for kernel in kernels:
        most = min(kernel.panels, panels)
        sizes = sorted({most, *(size for size in PANELS if size < most)}, reverse=True)
        found += [f"{kernel.name}@{size}:1" for size in sizes]
    return found


def tune(
    timer: Timer,
    shapes: Mapping[tuple[int, int], int],
    threads: Iterable[int],
    seconds: float,
    told: Callable[[Tuned], None],
) -> list[Tuned]:
    """Find a choice for each shape and number of threads.

    Args:
        timer: measures.
        shapes: (n, k) -> matrices in a layer.
        threads: numbers of threads.
        seconds: budget for everything; shapes with more work get more of it.
        told: called after each shape.

    Returns:
        One result per shape and number of threads.
    """
    jobs = [(n, k, count, some) for some in threads for (n, k), count in shapes.items()]
    work = {job: job[0] * job[1] for job in jobs}
    end = time.monotonic() + seconds
    results = []
    for i, (n, k, count, some) in enumerate(jobs):
        left = max(0.0, end - time.monotonic())
        budget = left * work[jobs[i]] / sum(work[job] for job in jobs[i:])
        results.append(_tune_one(timer, Product(n, k, PREFILL_TOKENS, some), count, budget))
        told(results[-1])
    return results


def _tune_one(timer: Timer, product: Product, count: int, seconds: float) -> Tuned:
    default = _default(timer, product)
    result = contest(timer, product, default, [OWN, *ways(timer.kernels, product.n)], seconds * (1 - LEAST_PART))
    name, _, size = result.winner.partition("@")
    kernel = next((kernel for kernel in timer.kernels if kernel.name == name), None)
    if kernel is None:
        return Tuned(Choice(product.n, product.k, product.threads, None, 0, 0, _gain(result)), result, count)
    panels = int(size.partition(":")[0])

    def with_tokens(m: int) -> Product:
        return Product(product.n, product.k, m, product.threads)

    step = max(1, kernel.tokens // 8)
    tokens = list(range(2 * step, kernel.tokens + 1, step))
    least = least_winning(timer, with_tokens, OWN, result.winner, tokens, seconds * LEAST_PART)
    choice = Choice(product.n, product.k, product.threads, kernel.name, panels, least, _gain(result))
    return Tuned(choice, result, count)


def _default(timer: Timer, product: Product) -> str:
    """What the engine uses for this product without tuning."""
    for kernel in timer.kernels:
        if kernel.name == timer.default:
            # As many panels as there are: more would be the same way under another name.
            way = f"{kernel.name}@{min(kernel.panels, -(-product.n // PANEL_ROWS))}:1"
            if way in timer.rounds(product, [way], 1):
                return way
    return OWN


def _gain(result: Contest) -> float:
    return 0.0 if result.winner == result.default else round(result.gain, 4)
