# SPDX-License-Identifier: MIT
"""Facts about this machine: its CPU, cores, caches and memory, and what a container grants. Standard library only."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

from trit.base.processes import capture


def _allowed_cpus() -> set[int] | None:
    """The CPUs that this process may run on, where the system tells (Linux)."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return None


def _linux_physical(allowed: set[int], topology: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """Cores among the allowed CPUs: hyper-threads share one (package, core) pair; None if /sys does not tell."""
    cores = set()
    for cpu in allowed:
        try:
            files = [topology / f"cpu{cpu}" / "topology" / name for name in ("physical_package_id", "core_id")]
            cores.add(tuple(file.read_text().strip() for file in files))
        except OSError:
            return None
    return len(cores) or None


def _listed(text: str) -> set[int]:
    """CPUs of a list as the kernel writes it: ``0-3,8`` is {0, 1, 2, 3, 8}."""
    ranges = [part.partition("-") for part in text.strip().split(",") if part]
    return {cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)}


def _performance_cpus(allowed: set[int], devices: Path = Path("/sys/devices")) -> set[int]:
    """The allowed CPUs without those of a slow kind: threads meet after every product, and all wait for the slowest.

    Intel's kinds have names of their own. Elsewhere ``cpu_capacity`` tells how much a CPU does (the fastest has 1024),
    else its highest clock. A slow ARM core computes fewer vectors per clock than its fast neighbour, which neither
    number counts: half the capacity is slow, and so is 4/5 of the clock.
    """
    try:
        fast = allowed - _listed((devices / "cpu_atom" / "cpus").read_text())
        return fast or allowed
    except (OSError, ValueError):
        pass
    # Kinds of x86 that differ in their clock alone (Zen 5 and 5c, favoured cores) are all worth a thread.
    clock = [] if platform.machine().lower() in {"x86_64", "amd64"} else [("cpufreq/cpuinfo_max_freq", 0.8)]
    for name, share in [("cpu_capacity", 0.5), *clock]:
        try:
            files = {cpu: devices / "system" / "cpu" / f"cpu{cpu}" / name for cpu in allowed}
            speeds = {cpu: int(file.read_text()) for cpu, file in files.items()}
        except (OSError, ValueError):
            continue
        return {cpu for cpu, speed in speeds.items() if speed > share * max(speeds.values())}
    return allowed


def _darwin_physical() -> int | None:
    """Performance cores if the Mac has two kinds (the slow kind would hold up every barrier), else all cores."""
    for key in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
        code, output = capture(["sysctl", "-n", key])
        if code == 0 and output.strip().isdigit():
            return int(output)
    return None


def _windows_physical() -> int | None:
    """Cores of the fastest kind; None if the system does not tell."""
    import ctypes

    ask = ctypes.WinDLL("kernel32").GetLogicalProcessorInformationEx  # type: ignore[attr-defined, unused-ignore]
    size = ctypes.c_ulong(0)
    ask(0, None, ctypes.byref(size))  # 0: RelationProcessorCore
    records = ctypes.create_string_buffer(size.value)
    return _fastest_cores(records.raw) if ask(0, records, ctypes.byref(size)) else None


def _fastest_cores(records: bytes) -> int | None:
    """How many of the records that GetLogicalProcessorInformationEx gives, one a core, have the highest class.

    A record begins with its relationship and its size, 4 bytes each, then a byte of flags, and EfficiencyClass: the
    higher, the faster.
    """
    classes = []
    while len(records) >= 10:
        size = int.from_bytes(records[4:8], "little")
        classes.append(records[9])
        records = records[max(size, 10) :]
    return classes.count(max(classes)) if classes else None


