# SPDX-License-Identifier: MIT
"""The engine of a wheel: compiled by zig for the oldest system of its platform, all programs in one library."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from trit.base.errors import CommandError, TritError, UserError
from trit.base.places import ROOT
from trit.base.processes import run
from trit.base.progress import StepLine
from trit.release.platforms import Platform
from trit.setup import engine
from trit.setup.build import environment_program
from trit.setup.context import Setup
from trit.setup.options import parse_options

# cmake/bundle.cmake makes them.
PROGRAMS = (
    *("llama-bench", "llama-cli", "llama-completion", "llama-perplexity", "llama-quantize", "llama-server"),
    *("trit-bench", "trit-describe", "trit-roofline", "trit-selftest", "trit-tune", "trit-vocabulary"),
)

_SHOWN = 80


def compile_engine(platform: Platform, build_dir: Path, jobs: int) -> list[Path]:
    """Compile it; what was compiled there before is used again.

    Args:
        platform: that it is for.
        build_dir: CMake's folder; the log of the build is in it.
        jobs: compilers at a time.

    Returns:
        The library and the programs.

    Raises:
        UserError: the compiler is not there; says how to get it.
        TritError: the engine's source could not be fetched, or the build failed.
    """
    python = Path(sys.executable)
    defines = {
        # First: without it nothing is worth fetching.
        "TRIT_ZIG": _zig(),
        "CMAKE_TOOLCHAIN_FILE": ROOT / "cmake" / "zig.cmake",
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": environment_program(python, "ninja"),
        "TRIT_ZIG_TARGET": platform.target,
        "TRIT_BUNDLE": "ON",
        "TRIT_KERNELS_DIR": "",
    }
    setup = Setup(parse_options([]))
    with StepLine(1, 2, engine.NAME, engine.DEED) as line:
        line.done(engine.run(setup, line))
    cmake = environment_program(python, "cmake")
    options = [f"-D{name}={value}" for name, value in defines.items()]
    if not (build_dir / "build.ninja").is_file():
        # A look at the compiler that was stopped half-way would be taken for a whole one.
        options.append("--fresh")
    configure: list[str | Path] = [cmake, "-S", ROOT, "-B", build_dir, "-G", "Ninja", *options]
    build_dir.mkdir(parents=True, exist_ok=True)
    log = build_dir / "release.log"
    build: list[str | Path] = [cmake, "--build", build_dir, "--target", "trit-engine", "--parallel", str(jobs)]
    with StepLine(2, 2, "build", f"compiling the engine for {platform.target}") as line:
        try:
            run(configure, "configuring the wheel's engine", log)
            run(build, "compiling the wheel's engine", log, on_line=lambda text: line.update(text.strip()[:_SHOWN]))
        except CommandError as error:
            raise TritError(f"{error}; it said: {error.tail[-1] if error.tail else 'nothing'}") from error
        line.done(f"compiled into {build_dir}")
    made = build_dir / "bundle"
    return [made / platform.library, *(made / f"{name}{platform.suffix}" for name in PROGRAMS)]


def _zig() -> Path:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        command = f"{sys.executable} -m pip install -r requirements-release.txt"
        raise UserError(f"the compiler zig is not there; install it with: {command}")
    return Path(spec.origin).with_name("zig.exe" if os.name == "nt" else "zig")
