# SPDX-License-Identifier: MIT
"""One binary runs on every x86-64: only tiers have later instructions, only those they name, and keep them private.

tests/kernels/test_arm.py has the same for ARM.
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import pytest

from tests.support.kernel_build import call, need
from tests.support.tiers import ROOT, TIERS
from tests.support.x86_instructions import needs, with_implied

if sys.platform != "linux" or platform.machine() != "x86_64":
    pytest.skip("knows x86-64's instructions and ELF; test_arm.py has the same for ARM", allow_module_level=True)

LOOKUPS = sorted((ROOT / "preset_kernels").glob("*/*.cpp"))
# Of other CPUs: nothing but a descriptor.
ELSEWHERE = re.compile(r"^(lookup|tl[12])_neon")
OBJECTS = Path("src") / "CMakeFiles" / "trit_objects.dir"


def source(tier: str) -> str:
    return (ROOT / "src" / "kernels" / "tiers" / f"{tier}.cpp").read_text()


def target(tier: str) -> set[str]:
    """What the tier tells the compiler that it may use; nothing for the scalar one and those of other CPUs."""
    found = re.search(r'TRIT_TARGET_BEGIN\("(.*?)"\)', source(tier))
    return set(found[1].split(",")) if found else set()


WIDE = [name for name in TIERS if target(name)]


def functions(path: Path) -> dict[str, dict[str, set[str]]]:
    """Per function: features beyond SSE2 -> an instruction each that needs them."""
    need("objdump", "nm")
    found: dict[str, dict[str, set[str]]] = {}
    for line in call("objdump", "-d", "--no-show-raw-insn", path).splitlines():
        if head := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            here = found.setdefault(head[1], {})
        elif code := re.match(r" +[0-9a-f]+:\t(?:(?:notrack|bnd|lock|data16|cs|ds) )*(.*)", line):
            for feature in needs(code[1]):
                here.setdefault(feature, set()).add(code[1])
    assert found or ELSEWHERE.search(path.name), f"{path.name} has no code"
    return found


def used(path: Path) -> dict[str, set[str]]:
    every: dict[str, set[str]] = {}
    for features in functions(path).values():
        for feature, code in features.items():
            every.setdefault(feature, set()).update(code)
    return every


def objects(kernels: Path) -> list[Path]:
    """Those of the rooms, the tiers' left out."""
    found = sorted(path for room in ("kernels", "matrix") for path in (kernels / OBJECTS / room).glob("*.cpp.o"))
    assert len(found) > 4
    return found


def test_instructions_are_told_apart() -> None:
    """The table of this test: a line of each kind, as objdump writes it."""
    for instruction, features in {
        "movaps %xmm1,%xmm0": set(),
        "rep bsf %eax,%eax": set(),
        "pshufb %xmm1,%xmm0": {"sse"},
        "popcnt %rax,%rax": {"sse"},
        "shlx   %eax,%ebx,%ecx": {"bmi"},
        "vaddss %xmm1,%xmm2,%xmm3": {"avx2"},
        "vpaddb %ymm1,%ymm2,%ymm3": {"avx2"},
        "vcvtph2ps (%rax),%ymm1": {"avx2", "f16c"},
        "vcvtps2ph $0,%ymm1,%xmm1": {"avx2", "f16c"},
        "vfmadd231ps %ymm1,%ymm2,%ymm3": {"avx2", "fma"},
        "{vex} vpdpbusd %ymm1,%ymm2,%ymm3": {"avx2", "avxvnni"},
        "vpdpbusd %zmm1,%zmm2,%zmm3": {"avx512f", "avx512vnni"},
        "vpdpbusd %ymm1,%ymm2,%ymm3": {"avx512f", "avx512vnni", "avx512vl"},
        "vpaddd %zmm1,%zmm2,%zmm3": {"avx512f"},
        "vpaddb %zmm1,%zmm2,%zmm3": {"avx512f", "avx512bw"},
        "vpmullq %zmm1,%zmm2,%zmm3": {"avx512f", "avx512dq"},
        "vpaddd %ymm17,%ymm2,%ymm3": {"avx512f", "avx512vl"},
        "vmovdqu64 (%rax),%ymm3": {"avx512f", "avx512vl"},
        "vaddss %xmm17,%xmm2,%xmm3": {"avx512f"},
        "vmovups %zmm0,(%rax){%k1}": {"avx512f"},
        "kmovw  %eax,%k1": {"avx512f"},
        "kmovb  %eax,%k1": {"avx512f", "avx512dq"},
        "vpermi2b %zmm1,%zmm2,%zmm3": {"avx512f", "avx512vbmi"},
        "tdpbsud %tmm6,%tmm4,%tmm0": {"amx-int8"},
        "vgf2p8affineqb $0,%zmm1,%zmm2,%zmm3": {"gfni"},
    }.items():
        assert needs(instruction) == features, instruction


