# SPDX-License-Identifier: MIT
"""Rules that hold for the whole repository: layers, patches, warnings, what the built library contains."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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


# Rooms of src/ and their floors: a room includes itself and rooms of a lower floor. include/trit.h is below all.
FLOORS = {"kernels": 1, "schema": 1, "matrix": 2, "ggml": 3, "tools": 3}
ENGINE_ROOM = "ggml"
# Of no room: the contract, what CMake generates, and what stands in for a CPU in tests.
ROOMLESS = re.compile(r"trit\.h|trit_\w+\.inc|emulated_features\.h")


def include_faults(room: str, name: str, text: str) -> list[str]:
    """What is wrong with a source file's includes, as "file:line: what"."""
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(rf'\s*#\s*include\s*(?:"|<(?=ggml|(?:{"|".join(FLOORS)})/))([^">]+)', line)
        if not found or ROOMLESS.fullmatch(found[1]):
            continue
        target = found[1].split("/")[0] if "/" in found[1] else ""
        if target not in FLOORS:
            if room != ENGINE_ROOM:
                faults.append(f'{name}:{number}: "{found[1]}" names no room, and only src/{ENGINE_ROOM}/ knows ggml')
            elif (ROOT / "src" / room / found[1]).exists():
                faults.append(f'{name}:{number}: "{found[1]}" should be "{room}/{found[1]}"')
        elif target != room and FLOORS[target] >= FLOORS[room]:
            faults.append(f'{name}:{number}: "{found[1]}" is on no floor below {room}')
        elif not (ROOT / "src" / found[1]).is_file():
            faults.append(f'{name}:{number}: "{found[1]}" does not exist')
    return faults


def test_rooms_of_src_include_only_what_is_below_them() -> None:
    sources = [path for pattern in ("*.cpp", "*.h") for path in (ROOT / "src").rglob(pattern)]
    rooms = {path: path.relative_to(ROOT / "src").parts[0] for path in sources}
    assert set(rooms.values()) == set(FLOORS), "every file of src/ is in a room"
    # Generated kernels are compiled as if they were there.
    rooms |= dict.fromkeys([*ROOT.glob("preset_kernels/*/*.cpp"), *ROOT.glob("benchmarks/*/*.cpp")], "kernels")
    faults = [
        fault
        for path, room in sorted(rooms.items())
        for fault in include_faults(room, str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("room", "include", "fault"),
    [
        ("kernels", "matrix/tuning.h", "is on no floor below kernels"),
        ("ggml", "tools/measure.h", "is on no floor below ggml"),
        ("tools", "ggml/repack.h", "is on no floor below tools"),
        ("matrix", "ggml.h", "names no room, and only src/ggml/ knows ggml"),
        ("tools", "ggml-backend.h", "names no room"),
        ("matrix", "tuning.h", "names no room"),
        ("ggml", "repack.h", 'should be "ggml/repack.h"'),
        ("tools", "matrix/gone.h", "does not exist"),
        ("tools", "matrix/tuning.h", ""),
        ("tools", "tools/measure.h", ""),
        ("matrix", "matrix/tuning.h", ""),
        ("ggml", "ggml-impl.h", ""),
        ("kernels", "trit.h", ""),
        ("kernels", "trit_tiers.inc", ""),
    ],
)
def test_that_rule_notices(room: str, include: str, fault: str) -> None:
    faults = include_faults(room, "x.cpp", f'#include <vector>\n\n#include "{include}"\n')
    assert all(text.startswith(f'x.cpp:3: "{include}"') and fault in text for text in faults)
    assert len(faults) == (fault != "")


def test_only_tiers_know_instruction_sets() -> None:
    """And what is compiled as the engine's own float code: its vectors, and the check that this CPU has them."""
    pattern = re.compile(r"immintrin\.h|arm_neon\.h|__AVX|__ARM_NEON|_mm\d*_")
    for path in (ROOT / "src").rglob("*.[ch]*"):
        if path.parent.name not in ("tiers", "lookup") and path.name not in ("floats.h", "cpu_check.cpp"):
            assert not pattern.search(path.read_text(errors="ignore")), f"{path.name} belongs in src/kernels/tiers/"


def test_every_source_file_names_its_licence() -> None:
    for pattern in ("*.py", "*.cpp", "*.h"):
        for path in tracked(pattern):
            head = path.read_text(encoding="utf-8")[:200]
            assert "SPDX-License-Identifier: MIT" in head, f"{path.relative_to(ROOT)} has no SPDX line"


def test_sources_are_ascii() -> None:
    for pattern in ("*.py", "*.cpp", "*.h", "*.txt", "*.toml", "*.patch"):
        for path in tracked(pattern):
            if path.is_relative_to(ROOT / "tests"):  # they hold texts in many scripts
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
    # The bounds of templates and of the server stand inside upstream's own functions, most of them in one line each.
    assert len(changed) <= 1200, f"{len(changed)} changed lines: what can move to src/?"


def test_kernels_compile_without_a_warning_and_pass_their_selftest(kernels: Path) -> None:
    result = subprocess.run([str(kernels / "bin" / "trit-selftest")], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
