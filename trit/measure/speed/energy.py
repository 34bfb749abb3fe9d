# SPDX-License-Identifier: MIT
"""Joules, from the counters that CPUs keep of the energy that they take (RAPL, as Linux shows it under powercap).

They count packages and, on many servers, memory: all that runs there, not only us, and nothing else of the machine
(no power supply, disks, fans). Linux gives them to root alone since they tell too much about secrets in other programs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import TritError
from trit.engine.llama_bench import Case
from trit.measure.rounds import Observer, Result, Use

POWERCAP = Path("/sys/class/powercap")
# A counter goes round after minutes at full power (65 kJ on old CPUs); twice between two looks would not be noticed.
LOOK_SECONDS = 10.0
IDLE_SECONDS = 2.0
NO_COUNTERS = "{} is not there: virtual machines, containers, Windows and macOS do not show these counters"
UNREADABLE = "{} is readable by root only; until the next start, allow it with: sudo chmod a+r {}"


class NotMeasured(TritError):
    """Why there is no figure."""


@dataclass
class _Domain:
    """One counter: of a package, or of its memory."""

    name: str
    file: Path
    range: int
    last: int


class Counters:
    """The sum of all counters in joules since they were opened, whatever number of times they went round.

    Raises:
        NotMeasured: there are none, or they may not be read.
    """

    def __init__(self, powercap: Path = POWERCAP):
        self._lock = threading.Lock()
        self._microjoules = 0
        # "intel-rapl" on AMD, too. "intel-rapl-mmio" has the same packages once more, "psys" contains them.
        zones = sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else []
        names = {zone: (zone / "name").read_text().strip() for zone in zones if (zone / "name").is_file()}
        wanted = [zone for zone, name in names.items() if name.startswith("package") or name == "dram"]
        if not any(names[zone].startswith("package") for zone in wanted):
            raise NotMeasured(NO_COUNTERS.format(powercap / "intel-rapl:0"))
        self._domains = [_open(zone, self._name(zone, names)) for zone in wanted]

    @staticmethod
    def _name(zone: Path, names: dict[Path, str]) -> str:
        """Memory says which package's it is: ``intel-rapl:0:2`` is a part of ``intel-rapl:0``."""
        owner = names.get(zone.with_name(zone.name.rpartition(":")[0]))
        return f"{owner} {names[zone]}" if owner else names[zone]

    @property
    def names(self) -> list[str]:
        """What is counted."""
        return [domain.name for domain in self._domains]

    def joules(self) -> float:
        """Since the counters were opened."""
        with self._lock:
            for domain in self._domains:
                now = _read(domain.file)
                self._microjoules += now - domain.last if now >= domain.last else now - domain.last + domain.range
                domain.last = now
            return self._microjoules / 1e6


def _read(file: Path) -> int:
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise NotMeasured(UNREADABLE.format(file, file.parent.parent / "intel-rapl:*" / "energy_uj")) from error
    except (OSError, ValueError) as error:
        raise NotMeasured(f"{file} cannot be read ({error})") from error


def _open(zone: Path, name: str) -> _Domain:
    return _Domain(name, zone / "energy_uj", _read(zone / "max_energy_range_uj"), _read(zone / "energy_uj"))


class Meter(Observer):
    """Measures the energy of each repetition.

    Attributes:
        idle_watts: What the same counters said while we did nothing.
        uses: Test -> what it took in this run.
    """

    def __init__(self, counters: Counters, idle_seconds: float = IDLE_SECONDS):
        self.counters = counters
        self.uses: dict[Case, Use] = {}
        self._open: tuple[float, float] | None = None
        self._spans: list[tuple[float, float]] = []
        self._over = threading.Event()
        start = self._now()
        time.sleep(idle_seconds)
        seconds, joules = (now - before for now, before in zip(self._now(), start, strict=True))
        if joules <= 0:
            raise NotMeasured(f"the counters ({', '.join(counters.names)}) do not move")
        self.idle_watts = joules / seconds

    def __enter__(self) -> Meter:
        """Look at the counters from time to time, in case that a repetition takes longer than they need to go round."""
        threading.Thread(target=self._keep_looking, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _keep_looking(self) -> None:
        with suppress(NotMeasured):  # then the next repetition says so
            while not self._over.wait(LOOK_SECONDS):
                self.counters.joules()

    def _now(self) -> tuple[float, float]:
        return time.monotonic(), self.counters.joules()

    def begin(self) -> None:
        """See Observer."""
        self._open = self._now()

    def end(self) -> None:
        """See Observer."""
        if self._open:
            seconds, joules = (now - before for now, before in zip(self._now(), self._open, strict=True))
            self._spans.append((seconds, joules))
        self._open = None

    def finished(self, case: Case, speeds: Sequence[float]) -> None:
        """See Observer."""
        if len(self._spans) != len(speeds):
            raise TritError(
                f"llama-bench told of {len(self._spans)} repetitions of {case.name} and timed {len(speeds)}"
            )
        use = self.uses.setdefault(case, Use())
        use.seconds += [seconds for seconds, _ in self._spans]
        use.joules += [joules for _, joules in self._spans]
        self._spans = []

    def after(self, results: Sequence[Result]) -> None:
        """See Observer."""
        for result in results:
            now, result.use = self.uses.pop(result.case), result.use or Use()
            result.use.joules += now.joules
            result.use.seconds += now.seconds
