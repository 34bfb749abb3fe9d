# SPDX-License-Identifier: MIT
"""The generated kernels that won on this machine: sources in ``build/kernels``, which CMake compiles into the engine.

Standard library only: set-up imports this before any package is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trit.base.files import atomic_output
from trit.base.processes import run


def folder(build_dir: Path) -> Path:
    """Where they are: the build's TRIT_KERNELS_DIR."""
    return build_dir / "kernels"


def sources(build_dir: Path) -> dict[str, str]:
    """Names of the kept kernels -> their C++."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder(build_dir).glob("*.cpp"))}


def keep(build_dir: Path, wanted: Mapping[str, str], cmake: str) -> None:
    """Make the folder hold these kernels and no others, and build the engine with them.

    Raises:
        CommandError: the build failed; the folder is as it was.
    """
    old = sources(build_dir)
    try:
        _write(build_dir, wanted)
        run([cmake, "--build", build_dir], "building the engine with the kernels that won", build_dir / "kernels.log")
    except BaseException:
        _write(build_dir, old)
        raise


def drop(build_dir: Path) -> bool:
    """Remove all kept kernels, and the choices of ``tuning.json`` if it names one; whether there were any."""
    names = list(sources(build_dir))
    tuning = build_dir / "tuning.json"
    if tuning.is_file() and any(f'"{name}"' in tuning.read_text(encoding="utf-8", errors="replace") for name in names):
        tuning.unlink()
    _write(build_dir, {})
    return bool(names)


def _write(build_dir: Path, wanted: Mapping[str, str]) -> None:
    for name in sources(build_dir).keys() - wanted.keys():
        (folder(build_dir) / f"{name}.cpp").unlink()
    for name, text in wanted.items():
        path = folder(build_dir) / f"{name}.cpp"
        # A file that does not change keeps its time, so that it is not compiled again.
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with atomic_output(path) as partial:
                partial.write_text(text, encoding="utf-8", newline="\n")
