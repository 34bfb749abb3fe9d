# SPDX-License-Identifier: MIT
"""Measures models in turns, and beside them what the machine can do and how much energy it takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from trit.base.host import last_level_cache_bytes
from trit.base.places import ENGINE_BIN
from trit.base.statistics import in_turns
from trit.engine import cost, llama_bench
from trit.engine.llama_bench import Case, Observer
from trit.engine.roofline import BESIDE_SECONDS, Roofline, measure
from trit.measure.speed.energy import Meter, Use
from trit.measure.speed.machine import Watch

CLEAR = "\r\x1b[K"  # a terminal's line


@dataclass(frozen=True)
class Model:
    """A model to measure, and what it goes by in tables."""

    label: str
    file: cost.ModelFile


@dataclass
class Result:
    """Everything about one test of one model.

    Attributes:
        speeds: Tokens per second of each repetition; of several models, those of a round belong together.
        limits: Most tokens per second by the machine's limits before and after each run.
        bound: What binds there: "int8" or "read".
        cost: What a token costs; None: not asked for.
        use: Energy of the repetitions; None: not measured.
    """

    model: Model
    case: Case
    speeds: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    bound: str = ""
    cost: cost.Cost | None = None
    use: Use | None = None

    @property
    def speed(self) -> float:
        """The median."""
        return median(self.speeds)

    @property
    def share(self) -> float:
        """Of the limit; 1 cannot be beaten but by noise and caches."""
        return self.speed / median(self.limits)


@dataclass
class Progress:
    """Says on stderr what is done, on a terminal also what is being done (observes trit.engine.llama_bench.run)."""

    total: int
    repetitions: int
    label: str = ""
    done: int = 0
    number: int = 0

    def begin(self) -> None:
        """See Observer."""
        self.number += 1
        if sys.stderr.isatty():
            what = f"[{self.done + 1}/{self.total}] {self.label}: repetition {self.number} of {self.repetitions}"
            print(f"{CLEAR}{what}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """See Observer."""

    def finished(self, case: Case, speeds: Sequence[float]) -> None:
        """See Observer."""
        self.number = 0
        self.done += 1
        speed = f"{median(speeds):.2f} tokens/s"
        where = CLEAR if sys.stderr.isatty() else ""
        what = f"{self.label}: {case.in_words}: {speed}"
        print(f"{where}[{self.done}/{self.total}] {what}", file=sys.stderr)


@dataclass
class _All:
    """Tells several observers."""

    observers: Sequence[Observer]

    def begin(self) -> None:
        for observer in self.observers:
            observer.begin()

    def end(self) -> None:
        for observer in self.observers:
            observer.end()

    def finished(self, case: Case, speeds: Sequence[float]) -> None:
        for observer in self.observers:
            observer.finished(case, speeds)


@dataclass
class Bench:
    """How to measure.

    Attributes:
        rounds: Repetitions of each test.
        limits: Whether to measure what the machine can do, before and after each run.
        meter: Of energy; None: not asked for, or there is none.
        watch: Looks at the machine.
        bin_dir: Folder of the compiled programs.
        roofline: The last measurement of limits.
    """

    rounds: int
    limits: bool = False
    meter: Meter | None = None
    watch: Watch = field(default_factory=Watch)
    bin_dir: Path = ENGINE_BIN
    roofline: Roofline | None = None

    def run(self, models: Sequence[Model], cases: Sequence[Case]) -> list[Result]:
        """Measure one model's repetitions one after the other, several models in turns."""
        repetitions = self.rounds if len(models) == 1 else 1
        turns = list(in_turns(models, self.rounds // repetitions))
        progress = Progress(len(turns) * len(cases), repetitions)
        # The meter first: what the others do must not count.
        observer = _All([*([self.meter] if self.meter else []), progress, self.watch])
        results = {(model.label, case): Result(model, case) for model in models for case in cases}
        threads = sorted({case.threads for case in cases})
        before = self._measure(threads)
        for _, model in turns:
            progress.label = model.label
            speeds = llama_bench.run(
                model.file.path, cases, repetitions=repetitions, bin_dir=self.bin_dir, observer=observer
            )
            after = self._measure(threads)
            measured = [results[model.label, case] for case in cases]
            for result in measured:
                result.speeds += speeds[result.case]
                if self.meter:
                    result.use = self._used(result.use, result.case)
            for roofline in (before, after):
                if roofline:
                    _add_limits(measured, model, roofline, self.bin_dir)
            before = after
        return list(results.values())

    def _measure(self, threads: Sequence[int]) -> Roofline | None:
        """The limits; every time, since they drift within seconds on a machine with neighbours."""
        if self.limits:
            print("measuring the machine's limits", file=sys.stderr)
            self.roofline = measure(threads, tier="chosen", seconds=BESIDE_SECONDS, bin_dir=self.bin_dir)
        return self.roofline

    def _used(self, before: Use | None, case: Case) -> Use:
        assert self.meter is not None
        now, before = self.meter.uses.pop(case), before or Use()
        return Use(before.joules + now.joules, before.seconds + now.seconds)


def _add_limits(results: Sequence[Result], model: Model, roofline: Roofline, bin_dir: Path) -> None:
    """Note what the machine allows for a model's tests."""
    (tier,) = roofline.packings
    costs = cost.loaded(model.file, bin_dir, tier)
    cache = last_level_cache_bytes() or 0
    for result in results:
        limit, result.bound = costs.limit(result.case, roofline.of(tier, result.case.threads), cache)
        result.limits.append(limit)
        result.cost = costs.cost(result.case)


def labelled(files: Sequence[cost.ModelFile]) -> list[Model]:
    """Models with labels that differ: file names, with as many folders in front as it takes."""
    paths = [file.path.absolute() for file in files]
    found: list[Model] = []
    for number, (file, path) in enumerate(zip(files, paths, strict=True)):
        depth = 1
        while any(other.parts[-depth:] == path.parts[-depth:] for other in paths if other != path):
            depth += 1
        again = paths[:number].count(path)
        found.append(Model("/".join(path.parts[-depth:]) + f" #{again + 1}" * (again > 0), file))
    return found
