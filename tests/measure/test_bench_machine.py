# SPDX-License-Identifier: MIT
"""Energy counters and the state of the machine, from files that look like Linux's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_engine import fake_powercap
from trit.base import host
from trit.base.errors import TritError
from trit.engine.llama_bench import Case
from trit.measure.rounds import Result, Use
from trit.measure.speed import energy, machine, tables
from trit.measure.speed.energy import Counters, Meter, NotMeasured
from trit.measure.speed.machine import Load, Snapshot, Watch
from trit.measure.variants import Variant

ZONES = {
    "intel-rapl:0": ("package-0", 1_000),
    "intel-rapl:0:0": ("core", 500),
    "intel-rapl:0:1": ("dram", 999_000),
    "intel-rapl:1": ("package-1", 7),
    "intel-rapl:2": ("psys", 90),
    "intel-rapl-mmio:0": ("package-0", 1_000),
}
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def set_counter(folder: Path, zone: str, microjoules: int) -> None:
    """At once: somebody may be reading."""
    (folder / "new").write_text(f"{microjoules}\n")
    (folder / "new").replace(folder / zone / "energy_uj")


def test_counters_go_round(tmp_path: Path) -> None:
    folder = fake_powercap(tmp_path, ZONES)
    counters = Counters(folder)
    assert counters.names == ["package-0", "package-0 dram", "package-1"], "nothing twice, no part of a package"
    assert counters.joules() == 0
    set_counter(folder, "intel-rapl:0", 3_000)
    set_counter(folder, "intel-rapl:0:1", 500)  # by way of 1,000,000
    set_counter(folder, "intel-rapl:0:0", 900)
    assert counters.joules() == pytest.approx((2_000 + 1_500) / 1e6)
    set_counter(folder, "intel-rapl:0:1", 400)  # once more
    set_counter(folder, "intel-rapl:1", 8)
    assert counters.joules() == pytest.approx((2_000 + 1_500 + 999_900 + 1) / 1e6)


def test_no_counters(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match=r"none/intel-rapl:0 is not there: virtual machines, containers"):
        Counters(tmp_path / "none")
    with pytest.raises(NotMeasured, match="is not there"):
        Counters(fake_powercap(tmp_path, {"intel-rapl:0": ("psys", 1)}))


def test_counters_for_root_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, as which tests may run, can read every file: so the refusal is made here."""
    read = Path.read_text

    def refuse(self: Path, *args: Any, **flags: Any) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(self, *args, **flags)

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(NotMeasured) as caught:
        Counters(fake_powercap(tmp_path, ZONES))
    said = f"energy_uj is readable by root only; until the next start, allow it with: sudo chmod a+r {tmp_path}"
    assert str(caught.value).endswith(f"{said}/intel-rapl:*/energy_uj")


def test_broken_counters(tmp_path: Path) -> None:
    folder = fake_powercap(tmp_path, ZONES)
    (folder / "intel-rapl:0" / "energy_uj").write_text("much\n")
    with pytest.raises(NotMeasured, match=r"intel-rapl:0/energy_uj cannot be read"):
        Counters(folder)


class Scripted(Counters):
    """Counters that say one number after the other."""

    def __init__(self, *joules: float):
        self.left: Iterator[float] = iter(joules)
        self._domains = []

    def joules(self) -> float:
        return next(self.left)


def test_joules_of_each_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(energy.time, "monotonic", lambda: next(clock))
    meter = Meter(Scripted(0, 5, 10, 30, 30, 80, 100, 107), idle_seconds=0)
    assert meter.idle_watts == 5
    case, other = Case(8, 0), Case(0, 4)
    for _ in range(2):
        meter.end()  # nothing has begun
        meter.begin()
        meter.end()
    meter.finished(case, [1.0, 1.0])
    meter.begin()
    meter.end()
    meter.finished(other, [1.0])
    assert meter.uses == {case: Use([20, 50], [1, 1]), other: Use([7], [1])}
    with pytest.raises(TritError, match="told of 0 repetitions of pp8 and timed 1"):
        meter.finished(case, [1.0])


def test_counters_that_stand_still(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match=r"the counters \(package-0, package-0 dram, package-1\) do not move"):
        Meter(Counters(fake_powercap(tmp_path, ZONES)), idle_seconds=0)


