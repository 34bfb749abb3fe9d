# SPDX-License-Identifier: MIT
"""The kernels for other platforms: cross-compiled by zig, and run where an emulator is there.

The workflow platforms.yml has all that this needs; elsewhere a platform without its emulator is skipped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.cross_build import BUILDS, PLATFORMS, configure, run, zig
from tests.support.kernel_build import call
from trit.base.places import ENGINE_BIN
from trit.release.binaries import check_needs

FOREIGN = "fehlt-ä漢 x.dll"


def absent(reason: str) -> None:
    """Skip visibly, or fail where CI has installed what is needed."""
    if os.environ.get("TRIT_REQUIRE_CROSS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module", params=list(PLATFORMS))
def built(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A platform's name, and the folder of its trit-selftest, compiled without a warning."""
    platform = PLATFORMS[request.param]
    if zig() is None:
        absent("ziglang not installed (pip install ziglang)")
    # The emulator, and the C library that it is told of.
    there = not platform.emulator or shutil.which(platform.emulator[0]) is not None
    if not there or not all(Path(word).is_dir() for word in platform.emulator if word.startswith("/")):
        absent(f"what runs programs of {request.param} is not installed (Debian: {platform.packages})")
    build = BUILDS / request.param
    configure(platform, build, "-DTRIT_KERNELS_ONLY=ON", "-DTRIT_WARNINGS_AS_ERRORS=ON")
    call("cmake", "--build", build, "--target", "trit-selftest")
    return request.param, build / "bin"


def test_the_kernels_equal_the_scalar_ones_there_and_the_best_is_chosen(built: tuple[str, Path]) -> None:
    name, folder = built
    platform = PLATFORMS[name]
    if not platform.emulator:
        pytest.skip(f"nothing here runs programs of {name}")
    result = run(platform, folder / f"trit-selftest{platform.wheel.suffix}")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert lines["scalar"] == "equal to the scalar reference"
    chosen = platform.tier
    if not chosen:
        native = call(ENGINE_BIN / "trit-selftest").splitlines()
        assert result.stdout.splitlines() == native
        chosen = native[-1].split()[-1]
    assert lines["chosen:"] == chosen and lines[chosen] == "equal to the scalar reference"
    wrong = run(platform, folder / f"trit-selftest{platform.wheel.suffix}", TRIT_TIER="nosuch")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: TRIT_TIER=nosuch")


def test_a_program_needs_the_libraries_of_the_system_alone(built: tuple[str, Path]) -> None:
    name, folder = built
    wheel = PLATFORMS[name].wheel
    check_needs(folder / f"trit-selftest{wheel.suffix}", wheel)


def test_names_of_files_are_utf_8(built: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = built
    if name != "windows-x86_64":
        pytest.skip("it is about Windows")
    call("cmake", "--build", folder.parent, "--target", "trit-tune")
    place = tmp_path / "ü 漢字"
    place.mkdir()
    program = shutil.copy(folder / "trit-tune.exe", place)
    result = run(PLATFORMS[name], Path(program), "--kernels", FOREIGN)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: --kernels {FOREIGN}: expected a library with trit_variants")
