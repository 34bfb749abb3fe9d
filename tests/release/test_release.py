# SPDX-License-Identifier: MIT
"""The parts of a release that need no compiled engine."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import setuptools
import yaml
from packaging.tags import mac_platforms

from trit.base import command, places
from trit.base.errors import TritError, UserError
from trit.engine.tuning_file import machine_key
from trit.release import sbom
from trit.release.binaries import Needs, check_needs, needs
from trit.release.command import write_sums
from trit.release.notes import notes
from trit.release.platforms import PLATFORMS, this_platform

ROOT = Path(__file__).resolve().parents[2]


def test_the_oldest_system_is_that_of_the_target() -> None:
    """The compiler's target and the wheel's tag say the same, once for each of them; and it is a tag that pip knows."""
    for name, row in PLATFORMS.items():
        if row.system == "windows":
            assert row.oldest is None, name
        else:
            assert row.oldest is not None, name
            assert row.target.endswith(".{}.{}".format(*row.oldest)), name
    tags = [row.tag for row in PLATFORMS.values()]
    assert len(set(tags)) == len(tags)
    for name, oldest in {"macos-arm64": "arm64", "macos-x86_64": "x86_64"}.items():
        assert PLATFORMS[name].tag in set(mac_platforms((15, 0), oldest))


@pytest.mark.parametrize(
    ("name", "cpu", "system", "suffix", "library"),
    [
        ("linux-x86_64", "x86_64", "linux", "", "libtrit-engine.so"),
        ("linux-armv7", "arm", "linux", "", "libtrit-engine.so"),
        ("windows-x86_64", "x86_64", "windows", ".exe", "libtrit-engine.dll"),
        ("macos-arm64", "aarch64", "macos", "", "libtrit-engine.dylib"),
    ],
)
def test_names_of_files_are_the_systems(
    name: str, cpu: str, system: str, suffix: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the installed package looks for the same ones."""
    row = PLATFORMS[name]
    assert (row.cpu, row.system, row.suffix, row.library) == (cpu, system, suffix, library)
    monkeypatch.setattr("sys.platform", {"windows": "win32", "macos": "darwin"}.get(system, system))
    assert places.engine_program("llama-cli").name == f"llama-cli{suffix}"


def test_every_platform_is_built_and_named_everywhere() -> None:
    """By both workflows, with the one command; and in the table that says which wheel is for whom."""

    def jobs(name: str) -> dict[str, Any]:
        text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
        found: dict[str, Any] = yaml.safe_load(text)["jobs"]
        return found

    wheel, build = jobs("release.yml")["wheel"], jobs("platforms.yml")["build"]
    assert wheel["strategy"]["matrix"]["platform"] == list(PLATFORMS)
    tried = [row["platform"] for row in build["strategy"]["matrix"]["include"]]
    assert tried == [name for name in PLATFORMS if name != "linux-x86_64"]
    for job in (wheel, build):
        made = [step["run"] for step in job["steps"] if "trit.release" in step.get("run", "")]
        assert len(made) == 1 and made[0].endswith("-m trit.release wheel --platform ${{ matrix.platform }}")
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `([a-z]+-\w+)` \| `(\w+)` \|", page, re.M)) == {
        name: row.tag for name, row in PLATFORMS.items()
    }


# Those that GitHub has: https://github.com/actions/runner-images
RUNNERS = {"ubuntu-24.04", "ubuntu-24.04-arm", "macos-15", "macos-15-intel", "windows-2022"}


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_asks_for_no_more_than_it_needs(path: Path) -> None:
    """Actions by their commits, an end for each job, known machines, and rights to write for the draft alone."""
    text = path.read_text(encoding="utf-8")
    uses = re.findall(r"uses: (.*)", text)
    assert uses and all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", name) for name in uses)
    flow = yaml.safe_load(text)
    assert flow["permissions"] == {"contents": "read"} and "concurrency" in flow
    # What runs with a stranger's words must not have them in its script.
    assert not re.findall(r"\$\{\{ *(?:github\.(?:event|head|ref)|inputs)", "".join(re.findall(r"run: (.*)", text)))
    for name, job in flow["jobs"].items():
        rows = job.get("strategy", {}).get("matrix", {}).get("include", [])
        machines = {row["os"] for row in rows if "os" in row} if "matrix" in job["runs-on"] else {job["runs-on"]}
        assert machines and machines <= RUNNERS, name
        assert job["timeout-minutes"] <= 120, name
        assert ("permissions" in job) == (name == "draft"), name
        for step in job["steps"]:
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False, name


