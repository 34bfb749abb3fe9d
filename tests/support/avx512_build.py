# SPDX-License-Identifier: MIT
"""The kernels with AVX-512, AVX-VNNI and AMX as functions, so that any CPU with AVX2 runs what is made for others.

SIMDe's headers (Debian: libsimde-dev) and avx512_emulation/ stand in for the compiler's. Emulation shows that
results are right, nothing about speed.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.kernel_build import build_kernels, need
from tests.support.lookup_configurations import OTHERS
from tests.support.tiers import ROOT
from trit.tune.codegen import render

HEADER = "simde/x86/avx512.h"
# Full optimization of the tiers takes minutes where each instruction is a loop.
OPTIONS = (f"-DTRIT_EMULATE_AVX512={ROOT / 'tests' / 'support' / 'avx512_emulation'}", "-DCMAKE_CXX_FLAGS_RELEASE=-O1")


def need_emulation(library: ctypes.CDLL) -> None:
    """Skip visibly, or fail where CI has installed the headers."""
    # The tier's features are what the emulated library is compiled for.
    if not library.trit_tier_by_name(b"avx2").contents.supported() or os.name != "posix":
        pytest.skip("AVX-512 is emulated by AVX2, on Linux and macOS")
    need("c++")
    command = ["c++", "-fsyntax-only", "-x", "c++", "-"]
    if subprocess.run(command, input=f"#include <{HEADER}>\n", text=True, capture_output=True).returncode != 0:
        reason = "SIMDe's headers, which emulate AVX-512, not installed (Debian: libsimde-dev)"
        if os.environ.get("TRIT_REQUIRE_SIMDE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


def build_emulated(folder: Path) -> Path:
    """A folder with trit-selftest and libtrit, with the presets and the other configurations."""
    for configuration in OTHERS:
        if configuration.tier.startswith("avx512"):
            (folder / f"{configuration.name}.cpp").write_text(render(configuration))
    options = (*OPTIONS, f"-DTRIT_KERNELS_DIR={folder}")
    return build_kernels(folder / "build", None, *options, targets=("trit", "trit-selftest")) / "bin"
