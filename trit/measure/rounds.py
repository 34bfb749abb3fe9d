# SPDX-License-Identifier: MIT
"""The round loop of everything that measures speed, and what is looked at beside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from trit.base.host import last_level_cache_bytes
from trit.base.places import ENGINE_BIN
from trit.base.statistics import in_turns
from trit.engine import cost, llama_bench, loading
from trit.engine.llama_bench import Case
from trit.engine.loading import Loading
from trit.engine.roofline import BESIDE_SECONDS, Roofline
from trit.engine.roofline import measure as measure_roofline
from trit.measure.report import markdown
from trit.measure.variants import Variant

CLEAR = "\r\x1b[K"  # a terminal's line


@dataclass
class Use:
    """What the repetitions of one test took.

    Attributes:
        joules: Of each repetition.
        seconds: The same.
    """

    joules: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass
class Result:
    """Everything about one test of one variant.

    Attributes:
        speeds: Tokens per second of each repetition; of several variants, those of a round belong together.
        limits: Most tokens per second by the machine's limits beside each run.
        bound: What binds there: "int8" or "read".
        cost: What a token costs; None: not asked for.
        use: Energy of the repetitions; None: not measured.
    """

    variant: Variant
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


Results = dict[tuple[Variant, Case], Result]


class Observer(llama_bench.Observer):
    """Is told of runs, and what llama-bench tells of their repetitions."""

    def before(self, number: int, variant: Variant) -> None:
        """A variant's run in a round (from 0) comes next."""

    def after(self, results: Sequence[Result]) -> None:
        """The run is over; the variant's results so far, to be added to."""


def measure(
    files: Mapping[Variant, Path],
    cases: Sequence[Case],
    rounds: int,
    observers: Sequence[Observer] = (),
    *,
    repetitions: int = 1,
    bin_dir: Path = ENGINE_BIN,
    env: Mapping[str, str | None] | None = None,
) -> Results:
    """Measure; every other round backwards, so that no variant is always first.

    Args:
        files: In the order of the results.
        cases: Prompts and generated texts, each on a number of threads.
        rounds: How often.
        observers: Told of everything, in this order.
        repetitions: Of each case in a run, one after the other.
        bin_dir: Folder of the compiled programs.
        env: Variables to set.
    """
    results = {(variant, case): Result(variant, case) for variant in files for case in cases}
    for number, variant in in_turns(list(files), rounds):
        for observer in observers:
            observer.before(number, variant)
        speeds = llama_bench.run(
            files[variant], cases, repack=variant.packed, repetitions=repetitions, bin_dir=bin_dir, env=env,
            observers=observers,
        )  # fmt: skip
        mine = [results[variant, case] for case in cases]
        for result in mine:
            result.speeds += speeds[result.case]
        for observer in observers:
            observer.after(mine)
    return results


@dataclass
class Rounds(Observer):
    """Says on stderr whose turn it is."""

    rounds: int

    def before(self, number: int, variant: Variant) -> None:
        """See Observer."""
        print(f"round {number + 1} of {self.rounds}: {variant.name}", file=sys.stderr)


@dataclass
class Progress(Observer):
    """Says on stderr what each test gave, on a terminal also what is being done."""

    total: int
    repetitions: int
    name: str = ""
    done: int = 0
    number: int = 0

    def before(self, number: int, variant: Variant) -> None:
        """See Observer."""
        self.name = variant.name

    def begin(self) -> None:
        """See Observer."""
        self.number += 1
        if sys.stderr.isatty():
            what = f"[{self.done + 1}/{self.total}] {self.name}: repetition {self.number} of {self.repetitions}"
            print(f"{CLEAR}{what}", end="", file=sys.stderr, flush=True)

    def finished(self, case: Case, speeds: Sequence[float]) -> None:
        """See Observer."""
        self.number = 0
        self.done += 1
        where = CLEAR if sys.stderr.isatty() else ""
        what = f"{self.name}: {case.in_words}: {median(speeds):.2f} tokens/s"
        print(f"{where}[{self.done}/{self.total}] {what}", file=sys.stderr)