def test_code_that_every_cpu_runs_has_no_later_instruction(kernels: Path) -> None:
    shared = objects(kernels)
    assert {"dispatch", "encodings", "packed_matrix", "panel", "selftest"} <= {p.name.split(".")[0] for p in shared}
    for path in shared:
        for name, features in functions(path).items():
            # panel_fields.cpp has its loops a second time, in a namespace of that name.
            allowed = with_implied({"avx2"}) if "_GLOBAL__N_14avx2" in name else set()
            assert set(features) <= allowed, f"{path.name}: {name}: {features}"


@pytest.mark.parametrize("name", TIERS)
def test_tier_uses_what_it_names_and_nothing_else(kernels: Path, name: str) -> None:
    found = used(kernels / OBJECTS / "kernels" / "tiers" / f"{name}.cpp.o")
    surplus = {feature: code for feature, code in found.items() if feature not in with_implied(target(name))}
    assert not surplus, f"{name} may use {target(name)}"
    assert target(name) <= set(found), f"{name} demands more than it uses"


@pytest.mark.parametrize("kernel", LOOKUPS, ids=lambda path: path.stem)
def test_lookup_kernel_uses_what_it_names_and_shares_its_descriptor(kernels: Path, kernel: Path) -> None:
    need("nm")
    (made,) = (kernels / OBJECTS).rglob(f"{kernel.name}.o")
    (header,) = re.findall(r'#include "(kernels/lookup/.*?)"', kernel.read_text())
    # Those of ARM name a macro, and are compiled to an empty descriptor here.
    named = re.search(r'TRIT_TARGET_BEGIN\("(.*?)"\)', (ROOT / "src" / header).read_text())
    assert (named is None) == bool(ELSEWHERE.search(kernel.stem))
    assert set(used(made)) - with_implied(set(named[1].split(",")) if named else set()) == set()
    symbols = [line.split()[-2:] for line in call("nm", "--defined-only", made).splitlines()]
    assert {symbol for kind, symbol in symbols if kind.isupper() or kind in "uvwi"} == {f"trit_{kernel.stem}"}
    assert not re.search(r"\.(init_array|ctors)", call("objdump", "-h", made)), "the descriptor is a constant"


@pytest.mark.parametrize("name", TIERS)
def test_tier_shares_nothing_but_its_descriptor(kernels: Path, name: str) -> None:
    """A weak or global function could be the copy that the linker keeps for code that every CPU runs."""
    need("objdump", "nm")
    path = kernels / OBJECTS / "kernels" / "tiers" / f"{name}.cpp.o"
    symbols = [line.split()[-2:] for line in call("nm", "--defined-only", path).splitlines()]
    shared = {symbol for kind, symbol in symbols if kind.isupper() or kind in "uvwi"}
    assert shared == {f"trit_tier_{name}"}
    # A constructor would run before anybody has asked what the CPU is.
    sections = call("objdump", "-h", path)
    assert not re.search(r"\.(init_array|ctors)", sections)


@pytest.mark.parametrize("name", WIDE)
def test_tier_asks_the_cpu_for_all_that_it_uses(name: str) -> None:
    asked = set(re.findall(r"\bTRIT_X86_([A-Z0-9_]+)", source(name).split("supported()")[1]))
    assert {feature.lower().replace("_", "-") for feature in asked} == target(name)
    texts = set(re.findall(r'"(AVX.*?)"', source(name)))
    assert len(texts) == 1, "both descriptors name the same features"
    words = re.sub(r"AVX-512 |AVX-(?=VNNI)", lambda found: found[0].replace("-", "").strip(), texts.pop())
    listed = {f"avx512{word}" if word in ("bw", "vnni", "vbmi") else word for word in words.lower().split(", ")}
    assert listed == target(name)


def test_exported_functions_are_those_of_the_contract(kernels: Path) -> None:
    """libtrit's users see include/trit.h and no more."""
    need("nm")
    symbols = call("nm", "-D", "--defined-only", kernels / "bin" / "libtrit.so").splitlines()
    exported = {line.split()[2] for line in symbols if line.split()[1] in "TDBR"}
    header = (ROOT / "include" / "trit.h").read_text()
    assert exported == set(re.findall(r"^TRIT_API .*?(trit_\w+)\(", header, re.MULTILINE))
