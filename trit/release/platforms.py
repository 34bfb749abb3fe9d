# SPDX-License-Identifier: MIT
"""The platforms that wheels are made for."""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Platform:
    """One of them.

    Attributes:
        target: the platform as zig writes it, CPU-SYSTEM-ABI; the numbers are the oldest glibc or macOS that shall do.
        tag: the platform as wheels' names have it.
    """

    target: str
    tag: str

    @property
    def cpu(self) -> str:
        """As zig names it: x86_64, aarch64, arm, riscv64."""
        return self.target.partition("-")[0]

    @property
    def system(self) -> str:
        """One of linux, windows, macos."""
        return re.split(r"[-.]", self.target)[1]

    @property
    def suffix(self) -> str:
        """What the names of programs end in."""
        return ".exe" if self.system == "windows" else ""

    @property
    def library(self) -> str:
        """Name of the library beside the programs."""
        return "libtrit-engine." + {"windows": "dll", "macos": "dylib"}.get(self.system, "so")

    @property
    def oldest(self) -> tuple[int, int] | None:
        """The oldest glibc, or macOS, that the tag promises to run with; Windows' tag promises none."""
        numbers = re.match(r"(?:manylinux|macosx)_(\d+)_(\d+)_", self.tag)
        return (int(numbers[1]), int(numbers[2])) if numbers else None


# 2.17 is the oldest that manylinux knows; riscv64 began later, and 2.31 is the oldest that package indexes take for it.
PLATFORMS = {
    "linux-x86_64": Platform("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64"),
    "linux-aarch64": Platform("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64"),
    "linux-riscv64": Platform("riscv64-linux-gnu.2.31", "manylinux_2_31_riscv64"),
    "linux-armv7": Platform("arm-linux-gnueabihf.2.17", "manylinux_2_17_armv7l"),
    "windows-x86_64": Platform("x86_64-windows-gnu", "win_amd64"),
    "macos-arm64": Platform("aarch64-macos.11.0", "macosx_11_0_arm64"),
    "macos-x86_64": Platform("x86_64-macos.11.0", "macosx_11_0_x86_64"),
}


def this_platform() -> str | None:
    """The row of the machine that this runs on; None without one."""
    system = {"linux": "linux", "win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "armv7l": "armv7"}.get(machine, machine)
    if system == "macos" and machine == "aarch64":
        machine = "arm64"
    name = f"{system}-{machine}"
    return name if name in PLATFORMS else None
