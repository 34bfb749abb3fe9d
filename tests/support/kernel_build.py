# SPDX-License-Identifier: MIT
"""Builds of the kernels alone (seconds each), for tests that need another compiler, options, or the object files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiers import ROOT

# C++ compiler -> C compiler.
COMPILERS = {"g++": "gcc", "clang++": "clang"}
TEXT = {"capture_output": True, "text": True, "errors": "replace", "timeout": 600}


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")


def tools() -> dict[str, str]:
    """The variables with which the environment's cmake and ninja are found."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def call(*command: str | Path) -> str:
    """Run a step with the environment's cmake and ninja; what it printed. It must succeed."""
    result = subprocess.run([str(part) for part in command], env=tools(), **TEXT)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return result.stdout


def ccache_options() -> list[str]:
    """What makes cmake ask ccache first, where it is there."""
    ccache = shutil.which("ccache")
    return [f"-DCMAKE_{language}_COMPILER_LAUNCHER={ccache}" for language in ("C", "CXX")] if ccache else []


def build_kernels(
    build: Path, compiler: str | None = None, *options: str, targets: tuple[str, ...] = (), source: Path = ROOT
) -> Path:
    """Configure and build; without a compiler's name, with the one that cmake finds."""
    settings = ["-DTRIT_KERNELS_ONLY=ON", "-DTRIT_WARNINGS_AS_ERRORS=ON", *options]
    if compiler is not None:
        need(compiler)
        settings += [f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_C_COMPILER={COMPILERS[compiler]}"]
    call("cmake", "-G", "Ninja", "-S", source, "-B", build, *settings, *ccache_options())
    call("cmake", "--build", build, *(["--target", *targets] if targets else []))
    return build
