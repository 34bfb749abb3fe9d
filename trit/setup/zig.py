# SPDX-License-Identifier: MIT
"""``--compiler zig``: the clang inside the PyPI package ``ziglang``, for machines without a compiler.

CMake wants programs without arguments, so ``zig cc`` and its kin get small wrapper scripts in the environment.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trit.base.errors import TritError
from trit.base.places import ROOT
from trit.base.processes import capture
from trit.setup.compile_probe import compile_probe
from trit.setup.context import Compiler, Setup

# The version that wheels are made with; it is told in one place.
_LOCK = ROOT / "requirements-release.txt"
_TOOLS = {"zig-cc": "cc", "zig-c++": "c++", "zig-ar": "ar", "zig-ranlib": "ranlib"}
# Left alone, zig compiles for the CPU it runs on; others do so only where -march=native follows, which wins over this.
_ANY_CPU = "-mcpu=baseline"


def zig_compiler(setup: Setup) -> Compiler:
    """Install ziglang if need be, write the wrappers, check that they compile.

    Raises:
        TritError: the wrappers do not build a program.
    """
    locate = [str(setup.python), "-c", "import ziglang, pathlib; print(pathlib.Path(ziglang.__file__).parent)"]
    code, output = capture(locate)
    if code != 0:
        pip = ["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--require-hashes", "-r"]
        with tempfile.TemporaryDirectory(prefix="trit-zig-") as folder:
            wanted = Path(folder) / "zig.txt"
            wanted.write_text(_locked(), encoding="utf-8")
            setup.run([setup.python, *pip, wanted], "installing ziglang", "tools")
        code, output = capture(locate)
    zig = Path(output.strip()) / ("zig.exe" if os.name == "nt" else "zig")
    version = capture([zig, "version"])[1].strip()
    tools = {name: _wrapper(setup.python.parent / name, zig, word) for name, word in _TOOLS.items()}
    complaint = compile_probe(tools["zig-cc"], tools["zig-c++"])
    if complaint:
        raise TritError(f"zig {version} {complaint}; use another --compiler")
    defines = {
        "CMAKE_AR": tools["zig-ar"],
        "CMAKE_RANLIB": tools["zig-ranlib"],
        "CMAKE_C_FLAGS": _ANY_CPU,
        "CMAKE_CXX_FLAGS": _ANY_CPU,
        # zig links its C++ library into everything: two libraries with a copy each free each other's objects.
        "BUILD_SHARED_LIBS": "OFF",
    }
    return Compiler(f"zig {version}", tools["zig-cc"], tools["zig-c++"], defines)


def _locked() -> str:
    """The line that pins the package by version and hash."""
    lines = _LOCK.read_text(encoding="utf-8").splitlines(keepends=True)
    return next(line for line in lines if line.startswith("ziglang=="))


def _wrapper(path: Path, zig: Path, word: str) -> str:
    """Write a script that calls one of zig's tools."""
    if os.name == "nt":
        path = path.with_suffix(".cmd")
        path.write_text(f'@"{zig}" {word} %*\r\n', newline="")
    else:
        path.write_text(f'#!/bin/sh\nexec "{zig}" {word} "$@"\n')
        path.chmod(0o755)
    return str(path)
