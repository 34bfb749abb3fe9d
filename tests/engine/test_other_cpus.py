# SPDX-License-Identifier: MIT
"""The engine that was built here, on other x86-64 CPUs: emulated by qemu."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiers import ROOT

if sys.platform != "linux" or platform.machine() != "x86_64":
    pytest.skip("qemu-user emulates other x86-64 CPUs on Linux", allow_module_level=True)

STORY = "John moved to the office. Sandra went to the garden. Where is Sandra?"


def answer(engine_bin: Path, cpu: str) -> subprocess.CompletedProcess[str]:
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("needs qemu-x86_64, of the package qemu-user")
    model = ROOT / "models" / "trit-story-3m" / "ggml-model-i2_s.gguf"
    if not model.is_file():
        pytest.skip("set-up writes the bundled model's GGUF file")
    words = f"-m {model} -n 6 --temp 0 -no-cnv -t 1 --no-display-prompt -p".split()
    return subprocess.run(
        [qemu, "-cpu", cpu, engine_bin / "llama-completion", *words, STORY],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def native(engine_bin: Path) -> bool:
    cache = (engine_bin.parent / "CMakeCache.txt").read_text(encoding="utf-8")
    return re.search(r"^TRIT_NATIVE:BOOL=ON$", cache, re.MULTILINE) is not None


# The oldest CPUs of Intel and AMD with AVX2, and one with AVX-512 without VNNI.
@pytest.mark.parametrize("cpu", ["Haswell-noTSX", "EPYC", "Skylake-Client"])
def test_it_answers_on_every_cpu_with_avx2(engine_bin: Path, cpu: str) -> None:
    if native(engine_bin):
        pytest.skip("built with --native, for one CPU")
    result = answer(engine_bin, cpu)
    assert result.returncode == 0, result.stderr
    assert "garden" in result.stdout


def test_on_a_smaller_cpu_it_says_so(engine_bin: Path) -> None:
    result = answer(engine_bin, "Nehalem")
    errors = [line for line in result.stderr.splitlines() if not line.startswith("qemu")]
    assert result.returncode == 2
    assert len(errors) == 1 and re.match(
        r"error: this engine was compiled for a CPU with more instruction sets \((AVX2, FMA, F16C|AVX-512)\) than this "
        r"one has; compile it on this machine: python3 setup_env\.py --clean$",
        errors[0],
    )