def test_long_repetitions_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that goes round twice in one repetition: seen by those who look in between."""
    monkeypatch.setattr(energy, "LOOK_SECONDS", 0.001)
    folder = fake_powercap(tmp_path, {"intel-rapl:0": ("package-0", 0)}, top=1_000)
    looked = []

    class Noting(Counters):
        def joules(self) -> float:
            looked.append(super().joules())
            return looked[-1]

    counters = Noting(folder)
    monkeypatch.setattr(energy.time, "sleep", lambda seconds: set_counter(folder, "intel-rapl:0", 900))
    with Meter(counters, idle_seconds=0):
        set_counter(folder, "intel-rapl:0", 800)  # round once
        wait_until(lambda: max(looked) >= 1.8e-3)
        set_counter(folder, "intel-rapl:0", 700)  # and again
        wait_until(lambda: max(looked) >= 2.7e-3)
    assert counters.joules() == pytest.approx(2.7e-3)


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if holds():
            return
        threading.Event().wait(0.001)
    pytest.fail("nobody looked at the counters")


def test_joules_of_a_token() -> None:
    result = Result(Variant("m"), Case(0, 4), [1.0, 1.0])
    assert tables.energy_of(result, 2.0) is None
    result.use = Use([10.0, 14.0], [1.0, 1.0])
    assert tables.energy_of(result, 2.0) == {"joules_per_token": 3.0, "above_idle": 2.5, "watts": 12.0}


class Machine:
    """Files of a machine with four CPUs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.proc, self.cpus = folder / "proc", folder / "cpus"
        self.proc.mkdir()
        self.own = 0.0
        self.stops = 0
        self.clock = 0.0
        for number in range(4):
            (self.cpus / f"cpu{number}").mkdir(parents=True)
        (self.cpus / "cpufreq").mkdir()
        monkeypatch.setattr(machine.time, "monotonic", lambda: self.clock)
        self.pass_time(0)

    def watch(self) -> Watch:
        return Watch(self.proc, self.cpus, lambda: self.own, lambda: self.stops)

    def pass_time(self, clock: float, user: float = 0, system: float = 0, stolen: float = 0, own: float = 0) -> None:
        """Seconds since the start."""
        self.clock, self.own = clock, own
        numbers = [user, 0, system, 99, 3, 0, 0, stolen, 0, 0]
        words = " ".join(str(round(number * TICK)) for number in numbers)
        (self.proc / "stat").write_text(f"cpu  {words}\ncpu0 1 2 3\n")

    def say(self, name: str, *values: int) -> None:
        for number, value in enumerate(values):
            file = self.cpus / f"cpu{number}" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{value}\n")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_load_of_others(fake: Machine) -> None:
    watch = fake.watch()
    fake.pass_time(10, user=18, system=7, stolen=2, own=20)
    load = watch.load()
    assert load == Load(pytest.approx(0.5), pytest.approx(0.2))
    said = watch.load_warnings(load, "during the tests")
    assert said == [
        "during the tests, other programs kept 0.5 of 4 CPUs busy: the figures are too low; end them and measure again",
        "during the tests, the host of this virtual machine took away 0.2 of 4 CPUs: the figures are too low",
    ]
    # Since the last time, little: 1.5 s of 10.
    fake.pass_time(20, user=20, system=7, stolen=2.5, own=20.5)
    assert watch.load_warnings(watch.load(), "") == []


def test_own_work_is_no_load_of_others() -> None:
    start, end = Snapshot(0, 0, 0, 0), Snapshot(10, 19.9, 0, 20)
    assert Load.between(start, end) == Load(0, 0), "clocks of the kernel and of programs differ a little"


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "proc", tmp_path / "cpus", stops=lambda: 0)
    watch.finished(Case(1, 0), [1.0])
    assert watch.load() is None and watch.load_warnings(None, "") == [] and watch.throttle_warnings() == []


def test_heat_and_quotas(fake: Machine) -> None:
    fake.say("thermal_throttle/core_throttle_count", 5, 5)
    watch = fake.watch()
    assert watch.throttle_warnings() == [], "what happened before does not matter"
    fake.say("thermal_throttle/core_throttle_count", 5, 6)
    fake.stops = 3
    heat, quota = watch.throttle_warnings()
    assert heat.startswith("the CPU throttled itself while measuring")
    assert quota.startswith("a CPU quota stopped the engine 3 times")


def test_frequencies(fake: Machine) -> None:
    fake.say("cpufreq/base_frequency", *[2_000_000] * 4)
    fake.say("cpufreq/cpuinfo_max_freq", *[3_000_000] * 4)
    fake.say("cpufreq/scaling_max_freq", *[3_000_000] * 4)
    watch = fake.watch()
    for now in (2_400_000, 2_000_000, 1_000_000):
        fake.say("cpufreq/scaling_cur_freq", 800_000, now)
        watch.finished(Case(1, 0), [1.0])
    assert watch.hertz == [2.4e9, 2e9, 1e9]
    assert watch.throttle_warnings() == []
    watch.finished(Case(1, 0), [1.0])
    watch.finished(Case(1, 0), [1.0])
    fake.say("cpufreq/scaling_max_freq", *[1_500_000] * 4)
    assert watch.throttle_warnings() == [
        "the CPU ran at 1.00 GHz, its base frequency is 2.00 GHz",
        "the system allows 1.50 GHz of the CPU's 3.00 GHz (cpufreq/scaling_max_freq): a power profile?",
    ]


def test_waiting_for_a_first_look(fake: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(machine.time, "sleep", slept.append)
    watch = fake.watch()
    fake.clock = 0.125
    watch.wait()
    fake.clock = 2
    watch.wait()
    assert slept == [machine.LOOK_SECONDS - 0.125, 0]


def test_more_threads_than_cores() -> None:
    assert machine.thread_warnings([1, 2], 2) == []
    assert [text[:49] for text in machine.thread_warnings([2, 4, 8], 2)] == [
        "-t 4 is more than the 2 physical cores that this ",
        "-t 8 is more than the 2 physical cores that this ",
    ]


def test_how_often_a_quota_stopped_us(tmp_path: Path) -> None:
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    self_file = tmp_path / "cgroup"
    self_file.write_text("0::/a/b\n")
    assert host.cgroup_stops(tmp_path, self_file) == 0
    (group / "cpu.stat").write_text("usage_usec 9\nnr_periods 7\nnr_throttled 2\n")
    (group.parent / "cpu.stat").write_text("nr_throttled 5\n")
    assert host.cgroup_stops(tmp_path, self_file) == 7
    assert host.cgroup_stops(tmp_path, tmp_path / "none") == 0
