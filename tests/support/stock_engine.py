# SPDX-License-Identifier: MIT
"""The engine as upstream has it: the pinned source without our patches, compiled to its library and one small program.

The build takes about three and a half minutes of CPU time where nothing is cached; ccache, if it is there, keeps it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.kernel_build import call
from trit.base.host import usable_cpus
from trit.base.places import ENGINE_DIR, ROOT
from trit.setup.engine import PATCHES

PROGRAM = "logits"
_OFF = ("LLAMA_BUILD_COMMON", "LLAMA_BUILD_TOOLS", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_SERVER")
_OFF += ("LLAMA_BUILD_APP", "GGML_OPENMP", "GGML_LLAMAFILE", "GGML_CCACHE")


def unpatched_source(target: Path) -> Path:
    """A copy of ``3rdparty/llama.cpp`` with our patches taken out again, the last one first."""
    shutil.copytree(ENGINE_DIR, target)
    for patch in sorted(PATCHES.glob("*.patch"), reverse=True):
        # Inside a repository git would take the paths to be relative to its top.
        env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(target.parent.resolve())}
        command = ["git", "apply", "-R", "-p1", str(patch)]
        subprocess.run(command, cwd=target, env=env, check=True, capture_output=True)
    assert "I2_S" not in (target / "ggml" / "include" / "ggml.h").read_text()
    return target


def build_library(source: Path, build: Path) -> Path:
    """Compile libllama; returns the folder of the libraries. ccache finds it again under another folder."""
    launchers = []
    if ccache := shutil.which("ccache"):
        launchers = [f"-DCMAKE_{language}_COMPILER_LAUNCHER={ccache}" for language in ("C", "CXX")]
        os.environ.setdefault("CCACHE_BASEDIR", str(build.parent.resolve()))
    flags = ["-DCMAKE_BUILD_TYPE=None", "-DCMAKE_C_FLAGS=-O1", "-DCMAKE_CXX_FLAGS=-O1", "-DLLAMA_ALL_WARNINGS=OFF"]
    call("cmake", "-G", "Ninja", "-S", source, "-B", build, *flags, *launchers, *(f"-D{name}=OFF" for name in _OFF))
    call("cmake", "--build", build, "--target", "llama", "--parallel", str(usable_cpus()))
    return build / "bin"


def build_program(engine: Path, libraries: Path, program: Path) -> Path:
    """Compile ``logits.cpp`` against an engine's headers and libraries."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "clang++"
    includes = [f"-I{engine / 'include'}", f"-I{engine / 'ggml' / 'include'}"]
    links = [f"-L{libraries}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{libraries}"]
    call(compiler, "-std=c++17", *includes, ROOT / "tests" / "support" / f"{PROGRAM}.cpp", *links, "-o", program)
    return program


def stock_program(folder: Path) -> Path:
    """The program, with an unpatched engine."""
    if sys.platform == "win32":
        pytest.skip("the libraries have other names")
    if shutil.which("git") is None:
        pytest.skip("git takes the patches out")
    source = unpatched_source(folder / "source")
    return build_program(source, build_library(source, folder / "build"), folder / PROGRAM)


def logits(program: Path, gguf: Path, count: int = 48) -> np.ndarray | str:
    """Log-probabilities float64 [count, vocabulary] for the tokens 0, 1, ...; or what the engine said failing."""
    done = subprocess.run([str(program), str(gguf), str(count)], capture_output=True, timeout=120)
    if done.returncode != 0:
        return done.stderr.decode(errors="replace")
    values = np.frombuffer(done.stdout, np.float32).reshape(count, -1).astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    return np.asarray(values - np.log(np.exp(values).sum(axis=-1, keepdims=True)))
