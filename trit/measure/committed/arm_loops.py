# SPDX-License-Identifier: MIT
"""The inner loops of the ARM kernels and of other engines: compiled here, and timed by LLVM's models of CPUs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import TritError, UserError
from trit.base.places import ROOT
from trit.base.processes import capture
from trit.measure.committed.assembly import hot_loop, macs, registers_written

_GGML = ROOT / "3rdparty" / "llama.cpp" / "ggml"
_OURS = (ROOT / "include", ROOT / "src")
_ENGINE = (_GGML / "include", _GGML / "src", _GGML / "src" / "ggml-cpu")
_BUILD_FLAGS = ("-O3", "-ffp-contract=off", "-S", "-w", "-o", "-")
_PASSES = 200
# A step of a panel: 16 inputs x 64 rows, which unpacking writes as 64 registers.
_STEP_WEIGHTS = 1024
_STEP_REGISTERS = 64
_Q6_K_BYTES = 210 / 256  # a weight


@dataclass(frozen=True)
class Core:
    """A CPU core.

    Attributes:
        model: LLVM's name of it, or of the core whose model comes nearest.
        ghz: The clock that predicted GB/s are for, and where it is usual.
        features: Of dotprod and i8mm.
    """

    name: str
    model: str
    ghz: float
    where: str
    features: frozenset[str]


MANY = "panel, many tokens"
ATTENTION = "floats"
_DOT = frozenset({"dotprod"})
_MATRIX = frozenset({"dotprod", "i8mm"})
# LLVM has the A76 computed as an A57; the Neoverse N1 is the same design for servers.
CORES = (
    Core("Cortex-A55", "cortex-a55", 1.8, "RK3588", _DOT),
    Core("Cortex-A76", "neoverse-n1", 2.4, "Raspberry Pi 5", _DOT),
    Core("Cortex-X2", "cortex-x2", 3.0, "Snapdragon 8 Gen 1", _MATRIX),
    Core("Neoverse N1", "neoverse-n1", 3.0, "Ampere Altra", _DOT),
    Core("Neoverse N2", "neoverse-n2", 3.4, "Azure Cobalt 100", _MATRIX),
    Core("Neoverse V2", "neoverse-v2", 3.1, "Nvidia Grace", _MATRIX),
    Core("Apple M1", "apple-m1", 3.2, "M1", _DOT),
)


@dataclass(frozen=True)
class Loop:
    """An inner loop.

    Attributes:
        engine: Whose it is.
        what: What it computes, in words.
        tier: Whose instructions it uses; decides the cores and the limit.
        source: The key of its file.
        symbol: Of its function, as a regular expression.
        bytes_per_mac: That it reads of weights; 0 where arithmetic is the limit.
    """

    engine: str
    what: str
    tier: str
    source: str
    symbol: str
    bytes_per_mac: float = 0.0


_TOKEN = "int64_t k, const uint8_t* p, const int8_t* q, int32_t* c"
_ARGUMENTS = "int fours, const int8_t* u, const int8_t* q, size_t s, int32_t* c"
_PANEL = "int fours, const uint8_t* p, const uint8_t* ahead, const int8_t* q, size_t s, int32_t* c"
_ROWS = "int64_t blocks, const uint8_t* w, size_t ws, const int8_t* q, size_t s, int32_t* c, size_t cs"
# Name -> parameters, and the call that is inlined into a function of that name.
_TIER_FUNCTIONS = {
    "loop_one": (_TOKEN, "one_token<TwoBits>(k, p, q, c)"),
    "loop_one_1_bit": (_TOKEN, "one_token<OneBit>(k, p, q, c)"),
    **{f"loop_few_{m}": (_PANEL, f"few<{m}>(fours, p, ahead, q, s, false, c)") for m in (2, 4)},
    "loop_many": (_ARGUMENTS, "TILE"),
    "loop_unpack": (
        "int n, const uint8_t* p, int8_t* out",
        "for (int i = 0; i < n; i += 16) unpack_step(p + 16 * i, out + 64 * i)",
    ),
    "loop_place_1": (_ROWS, "rows_by_tokens<kInPlaceRows, 1>(blocks, w, ws, q, s, c, cs)"),
    "loop_place_4": (_ROWS, "rows_by_tokens<kInPlaceTileRows, kInPlaceTokens>(blocks, w, ws, q, s, c, cs)"),
}
# The head's, for the tiers with sdot.
_HEAD = {
    "loop_head": (
        "int64_t k, const uint8_t* w, const uint8_t* tokens, size_t s, float* acc",
        "q6_k_row<1>(k, w, tokens, s, acc)",
    )
}
# The limit of a tier, and of attention: this instruction, as often as there are registers for sums.
_LIMITS = {
    "neon": "smlal v{}.8h, v30.8b, v31.8b",
    "neon_dotprod": "sdot v{}.4s, v30.16b, v31.16b",
    "neon_i8mm": "smmla v{}.4s, v30.16b, v31.16b",
    ATTENTION: "fmla v{}.4s, v30.4s, v31.s[0]",
}
# Tier -> what TRIT_TARGET_BEGIN takes, and how its tile is called.
_TIERS = {
    "neon": ("SIMD", "tile<kTileTokens>(fours, u, q, s, false, c)"),
    "neon_dotprod": ("DOTPROD", "tile<kTileTokens>(fours, u, q, s, false, c)"),
    "neon_i8mm": ("I8MM", "tile<kTileTokens>(fours, u, q, false, c)"),
}
_INLINED = 'extern "C" __attribute__((flatten)) void'
_ATTENTION = f"""#include "ggml/attention.cpp"
namespace trit {{
{_INLINED} loop_score(const char* d, size_t s, const int32_t* v, const float* q, int64_t n, float* out) {{
    score<4, Floats::kSums / 4>(Cache{{d, s}}, v, q, n, out);
}}
{_INLINED} loop_values(const char* d, size_t s, const int32_t* v, int64_t n, const float* w, float* const* out) {{
    add_values<4, Floats::kSums / 4>(Cache{{d, s}}, v, n, w, 0, out);
}}
{_INLINED} loop_tile_score(const float* q, const float* keys, int64_t n, const int* order, float* out) {{
    as_compiled::tile_score<4>(q, keys, n, order, out);
}}
{_INLINED} loop_tile_values(const float* v, const float* w, int64_t n, float* out, int64_t s) {{
    as_compiled::tile_values<4, as_compiled::tile_columns(4)>(v, w, n, nullptr, nullptr, out, s);
}}
}}
"""


def tier_source(tier: str) -> str:
    """A tier's file, and a function around each of its loops."""
    target, tile = _TIERS[tier]
    functions = [
        f"{_INLINED} {name}({parameters}) {{ {tile if call == 'TILE' else call}; }}"
        for name, (parameters, call) in (_TIER_FUNCTIONS | (_HEAD if tier != "neon" else {})).items()
    ]
    head = [f'#include "kernels/tiers/{tier}.cpp"', f"TRIT_TARGET_BEGIN(TRIT_ARM_TARGET_{target})"]
    return "\n".join([*head, *functions, "TRIT_TARGET_END", ""])