class SoFar(Observer):
    """Keeps what was measured, for somebody who does not wait for the rest.

    Attributes:
        results: As far as they are.
    """

    def __init__(self) -> None:
        self.results: Results = {}
        self._variant: Variant | None = None

    def before(self, number: int, variant: Variant) -> None:
        """See Observer."""
        self._variant = variant

    def finished(self, case: Case, speeds: Sequence[float]) -> None:
        """See Observer."""
        assert self._variant is not None
        self.results.setdefault((self._variant, case), Result(self._variant, case)).speeds += speeds

    def table(self) -> str:
        """Medians as Markdown, a row for each variant and a column for each test; empty if there are none."""
        if not self.results:
            return ""
        variants = dict.fromkeys(variant for variant, _ in self.results)
        cases = dict.fromkeys(case for _, case in self.results)
        rows = [["tokens/s", *(f"{case.name} -t {case.threads}" for case in cases)]]
        for variant in variants:
            found = [self.results.get((variant, case)) for case in cases]
            rows.append([variant.name, *(f"{one.speed:.1f}" if one else "-" for one in found)])
        return markdown(rows)


class Loads(Observer):
    """Loads each file before its run.

    Attributes:
        loads: Of each variant, round by round.
    """

    def __init__(self, files: Mapping[Variant, Path], cases: Sequence[Case], bin_dir: Path = ENGINE_BIN) -> None:
        self._files, self._bin_dir = files, bin_dir
        self._prompt, self._threads = max(case.n_prompt for case in cases), max(case.threads for case in cases)
        self.loads: dict[Variant, list[Loading]] = {variant: [] for variant in files}

    def before(self, number: int, variant: Variant) -> None:
        """See Observer."""
        path = self._files[variant]
        self.loads[variant].append(loading.measure(path, variant.packed, self._prompt, self._threads, self._bin_dir))


@dataclass
class Limits(Observer):
    """Notes what the machine allows; measured beside every run, since it drifts within seconds where there are others.

    Attributes:
        files: Whose costs are counted.
        threads: Of the tests.
        after_too: Measure behind each run as well.
        megabytes: That are read; None: as the caches ask for.
        bin_dir: Folder of the compiled programs.
        env: Variables to set.
        roofline: The last measurement.
    """

    files: Mapping[Variant, cost.ModelFile]
    threads: Sequence[int]
    after_too: bool = False
    megabytes: int | None = None
    bin_dir: Path = ENGINE_BIN
    env: Mapping[str, str | None] | None = None
    roofline: Roofline | None = None

    def before(self, number: int, variant: Variant) -> None:
        """See Observer."""
        # What was measured behind a run is in front of the next one.
        self._before = self.roofline if self.roofline and self.after_too else self._measure()

    def after(self, results: Sequence[Result]) -> None:
        """See Observer."""
        for roofline in (self._before, self._measure()) if self.after_too else (self._before,):
            self._add(results, roofline)

    def _measure(self) -> Roofline:
        print("measuring the machine's limits", file=sys.stderr)
        self.roofline = measure_roofline(
            self.threads, tier="chosen", seconds=BESIDE_SECONDS, megabytes=self.megabytes, bin_dir=self.bin_dir,
            env=self.env,
        )  # fmt: skip
        return self.roofline

    def _add(self, results: Sequence[Result], roofline: Roofline) -> None:
        (tier,) = roofline.packings
        variant = results[0].variant
        file = self.files[variant]
        costs = cost.loaded(file, self.bin_dir, tier) if variant.packed else cost.of_model(file, {})
        for result in results:
            machine = roofline.of(tier, result.case.threads)
            limit, result.bound = costs.limit(result.case, machine, last_level_cache_bytes() or 0)
            result.limits.append(limit)
            result.cost = costs.cost(result.case)
