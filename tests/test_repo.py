# SPDX-License-Identifier: MIT
"""Rules that hold for the whole repository: layers, patches, warnings, what the built library contains."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCK = json.loads((ROOT / "3rdparty" / "llama.cpp.lock.json").read_text())
PATCHES = sorted((ROOT / "3rdparty" / "patches").glob("*.patch"))


def tracked(pattern: str) -> list[Path]:
    """Files of the checkout that match, those that git ignores left out."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:  # an unpacked archive without .git
        return [path for path in ROOT.glob("**/" + pattern.lstrip("*")) if "3rdparty" not in path.parts]
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def test_only_files_of_the_hook_know_ggml() -> None:
    users = [
        path.name
        for path in (ROOT / "src").rglob("*.[ch]*")
        if re.search(r'#include "(ggml|traits)', path.read_text(errors="ignore"))
    ]
    assert users and all(name.startswith("ggml_") for name in users)


def test_only_tiers_know_instruction_sets() -> None:
    pattern = re.compile(r"immintrin\.h|arm_neon\.h|__AVX|__ARM_NEON|_mm\d*_")
    for path in (ROOT / "src").rglob("*.[ch]*"):
        if path.parent.name != "tiers":
            assert not pattern.search(path.read_text(errors="ignore")), f"{path.name} belongs in src/tiers/"


def test_every_source_file_names_its_licence() -> None:
    for pattern in ("*.py", "*.cpp", "*.h"):
        for path in tracked(pattern):
            head = path.read_text(encoding="utf-8")[:200]
            assert "SPDX-License-Identifier: MIT" in head, f"{path.relative_to(ROOT)} has no SPDX line"


def test_sources_are_ascii() -> None:
    for pattern in ("*.py", "*.cpp", "*.h", "*.txt", "*.toml", "*.patch"):
        for path in tracked(pattern):
            if path.parent == ROOT / "tests":  # they hold texts in many scripts
                continue
            assert path.read_bytes().isascii(), f"{path.relative_to(ROOT)} has a non-ASCII character"


def test_files_are_short_enough_to_read() -> None:
    for pattern in ("*.py", "*.cpp", "*.h"):
        for path in tracked(pattern):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= 600, f"{path.relative_to(ROOT)} has {lines} lines; split it"


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.name)
def test_patch_says_why(patch: Path) -> None:
    head = patch.read_text().split("diff --git")[0]
    assert len(head.split()) > 15 and "Drop " in head


def test_patches_apply_without_fuzz_to_the_pinned_tree(tmp_path: Path) -> None:
    sdist = ROOT / "3rdparty" / "cache" / LOCK["sdist"]
    if not sdist.is_file():
        pytest.skip(f"{sdist} is not there (the engine came from --llama-cpp-dir)")
    prefix = f"{LOCK['package'].replace('-', '_')}-{LOCK['version']}/{LOCK['subdir']}/"
    touched = set(re.findall(r"^--- a/(\S+)", "".join(path.read_text() for path in PATCHES), re.MULTILINE))
    with tarfile.open(sdist) as archive:
        for name in sorted(touched):
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(prefix + name)
            assert source is not None
            target.write_bytes(source.read())
    for patch in PATCHES:
        result = subprocess.run(["git", "apply", "-v", str(patch)], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert "offset" not in result.stderr, f"{patch.name} is out of place: {result.stderr}"


def test_patch_queue_stays_small() -> None:
    changed = re.findall(r"^[+-](?![+-]{2} )", "".join(path.read_text() for path in PATCHES), re.MULTILINE)
    assert len(changed) <= 80, f"{len(changed)} changed lines: what can move to src/?"


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_kernels_compile_without_a_warning_and_pass_their_selftest(tmp_path: Path, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    scripts = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    options = ["-DTRIT_KERNELS_ONLY=ON", "-DTRIT_WARNINGS_AS_ERRORS=ON", f"-DCMAKE_CXX_COMPILER={compiler}"]
    options += [f"-DCMAKE_C_COMPILER={ {'g++': 'gcc', 'clang++': 'clang'}[compiler] }"]
    build = tmp_path / "build"
    for command in (
        ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build), *options],
        ["cmake", "--build", str(build)],
        [str(build / "bin" / "trit-selftest")],
    ):
        result = subprocess.run(command, env=env, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def test_no_tier_leaks_its_instructions(engine_bin: Path) -> None:
    """A binary made here runs on any x86-64: only tier files have wide registers, and they share no function."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("knows x86-64's registers; test_arm.py has the same for ARM")
    objects = engine_bin.parent / "src" / "CMakeFiles" / "trit_objects.dir"
    if shutil.which("objdump") is None or not (objects / "dispatch.cpp.o").is_file():
        pytest.skip("needs objdump and the build's object files")
    wide_tiers = 0
    for path in objects.rglob("*.cpp.o"):
        code = subprocess.run(["objdump", "-d", str(path)], capture_output=True, text=True, check=True).stdout
        wide = re.search(r"%[yz]mm\d", code) is not None
        if path.parent.name != "tiers" or path.name.startswith("scalar"):
            assert not wide, f"{path.name} uses 256-bit registers"
            continue
        wide_tiers += wide
        symbols = subprocess.run(["nm", "-C", "--defined-only", str(path)], capture_output=True, text=True, check=True)
        # A weak or global function could be the copy that the linker keeps for baseline code.
        shared = [line for line in symbols.stdout.splitlines() if line.split()[1] in "TWVu"]
        assert not shared, f"{path.name}: {shared}"
    assert wide_tiers > 0