@pytest.mark.skipif(sys.platform != "linux", reason="the job runs on Linux")
@pytest.mark.parametrize("fault", ["", "a wheel is missing", "a wheel is damaged"])
def test_the_draft_has_all_wheels_and_their_sums(fault: str, tmp_path: Path) -> None:
    """The job's own script, over what the other jobs hand on."""
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    script = next(step["run"] for step in flow["jobs"]["draft"]["steps"] if "sha256sum" in step.get("run", ""))
    for name, row in PLATFORMS.items():
        part = tmp_path / "parts" / name
        part.mkdir(parents=True)
        (part / f"trit_cpp-1-py3-none-{row.tag}.whl").write_text(name)
        (part / f"trit_cpp-1-py3-none-{row.tag}.cdx.json").write_text("{}")
        (part / "NOTES.md").write_text("notes")
        write_sums(part)
    spoiled = next((tmp_path / "parts" / "macos-arm64").glob("*.whl"))
    if fault:
        spoiled.unlink() if "missing" in fault else spoiled.write_text("half")
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not fault), done.stderr
    if not fault:
        files = {path.name for path in (tmp_path / "dist").iterdir()}
        assert len(files) == 2 * len(PLATFORMS) + 1
        lines = (tmp_path / "dist" / "SHA256SUMS").read_text().splitlines()
        assert {line.split("  ")[1] for line in lines} == files - {"SHA256SUMS"}


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


@pytest.mark.skipif(sys.platform != "linux", reason="it asks ldd")
def test_what_a_program_asks_of_the_system_is_read() -> None:
    """Of this Python, against what the loader says of it; its glibc is newer than 2.2, and 99 is newer than any."""
    program = Path(sys.executable).resolve()
    host = this_platform()
    assert host is not None
    found = needs(program, PLATFORMS[host])
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    assert found.libraries and all(name in told for name in found.libraries if not name.startswith("ld-linux"))
    assert any(name.startswith("GLIBC_2.") for name in found.versions)
    old = replace(PLATFORMS[host], tag="manylinux_2_2_x86_64")
    with pytest.raises(TritError, match=r"its wheel is for glibc 2\.2 and newer|needs .*, which not every system has"):
        check_needs(program, old)


def test_what_a_windows_program_asks_is_read() -> None:
    """Of the starters that setuptools has for each CPU."""
    folder = Path(setuptools.__file__).parent
    found = needs(folder / "cli-64.exe", PLATFORMS["windows-x86_64"])
    assert "KERNEL32.dll" in found.libraries and not found.versions
    for other in ("cli-32.exe", "cli-arm64.exe", "__init__.py"):
        with pytest.raises(TritError, match=f"{other} is no program for x86_64-windows-gnu"):
            needs(folder / other, PLATFORMS["windows-x86_64"])
    with pytest.raises(TritError, match="is no program for x86_64-linux"):
        needs(folder / "cli-64.exe", PLATFORMS["linux-x86_64"])


ARM, INTEL = 0x0100000C, 0x01000007


def mach(cpu: int, oldest: tuple[int, int], library: str, folder: str, signed: bool) -> bytes:
    """A program of macOS by hand: a header and the commands that say what it asks for."""
    text = library.encode() + bytes(8 - len(library) % 8)
    place = folder.encode() + bytes(4 + 8 - (len(folder) + 4) % 8)
    commands = [
        struct.pack("<6I", 0x32, 24, 1, oldest[0] << 16 | oldest[1] << 8, 0, 0),  # LC_BUILD_VERSION: of macOS
        struct.pack("<6I", 0xC, 24 + len(text), 24, 0, 0, 0) + text,  # LC_LOAD_DYLIB
        struct.pack("<3I", 0x8000001C, 12 + len(place), 12) + place,  # LC_RPATH
    ]
    if signed:  # LC_SEGMENT_64 that has the signature, and LC_CODE_SIGNATURE
        commands.append(struct.pack("<2I16s4Q4I", 0x19, 72, b"__LINKEDIT", 0, 4096, SIGNED, 4096 - SIGNED, 1, 1, 0, 0))
        commands.append(struct.pack("<4I", 0x1D, 16, SIGNED, 4096 - SIGNED))
    size = sum(map(len, commands))
    head = struct.pack("<8I", 0xFEEDFACF, cpu, 0, 2, len(commands), size, 0x85, 0)
    program = (head + b"".join(commands)).ljust(SIGNED, b"\0")
    return program + (signature(program) if signed else b"")


SIGNED = 1024


def signature(program: bytes) -> bytes:
    """As linkers write it: an index of one part, and the directory of pages of 256 bytes, without name or key."""
    pages = [program[start : start + 256] for start in range(0, len(program), 256)]
    hashes = b"".join(hashlib.sha256(page).digest() for page in pages)
    facts = struct.pack(">9I4BI", 0xFADE0C02, 44 + len(hashes), 0x20400, 0x20002, 44, 0, 0, 4, SIGNED, 32, 2, 0, 8, 0)
    return struct.pack(">5I", 0xFADE0CC0, 20 + len(facts + hashes), 1, 0, 20) + facts + hashes


