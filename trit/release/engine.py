# SPDX-License-Identifier: MIT
"""The engine of a wheel: compiled by zig for the oldest system of its platform, all programs in one library."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from trit.base.errors import CommandError, TritError, UserError
from trit.base.places import ENGINE_DIR, ROOT, python_command
from trit.base.processes import run
from trit.release.platforms import Platform

# cmake/bundle.cmake makes them.
PROGRAMS = (
    *("llama-bench", "llama-cli", "llama-completion", "llama-perplexity", "llama-quantize", "llama-server"),
    *("trit-bench", "trit-describe", "trit-roofline", "trit-selftest", "trit-tune", "trit-vocabulary"),
)


def compile_engine(platform: Platform, build_dir: Path, jobs: int) -> list[Path]:
    """Compile it; what was compiled there before is used again.

    Args:
        platform: that it is for.
        build_dir: CMake's folder; the log of the build is in it.
        jobs: compilers at a time.

    Returns:
        The library and the programs.

    Raises:
        UserError: a tool or the engine's source is not there; says how to get it.
        TritError: the build failed.
    """
    if not (ENGINE_DIR / "CMakeLists.txt").is_file():
        raise UserError(f"{ENGINE_DIR} is missing; fetch it with: {python_command('setup_env.py')}")
    defines = {
        "CMAKE_TOOLCHAIN_FILE": ROOT / "cmake" / "zig.cmake",
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": _tool("ninja"),
        "TRIT_ZIG": _zig(),
        "TRIT_ZIG_TARGET": platform.target,
        "TRIT_BUNDLE": "ON",
        "TRIT_KERNELS_DIR": "",
    }
    cmake = _tool("cmake")
    options = [f"-D{name}={value}" for name, value in defines.items()]
    configure: list[str | Path] = [cmake, "-S", ROOT, "-B", build_dir, "-G", "Ninja", *options]
    build_dir.mkdir(parents=True, exist_ok=True)
    log = build_dir / "release.log"
    try:
        run(configure, "configuring the wheel's engine", log)
        build: list[str | Path] = [cmake, "--build", build_dir, "--target", "trit-engine", "--parallel", str(jobs)]
        run(build, "compiling the wheel's engine", log)
    except CommandError as error:
        raise TritError(f"{error}; see {log}") from error
    made = build_dir / "bundle"
    return [made / platform.library, *(made / f"{name}{platform.suffix}" for name in PROGRAMS)]


def _tool(name: str) -> str:
    """A program of the environment's, else of the PATH."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=beside)
    if found is None:
        raise UserError(f"{name} is not there; install it with: {sys.executable} -m pip install -r requirements.txt")
    return found


def _zig() -> Path:
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        command = f"{sys.executable} -m pip install -r requirements-release.txt"
        raise UserError(f"the compiler zig is not there; install it with: {command}")
    return Path(spec.origin).with_name("zig.exe" if os.name == "nt" else "zig")
