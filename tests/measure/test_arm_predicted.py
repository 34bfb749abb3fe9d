# SPDX-License-Identifier: MIT
"""Finding the ARM kernels' inner loops in assembly, and what is said about them; llvm-mca itself is not needed."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from pathlib import Path

import pytest

from trit.base.errors import TritError, UserError
from trit.measure.committed import arm, arm_loops
from trit.measure.committed.assembly import function, hot_loop, innermost_loops, macs, registers_written

# A loop of 3 instructions in one of 6, then a remainder; comments and directives as clang writes them.
CLANG = """
other:
.LBB0_1:
\tsdot v0.4s, v1.16b, v2.16b
\tb.ne\t.LBB0_1
.Lfunc_end0:
\t.size\tother, .Lfunc_end0-other
product:                                // @product
\t.cfi_startproc
.LBB1_1:                                // =>This Loop Header: Depth=1
\tldp\tq1, q2, [x1], #32
.LBB1_2:                                //   Parent Loop BB1_1 Depth=1
\tsdot\tv0.4s, v1.16b, v2.4b[3]
\tsmlal2\tv3.8h, v1.16b, v2.16b
\tstp\tq1, q2, [x2]
\tstr\tq1, [x2, #-32]!
\tsubs\tx0, x0, #1
\tb.ne\t.LBB1_2
\tcbnz\tx3, .LBB1_1
.LBB1_3:
\tsdot\tv0.4s, v1.16b, v2.4b[3]
\ttbnz\tw0, #3, .LBB1_3
\tb\t.LBB1_4
.LBB1_4:
\tret
.Lfunc_end1:
\t.size\tproduct, .Lfunc_end1-product
"""
GCC = """
\t.type\tproduct, %function
product:
.LFB1:
.L3:
#APP
// 35 "src/x.h" 1
\tsmmla v0.4s, v1.16b, v2.16b
// 0 "" 2
#NO_APP
\tfmla\tv4.4s, v5.4s, v6.s[0]
\tcmp\tx1, x2
\tbne\t.L3
\tret
\t.size\tproduct, .-product
"""


def test_the_innermost_loop_that_multiplies_most_is_found() -> None:
    loops = innermost_loops(function(CLANG, "product"))
    assert [len(loop) for loop in loops] == [6, 2]
    loop = hot_loop(CLANG, "prod.*")
    assert loop == loops[0] and loop[-1] == "b.ne .LBB1_2"
    assert macs(loop) == 16 + 8 and registers_written(loop) == 3
    loop = hot_loop(GCC, "product")
    assert len(loop) == 4 and macs(loop) == 32 + 4 and registers_written(loop) == 0


@pytest.mark.parametrize("name", ["gone", "prod", "ret"])
def test_a_function_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        hot_loop(CLANG, name)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# One cycle for each instruction, so that shares can be counted by hand.
MCA = """
import json, re, sys
out, source = sys.argv[sys.argv.index("-o") + 1], sys.argv[-1]
passes = int(next(word for word in sys.argv if word.startswith("-iterations=")).split("=")[1])
found = re.findall(r"# LLVM-MCA-BEGIN (\\S+)\\n(.*?)\\n# LLVM-MCA-END", open(source).read(), re.DOTALL)
regions = [{"Name": n, "SummaryView": {"TotalCycles": passes * len(t.splitlines())}} for n, t in found]
json.dump({"CodeRegions": regions}, open(out, "w"))
"""


def assembly_of_every_loop() -> dict[str, str]:
    """Each function has a loop of one sdot and one other instruction, and a branch."""
    loops = [*arm_loops.our_loops(), *arm_loops.other_loops(Path("bitnet"))]
    symbols = {(loop.source, loop.symbol.replace(r"\d+", "9").replace(r"\w+", "x")) for loop in loops}
    symbols |= {(tier, "loop_unpack") for tier in ("neon", "neon_dotprod", "neon_i8mm")}
    texts: dict[str, str] = {}
    for source, name in symbols:
        body = "stp q0, q1, [x0]" if name == "loop_unpack" else "sdot v0.4s, v1.16b, v2.16b"
        texts[source] = (
            texts.get(source, "") + f"{name}:\n.L{name}:\n\t{body}\n\tb.ne .L{name}\n\t.size {name}, .-{name}\n"
        )
    return texts


def test_shares_and_bytes_follow_from_cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm_loops, "assembly", lambda _compiler, _bitnet: assembly_of_every_loop())
    found = arm_loops.predict("clang++", program(tmp_path / "mca", MCA), Path("bitnet"))
    by = {(one.what, one.tier, one.core): one for one in found}
    one = by["panel, 1 token", "neon_dotprod", "Neoverse N2"]
    # 16 products in 2 cycles, of 16 a cycle; four products take a byte of weights; 3.4 GHz.
    assert (one.macs_per_cycle, one.share, one.gbs) == (8.0, 0.5, pytest.approx(8 / 4 * 3.4))
    assert by["panel, many tokens", "neon_i8mm", "Cortex-X2"].share == 8 / 32
    # A step of 1,024 weights: 64 registers written two in 2 cycles, then 1,024 m products by 8 a cycle.
    whole = by["panel, 16 tokens, unpacking included", "neon_dotprod", "Apple M1"]
    assert whole.macs_per_cycle == pytest.approx(1024 * 16 / (1024 * 16 / 8 + 64)) and whole.gbs is None
    assert not any(one.tier == "neon_i8mm" and one.core in ("Apple M1", "Neoverse N1", "Cortex-A55") for one in found)
    assert {one.engine for one in found} == {"trit.cpp", "llama.cpp", "bitnet.cpp"}


def test_results_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(arm_loops, "assembly", lambda _compiler, _bitnet: assembly_of_every_loop())
    mca = program(tmp_path / "mca", MCA)
    assert arm.main(["--compiler", "clang++", "--mca", mca, "-o", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    text = (tmp_path / "arm-predicted.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| panel, 1 token | trit.cpp | neon_dotprod |"))
    assert row in shown and row.endswith("| 50 %, 6.4 GB/s |") and row.count("50 %") == len(arm_loops.CORES)
    result = json.loads((tmp_path / "arm-predicted.json").read_text(encoding="utf-8"))
    assert [core["name"] for core in result["cores"]] == [core.name for core in arm_loops.CORES]
    assert "cpu" not in result["about"], "this machine's CPU has nothing to do with it"


def test_what_is_missing_is_one_sentence(tmp_path: Path) -> None:
    loop = {"0": ["sdot v0.4s, v1.16b, v2.16b"]}
    with pytest.raises(UserError, match=r"gone does not start; install llvm 20 or newer, or name it with --mca"):
        arm_loops.cycles(str(tmp_path / "gone"), "neoverse-n2", loop)
    old = program(tmp_path / "old", "print(\"'neoverse-v2' is not a recognized processor for this target\")")
    with pytest.raises(UserError, match="has no model of neoverse-v2; install llvm 20 or newer"):
        arm_loops.cycles(old, "neoverse-v2", loop)
    broken = program(tmp_path / "broken", "raise SystemExit('error: unknown instruction')")
    with pytest.raises(TritError, match="does not understand the loops: error: unknown instruction"):
        arm_loops.cycles(broken, "neoverse-n2", loop)
    with pytest.raises(UserError, match=r"--bitnet .*: has no src/ggml-bitnet-mad.cpp; name a checkout of bitnet.cpp"):
        arm.main(["--bitnet", str(tmp_path)])


@pytest.mark.compiles
@pytest.mark.parametrize("tier", ["neon", "neon_dotprod", "neon_i8mm"])
def test_no_sum_lives_in_memory(tier: str) -> None:
    """The loops of one token and of many, by the compilers that are here: a spilled sum would be half of the speed."""
    here = [name for name in ("clang++", "aarch64-linux-gnu-g++") if shutil.which(name)]
    if not shutil.which("aarch64-linux-gnu-g++"):
        pytest.skip("aarch64-linux-gnu-g++ is not installed, nor the headers that clang needs")
    for compiler in here:
        text = arm_loops.compile_for_arm(compiler, arm_loops.tier_source(tier))
        for name in ("one", "one_1_bit", "few_2", "place_1", "place_4", *(["many"] if tier != "neon" else [])):
            loop = hot_loop(text, f"loop_{name}")
            assert macs(loop) >= 256 and not [line for line in loop if "[sp" in line], f"{compiler}: {name}"
