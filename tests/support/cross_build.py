# SPDX-License-Identifier: MIT
"""The kernels built for other platforms by zig (cmake/zig.cmake), and what runs such programs here.

``python -m tests.support.cross_build WHEEL`` runs the programs of a wheel for one, made beforehand by ``python3 -m
trit.release wheel --platform ...``: the self-test, and the question that set-up asks of the bundled model.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from tests.support.kernel_build import TEXT, call, ccache_options
from trit.base.flags import ArgumentParser, a_path
from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT, ROOT, gguf_path
from trit.release.platforms import PLATFORMS as WHEELS
from trit.release.platforms import Platform as Wheel

BUILDS = ROOT / "build" / "cross"
PROGRAMS = ("trit-selftest", "llama-completion")
ANSWER = "Mary is in the garden."


@dataclass(frozen=True)
class Platform:
    """One that we build for.

    Attributes:
        wheel: what is made for it.
        emulator: what stands in front of a program to run it here; nothing where nothing runs it.
        packages: Debian's, that have the emulator and its C library.
        tier: what the emulated CPU should choose; empty: the best of this machine.
    """

    wheel: Wheel
    emulator: tuple[str, ...] = ()
    packages: str = ""
    tier: str = ""


PLATFORMS = {
    "linux-aarch64": Platform(
        WHEELS["linux-aarch64"],
        ("qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu"),
        "qemu-user libc6-arm64-cross",
        "neon_i8mm",
    ),
    "linux-riscv64": Platform(
        WHEELS["linux-riscv64"],
        ("qemu-riscv64", "-L", "/usr/riscv64-linux-gnu"),
        "qemu-user libc6-riscv64-cross",
        "scalar",
    ),
    "linux-armv7": Platform(
        WHEELS["linux-armv7"],
        ("qemu-arm", "-L", "/usr/arm-linux-gnueabihf"),
        "qemu-user libc6-armhf-cross",
        "scalar",
    ),
    "windows-x86_64": Platform(WHEELS["windows-x86_64"], ("wine",), "wine wine64"),
    "macos-arm64": Platform(WHEELS["macos-arm64"]),
    "macos-x86_64": Platform(WHEELS["macos-x86_64"]),
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
        f"-DTRIT_ZIG_TARGET={platform.wheel.target}",
        *ccache_options(),
    ]
    call("cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *settings, *options)


def run(platform: Platform, program: Path, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a platform under its emulator."""
    inherited = {key: value for key, value in os.environ.items() if key != "TRIT_TIER"}
    # Wine's own folder: it would be made in the home directory.
    BUILDS.mkdir(parents=True, exist_ok=True)  # wine makes the last folder alone
    own = {"WINEPREFIX": str(BUILDS / "wine"), "WINEDEBUG": "-all", "LC_ALL": "C.UTF-8"}
    command = [*platform.emulator, str(program), *map(str, arguments)]
    return subprocess.run(command, env={**inherited, **own, **env}, stdin=subprocess.DEVNULL, **TEXT)


def answer(platform: Platform, program: Path, model: Path) -> subprocess.CompletedProcess[str]:
    """Ask a converted bundled model the question that set-up asks."""
    prompt = ["-m", model, "-p", DEMO_PROMPT, "-n", "6", "--temp", "0", "-t", "2"]
    return run(platform, program, *prompt, "-no-cnv", "--no-display-prompt", "--no-warmup", "--verbosity", "4")


def main() -> int:
    """Run the programs of a wheel."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=a_path, help="its name says the platform")
    path = parser.parse_args().wheel
    name = next((name for name, row in PLATFORMS.items() if path.stem.endswith(f"-{row.wheel.tag}")), "")
    if not name or not PLATFORMS[name].emulator:
        parser.error(f"{path.name}: nothing here runs its programs")
    platform = PLATFORMS[name]
    with tempfile.TemporaryDirectory() as folder:
        with ZipFile(path) as archive:
            archive.extractall(folder)
        bundle = Path(folder) / "trit" / "_bundle"
        selftest, completion = (bundle / "build" / "bin" / f"{stem}{platform.wheel.suffix}" for stem in PROGRAMS)
        for program in (selftest, completion):
            program.chmod(0o755)
        checked = run(platform, selftest)
        result = answer(platform, completion, gguf_path(bundle / BUNDLED_MODEL.relative_to(ROOT)))
    said = [line for line in result.stderr.splitlines() if line.startswith("trit: ternary kernels")]
    print(checked.stdout, *said, result.stdout.strip(), sep="\n")
    good = checked.returncode == 0 and result.returncode == 0 and result.stdout.strip() == ANSWER
    print(f"{name}: {'answered' if good else f'FAILED: {checked.stderr[-500:]} {result.stderr[-2000:]}'}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
