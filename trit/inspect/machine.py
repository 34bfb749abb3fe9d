# SPDX-License-Identifier: MIT
"""What this machine offers the engine: CPU features, memory, threads, large pages. Standard library only."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

from trit.base.host import (
    cgroup_memory,
    cgroup_quota,
    cpu_name,
    free_memory_bytes,
    physical_cores,
    total_memory_bytes,
)
from trit.base.processes import capture

# What kernels ask for, in the words of /proc/cpuinfo.
_FEATURES = (
    *("avx2", "bmi2", "f16c", "fma", "avx_vnni", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512vbmi", "avx512_bf16", "amx_tile", "amx_int8"),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
# The same as macOS calls them.
_DARWIN = {"hw.optional.neon": "asimd", "hw.optional.arm.FEAT_DotProd": "asimddp", "hw.optional.arm.FEAT_I8MM": "i8mm"}
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TIER = re.compile(r"(\w+) +(?:equal to the scalar|not on this CPU \(needs (.+)\)|FAILED: (.*))")
_GENERATED = ("lookup_", "tl1_", "tl2_")


@dataclass(frozen=True)
class Machine:
    """Facts that need no program of ours.

    Attributes:
        cpu: what it calls itself.
        features: those of the CPU that kernels ask for; None: the system does not tell.
        system: kernel and architecture.
        libc: the C library and its version; empty where the system does not tell.
        memory: bytes: "total", "free", and the "limit" of a container; None: not known, or no limit.
        threads: "cpus" of the machine, "allowed" by affinity, "quota" of a container (None: no limit), and "default",
            how many the engine starts.
        huge_pages: of the kernel's word for anonymous memory: always, madvise, never; None: it has none.
    """

    cpu: str
    features: list[str] | None
    system: str
    libc: str
    memory: dict[str, int | None]
    threads: dict[str, int | None]
    huge_pages: str | None


def machine() -> Machine:
    """Look at this machine."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        cpu_name(),
        cpu_features(),
        f"{platform.system()} {platform.release()} {platform.machine()}",
        " ".join(platform.libc_ver()).strip(),
        {"total": total_memory_bytes(), "free": free_memory_bytes(), "limit": cgroup_memory()},
        {"cpus": os.cpu_count(), "allowed": allowed, "quota": cgroup_quota(), "default": physical_cores()},
        huge_pages(),
    )


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str] | None:
    """The CPU's features that kernels ask for, in the words of Linux; None if the system does not tell."""
    if cpuinfo.is_file():
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
        words = set(found[1].split()) if found else set()
        return [name for name in _FEATURES if name in words] if found else None
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        answers = {name: capture(["sysctl", "-n", key])[1].strip() for key, name in _DARWIN.items()}
        return [name for name in _FEATURES if answers.get(name) == "1"]
    return None


def huge_pages(file: Path = _HUGE_PAGES) -> str | None:
    """Which memory the kernel puts into large pages: always, madvise (what the engine asks for it) or never."""
    try:
        found = re.search(r"\[(\w+)\]", file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return found[1] if found else None


@dataclass
class SelfTest:
    """What ``trit-selftest`` printed.

    Attributes:
        tiers: that this CPU can run, the best first.
        lacking: tiers of this architecture that it cannot run -> what they need.
        failed: tiers and generated kernels that are wrong here -> how.
        chosen: the tier that the engine takes; empty if the test failed.
        lookups: packing -> the generated kernel that is taken for it.
    """

    tiers: list[str] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    chosen: str = ""
    lookups: dict[str, str] = field(default_factory=dict)


def read_selftest(output: str, arm: bool | None = None) -> SelfTest:
    """Read what the self-test printed.

    Args:
        output: its lines.
        arm: whether this is an ARM CPU; None: that of this machine. The other architecture's tiers are left out.
    """
    arm = platform.machine().lower().startswith(("arm", "aarch")) if arm is None else arm
    test = SelfTest()
    for line in output.splitlines():
        if match := _TIER.match(line):
            name, needs, fault = match.groups()
            if fault is not None:
                test.failed[name] = fault
            elif needs and name.startswith("neon") == arm:
                test.lacking[name] = needs
            elif not needs and not name.startswith(_GENERATED):
                test.tiers.append(name)
        elif parts := re.fullmatch(r"(look-up|tl1|tl2|chosen): (\w+)", line):
            if parts[1] == "chosen":
                test.chosen = parts[2]
            elif parts[2] != "none":
                test.lookups[parts[1]] = parts[2]
    return test
