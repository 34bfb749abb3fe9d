# SPDX-License-Identifier: MIT
"""From the shapes of a layer to a choice for each: what is tried, for how long, and what it is worth together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from trit.engine.tuning_file import STEPS, Choice, Layer, Shape, Tuning
from trit.tune.layer import Candidate, LayerContest, candidates, layer_contest, way_of
from trit.tune.search import Contest, contest, least_winning
from trit.tune.timer import Kernel, Product, Timer

OWN = "2_bits"  # the tier's own kernel
PREFILL_TOKENS = max(STEPS)
PANEL_ROWS = 64
# Tokens that the tier's kernels for few tokens take: some CPUs decode weights beside products, and are fastest in calls
# of so many, however many tokens there are.
FEW_TOKENS = 16
# Tokens for which both ways are measured.
SOME_TOKENS = 48
# Part of the budget that goes to it.
AT_ONCE_PART = 0.1
# Panels of one call that are tried: tables and sums of fewer rows stay in smaller caches.
PANELS = (10, 20, 40, 80)
# Part of a shape's time that goes to the fewest tokens.
LEAST_PART = 0.25
# Part of the budget that goes to the packings.
PACKING_PART = 0.5


@dataclass(frozen=True)
class Tuned:
    """One shape on one number of threads: the choice, and what led to it."""

    choice: Choice
    contest: Contest
    count: int


@dataclass(frozen=True)
class Result:
    """All of a search.

    Attributes:
        shapes: kernels for many tokens.
        layers: packings, for each number of threads.
        at_once: packing -> tokens of one call of the tier's kernel; 0: all.
    """

    shapes: list[Tuned]
    layers: list[LayerContest]
    at_once: dict[str, int]

    @property
    def choices(self) -> list[Choice]:
        """What to write down for each shape."""
        packings = {layer.threads: layer.packing for layer in self.layers}
        return [replace(tuned.choice, packing=packings[tuned.choice.threads]) for tuned in self.shapes]

    @property
    def tables(self) -> dict[str, str]:
        """Kernels for few tokens to write down: those that are worth it for a layer; of several threads, the most."""
        return {packing: name for layer in self.layers for packing, name in layer.tables.items()}

    @property
    def measured(self) -> list[Layer]:
        """What to write down of the packings: the better one of two candidates."""
        return [_measured(layer) for layer in self.layers]


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
    shapes: Mapping[Shape, int],
    threads: Iterable[int],
    seconds: float,
    told: Callable[[Tuned | LayerContest | Contest], None],
    preset: Tuning | None = None,
    tables: Mapping[str, str] | None = None,
) -> Result:
    """Find a choice for each shape and number of threads, and a packing for each number of threads.

    Args:
        timer: measures.
        shapes: (n, k) -> matrices in a layer.
        threads: numbers of threads.
        seconds: budget for everything; shapes with more work get more of it.
        told: called after each shape and each packing.
        preset: what the engine uses without tuning; None: what it has built in.
        tables: packing -> kernel for few tokens that may be better; others are as without tuning.
    """
    every = sorted(set(threads))
    jobs = [(n, k, count, some) for some in every for (n, k), count in shapes.items()]
    work = {job: job[0] * job[1] for job in jobs}
    end = time.monotonic() + seconds * (1 - PACKING_PART)
    contests = _at_once(timer, shapes, max(every), seconds * AT_ONCE_PART, preset)
    for one in contests.values():
        told(one)
    tuned = []
    for i, (n, k, count, some) in enumerate(jobs):
        left = max(0.0, end - time.monotonic())
        budget = left * work[jobs[i]] / sum(work[job] for job in jobs[i:])
        tuned.append(_tune_one(timer, Product(n, k, PREFILL_TOKENS, some), count, budget, preset))
        told(tuned[-1])
    end += seconds * PACKING_PART
    layers = []
    for i, some in enumerate(every):
        budget = max(0.0, end - time.monotonic()) / (len(every) - i)
        mine = [one for one in tuned if one.choice.threads == some]
        layers.append(_pack(timer, shapes, mine, budget, preset, tables or {}))
        told(layers[-1])
    return Result(tuned, layers, {packing: _tokens(one.winner) for packing, one in contests.items()})


def _at_once(
    timer: Timer, shapes: Mapping[Shape, int], threads: int, seconds: float, preset: Tuning | None
) -> dict[str, Contest]:
    """Whether the tier's kernels take many tokens together or few by few; the timer does it so from here on.

    Measured on the largest matrix: it depends on the CPU's ports more than on shapes.
    """
    n, k = max(shapes, key=lambda shape: shape[0] * shape[1])
    packings = [packing for packing in (OWN, "5_trits") if packing in timer.packings]
    found = {}
    for packing in packings:
        usual = preset.at_once.get(packing, 0) if preset else 0
        product = Product(n, k, SOME_TOKENS, threads)
        ways = [f"{packing}/{tokens}" for tokens in (usual, *({0, FEW_TOKENS} - {usual}))]
        found[packing] = contest(timer, product, ways[0], ways[1:], seconds / len(packings))
        timer.at_once(packing, _tokens(found[packing].winner))
    return found


def _tokens(way: str) -> int:
    return int(way.partition("/")[2])


def _tune_one(timer: Timer, product: Product, count: int, seconds: float, preset: Tuning | None) -> Tuned:
    default = _default(timer, product, preset)
    result = contest(timer, product, default, [OWN, *ways(timer.kernels, product.n)], seconds * (1 - LEAST_PART))
    name, _, size = result.winner.partition("@")
    kernel = next((kernel for kernel in timer.kernels if kernel.name == name), None)
    if kernel is None:
        return Tuned(Choice(product.n, product.k, product.threads, None, None, 0, 0, _gain(result)), result, count)
    panels = int(size.partition(":")[0])

    def with_tokens(m: int) -> Product:
        return Product(product.n, product.k, m, product.threads)

    step = max(1, kernel.tokens // 8)
    tokens = list(range(2 * step, kernel.tokens + 1, step))
    least = least_winning(timer, with_tokens, OWN, result.winner, tokens, seconds * LEAST_PART)
    choice = Choice(product.n, product.k, product.threads, None, kernel.name, panels, least, _gain(result))
    return Tuned(choice, result, count)


def _default(timer: Timer, product: Product, preset: Tuning | None) -> str:
    """What the engine uses for this product without tuning."""
    choice = preset.nearest(product.n, product.k, product.threads) if preset else None
    name, most = (choice.lookup, choice.panels) if choice else (timer.default, None)
    for kernel in timer.kernels:
        if kernel.name == name:
            # As many panels as there are: more would be the same way under another name.
            way = f"{kernel.name}@{min(most or kernel.panels, -(-product.n // PANEL_ROWS))}:1"
            if way in timer.rounds(product, [way], 1):
                return way
    return OWN


def _gain(result: Contest) -> float:
    return 0.0 if result.winner == result.default else round(result.gain, 4)


def _pack(
    timer: Timer,
    shapes: Mapping[Shape, int],
    tuned: list[Tuned],
    seconds: float,
    preset: Tuning | None,
    tables: Mapping[str, str],
) -> LayerContest:
    many = {(one.choice.n, one.choice.k): _many(one.choice) for one in tuned}
    packing = preset.packing(shapes) if preset else None
    if packing not in timer.packings:
        packing = "5_trits" if "5_trits" in timer.packings else OWN
    usual = {}
    for one in tuned:
        shape = (one.choice.n, one.choice.k)
        kernel = next((kernel for kernel in timer.kernels if one.contest.default.startswith(f"{kernel.name}@")), None)
        size = one.contest.default.partition("@")[2].partition(":")[0]
        usual[shape] = way_of(packing, f"{kernel.name}@{size}:{kernel.least_tokens}" if kernel else OWN)
    found = candidates(timer.packings, Candidate(packing, packing, usual), many, tables)
    return layer_contest(timer, tuned[0].choice.threads, shapes, found, seconds)


def _many(choice: Choice) -> str:
    return f"{choice.lookup}@{choice.panels}:{choice.least_tokens}" if choice.lookup else OWN


def _measured(layer: LayerContest) -> Layer:
    names: dict[str, str] = {}
    for one in layer.candidates:
        best = names.setdefault(one.packing, one.name)
        if layer.layer_seconds(one.name) < layer.layer_seconds(best):
            names[one.packing] = one.name
    matrices = sorted([n, k, count] for (n, k), count in layer.counts.items())
    seconds = {
        packing: {str(tokens): round(layer.step_seconds(name, tokens), 9) for tokens in STEPS}
        for packing, name in names.items()
    }
    return Layer(matrices, layer.threads, layer.packing, seconds)