def our_loops() -> list[Loop]:
    """Those of the tiers, of attention and of the output head; code that tiers share once."""
    found = []
    for tier in _TIERS:
        for what, name, weight_bytes in (
            ("panel, 1 token", "one", 0.25),
            ("panel, 2 tokens", "few_2", 0.0),
            ("panel, 4 tokens", "few_4", 0.0),
            (MANY, "many", 0.0),
            ("in place, 1 token", "place_1", 0.25),
            ("in place, 4 tokens", "place_4", 0.0),
        ):
            if tier != "neon_i8mm" or (weight_bytes == 0.0 and name != "place_4"):
                found.append(Loop("trit.cpp", what, tier, tier, f"loop_{name}", weight_bytes))
    found.append(Loop("trit.cpp", "head, q6_K", "neon_dotprod", "neon_dotprod", "loop_head", _Q6_K_BYTES))
    # Each half-precision key or value is read once for four heads.
    found.append(Loop("trit.cpp", "attention, 1 token, scores", ATTENTION, "attention", "loop_score", 2 / 4))
    found.append(Loop("trit.cpp", "attention, 1 token, values", ATTENTION, "attention", "loop_values", 2 / 4))
    found.append(Loop("trit.cpp", "attention, many tokens, scores", ATTENTION, "attention", "loop_tile_score"))
    found.append(Loop("trit.cpp", "attention, many tokens, values", ATTENTION, "attention", "loop_tile_values"))
    return found


