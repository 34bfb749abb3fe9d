# SPDX-License-Identifier: MIT
"""The platforms that wheels are made for."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Platform:
    """One of them.

    Attributes:
        target: the platform as zig writes it; behind "gnu", the oldest glibc that shall do.
        tag: the platform as wheels' names have it.
        suffix: of programs.
        library: file of the library beside them.
    """

    target: str
    tag: str
    suffix: str = ""
    library: str = "libtrit-engine.so"

    @property
    def glibc(self) -> tuple[int, ...] | None:
        """The oldest glibc that the tag promises to run with; None on other systems."""
        words = self.tag.split("_")
        return (int(words[1]), int(words[2])) if words[0] == "manylinux" else None


# 2.17 is the oldest that manylinux knows; riscv64 began later, and 2.31 is the oldest that package indexes take for it.
PLATFORMS = {
    "linux-x86_64": Platform("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64"),
    "linux-aarch64": Platform("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64"),
    "linux-riscv64": Platform("riscv64-linux-gnu.2.31", "manylinux_2_31_riscv64"),
    "linux-armv7": Platform("arm-linux-gnueabihf.2.17", "manylinux_2_17_armv7l"),
    "windows-x86_64": Platform("x86_64-windows-gnu", "win_amd64", ".exe", "libtrit-engine.dll"),
    "macos-arm64": Platform("aarch64-macos.11.0", "macosx_11_0_arm64", library="libtrit-engine.dylib"),
    "macos-x86_64": Platform("x86_64-macos.11.0", "macosx_11_0_x86_64", library="libtrit-engine.dylib"),
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
