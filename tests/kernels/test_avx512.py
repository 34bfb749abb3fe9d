# SPDX-License-Identifier: MIT
"""Which kernels the CPUs of x86 take, and what is emulated: the library whose AVX-512 is functions (avx512_build.py).

That its kernels are right, test_lookup.py, test_kernels.py, test_panels.py and test_head.py check on a CPU without
AVX-512; with it they run the instructions themselves.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.kernels.test_lookup import chosen
from tests.support.avx512_build import need_emulation
from tests.support.kernel_build import call, need

# avx512_emulation/emulated_features.h -> the tier; kernels for 2 bits, TL1 and TL2: folders of preset_kernels.
CPUS = {
    "haswell": ("avx2", "avx2", "avx2"),
    "alder-lake": ("avx_vnni", None, "avx2"),
    # Without VNNI no tier uses AVX-512, but these kernels may.
    "skylake-x": ("avx2", "avx2", "avx512_vnni"),
    "cascade-lake": ("avx512_vnni", None, "avx512_vnni"),
    "ice-lake": ("avx512_vbmi", None, "avx512_vbmi"),
    "sapphire-rapids": ("avx512_amx", None, "avx512_vbmi"),
}
PRESETS = Path(__file__).resolve().parents[2] / "preset_kernels"


def preset(folder: str | None, kind: str) -> str:
    return "none" if folder is None else next((PRESETS / folder).glob(f"{kind}_*.cpp")).stem


def selftest(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIT_")}
    return subprocess.run([folder / "trit-selftest"], env={**inherited, **env}, capture_output=True, text=True)


@pytest.mark.parametrize("cpu", CPUS)
def test_each_class_of_cpus_takes_its_presets(emulated_avx512: Path, cpu: str) -> None:
    """Prompts never go through tables where there is a dot product; TL1 and TL2 through the widest instructions."""
    tier, lookup, table = CPUS[cpu]
    result = selftest(emulated_avx512, EMULATED_CPU=cpu)
    assert result.stdout.splitlines()[-1] == f"chosen: {tier}"
    expected = {"look-up": preset(lookup, "lookup"), "tl1": preset(table, "tl1"), "tl2": preset(table, "tl2")}
    assert chosen(result) == expected


def test_a_tier_asked_for_has_the_tables_made_for_it(emulated_avx512: Path) -> None:
    for tier, table in {"avx2": "avx2", "avx512_vnni": "avx512_vnni", "avx512_vbmi": "avx512_vbmi"}.items():
        found = chosen(selftest(emulated_avx512, TRIT_TIER=tier))
        assert (found["tl1"], found["tl2"]) == (preset(table, "tl1"), preset(table, "tl2"))


def test_every_kernel_of_x86_is_equal_to_the_scalar_reference(emulated_avx512: Path) -> None:
    lines = dict(line.split(None, 1) for line in selftest(emulated_avx512).stdout.splitlines())
    of_x86 = {name: line for name, line in lines.items() if re.match(r"(avx|(lookup|tl[12])_avx)", name)}
    assert len(of_x86) > 20 and set(of_x86.values()) == {"equal to the scalar reference"}


def test_nothing_of_it_is_avx512(emulated_avx512: Path) -> None:
    """The compiler was left no way to use what the functions stand for."""
    need("objdump")
    code = call("objdump", "-d", "--no-show-raw-insn", emulated_avx512 / "libtrit.so")
    assert "%ymm" in code and not re.search(r"%zmm|%k[0-7]", code)


def test_the_headers_are_asked_for_by_name(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them: a skip with the reason, or a failure where CI installed them."""
    monkeypatch.setattr("tests.support.avx512_build.HEADER", "simde/not/there.h")
    monkeypatch.delenv("TRIT_REQUIRE_SIMDE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="libsimde-dev"):
        need_emulation(library)
    monkeypatch.setenv("TRIT_REQUIRE_SIMDE", "1")
    with pytest.raises(pytest.fail.Exception, match="libsimde-dev"):
        need_emulation(library)