def other_loops(bitnet: Path | None) -> list[Loop]:
    """Those of llama.cpp, and of bitnet.cpp if its folder is there."""
    found = [
        Loop("llama.cpp", "head, q6_K", "neon_dotprod", "llama.cpp", _dot("q6_K"), _Q6_K_BYTES),
        Loop("llama.cpp", "tq2_0, 1 token", "neon_dotprod", "llama.cpp", _dot("tq2_0"), 66 / 256),
    ]
    if bitnet:
        mangled = r"_Z\d+ggml_vec_dot_i2_i8_s_{}\w+"
        found += [
            Loop("bitnet.cpp", "i2_s, 1 token", "neon_dotprod", "bitnet.cpp", mangled.format("1x1"), 0.25),
            Loop("bitnet.cpp", "i2_s, 1 token, 4 rows", "neon_dotprod", "bitnet.cpp", mangled.format("1xN"), 0.25),
            Loop("bitnet.cpp", "i2_s, 4 tokens", "neon_dotprod", "bitnet.cpp", mangled.format("Nx1")),
        ]
    return found


def _dot(name: str) -> str:
    return f"ggml_vec_dot_{name}_q8_K"


def compile_for_arm(
    compiler: str, source: str, options: Sequence[str] = (), folders: Sequence[Path] = _OURS, language: str = "c++"
) -> str:
    """Assembly for 64-bit ARM.

    Raises:
        UserError: the compiler does not start, or does not know this target.
        TritError: it refuses the source.
    """
    target = ["--target=aarch64-linux-gnu"] if "clang" in compiler else []
    standard = ["-std=c++17"] if language == "c++" else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loops"
        path.write_text(source, encoding="utf-8")
        words = [compiler, *target, *standard, *_BUILD_FLAGS, *options, *(f"-I{one}" for one in folders)]
        code, output = capture([*words, "-x", language, path], timeout_s=300)
    if code == 127:
        raise UserError(f"{compiler} does not start; install clang and g++-aarch64-linux-gnu, or name others")
    if code:
        error = next((line for line in output.splitlines() if "error:" in line), output.strip()[:200])
        raise TritError(f"{compiler} refuses the loops for 64-bit ARM ({error}); choose another with --compiler")
    return output


def assembly(compiler: str, bitnet: Path | None) -> dict[str, str]:
    """The assembly of every source, by the key that loops name it with.

    Raises:
        UserError: the compiler does not start.
        TritError: it refuses a source.
    """
    dot = ["-march=armv8.2-a+dotprod+fp16"]
    quants = f'#include "{_GGML}/src/ggml-cpu/arch/arm/quants.c"\n'
    found = {tier: compile_for_arm(compiler, tier_source(tier)) for tier in _TIERS}
    found["attention"] = compile_for_arm(compiler, _ATTENTION, dot, [*_OURS, *_ENGINE])
    c_compiler = compiler.replace("clang++", "clang").replace("g++", "gcc")
    found["llama.cpp"] = compile_for_arm(c_compiler, quants, dot, _ENGINE, "c")
    if bitnet:
        source = f'#include "{bitnet.resolve()}/src/ggml-bitnet-mad.cpp"\n'
        found["bitnet.cpp"] = compile_for_arm(compiler, source, dot, [bitnet / "include", *_ENGINE])
    return found