@pytest.mark.parametrize("place", [40, SIGNED - 1, SIGNED, SIGNED + 12, SIGNED + 20 + 36, SIGNED + 20 + 44])
def test_a_signature_that_does_not_fit_is_none(place: int, tmp_path: Path) -> None:
    path = tmp_path / "program"
    whole = mach(ARM, (11, 0), SYSTEM, "@loader_path", True).ljust(4096, b"\0")
    path.write_bytes(whole)
    assert needs(path, PLATFORMS["macos-arm64"]).signed
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert not needs(path, PLATFORMS["macos-arm64"]).signed


SYSTEM, OURS = "/usr/lib/libSystem.B.dylib", "@rpath/libtrit-engine.dylib"


@pytest.mark.parametrize(
    ("name", "program", "complaint"),
    [
        ("macos-arm64", (ARM, (11, 0), OURS, "@loader_path", True), ""),
        ("macos-arm64", (ARM, (10, 15), SYSTEM, "/elsewhere", True), ""),
        ("macos-x86_64", (INTEL, (11, 0), OURS, "@loader_path", False), ""),
        ("macos-arm64", (ARM, (11, 0), OURS, "@loader_path", False), "has no signature that fits"),
        ("macos-arm64", (INTEL, (11, 0), OURS, "@loader_path", True), r"is no program for aarch64-macos"),
        ("macos-arm64", (ARM, (11, 1), OURS, "@loader_path", True), r"is for macOS 11\.1\.0, but .* macOS 11\.0 and"),
        ("macos-arm64", (ARM, (11, 0), "/opt/lib/libomp.dylib", "@loader_path", True), "needs /opt/lib/libomp.dylib"),
        ("macos-x86_64", (INTEL, (11, 0), OURS, "/elsewhere", False), "does not look for libtrit-engine.dylib in its"),
    ],
)
def test_a_mac_program_is_checked(
    name: str, program: tuple[int, tuple[int, int], str, str, bool], complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "program"
    path.write_bytes(mach(*program))
    if complaint:
        with pytest.raises(TritError, match=complaint):
            check_needs(path, PLATFORMS[name])
    else:
        check_needs(path, PLATFORMS[name])


def test_a_mac_library_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "libtrit-engine.dylib"
    path.write_bytes(mach(ARM, (11, 0), OURS, "/elsewhere", True))
    check_needs(path, PLATFORMS["macos-arm64"])


@pytest.mark.parametrize(
    ("name", "asked", "complaint"),
    [
        ("linux-x86_64", Needs({"libc.so.6", "ld-linux-x86-64.so.2"}, {"GLIBC_2.17", "GLIBC_2.2.5"}), ""),
        ("linux-x86_64", Needs({"libtrit-engine.so"}, set(), folders=("$ORIGIN",)), ""),
        ("linux-x86_64", Needs({"libtrit-engine.so"}, set()), "does not look for libtrit-engine.so in its own folder"),
        (
            "linux-x86_64",
            Needs({"libgomp.so.1", "libstdc++.so.6"}, set()),
            "needs libgomp.so.1, libstdc",
        ),
        ("linux-x86_64", Needs({"libc.so.6"}, {"GLIBC_2.18"}), "wants GLIBC_2.18, but its wheel is for glibc 2.17"),
        ("linux-x86_64", Needs({"libc.so.6"}, {"GLIBC_3.0"}), "wants GLIBC_3.0"),
        ("linux-x86_64", Needs({"libc.so.6"}, {"GLIBC_PRIVATE"}), "wants GLIBC_PRIVATE"),
        ("linux-x86_64", Needs({"libc.so.6"}, {"GLIBCXX_3.4"}), "wants GLIBCXX_3.4"),
        ("linux-riscv64", Needs({"libc.so.6"}, {"GLIBC_2.31"}), ""),
        ("windows-x86_64", Needs({"KERNEL32.dll", "api-ms-win-crt-heap-l1-1-0.dll", "libtrit-engine.dll"}, set()), ""),
        ("windows-x86_64", Needs({"KERNEL32.dll", "VCRUNTIME140.dll"}, set()), "needs VCRUNTIME140.dll, which"),
        ("windows-x86_64", Needs({"libwinpthread-1.dll"}, set()), "needs libwinpthread-1.dll, which"),
    ],
)
def test_what_not_every_system_has_is_refused(
    name: str, asked: Needs, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trit.release.binaries.needs", lambda path, platform: asked)
    if complaint:
        with pytest.raises(TritError, match=complaint):
            check_needs(tmp_path / "program", PLATFORMS[name])
    else:
        check_needs(tmp_path / "program", PLATFORMS[name])


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
