# SPDX-License-Identifier: MIT
"""Attention of tokens in tiles has the bits of each token alone, compiled for each kind of register."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.tiers import ROOT, SEED
from trit.base.places import ENGINE_DIR

pytestmark = pytest.mark.compiles
X86 = ["c++", "-mavx2", "-mfma", "-mf16c", "-mbmi2"]
# What compiles and what runs it; registers of 8, 16 and 4 floats.
BUILDS = {
    "avx2": (X86, [], "avx2"),
    "avx512": ([*X86, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"], [], "avx512dq"),
    "neon": (["aarch64-linux-gnu-g++", "-static"], ["qemu-aarch64"], ""),
}


@pytest.mark.parametrize("build", BUILDS)
def test_a_tile_has_the_bits_of_each_token_alone(build: str, tmp_path: Path) -> None:
    compiler, runner, feature = BUILDS[build]
    missing = [program for program in (compiler[0], *runner) if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")
    if feature and (platform.machine() != "x86_64" or feature not in Path("/proc/cpuinfo").read_text(encoding="utf-8")):
        pytest.skip(f"this CPU has no {feature}")
    ggml = ENGINE_DIR / "ggml"
    folders = [ROOT / "src", ROOT / "include", ggml / "include", ggml / "src", ggml / "src" / "ggml-cpu"]
    flags = ["-std=c++17", "-O2", *(f"-I{folder}" for folder in folders)]
    driver = ROOT / "tests" / "support" / "attention_driver.cpp"
    compiled = subprocess.run([*compiler, *flags, driver, "-o", tmp_path / "driver"], capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    result = subprocess.run([*runner, tmp_path / "driver", str(SEED)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    # With AVX2's bits and order, the kernels for AVX-512 are compared, too.
    wider = build == "avx2" and "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert int(result.stdout) > (800_000 if wider else 400_000)