def cycles(mca: str, model: str, loops: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Predicted cycles of one pass of each loop, all data in the first-level cache.

    Raises:
        UserError: the program does not start, or is too old for this model.
        TritError: it does not understand a loop.
    """
    text = "".join(
        f"# LLVM-MCA-BEGIN {name}\n" + "\n".join(loop) + "\n# LLVM-MCA-END\n" for name, loop in loops.items()
    )
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "loops.s", Path(folder) / "loops.json"
        path.write_text(text, encoding="utf-8")
        words = [mca, "-mtriple=aarch64", f"-mcpu={model}", "-mattr=+dotprod,+i8mm,+fullfp16"]
        code, output = capture([*words, f"-iterations={_PASSES}", "-json", "-o", out, path], timeout_s=300)
        if code == 127:
            raise UserError(f"{mca} does not start; install llvm 20 or newer, or name it with --mca")
        if "not a recognized processor" in output:
            raise UserError(f"{mca} has no model of {model}; install llvm 20 or newer, or name it with --mca")
        if code:
            raise TritError(f"{mca} does not understand the loops: {output.strip()[:200]}")
        regions = json.loads(out.read_text(encoding="utf-8"))["CodeRegions"]
    return {region["Name"]: region["SummaryView"]["TotalCycles"] / _PASSES for region in regions}


@dataclass(frozen=True)
class Prediction:
    """A loop on a core.

    Attributes:
        macs_per_cycle: Multiply-accumulates.
        share: Of what the tier's multiply instruction does from registers.
        gbs: Weights (of attention: keys or values) at the core's clock; None where arithmetic is the limit.
    """

    engine: str
    what: str
    tier: str
    compiler: str
    core: str
    macs_per_cycle: float
    share: float
    gbs: float | None


def predict(compiler: str, mca: str, bitnet: Path | None) -> list[Prediction]:
    """Every loop on every core that has its instructions.

    Raises:
        UserError: a program is missing or too old.
        TritError: one does not understand what it is given.
    """
    texts = assembly(compiler, bitnet)
    loops = [*our_loops(), *other_loops(bitnet)]
    try:
        hot = {f"{i}": hot_loop(texts[loop.source], loop.symbol) for i, loop in enumerate(loops)}
        hot |= {f"unpack-{tier}": hot_loop(texts[tier], "loop_unpack") for tier in _TIERS}
    except KeyError as error:
        raise TritError(f"{compiler} made no loop of {error}; choose another compiler with --compiler") from error
    hot |= {f"limit-{name}": [word.format(i) for i in range(24)] for name, word in _LIMITS.items()}
    found = []
    for core in CORES:
        took = cycles(mca, core.model, hot)
        for i, loop in enumerate(loops):
            if not _needs(loop.tier) <= core.features:
                continue
            rate, limit = (macs(hot[name]) / took[name] for name in (f"{i}", f"limit-{loop.tier}"))
            gbs = rate * loop.bytes_per_mac * core.ghz if loop.bytes_per_mac else None
            words = (loop.engine, loop.what, loop.tier, compiler, core.name)
            found.append(Prediction(*words, rate, rate / limit, gbs))
            if loop.what == MANY:
                unpack = hot[f"unpack-{loop.tier}"]
                step = took[f"unpack-{loop.tier}"] * _STEP_REGISTERS / registers_written(unpack)
                for m in (16, 128):
                    whole = _STEP_WEIGHTS * m / (_STEP_WEIGHTS * m / rate + step)
                    what = f"panel, {m} tokens, unpacking included"
                    found.append(Prediction(loop.engine, what, *words[2:], whole, whole / limit, None))
    return found


def _needs(tier: str) -> frozenset[str]:
    return {"neon_dotprod": _DOT, "neon_i8mm": _MATRIX}.get(tier, frozenset())
