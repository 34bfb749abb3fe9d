# SPDX-License-Identifier: MIT
"""What a compiled program asks of the system that it runs on, and whether the oldest one of its wheel has that."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import lief

from trit.base.errors import TritError
from trit.release.platforms import Platform

# Of Linux, parts of glibc, which every system has that a manylinux wheel may be installed on; of Windows, what all
# releases since 10 have; of macOS, the C library. And the bundle's own library, beside the programs.
ALLOWED = {
    "linux": r"lib(c|m|dl|pthread|rt)\.so\.\d+|ld-linux[\w.-]*\.so\.\d+|libtrit-engine\.so",
    "windows": r"(?i)(kernel32|advapi32|ntdll|shell32|ws2_32)\.dll|api-ms-win-crt-[\w-]+\.dll|libtrit-engine\.dll",
    "macos": r"/usr/lib/libSystem\.B\.dylib|@rpath/libtrit-engine\.dylib",
}
# What it complains about is said below, in a sentence.
lief.logging.disable()
_FORMAT = {"linux": lief.ELF.Binary, "windows": lief.PE.Binary, "macos": lief.MachO.Binary}
_CPU = {
    "x86_64": lief.Header.ARCHITECTURES.X86_64,
    "aarch64": lief.Header.ARCHITECTURES.ARM64,
    "arm": lief.Header.ARCHITECTURES.ARM,
    "riscv64": lief.Header.ARCHITECTURES.RISCV,
}
_BESIDE = {"linux": "$ORIGIN", "macos": "@loader_path"}
# Of macOS: the magic numbers of signature and code directory (xnu's cs_blobs.h), 32 bytes for a hash, which is SHA-256.
_SIGNATURE = (0xFADE0CC0, 0xFADE0C02, 32, 2)
_GLIBC = re.compile(r"GLIBC_(\d+(?:\.\d+)+)")


@dataclass(frozen=True)
class Needs:
    """What a program asks for.

    Attributes:
        libraries: that it names.
        versions: of symbols that it wants of them; Linux alone.
        oldest: version of the oldest system that it says it runs on; macOS alone.
        folders: where it looks for libraries besides the system's places; not Windows, which looks beside the program.
        signed: whether it has a signature that fits its bytes, if only by itself; macOS alone.
    """

    libraries: set[str]
    versions: set[str]
    oldest: tuple[int, ...] | None = None
    folders: tuple[str, ...] = ()
    signed: bool = False


def needs(path: Path, platform: Platform) -> Needs:
    """Read a program or a library.

    Raises:
        TritError: it is none, or one for another platform.
    """
    binary = lief.parse(str(path))
    if not isinstance(binary, _FORMAT[platform.system]) or binary.abstract.header.architecture != _CPU[platform.cpu]:
        raise TritError(f"{path} is no program for {platform.target}; delete the folder of its build and build again")
    if isinstance(binary, lief.ELF.Binary):
        required = binary.symbols_version_requirement
        versions = {str(symbol.name) for library in required for symbol in library.get_auxiliary_symbols()}
        entry = binary.get(lief.ELF.DynamicEntry.TAG.RUNPATH) or binary.get(lief.ELF.DynamicEntry.TAG.RPATH)
        runpath = str(entry.runpath) if isinstance(entry, lief.ELF.DynamicEntryRunPath) else ""
        return Needs(set(map(str, binary.libraries)), versions, folders=tuple(runpath.split(":")))
    if isinstance(binary, lief.MachO.Binary):
        built = binary.build_version
        libraries = {str(library.name) for library in binary.libraries}
        folders = tuple(str(rpath.path) for rpath in binary.rpaths)
        return Needs(libraries, set(), tuple(built.minos) if built else None, folders, _is_signed(path, binary))
    return Needs(set(map(str, binary.libraries)), set())


def _is_signed(path: Path, binary: lief.MachO.Binary) -> bool:
    """Whether the code directory has the hash of every page: a program that was changed afterwards is not started."""
    place = binary.code_signature
    if place is None:
        return False
    content = path.read_bytes()
    blob = content[place.data_offset : place.data_offset + place.data_size]
    try:
        magic, _, count = struct.unpack_from(">3I", blob)
        parts = [struct.unpack_from(">2I", blob, 12 + 8 * part) for part in range(count)]
        directory = blob[next(offset for slot, offset in parts if slot == 0) :]
        kind, _, _, _, first, _, _, pages, end = struct.unpack_from(">9I", directory)
        size, algorithm, _, shift = struct.unpack_from("4B", directory, 36)
    except (struct.error, StopIteration):
        return False
    if (magic, kind, size, algorithm, end) != (*_SIGNATURE, place.data_offset):
        return False
    starts = range(0, end, 1 << shift)
    hashes = [hashlib.sha256(content[start : min(start + (1 << shift), end)]).digest() for start in starts]
    return len(hashes) == pages and directory[first:].startswith(b"".join(hashes))


def check_needs(path: Path, platform: Platform) -> None:
    """Refuse a program that asks for more than the oldest system of its wheel has.

    Args:
        path: one of the wheel's programs, or their library.
        platform: that the wheel is for.

    Raises:
        TritError: it is for another platform, names another library, wants a newer system, or would not start there.
    """
    found = needs(path, platform)
    if foreign := sorted(name for name in found.libraries if not re.fullmatch(ALLOWED[platform.system], name)):
        raise TritError(f"{path} needs {', '.join(foreign)}, which not every system has; link it statically")
    # A library of macOS names itself, too.
    own = path.name != platform.library and any(name.endswith(platform.library) for name in found.libraries)
    if own and platform.system in _BESIDE and _BESIDE[platform.system] not in found.folders:
        raise TritError(f"{path} does not look for {platform.library} in its own folder; mend its rpath")
    oldest = ".".join(map(str, platform.oldest or ()))
    for version in sorted(found.versions):
        match = _GLIBC.fullmatch(version)
        if match is None or tuple(map(int, match[1].split("."))) > (platform.oldest or ()):
            raise TritError(f"{path} wants {version}, but its wheel is for glibc {oldest} and newer")
    if platform.system == "macos":
        if found.oldest is None or found.oldest[:2] > (platform.oldest or ()):
            told = ".".join(map(str, found.oldest or ())) or "of no version"
            raise TritError(f"{path} is for macOS {told}, but its wheel is for macOS {oldest} and newer")
        if platform.cpu == "aarch64" and not found.signed:
            raise TritError(
                f"{path} has no signature that fits, and macOS on ARM starts no such program; link it by zig"
            )
