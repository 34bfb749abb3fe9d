# SPDX-License-Identifier: MIT
"""Is the machine fit to be measured on? Load of others, time that a host takes away, heat, frequency, quotas.

Where a system does not tell, nothing is said; Linux tells most, other systems nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from trit.base.host import cgroup_stops
from trit.engine.llama_bench import Case
from trit.measure.rounds import Observer

# Of all CPUs: others that take more are worth a warning, and a host that takes away more.
MOST_LOAD = 0.05
MOST_STOLEN = 0.02
# Below its base frequency by more than what clocks are read inexactly by.
SLOW = 0.95
LOOK_SECONDS = 0.5
THROTTLES = ("core_throttle_count", "package_throttle_count")


@dataclass(frozen=True)
class Snapshot:
    """Seconds since some start: of the clock, of all CPUs' work, of what a host took away, of our own work."""

    clock: float
    busy: float
    stolen: float
    own: float


@dataclass(frozen=True)
class Load:
    """Between two snapshots.

    Attributes:
        others: CPUs that other programs kept busy.
        stolen: CPUs that a host took away from this virtual machine.
    """

    others: float
    stolen: float

    @classmethod
    def between(cls, start: Snapshot, end: Snapshot) -> Load:
        """From start to end; our own work is taken off."""
        seconds = max(end.clock - start.clock, 1e-9)
        others = (end.busy - start.busy) - (end.own - start.own)
        return cls(max(0.0, others / seconds), (end.stolen - start.stolen) / seconds)


def own_seconds() -> float:
    """CPU time of this process and of the programs that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass
class Watch(Observer):
    """Looks at the machine before, during and after.

    Attributes:
        proc: Where the kernel tells of programs.
        cpus: Where it tells of CPUs.
        own: Our CPU time.
        stops: How often quotas stopped us.
        hertz: Highest frequency of any CPU at the end of each test.
    """

    proc: Path = Path("/proc")
    cpus: Path = Path("/sys/devices/system/cpu")
    own: Callable[[], float] = own_seconds
    stops: Callable[[], int] = cgroup_stops
    hertz: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._count = max(1, len(list(self.cpus.glob("cpu[0-9]*"))))
        self._start = self.snapshot()
        self._throttles, self._stops = self._throttled(), self.stops()

    def snapshot(self) -> Snapshot | None:
        """Now; None if the system does not tell."""
        try:
            words = (self.proc / "stat").read_text().split("\n", 1)[0].split()
            # /proc/stat: user nice system idle iowait irq softirq steal; the guests' time is in user and nice.
            user, nice, system, _, _, irq, softirq, steal = (int(word) for word in words[1:9])
        except (OSError, ValueError):
            return None
        tick = os.sysconf("SC_CLK_TCK")
        return Snapshot(time.monotonic(), (user + nice + system + irq + softirq) / tick, steal / tick, self.own())

    def wait(self) -> None:
        """Until there is enough to say how busy the machine is without us."""
        passed = time.monotonic() - self._start.clock if self._start else LOOK_SECONDS
        time.sleep(max(0.0, LOOK_SECONDS - passed))

    def load(self) -> Load | None:
        """Since this or the last call of it; None if the system does not tell."""
        start, self._start = self._start, self.snapshot()
        return Load.between(start, self._start) if start and self._start else None

    def finished(self, case: Case, speeds: Sequence[float]) -> None:
        """See Observer."""
        found = self._numbers("cpufreq/scaling_cur_freq")
        self.hertz += [max(found) * 1e3] if found else []

    def load_warnings(self, load: Load | None, when: str) -> list[str]:
        """What to say of the load of others."""
        said = []
        if load and load.others > MOST_LOAD * self._count:
            said.append(
                f"{when}, other programs kept {load.others:.1f} of {self._count} CPUs busy: the figures are too low; "
                "end them and measure again"
            )
        if load and load.stolen > MOST_STOLEN * self._count:
            said.append(
                f"{when}, the host of this virtual machine took away {load.stolen:.1f} of {self._count} CPUs: the "
                "figures are too low"
            )
        return said

    def throttle_warnings(self) -> list[str]:
        """What to say, after the runs, of a CPU that was slower than it can be."""
        said = []
        if self._throttled() > self._throttles:
            said.append("the CPU throttled itself while measuring, for heat or power: cool it, wait, measure again")
        if (times := self.stops() - self._stops) > 0:
            said.append(f"a CPU quota stopped the engine {times} times while measuring: give -t fewer threads")
        base, top = self._numbers("cpufreq/base_frequency"), self._numbers("cpufreq/cpuinfo_max_freq")
        if self.hertz and base and (now := median(self.hertz)) < SLOW * max(base) * 1e3:
            said.append(f"the CPU ran at {now / 1e9:.2f} GHz, its base frequency is {max(base) / 1e6:.2f} GHz")
        allowed = self._numbers("cpufreq/scaling_max_freq")
        if allowed and top and max(allowed) < SLOW * max(top):
            said.append(
                f"the system allows {max(allowed) / 1e6:.2f} GHz of the CPU's {max(top) / 1e6:.2f} GHz "
                "(cpufreq/scaling_max_freq): a power profile?"
            )
        return said

    def _throttled(self) -> int:
        return sum(sum(self._numbers(f"thermal_throttle/{name}")) for name in THROTTLES)

    def _numbers(self, name: str) -> list[int]:
        """The number in a file of every CPU that has one."""
        found = []
        for file in self.cpus.glob(f"cpu[0-9]*/{name}"):
            try:
                found.append(int(file.read_text()))
            except (OSError, ValueError):
                continue
        return found


def thread_warnings(threads: Sequence[int], cores: int) -> list[str]:
    """What to say of more threads than there are cores."""
    many = [count for count in threads if count > cores]
    return [
        f"-t {count} is more than the {cores} physical cores that this process can use: threads wait for each other"
        for count in many
    ]
