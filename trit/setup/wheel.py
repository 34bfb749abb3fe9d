# SPDX-License-Identifier: MIT
"""A step: the engine's programs out of a wheel, for hosts without a compiler (``--wheel FILE``).

``build`` then holds the programs alone. What is left of a compiled build goes: its ninja would take them for its own.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import sysconfig
import zipfile
import zlib
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from trit import __version__
from trit.base.errors import UserError
from trit.base.files import check_input, names_file, stays_inside
from trit.base.places import BUILD_DIR, ENGINE_BIN, ENGINE_DIR, LOCK, ROOT, STAMPS, engine_program
from trit.base.processes import capture
from trit.base.progress import StepLine
from trit.setup.build import PROGRAMS, programs
from trit.setup.context import Setup, digest, read_stamp, sha256, write_stamp

NAME = "engine"
DEED = "taking the engine out of a wheel"

PATCHES = ROOT / "3rdparty" / "patches"
_STAMP = "build.json"
_NAME = "trit-cpp"
# Tags before PEP 600 -> the glibc that they stand for.
_OLD_TAGS = {"manylinux1": "manylinux_2_5", "manylinux2010": "manylinux_2_12", "manylinux2014": "manylinux_2_17"}
_TAG = re.compile(r"(?P<system>\w*linux|macosx|win)(?:_(?P<major>\d+)_(?P<minor>\d+))?_(?P<machine>\w+)")
_BOTH = {"universal2": ("arm64", "x86_64")}


@dataclass(frozen=True)
class Wheel:
    """What a wheel says of itself.

    Attributes:
        path: of the file.
        version: of the package in it.
        platforms: platform tags, one of which has to fit.
        commit: of the engine; empty if no lock file is in it.
        patches: names of the engine's patches -> their digests; empty if they are not in it.
        folder: of the programs, ending in a slash.
        members: everything in that folder.
    """

    path: Path
    version: str
    platforms: tuple[str, ...]
    commit: str
    patches: dict[str, str]
    folder: str
    members: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        """Names of the files beside the programs, relative to their folder."""
        return {member.removeprefix(self.folder) for member in self.members}


def check_options(setup: Setup) -> None:
    """Refuse a wheel that cannot be used, before anything is done.

    Raises:
        UserError: ``--wheel`` names no wheel of ours, or one of another version, engine or machine.
    """
    path = setup.options.wheel
    if path is None:
        return
    if setup.options.clean and any(path.is_relative_to(folder) for folder in (BUILD_DIR, ENGINE_DIR)):
        raise UserError(f"--wheel {path}: --clean deletes the folder that it is in; move the file out first")
    check(read(path))


def read(path: Path) -> Wheel:
    """Read what a wheel says of itself.

    Raises:
        UserError: it is not a wheel of trit.cpp, or has no programs in it.
    """
    check_input(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = tuple(name for name in archive.namelist() if not name.endswith("/"))
            metadata = _fields(archive, members, "METADATA")
            tags = _fields(archive, members, "WHEEL").get_all("Tag", [])
            lock = next((name for name in members if name.endswith("/llama.cpp.lock.json")), None)
            commit = str(json.loads(archive.read(lock))["commit"]) if lock else ""
            paths = [name for name in members if fnmatch(name, f"*/{PATCHES.parent.name}/{PATCHES.name}/*.patch")]
            patches = {PurePosixPath(name).name: digest(archive.read(name)) for name in paths}
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, NotImplementedError, RuntimeError, EOFError):
        raise UserError(f"--wheel {path}: is no whole wheel; download or build it again") from None
    if (name := metadata.get("Name", "")).replace("_", "-").lower() != _NAME:
        raise UserError(f"--wheel {path}: is a wheel of {name or 'nothing'}, expected {_NAME}; name another file")
    first = engine_program(PROGRAMS[0]).name
    # The nearest to the top; of a platform that is not ours they may have another ending.
    found = sorted((PurePosixPath(name) for name in members), key=lambda name: len(name.parts))
    program = next((name for name in found if name.name == first), None)
    program = program or next((name for name in found if name.stem == PROGRAMS[0]), None)
    if program is None:
        raise UserError(f"--wheel {path}: has no {first} in it; take a wheel of a platform, not one of Python alone")
    folder = f"{program.parent}/"
    inside = tuple(name for name in members if name.startswith(folder))
    platforms = {tag.rpartition("-")[2] for tag in tags}
    return Wheel(path, str(metadata.get("Version", "")), tuple(sorted(platforms)), commit, patches, folder, inside)


def check(wheel: Wheel) -> None:
    """Compare a wheel with this checkout and this machine.

    Raises:
        UserError: something does not fit; says what was found and expected.
    """
    where = f"--wheel {wheel.path}"
    if wheel.version != __version__:
        raise UserError(f"{where}: is version {wheel.version}, this checkout is {__version__}; take the wheel of that")
    if wheel.commit and wheel.commit != pinned():
        raise UserError(_other_commit(where, wheel.commit))
    ours = {path.name: digest(path.read_bytes()) for path in PATCHES.glob("*.patch")}
    if wheel.patches and wheel.patches != ours:
        raise UserError(f"{where}: its engine has other patches than this checkout's; take the wheel of this checkout")
    reasons = [misfit(tag) for tag in wheel.platforms]
    if all(reasons):
        raise UserError(f"{where}: {reasons[0] if reasons else 'names no platform'}; take the wheel of this platform")
    missing = [path.name for path in programs() if path.name not in wheel.names]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}; build or download it again")
    if strange := next((name for name in wheel.names if not stays_inside(name)), None):
        raise UserError(f"{where}: {strange!r} would leave the folder of the programs; do not use it")


def misfit(tag: str) -> str:
    """Why the programs of a platform tag do not run on this machine; empty if they do.

    Tags are those of PEP 425 and PEP 600: ``manylinux_2_17_x86_64`` runs with glibc 2.17 and newer.
    """
    old, _, rest = tag.partition("_")
    match = _TAG.fullmatch(f"{_OLD_TAGS[old]}_{rest}" if old in _OLD_TAGS else tag)
    family, machine = host()
    if tag == "any":
        return ""
    if (
        not match
        or not match["system"].endswith(family)
        or machine not in _BOTH.get(match["machine"], (match["machine"],))
    ):
        return f"is for {tag}, this machine is {family}_{machine}"
    name, version = ("macOS", platform.mac_ver()[0]) if family == "macosx" else platform.libc_ver()
    if match["system"] == "musllinux":
        return f"needs musl, this machine has glibc {version}" if name == "glibc" else ""
    needed = [int(number) for number in (match["major"], match["minor"]) if number]
    wanted = {"manylinux": "glibc", "macosx": "macOS"}.get(match["system"], name)
    if name != wanted or [int(number) for number in re.findall(r"\d+", version)[:2]] < needed:
        here = f"{name} {version}".strip() or "another C library"
        return f"needs {wanted} {'.'.join(map(str, needed))}, this machine has {here}"
    return ""


def host() -> tuple[str, str]:
    """Family of systems and machine, in the words of platform tags: linux and x86_64, macosx and arm64."""
    family, _, machine = sysconfig.get_platform().replace(".", "_").rpartition("-")
    # Of a Mac only what it is matters, not what its Python was made for.
    return family.partition("-")[0], platform.machine() if family.startswith("macosx") else machine


def at_hand() -> Path | None:
    """A wheel that fits, in this checkout's own folder or its ``dist``."""
    found = sorted(path for folder in (ROOT, ROOT / "dist") for path in folder.glob("trit_cpp-*.whl"))
    for path in found:
        try:
            check(read(path))
        except UserError:
            continue
        return path
    return None


