# SPDX-License-Identifier: MIT
"""Microsoft's compiler: found by vswhere, used with ninja through the variables that its own batch file sets."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from trit.base.processes import capture
from trit.setup.context import Compiler

_NEEDS = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"


def msvc_compiler() -> Compiler | None:
    """The newest Visual Studio 2022 or later with C++ tools; None if there is none."""
    vswhere = Path(os.environ.get("PROGRAMFILES(X86)", "C:/")) / "Microsoft Visual Studio/Installer/vswhere.exe"
    query = ["-latest", "-products", "*", "-version", "[17.0,", "-property", "installationPath"]
    needs = [] if _target() == "arm64" else ["-requires", _NEEDS]
    code, output = capture([vswhere, *query, *needs])
    if code != 0 or not output.strip():
        return None
    batch = Path(output.strip().splitlines()[0]) / "VC/Auxiliary/Build/vcvarsall.bat"
    code, output = capture(["cmd", "/s", "/c", f'"{batch}" {_target()} && set'])
    variables = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    cl = _on_path("cl.exe", variables.get("Path") or variables.get("PATH") or "")
    if code != 0 or cl is None:
        return None
    kept = {key: value for key, value in variables.items() if key.upper() in ("PATH", "INCLUDE", "LIB", "LIBPATH")}
    version = variables.get("VCToolsVersion", "")
    return Compiler(f"MSVC {version}".strip(), cl, cl, env=kept)


def _target() -> str:
    return "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x64"


def _on_path(program: str, path: str) -> str | None:
    for folder in path.split(os.pathsep):
        if (Path(folder) / program).is_file():
            return str(Path(folder) / program)
    return None
