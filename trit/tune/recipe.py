# SPDX-License-Identifier: MIT
"""How the engine's own look-up kernels were compiled: what CMake wrote into the build folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import TritError
from trit.base.places import ROOT
from trit.base.processes import capture
from trit.engine import kept_kernels

# What a kernel's object depends on besides its source and the command.
HEADERS = ("include/trit.h", "src/kernels/tier.h", "src/kernels/tiers/simd.h", "src/kernels/lookup/*.h")


@dataclass(frozen=True)
class Recipe:
    """A compiler and its flags.

    Attributes:
        command: as the engine's kernels were compiled, without source, output and "-c".
        folder: working directory of the command.
        key: identity of all that an object depends on besides its source.
    """

    command: tuple[str, ...]
    folder: Path
    key: str


def recipe(build_dir: Path) -> Recipe:
    """Read it from a build folder.

    Raises:
        TritError: CMake left no commands there, they are not in the form that gcc and clang share, or the kernels that
            the search would keep have no place in this build.
    """
    cache = _cache(build_dir)
    place = kept_kernels.folder(build_dir.resolve())
    if Path(cache.get("TRIT_KERNELS_DIR") or ".") != place:
        raise TritError(f"the build does not look into {place} (cmake -S . -B {build_dir} -DTRIT_KERNELS_DIR={place})")
    try:
        entries = json.loads((build_dir / "compile_commands.json").read_text(encoding="utf-8"))
        entry = next(entry for entry in entries if "preset_kernels" in Path(entry["file"]).parts)
        words = _words(entry["command"])
        output = words.index("-o")
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise TritError(f"{build_dir / 'compile_commands.json'} does not say how gcc or clang made a kernel") from error
    left_out = {output, output + 1, *(i for i, word in enumerate(words) if word in ("-c", entry["file"]))}
    command = tuple(word for i, word in enumerate(words) if i not in left_out)
    parts = [*command, capture([command[0], "--version"])[1], *map(_digest, _headers())]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return Recipe(command, Path(entry["directory"]), key)


def cmake_program(build_dir: Path) -> str:
    """The program that configured this folder.

    Raises:
        TritError: none did.
    """
    return _cache(build_dir).get("CMAKE_COMMAND", "cmake")


def _cache(build_dir: Path) -> dict[str, str]:
    """CMake's variables: lines "NAME:TYPE=VALUE"."""
    path = build_dir / "CMakeCache.txt"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise TritError(f"{path} is missing") from error
    return dict(re.findall(r"^(\w+):\w+=(.*)$", text, re.MULTILINE))


def _words(command: str) -> list[str]:
    if os.name == "nt":  # backslashes are parts of names there
        return [word.strip('"') for word in shlex.split(command, posix=False)]
    return shlex.split(command)


def _headers() -> list[Path]:
    return sorted(path for pattern in HEADERS for path in ROOT.glob(pattern))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
