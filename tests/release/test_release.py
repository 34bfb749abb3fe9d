# SPDX-License-Identifier: MIT
"""The parts of a release that need no compiled engine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from trit.base import command, places
from trit.base.errors import TritError, UserError
from trit.engine.tuning_file import machine_key
from trit.release import sbom
from trit.release.command import write_sums
from trit.release.notes import notes
from trit.release.platforms import PLATFORMS, this_platform
from trit.release.symbols import check_needs, needs

ROOT = Path(__file__).resolve().parents[2]


def test_the_oldest_glibc_is_that_of_the_target() -> None:
    """The compiler's target and the wheel's tag say the same, once for each of them."""
    for name, row in PLATFORMS.items():
        if row.target.partition("-")[2].startswith("linux"):
            assert row.glibc is not None, name
            assert row.target.endswith(".{}.{}".format(*row.glibc)), name
        else:
            assert row.glibc is None, name
    tags = [row.tag for row in PLATFORMS.values()]
    assert len(set(tags)) == len(tags)


def test_this_machine_has_a_row() -> None:
    assert this_platform() in PLATFORMS


def test_notes_are_the_lines_of_one_version(tmp_path: Path) -> None:
    page = tmp_path / "CHANGELOG.md"
    page.write_text("# Changelog\n\n## 1.2.0 - 2027-01-01\n\n### Run\n- new\n\n## 1.1.10\n\n- old\n\n## 1.1.1\n")
    assert notes("1.2.0", page) == "### Run\n- new\n"
    assert notes("1.1.10", page) == "- old\n"
    for version in ("1.1.1", "1.1", "2.0.0"):
        with pytest.raises(UserError, match=f"has no lines for version {version}"):
            notes(version, page)


def test_sums_are_those_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "b.whl").write_bytes(b"\0wheel")
    (tmp_path / "a.md").write_text("notes")
    for _ in range(2):  # the sums' own file is no part of them
        write_sums(tmp_path)
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256(b'notes').hexdigest()}  a.md",
        f"{hashlib.sha256(bytes([0]) + b'wheel').hexdigest()}  b.whl",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="ELF files are Linux's")
def test_what_a_program_asks_of_the_system_is_read(tmp_path: Path) -> None:
    """Of this Python, against what the loader says of it; its glibc is newer than 2.2, and 99 is newer than any."""
    program = Path(sys.executable).resolve()
    libraries, versions = needs(program)
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    assert libraries and all(name in told for name in libraries if not name.startswith("ld-linux"))
    assert any(name.startswith("GLIBC_2.") for name in versions)
    with pytest.raises(TritError, match=r"its wheel is for glibc 2\.2 and newer|needs .*, which not every system has"):
        check_needs(program, (2, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="ELF files are Linux's")
def test_another_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: tuple[set[str], set[str]] = ({"libc.so.6", "libgomp.so.1", "libstdc++.so.6"}, {"GLIBC_2.17"})
    monkeypatch.setattr("trit.release.symbols.needs", lambda path: found)
    with pytest.raises(TritError, match=r"needs libgomp.so.1, libstdc\+\+.so.6, which"):
        check_needs(tmp_path / "program", (2, 17))
    found = ({"libc.so.6", "libtrit-engine.so", "ld-linux-x86-64.so.2"}, {"GLIBC_2.17", "GLIBC_2.2.5"})
    check_needs(tmp_path / "program", (2, 17))
    for newer in ("GLIBC_2.18", "GLIBC_3.0", "GLIBC_PRIVATE", "GLIBCXX_3.4"):
        found = ({"libc.so.6"}, {"GLIBC_2.17", newer})
        with pytest.raises(TritError, match=f"wants {newer}, but its wheel is for glibc 2.17"):
            check_needs(tmp_path / "program", (2, 17))


def test_packages_that_a_wheel_asks_for_are_read_from_it(tmp_path: Path) -> None:
    path = tmp_path / "x.whl"
    with ZipFile(path, "w") as archive:
        lines = ["Metadata-Version: 2.4", "Name: x", "Requires-Dist: numpy<3,>=1.26", "Requires-Dist: tqdm"]
        archive.writestr("x-1.dist-info/METADATA", "\n".join([*lines, 'Requires-Dist: torch>=2; extra == "train"', ""]))
    assert sbom.requirements(path) == [("numpy", "<3,>=1.26"), ("tqdm", "")]


def test_what_is_in_the_engine_is_read_from_the_page(tmp_path: Path) -> None:
    assert {"cpp-httplib", "nlohmann/json"} <= sbom.vendored().keys()
    page = tmp_path / "page.md"
    page.write_text("| inside it: a, b/c | MIT / BSD (see x) | compiled |\n")
    assert sbom.vendored(page) == {"a": "MIT / BSD", "b/c": "MIT / BSD"}
    page.write_text("nothing\n")
    with pytest.raises(TritError, match="has no row 'inside it"):
        sbom.vendored(page)


def test_programs_of_the_bundle_are_listed_alike() -> None:
    """What CMake builds, what its library has, and what is packed."""
    from trit.release.engine import PROGRAMS

    recipe = (ROOT / "cmake" / "bundle.cmake").read_text(encoding="utf-8")
    words = set(recipe.partition("set(TRIT_PROGRAMS ")[2].partition(")")[0].split())
    table = (ROOT / "src" / "tools" / "bundle.cpp").read_text(encoding="utf-8").partition("kPrograms[]")[2]
    assert words == set(PROGRAMS) == {part.partition('"')[0] for part in table.partition("};")[0].split('{"')[1:]}


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"TRIT_HOME": "/somewhere/else"}, "/somewhere/else"),
        ({"XDG_CACHE_HOME": "/caches"}, "/caches/trit"),
        ({"XDG_CACHE_HOME": "relative"}, "/people/ann/.cache/trit"),
        ({"TRIT_HOME": "", "XDG_CACHE_HOME": ""}, "/people/ann/.cache/trit"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_where_a_wheel_writes(variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRIT_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/people/ann")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert places.home() == Path(folder)


def test_a_wheel_names_its_own_tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was measured, and only where the user says nothing else."""
    monkeypatch.setenv("TRIT_TUNING", "")
    file = tmp_path / "tuning.json"
    command.use_own_tuning(True, file)
    assert command.os.environ["TRIT_TUNING"] == ""
    file.write_text("{}")
    command.use_own_tuning(False, file)
    assert command.os.environ["TRIT_TUNING"] == ""
    command.use_own_tuning(True, file)
    assert command.os.environ["TRIT_TUNING"] == str(file)
    monkeypatch.setenv("TRIT_TUNING", "preset")
    command.use_own_tuning(True, file)
    assert command.os.environ["TRIT_TUNING"] == "preset"


def test_another_library_is_another_machine_to_the_tuning(tmp_path: Path) -> None:
    """In a bundle all programs are alike; the kernels are in the library."""
    program = tmp_path / "trit-tune"
    program.write_bytes(b"program")
    keys = [machine_key(program)]
    for name in ("libtrit-engine.so", "libtrit-engine.dll"):
        for content in (b"old", b"new"):
            (tmp_path / name).write_bytes(content)
            keys.append(machine_key(program))
    assert len(set(keys)) == len(keys)
