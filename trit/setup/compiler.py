# SPDX-License-Identifier: MIT
"""Find a compiler for the engine: clang 15, gcc 11, AppleClang 14 or MSVC 2022, or newer; or zig on request."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import sys
from pathlib import Path

from trit.base.errors import UserError
from trit.base.places import STAMPS
from trit.base.processes import capture
from trit.setup.compile_probe import compile_probe
from trit.setup.context import Compiler, Setup, digest, files_digest, read_stamp, write_stamp
from trit.setup.msvc import msvc_compiler
from trit.setup.wheel import at_hand
from trit.setup.zig import zig_compiler

MINIMUM = {"gcc": 11, "clang": 15, "AppleClang": 14}
_PAIRS = {"gcc": ("gcc", "g++"), "clang": ("clang", "clang++")}


def find_compiler(setup: Setup) -> Compiler:
    """The compiler that ``--compiler`` asks for, checked by compiling, linking and running a small C++17 program.

    The choice and what was found are noted: ``auto`` keeps to an earlier choice, unless CC or CXX make a new one.
    A compiler that was found stays until it is gone: one that is installed later would make everything be built anew.

    Raises:
        UserError: none that is new enough and works; says which were looked at and how to install one.
    """
    choice = _choice(setup)
    key = _key(choice)
    if known := _known(key):
        return known
    found = _search(setup, choice)
    content = {"key": key, "choice": choice, "compiler": json.dumps(dataclasses.asdict(found))}
    write_stamp(STAMPS / "compiler.json", content)
    return found


def check_there_is_one(setup: Setup) -> None:
    """Look for programs that may be compilers, without trying them.

    Raises:
        UserError: there is none.
    """
    choice = _choice(setup)
    if choice != "zig" and sys.platform != "win32" and not _known(_key(choice)) and not _candidates(choice):
        raise _none(choice, [])


def _choice(setup: Setup) -> str:
    """What ``--compiler`` says, or said in an earlier run."""
    choice = setup.options.compiler
    if choice == "auto" and not (os.environ.get("CC") or os.environ.get("CXX")):
        return read_stamp(STAMPS / "compiler.json").get("choice", choice)
    return choice


def _key(choice: str) -> str:
    finders = [Path(__file__).with_name(f"{name}.py") for name in ("compile_probe", "compiler", "zig", "msvc")]
    return digest(choice, *[os.environ.get(name) for name in ("CC", "CXX")], files_digest(finders))


def _known(key: str) -> Compiler | None:
    """The compiler that an earlier run found, if it is still there."""
    stamp = read_stamp(STAMPS / "compiler.json")
    known = Compiler(**json.loads(stamp["compiler"])) if stamp.get("key") == key else None
    return known if known and Path(known.cxx).exists() else None


def _search(setup: Setup, choice: str) -> Compiler:
    if choice == "zig":
        return zig_compiler(setup)
    if sys.platform == "win32" and choice == "auto":
        msvc = msvc_compiler()
        if msvc:
            return msvc
    refused = []
    for cc, cxx in _candidates(choice):
        result = probe(cc, cxx)
        if isinstance(result, Compiler):
            return result
        refused.append(result)
    raise _none(choice, refused)


def _none(choice: str, refused: list[str]) -> UserError:
    """What to do where there is no compiler, or none of use."""
    seen = f" ({'; '.join(refused)})" if refused else ""
    asked = "no C++17 compiler was found" if choice == "auto" else f"--compiler {choice} cannot be used"
    return UserError(
        f"{asked}{seen}; {install_hint()}, or use --compiler zig, which pip installs, "
        f"or compile nothing with --wheel {at_hand() or 'FILE, a wheel of trit.cpp'}"
    )


def _candidates(choice: str) -> list[tuple[str, str]]:
    """Pairs of full paths to try, best first: ``CC``/``CXX``, plain names, then names with a version, newest first."""
    if choice == "auto":
        given = os.environ.get("CXX") or os.environ.get("CC")
        if given:
            return [_counterparts(given)]
        families = ["clang", "gcc"] if sys.platform == "darwin" else ["gcc", "clang"]
    elif choice in _PAIRS:
        families = [choice]
    else:
        return [_counterparts(choice)]
    names = [_PAIRS[family] for family in families]
    for family in families:
        cc, cxx = _PAIRS[family]
        names += [(f"{cc}-{version}", f"{cxx}-{version}") for version in range(24, MINIMUM[family] - 1, -1)]
    located = [(shutil.which(cc), shutil.which(cxx)) for cc, cxx in names]
    return [(cc, cxx) for cc, cxx in located if cc and cxx]


def _counterparts(given: str) -> tuple[str, str]:
    """The C and the C++ compiler of which one is given: ``/opt/llvm/bin/clang-17`` means ``clang++-17`` too.

    Raises:
        UserError: one of the two is not there.
    """
    path = Path(shutil.which(given) or given)
    name = path.name
    # In this order, for clang++ ends in g++ and gcc ends in cc.
    for cc, cxx in (_PAIRS["clang"], _PAIRS["gcc"], ("cc", "c++")):
        if cxx in name:
            pair = (path.with_name(name.replace(cxx, cc)), path)
            break
        if cc in name:
            pair = (path, path.with_name(name.replace(cc, cxx)))
            break
    else:
        raise UserError(f"--compiler or CXX: {given} is none of gcc, g++, clang, clang++, cc, c++; name one of these")
    for part in pair:
        if not part.is_file():
            raise UserError(f"--compiler or CXX: {part} is not there; name a compiler that is installed")
    return str(pair[0]), str(pair[1])


def probe(cc: str, cxx: str) -> Compiler | str:
    """Check a pair of compilers; a :class:`Compiler`, or the reason why it cannot be used."""
    code, output = capture([cxx, "-dM", "-E", "-x", "c++", "-"])
    macros = dict(line.split(" ", 2)[1:3] for line in output.splitlines() if line.count(" ") >= 2) if code == 0 else {}
    if "__clang_major__" in macros:
        family = "AppleClang" if "__apple_build_version__" in macros else "clang"
        parts = [macros[f"__clang_{part}__"] for part in ("major", "minor", "patchlevel")]
    elif "__GNUC__" in macros:
        family = "gcc"
        parts = [macros[key] for key in ("__GNUC__", "__GNUC_MINOR__", "__GNUC_PATCHLEVEL__")]
    else:
        return f"{cxx} does not run as a compiler"
    name = f"{family} {'.'.join(parts)}"
    if int(parts[0]) < MINIMUM[family]:
        return f"{name} is too old, {MINIMUM[family]} is needed"
    complaint = compile_probe(cc, cxx)
    return f"{name} {complaint}" if complaint else Compiler(name, cc, cxx)


def install_hint() -> str:
    """The command that installs a compiler on this system."""
    if sys.platform == "darwin":
        return "install Apple's with: xcode-select --install"
    if sys.platform == "win32":
        return "install Visual Studio 2022's Build Tools with: winget install Microsoft.VisualStudio.2022.BuildTools"
    sudo = "" if os.geteuid() == 0 else "sudo "
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    kin = f"{system.get('ID', '')} {system.get('ID_LIKE', '')}"
    commands = {
        "debian": "apt install g++",
        "fedora": "dnf install gcc-c++",
        "rhel": "dnf install gcc-c++",
        "suse": "zypper install gcc-c++",
        "arch": "pacman -S gcc",
        "alpine": "apk add g++",
    }
    for family, command in commands.items():
        if family in kin:
            return f"install one with: {sudo}{command}"
    return "install gcc 11 or newer, or clang 15 or newer, with your system's package manager"
