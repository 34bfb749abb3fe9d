# SPDX-License-Identifier: MIT
"""How many threads a graph is given, on machines that are made up: times and waits for each number of threads."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.compiles

# Seconds of a graph, and the share of them that the caller sleeps, on 1, 2, ... threads.
Machine = Sequence[tuple[float, float]]
IDLE: Machine = [(0.030, 0.0), (0.016, 0.02)]
BUSY: Machine = [(0.045, 0.0), (0.200, 0.85)]
# One of 4 CPUs is taken: three threads are best.
TAKEN: Machine = [(0.040, 0.0), (0.021, 0.02), (0.015, 0.05), (0.025, 0.5)]
# Work that cannot be divided evenly: the caller sleeps for a third, and still more threads are faster.
UNEVEN: Machine = [(0.04 / n + 0.004, 0.35 if n > 1 else 0.0) for n in range(1, 17)]
TINY: Machine = [(0.00008, 0.0), (0.004, 0.9)]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("threads") / "thread_count_driver"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'src'}"]
    result = subprocess.run(
        ["c++", *flags, ROOT / "tests" / "support" / "thread_count_driver.cpp", "-o", out],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return out


def run(program: Path, phases: Sequence[tuple[float, Machine]], spread: float = 0.0) -> list[tuple[int, float]]:
    """Threads at the end of each phase, and its time over that of the best number of threads."""
    text = "\n".join(f"{seconds} " + " ".join(f"{t} {w}" for t, w in machine) for seconds, machine in phases)
    result = subprocess.run(
        [program, str(len(phases[0][1])), str(spread)], input=text, capture_output=True, text=True, check=True
    )
    return [(int(line.split()[0]), float(line.split()[1])) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("machine", [IDLE, [(1.0 / n, 0.0) for n in range(1, 17)]])
def test_an_idle_machine_keeps_all_threads(program: Path, machine: Machine, spread: float) -> None:
    ((threads, cost),) = run(program, [(10.0, machine)], spread)
    assert (threads, round(cost, 2)) == (len(machine), 1.0) or (threads == len(machine) and cost < 1.01 + spread / 5)


@pytest.mark.parametrize(("machine", "wanted", "most"), [(BUSY, 1, 1.15), (TAKEN, 3, 1.15), (TINY, 1, 1.1)])
@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_a_busy_machine_gets_the_fastest_number(
    program: Path, machine: Machine, wanted: int, most: float, spread: float
) -> None:
    ((threads, cost),) = run(program, [(20.0, machine)], spread)
    assert threads == wanted or cost < most
    assert cost < most


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_work_that_is_uneven_keeps_its_threads(program: Path, spread: float) -> None:
    ((threads, cost),) = run(program, [(20.0, UNEVEN)], spread)
    assert threads == len(UNEVEN)
    assert cost < 1.05


def test_threads_come_back_when_the_others_have_ended(program: Path) -> None:
    phases = [(3.0, IDLE), (5.0, BUSY), (5.0, IDLE), (5.0, BUSY), (10.0, IDLE)]
    found = run(program, phases, 0.05)
    assert [threads for threads, _ in found] == [2, 1, 2, 1, 2]
    assert found[-1][1] < 1.3