def run(setup: Setup, line: StepLine) -> str:
    """Put the programs into ``build/bin``, unless those of this very file are there."""
    path = setup.options.wheel
    assert path is not None
    wheel = read(path)
    key = digest("wheel", sha256(path))
    done = f"llama.cpp {pinned()} of {path.name}"
    if read_stamp(STAMPS / _STAMP).get("key") == key and all(program.is_file() for program in programs()):
        return f"up to date: {done}"
    line.update(f"unpacking {path.name}")
    partial = BUILD_DIR.with_name(f"{BUILD_DIR.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    unpack(wheel, partial / ENGINE_BIN.name)
    try_programs(wheel, partial / ENGINE_BIN.name)
    # From here on build/ is neither the old one nor the new one, until the last line.
    (STAMPS / _STAMP).unlink(missing_ok=True)
    if BUILD_DIR.exists():
        shutil.rmtree(BUILD_DIR)
    partial.rename(BUILD_DIR)
    write_stamp(STAMPS / _STAMP, {"key": key, "wheel": path.name})
    return done


def unpack(wheel: Wheel, folder: Path) -> None:
    """Write the programs, and what lies beside them, into a folder.

    Raises:
        UserError: the wheel is damaged.
    """
    with zipfile.ZipFile(wheel.path) as archive:
        for member in wheel.members:
            place = folder / member.removeprefix(wheel.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                with names_file(place), archive.open(member) as stream, place.open("wb") as file:
                    shutil.copyfileobj(stream, file)
            except (zipfile.BadZipFile, zlib.error, EOFError):
                raise UserError(f"--wheel {wheel.path}: {member} is damaged; download or build it again") from None
            place.chmod(0o755)


def try_programs(wheel: Wheel, folder: Path) -> None:
    """Start an unpacked program: it says which engine it is.

    Raises:
        UserError: it does not start here, or is of another engine.
    """
    where = f"--wheel {wheel.path}"
    code, output = capture([engine_program(PROGRAMS[0], folder), "--version"])
    if code != 0:
        words = output.strip().splitlines()
        raise UserError(f"{where}: its programs do not start here ({words[-1] if words else f'exit code {code}'})")
    commit = re.search(r"commit (\w+)", output)
    if not commit or commit[1] != pinned():
        raise UserError(_other_commit(where, commit[1] if commit else "an unknown commit"))


def pinned() -> str:
    """The engine's commit that this checkout is made for."""
    return str(json.loads(LOCK.read_text(encoding="utf-8"))["commit"])


def _other_commit(where: str, found: str) -> str:
    return f"{where}: its engine is llama.cpp {found}, this checkout's is {pinned()}; take the wheel of this checkout"


def _fields(archive: zipfile.ZipFile, members: tuple[str, ...], name: str) -> Message:
    """The fields of a file of the wheel's ``.dist-info``."""
    inside = next((member for member in members if re.fullmatch(rf"[^/]+\.dist-info/{name}", member)), name)
    return HeaderParser().parsestr(archive.read(inside).decode("utf-8"))
