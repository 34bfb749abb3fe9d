# SPDX-License-Identifier: MIT
"""What a Linux program asks of the system that it runs on."""

from __future__ import annotations

import re
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from trit.base.errors import TritError

# Parts of glibc, which every system has that a manylinux wheel may be installed on; and the bundle's own library.
ALLOWED = re.compile(
    r"lib(c|m|dl|pthread|rt)\.so\.\d+|ld-linux[\w.-]*\.so\.\d+|libtrit-engine\.so",
)
_VERSION = re.compile(r"GLIBC_(\d+(?:\.\d+)+)")


def needs(path: Path) -> tuple[set[str], set[str]]:
    """The libraries that an ELF file names, and the versions of symbols that it wants of them."""
    libraries: set[str] = set()
    versions: set[str] = set()
    with path.open("rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, DynamicSection):
                libraries |= {tag.needed for tag in section.iter_tags("DT_NEEDED")}  # type: ignore[attr-defined]
            elif isinstance(section, GNUVerNeedSection):
                versions |= {aux.name for _, auxiliaries in section.iter_versions() for aux in auxiliaries}
    return libraries, versions


def check_needs(path: Path, glibc: tuple[int, ...]) -> None:
    """Refuse a program that asks for more than the oldest system of its wheel has.

    Args:
        path: an ELF file.
        glibc: version of the oldest glibc, (2, 17).

    Raises:
        TritError: it names another library, or a newer symbol.
    """
    libraries, versions = needs(path)
    if foreign := sorted(name for name in libraries if not ALLOWED.fullmatch(name)):
        raise TritError(f"{path} needs {', '.join(foreign)}, which not every system has; link it statically")
    for version in sorted(versions):
        match = _VERSION.fullmatch(version)
        if match is None or tuple(map(int, match[1].split("."))) > glibc:
            oldest = ".".join(map(str, glibc))
            raise TritError(f"{path} wants {version}, but its wheel is for glibc {oldest} and newer")
