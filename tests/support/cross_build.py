# SPDX-License-Identifier: MIT
"""Builds for other platforms by zig (cmake/zig.cmake), and what runs them here.

``python -m tests.support.cross_build PLATFORM`` builds ``trit-selftest`` and ``llama-completion`` for one, and asks the
bundled model the question that set-up asks: minutes of compiling, so it is not among the tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform as host
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.kernel_build import TEXT, call, ccache_options, tools
from trit.base.flags import ArgumentParser, a_path
from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT, ROOT, gguf_path
from trit.release.platforms import PLATFORMS as WHEELS

BUILDS = ROOT / "build" / "cross"
PROGRAMS = ("trit-selftest", "llama-completion")


@dataclass(frozen=True)
class Platform:
    """One that we build for.

    Attributes:
        target: as zig writes it, that of the platform's wheels.
        emulator: what stands in front of a program to run it here; nothing where nothing runs it.
        packages: Debian's, that have the emulator and its C library.
        tier: what the emulated CPU should choose; empty: the best of this machine.
        libraries: the start of each library's name that a program may need: the system's own.
    """

    target: str
    emulator: tuple[str, ...]
    packages: str
    tier: str
    libraries: tuple[str, ...]

    @property
    def suffix(self) -> str:
        return ".exe" if "windows" in self.target else ""


GLIBC = ("libc.so", "libm.so", "libpthread.so", "libdl.so", "ld-linux-")
WINDOWS = ("kernel32.dll", "advapi32.dll", "ntdll.dll", "api-ms-win-")
PLATFORMS = {
    "linux-aarch64": Platform(
        WHEELS["linux-aarch64"].target,
        ("qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu"),
        "qemu-user libc6-arm64-cross",
        "neon_i8mm",
        GLIBC,
    ),
    "linux-riscv64": Platform(
        WHEELS["linux-riscv64"].target,
        ("qemu-riscv64", "-L", "/usr/riscv64-linux-gnu"),
        "qemu-user libc6-riscv64-cross",
        "scalar",
        GLIBC,
    ),
    "linux-armv7": Platform(
        WHEELS["linux-armv7"].target,
        ("qemu-arm", "-L", "/usr/arm-linux-gnueabihf"),
        "qemu-user libc6-armhf-cross",
        "scalar",
        GLIBC,
    ),
    "windows-x86_64": Platform(WHEELS["windows-x86_64"].target, ("wine",), "wine wine64", "", WINDOWS),
    "macos-arm64": Platform(WHEELS["macos-arm64"].target, (), "", "", ("/usr/lib/libSystem.B.dylib",)),
    "macos-x86_64": Platform(WHEELS["macos-x86_64"].target, (), "", "", ("/usr/lib/libSystem.B.dylib",)),
}


def zig() -> Path | None:
    """The program of the package ziglang; None if it is not installed."""
    spec = importlib.util.find_spec("ziglang")
    return None if spec is None or spec.origin is None else Path(spec.origin).with_name("zig")


def configure(platform: Platform, build: Path, *options: str) -> None:
    """Set a build folder up for a platform."""
    settings = [
        f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'cmake' / 'zig.cmake'}",
        f"-DTRIT_ZIG={zig()}",
        f"-DTRIT_ZIG_TARGET={platform.target}",
        *ccache_options(),
    ]
    call("cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *settings, *options)


def run(platform: Platform, program: Path, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a platform under its emulator."""
    inherited = {key: value for key, value in os.environ.items() if key != "TRIT_TIER"}
    # Wine's own folder: it would be made in the home directory.
    own = {"WINEPREFIX": str(BUILDS / "wine"), "WINEDEBUG": "-all", "LC_ALL": "C.UTF-8"}
    command = [*platform.emulator, str(program), *map(str, arguments)]
    return subprocess.run(command, env={**inherited, **own, **env}, stdin=subprocess.DEVNULL, **TEXT)


def here(platform: Platform) -> Platform:
    """The same, but run without an emulator where this machine is one: what the workflows do with what others built."""
    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(host.machine().lower(), host.machine().lower())
    own = platform.target.startswith(f"{machine}-{system}")
    return replace(platform, emulator=()) if own else platform


def answer(platform: Platform, program: Path, model: Path) -> subprocess.CompletedProcess[str]:
    """Ask a converted bundled model the question that set-up asks."""
    prompt = ["-m", model, "-p", DEMO_PROMPT, "-n", "6", "--temp", "0", "-t", "2"]
    return run(platform, program, *prompt, "-no-cnv", "--no-display-prompt", "--no-warmup", "--verbosity", "4")


def main() -> int:
    """Build the engine for a platform, if it is not given, and ask."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platform", choices=PLATFORMS)
    parser.add_argument("--bin", type=a_path, metavar="FOLDER", help="run the programs of this folder, build nothing")
    parser.add_argument("--no-run", action="store_true", help="only build")
    parser.add_argument("--model", type=a_path, default=gguf_path(BUNDLED_MODEL), help="the bundled model, converted")
    args = parser.parse_args()
    platform, build = here(PLATFORMS[args.platform]), BUILDS / f"engine-{args.platform}"
    if args.bin is None:
        if zig() is None:
            parser.error("zig is not there; install it with: pip install ziglang")
        configure(platform, build)
        command = ["cmake", "--build", str(build), "--target", *PROGRAMS]
        if subprocess.run(command, env=tools(), check=False).returncode != 0:
            return 1
    if args.no_run:
        return 0
    selftest, completion = [(args.bin or build / "bin") / f"{name}{platform.suffix}" for name in PROGRAMS]
    checked = run(platform, selftest)
    result = answer(platform, completion, args.model)
    said = [line for line in result.stderr.splitlines() if line.startswith("trit: ternary kernels")]
    print(checked.stdout, *said, result.stdout.strip(), sep="\n")
    good = checked.returncode == 0 and result.returncode == 0 and "garden" in result.stdout
    print(f"{args.platform}: {'answered' if good else f'FAILED: {checked.stderr[-500:]} {result.stderr[-2000:]}'}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
