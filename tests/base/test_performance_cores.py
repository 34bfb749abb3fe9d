# SPDX-License-Identifier: MIT
"""Which CPUs of a machine with fast and slow cores get a thread: made-up trees of /sys/devices, as real ones are."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from trit.base import host

ARM, X86 = "aarch64", "x86_64"
PIXEL_8 = [263] * 4 + [893] * 4 + [1024]
RK3588_MHZ = [1800] * 4 + [2256] * 2 + [2304] * 2


def tree(folder: Path, name: str, values: list[int], first: int = 0) -> Path:
    for cpu, value in enumerate(values, first):
        file = folder / "system" / "cpu" / f"cpu{cpu}" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return folder


@pytest.mark.parametrize(
    ("machine", "name", "values", "fast"),
    [
        (ARM, "cpu_capacity", PIXEL_8, {4, 5, 6, 7, 8}),
        (ARM, "cpu_capacity", [1024, 1024, 446, 446, 446, 446], {0, 1}),  # Juno: fast ones first
        (ARM, "cpu_capacity", [1024] * 4, {0, 1, 2, 3}),
        (ARM, "cpufreq/cpuinfo_max_freq", RK3588_MHZ, {4, 5, 6, 7}),
        (ARM, "cpufreq/cpuinfo_max_freq", [1766400] * 4 + [2803200] * 4, {4, 5, 6, 7}),  # Snapdragon 845
        (ARM, "cpufreq/cpuinfo_max_freq", [1800000] * 4, {0, 1, 2, 3}),
        (X86, "cpufreq/cpuinfo_max_freq", [5100000] * 4 + [3300000] * 8, set(range(12))),  # Zen 5 and 5c
        (X86, "cpu_capacity", [1024] * 4 + [430] * 8, {0, 1, 2, 3}),
        (ARM, "nothing", [1] * 6, set(range(6))),
    ],
)
def test_slow_kinds_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, name: str, values: list[int], fast: set[int]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    devices = tree(tmp_path, name, values)
    assert host._performance_cpus(set(range(len(values))), devices) == fast


def test_only_the_allowed_cpus_are_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: ARM)
    devices = tree(tmp_path, "cpu_capacity", PIXEL_8)
    assert host._performance_cpus({0, 1, 2, 3}, devices) == {0, 1, 2, 3}
    assert host._performance_cpus({0, 1, 6}, devices) == {6}


def test_capacity_counts_before_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: ARM)
    devices = tree(tmp_path, "cpufreq/cpuinfo_max_freq", [2000, 2000, 2200, 2200])
    assert host._performance_cpus({0, 1, 2, 3}, devices) == {0, 1, 2, 3}
    tree(tmp_path, "cpu_capacity", [414, 414, 1024, 1024])
    assert host._performance_cpus({0, 1, 2, 3}, devices) == {2, 3}


def test_a_cpu_without_a_number_means_that_the_file_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: ARM)
    devices = tree(tmp_path, "cpu_capacity", [300, 1024])
    assert host._performance_cpus({0, 1, 2}, devices) == {0, 1, 2}
    tree(tmp_path, "cpufreq/cpuinfo_max_freq", [1000, 2000, 2000])
    assert host._performance_cpus({0, 1, 2}, devices) == {1, 2}


@pytest.mark.parametrize(
    ("text", "fast"), [("16-23\n", set(range(16))), ("2-3,20-21,23\n", None), ("\n", set(range(24)))]
)
def test_the_kinds_that_intel_names(tmp_path: Path, text: str, fast: set[int] | None) -> None:
    (tmp_path / "cpu_atom").mkdir()
    (tmp_path / "cpu_atom" / "cpus").write_text(text)
    expected = set(range(24)) - {2, 3, 20, 21, 23} if fast is None else fast
    assert host._performance_cpus(set(range(24)), tmp_path) == expected
    if "16" in text:
        assert host._performance_cpus({17, 18}, tmp_path) == {17, 18}


def test_hyper_threads_of_the_fast_kind_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Core i5-12600K: 6 fast cores of 2 hyper-threads, 4 slow ones."""
    core_of = [cpu // 2 for cpu in range(12)] + [8, 9, 10, 11]
    for cpu, core in enumerate(core_of):
        tree(tmp_path, "topology/core_id", [core], cpu)
        tree(tmp_path, "topology/physical_package_id", [0], cpu)
    (tmp_path / "cpu_atom").mkdir()
    (tmp_path / "cpu_atom" / "cpus").write_text("12-15\n")
    performance, physical = host._performance_cpus, host._linux_physical
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(host, "cgroup_quota", lambda: None)
    monkeypatch.setattr(host, "_allowed_cpus", lambda: set(range(16)))
    monkeypatch.setattr(host, "_performance_cpus", lambda allowed: performance(allowed, tmp_path))
    monkeypatch.setattr(host, "_linux_physical", lambda allowed: physical(allowed, tmp_path / "system" / "cpu"))
    assert host.physical_cores() == 6
    # A phone's kernel may hide the topology: the fast CPUs are counted, for they have no hyper-threads.
    monkeypatch.setattr(host, "_linux_physical", lambda allowed: None)
    assert host.physical_cores() == 12


def record(efficiency_class: int, groups: int = 1) -> bytes:
    """What GetLogicalProcessorInformationEx gives for a core: PROCESSOR_RELATIONSHIP with GROUP_AFFINITY behind it."""
    body = bytes([1, efficiency_class]) + bytes(20) + groups.to_bytes(2, "little") + bytes(16 * groups)
    return bytes(4) + (8 + len(body)).to_bytes(4, "little") + body


# What Wine 8 gave on two CPUs without hyper-threads.
WINE = bytes.fromhex("0000000030000000" + "00" * 22 + "0100" + "01" + "00" * 15) + bytes.fromhex(
    "0000000030000000" + "00" * 22 + "0100" + "02" + "00" * 15
)


@pytest.mark.parametrize(
    ("records", "cores"),
    [
        (WINE, 2),
        (b"", None),
        (record(0), 1),
        (record(1) * 6 + record(0) * 8, 6),
        (record(0) * 4 + record(2, 2) * 3 + record(1) * 4, 3),
        (record(0) * 16, 16),
    ],
)
def test_windows_tells_the_kind_of_a_core(monkeypatch: pytest.MonkeyPatch, records: bytes, cores: int | None) -> None:
    assert host._fastest_cores(records) == cores
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(host, "cgroup_quota", lambda: None)
    monkeypatch.setattr(host, "_windows_physical", lambda: host._fastest_cores(records))
    assert host.physical_cores() == (cores or os.cpu_count())