_NO_LIMIT = 1 << 60  # cgroup v1 says "no limit" by a number near 2^63


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), self_file: Path = Path("/proc/self/cgroup")) -> int | None:
    """Whole CPUs that the quotas of a container or slice grant this process (cgroup v2 and v1); None without a limit.

    cgroup v2 has one ``cpu.max`` (quota and period in microseconds, or ``max``) in each group down to ours; the
    tightest holds. cgroup v1 splits it over two files.
    """
    if not self_file.is_file():
        return None
    quotas = [text.split() for text in _cgroup_files("cpu.max", root, self_file)]
    v1 = [_cgroup_files(name, root, self_file, "cpu") for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    quotas += [[quota.strip(), period.strip()] for quota, period in zip(*v1)]  # noqa: B905 - of the same groups
    granted = [int(quota) // int(period) for quota, period in quotas if quota not in ("max", "-1")]
    return max(1, min(granted)) if granted else None


def cgroup_memory(root: Path = Path("/sys/fs/cgroup"), self_file: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes of memory that a container or slice grants (cgroup v2 and v1); None without a limit."""
    if not self_file.is_file():
        return None
    limits = [text.strip() for text in _cgroup_files("memory.max", root, self_file)]
    limits += [text.strip() for text in _cgroup_files("memory.limit_in_bytes", root, self_file, "memory")]
    granted = [int(limit) for limit in limits if limit.isdigit()]
    return min((limit for limit in granted if limit < _NO_LIMIT), default=None)


def cgroup_free_memory(root: Path = Path("/sys/fs/cgroup"), self_file: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes of memory that a container or slice has left for us (cgroup v2 and v1); None without a limit.

    Pages of files that are not in use count as left: the kernel gives them up first.
    """
    if not self_file.is_file():
        return None
    left = []
    for controller, names in (
        ("", ("memory.max", "memory.current", "inactive_file")),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
    ):
        files = [_cgroup_files(name, root, self_file, controller) for name in (*names[:2], "memory.stat")]
        for most, used, stat in zip(*files):  # noqa: B905 - of the same groups
            inactive = re.search(rf"^{names[2]} (\d+)$", stat, re.MULTILINE)
            if most.strip().isdigit() and int(most) < _NO_LIMIT:
                left.append(int(most) - int(used) + (int(inactive[1]) if inactive else 0))
    return max(0, min(left)) if left else None


def cgroup_stops(root: Path = Path("/sys/fs/cgroup"), self_file: Path = Path("/proc/self/cgroup")) -> int:
    """How often the quotas of a container or slice have stopped its programs until their next period."""
    if not self_file.is_file():
        return 0
    texts = [*_cgroup_files("cpu.stat", root, self_file), *_cgroup_files("cpu.stat", root, self_file, "cpu")]
    lines = [line.split() for text in texts for line in text.splitlines()]
    return sum(int(words[1]) for words in lines if words[:1] == ["nr_throttled"])


def _cgroup_files(name: str, root: Path, self_file: Path, controller: str = "") -> list[str]:
    """The texts of a control file in our own cgroup and those around it.

    Each line of ``self_file`` is NUMBER:CONTROLLERS:PATH. Version 2 has one line, whose controllers are empty.
    Version 1 has a hierarchy for each controller, or several together (``cpu,cpuacct``), which ``root`` holds under
    the controller's own name. In a container the path may be the host's: then only the top is there.
    """
    lines = [line.split(":", 2) for line in self_file.read_text().splitlines()]
    paths = [path for _, controllers, path in lines if controller in controllers.split(",")]
    top = root / controller
    files: dict[Path, None] = {}
    for group in [top / path.strip("/") for path in paths] or [top]:
        files |= dict.fromkeys(folder / name for folder in (group, *group.parents) if folder.is_relative_to(top))
    return [file.read_text() for file in files if file.is_file()]


def usable_cpus() -> int:
    """Logical CPUs that this process can use: what compiling should run on."""
    allowed = _allowed_cpus()
    count = len(allowed) if allowed else (os.cpu_count() or 1)
    return min(count, cgroup_quota() or count)


def physical_cores() -> int:
    """Physical cores that this process can use: the engine's default thread count.

    Two hyper-threads of a core share its multipliers, so more threads than cores make inference slower. Where cores
    are of several kinds (big.LITTLE, performance and efficiency cores), only the fast kind counts.
    """
    allowed = _allowed_cpus()
    cores: int | None = None
    if sys.platform == "darwin":
        cores = _darwin_physical()
    elif sys.platform == "win32":
        cores = _windows_physical()
    elif allowed:  # Linux, and Android, which Python 3.13 calls so
        fast = _performance_cpus(allowed)
        cores = _linux_physical(fast) or len(fast)
    cores = cores or os.cpu_count() or 1
    return max(1, min(cores, cgroup_quota() or cores))


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the CPU calls itself; virtual machines often hide the number, then family and model are added."""
    if cpuinfo.is_file():
        facts: dict[str, str] = {}
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), " ".join(value.split()))
        name = facts.get("model name")
        if name:
            numbers = [facts.get("cpu family"), facts.get("model")]
            hidden = all(numbers) and not any(letter.isdigit() for letter in name)
            return f"{name} (family {numbers[0]}, model {numbers[1]})" if hidden else name
    if sys.platform == "darwin":
        code, output = capture(["sysctl", "-n", "machdep.cpu.brand_string"])
        if code == 0 and output.strip():
            return output.strip()
    return platform.processor() or platform.machine() or "unknown CPU"


# Members of /proc/cpuinfo -> their names in the "match" of a preset (src/kernels/cpu_identity.h).
_IDENTITIES = (
    {"vendor_id": "vendor", "cpu family": "family", "model": "model"},
    {"CPU implementer": "implementer", "CPU part": "part"},
)


def cpu_cores(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[dict[str, str]]:
    """The kinds of cores of this machine, as the engine names them (src/kernels/cpu_identity.h); at least one."""
    cores: list[dict[str, str]] = []
    if cpuinfo.is_file():
        for block in cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n"):
            lines = (line.partition(":") for line in block.splitlines())
            facts = {key.strip(): value.strip() for key, _, value in lines}
            for names in _IDENTITIES:
                core = {name: facts[key] for key, name in names.items() if key in facts}
                if len(core) == len(names) and core not in cores:
                    cores.append(core)
    elif sys.platform == "darwin" and platform.machine() == "arm64":
        cores.append({"name": cpu_name()})
    return cores or [{}]


_CACHE_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_level_cache_bytes(cpus: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """All caches of the highest level together (a CPU may have several); None if the system does not tell."""
    caches: dict[int, dict[str, int]] = {}
    for index in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level, size, shared = ((index / name).read_text().strip() for name in ("level", "size", "shared_cpu_list"))
            caches.setdefault(int(level), {})[shared] = int(size.rstrip("KMG")) * _CACHE_UNITS.get(size[-1], 1)
        except (OSError, ValueError):
            continue
    if caches:
        return sum(caches[max(caches)].values()) or None
    if sys.platform == "darwin":
        for key in ("hw.l3cachesize", "hw.perflevel0.l2cachesize", "hw.l2cachesize"):
            code, output = capture(["sysctl", "-n", key])
            if code == 0 and output.strip().isdigit() and int(output) > 0:
                return int(output)
    return None


def total_memory_bytes() -> int | None:
    """Memory of this machine; None if the system does not tell."""
    if sys.platform == "win32":
        return (_windows_memory() or (None, None))[0]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def free_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Memory that programs can get without pushing others out; None if the system does not tell."""
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    if sys.platform == "win32":
        return (_windows_memory() or (None, None))[1]
    if sys.platform == "darwin":
        return _darwin_free(capture(["vm_stat"])[1])
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _darwin_free(said: str) -> int | None:
    """Bytes of the pages that vm_stat calls free, read ahead or inactive; None if it says something else."""
    size = re.search(r"page size of (\d+) bytes", said)
    counts = [re.search(rf"^Pages {kind}: +(\d+)\.", said, re.M) for kind in ("free", "speculative", "inactive")]
    return int(size[1]) * sum(int(count[1]) for count in counts if count) if size and all(counts) else None


def _windows_memory() -> tuple[int, int] | None:
    """Bytes of memory, and of those that are free; None if the system does not tell."""
    import ctypes

    # MEMORYSTATUSEX: its own size, the load in percent, then seven sizes: the memory, what is free of it, and others.
    status = (ctypes.c_uint64 * 8)(64)
    told = ctypes.WinDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined, unused-ignore]
    return (status[1], status[2]) if told else None


def usable_memory_bytes() -> int | None:
    """Memory that this process can get: what is free, and what its container or slice has left; None if not known."""
    known = [one for one in (free_memory_bytes(), cgroup_free_memory()) if one is not None]
    return min(known, default=None)
