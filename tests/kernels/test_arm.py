# SPDX-License-Identifier: MIT
"""The ARM tiers on any machine: cross-compiled for 64-bit ARM, statically linked, and run by qemu's user emulation.

Emulation shows that results are right, nothing about speed. Builds are kept in build/aarch64.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT
from trit.engine.tuning_file import load
from trit.gguf.encoding_table import AUTO_TYPES, MADE_FOR

pytestmark = pytest.mark.compiles
ROOT = Path(__file__).resolve().parents[2]
BUILDS = ROOT / "build" / "aarch64"
TRIPLE = "aarch64-linux-gnu"
# C compiler, C++ compiler, and what they need to be told; both link with the C library of the cross toolchain.
COMPILERS = {
    "gcc": (f"{TRIPLE}-gcc", f"{TRIPLE}-g++", []),
    "clang": ("clang", "clang++", [f"--target={TRIPLE}"]),
}
# What qemu calls CPUs -> the tiers that they run, best first. "max" has everything that qemu emulates.
CPUS = {
    "max": ["neon_i8mm", "neon_dotprod", "neon"],
    "cortex-a76": ["neon_dotprod", "neon"],
    "cortex-a53": ["neon"],
}
FAULTS = ["wrong_panel", "reads_behind", "writes_in_front", "writes_between", "fused", "rounds_away"]
DOT = r"\b([su]|us|su)dot\b"
MATRIX = r"\b([su]|us)mmla\b"
# Tier -> the look-up kernel for panels of 2 bits that stands beside it.
LOOKUPS = {"neon": "lookup_neon_t16_s2_r1280"}
# Those for panels of table indices, on every tier.
TABLES = {"tl1": "tl1_neon_2560x6912x64", "tl2": "tl2_neon_2560x6912x64"}
# Per file of the kernels, None for all others: which of these instructions it has.
INSTRUCTIONS = {"neon_dotprod": {DOT}, "neon_i8mm": {DOT, MATRIX}}


def absent(reason: str) -> None:
    """Skip visibly, or fail where CI has installed the toolchain."""
    if os.environ.get("TRIT_REQUIRE_ARM") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        absent(f"{' and '.join(missing)} not installed (Debian: g++-{TRIPLE} libc6-dev-arm64-cross qemu-user clang)")


def call(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a step of a build with the environment's cmake and ninja."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run([str(part) for part in command], env={**os.environ, "PATH": path}, **TEXT)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return result


TEXT = {"capture_output": True, "text": True, "errors": "replace", "timeout": 3600}


def configure(name: str, compiler: str, *options: str) -> Path:
    cc, cxx, flags = COMPILERS[compiler]
    defines = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_C_COMPILER": cc,
        "CMAKE_CXX_COMPILER": cxx,
        "CMAKE_C_FLAGS": " ".join(flags),
        "CMAKE_CXX_FLAGS": " ".join(flags),
        "CMAKE_EXE_LINKER_FLAGS": "-static",
        "CMAKE_BUILD_TYPE": "Release",
    }
    if ccache := shutil.which("ccache"):
        defines |= {"CMAKE_C_COMPILER_LAUNCHER": ccache, "CMAKE_CXX_COMPILER_LAUNCHER": ccache}
    build = BUILDS / name
    call("cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *options, *[f"-D{key}={defines[key]}" for key in defines])
    return build


@pytest.fixture(scope="module", params=list(COMPILERS))
def kernels(request: pytest.FixtureRequest) -> Path:
    """The kernels alone, compiled without a warning: a folder with trit-selftest and compare_tiers in bin."""
    cc, cxx, flags = COMPILERS[request.param]
    need(f"{TRIPLE}-g++", cc, cxx, "qemu-aarch64")
    build = configure(request.param, request.param, "-DTRIT_KERNELS_ONLY=ON", "-DTRIT_WARNINGS_AS_ERRORS=ON")
    call("cmake", "--build", build, "--target", "trit-selftest", "trit")
    warnings = ["-Wall", "-Wextra", "-Wshadow", "-Werror"]
    options = ["-std=c++17", "-O2", "-ffp-contract=off", "-static", f"-I{ROOT / 'include'}"]
    driver = ["-o", build / "bin" / "compare_tiers", ROOT / "tests" / "support" / "compare_tiers.cpp", *objects(build)]
    call(cxx, *flags, *warnings, *options, *driver)
    return build


@pytest.mark.parametrize("compiler", COMPILERS)
def test_what_is_for_arm_compiles_without_a_word(compiler: str, tmp_path: Path) -> None:
    """clang only remarks on a feature that it does not know, whatever -Werror says."""
    _, cxx, flags = COMPILERS[compiler]
    need(cxx, f"{TRIPLE}-g++")
    sources = sorted([*ROOT.glob("src/kernels/tiers/neon*.cpp"), *ROOT.glob("preset_kernels/neon/*.cpp")])
    assert len(sources) == len(CPUS["max"]) + len({**LOOKUPS, **TABLES})
    options = ["-std=c++17", "-O1", "-Wall", "-Wextra", f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}"]
    for source in sources:
        result = call(cxx, *flags, *options, "-c", source, "-o", tmp_path / "kernel.o")
        assert (result.stdout, result.stderr) == ("", ""), source.name


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_heads_kernel_has_the_bits_of_llama_cpps_dot_product(compiler: str, tmp_path: Path) -> None:
    """As each compiler makes that for any 64-bit ARM, which is how the engine has it."""
    cc, cxx, flags = COMPILERS[compiler]
    need(cxx, f"{TRIPLE}-g++", "qemu-aarch64")
    ggml = ROOT / "3rdparty" / "llama.cpp" / "ggml"
    quants = ggml / "src" / "ggml-cpu" / "arch" / "arm" / "quants.c"
    if not quants.is_file():
        absent("the engine's source is not there: run setup_env.py")
    folders = [ggml / "include", ggml / "src", quants.parents[2]]
    # Its other functions call the rest of ggml: the linker drops them.
    options = ["-O3", "-std=gnu11", "-w", "-ffunction-sections", *(f"-I{folder}" for folder in folders)]
    call(cc, *flags, *options, "-c", quants, "-o", tmp_path / "quants.o")
    sources = [ROOT / "src" / "kernels" / "tiers" / f"{tier}.cpp" for tier in ("scalar", "neon_dotprod", "neon_i8mm")]
    sources += [ROOT / "src" / "kernels" / "cpu_features.cpp", ROOT / "tests" / "support" / "arm_head_driver.cpp"]
    options = ["-O3", "-std=c++17", "-ffp-contract=off", "-static", "-Wl,--gc-sections"]
    options += [f"-I{ROOT / folder}" for folder in ("include", "src")]
    call(cxx, *flags, *options, *sources, tmp_path / "quants.o", "-o", tmp_path / "driver")
    result = emulate("max", tmp_path / "driver", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(result.stdout) == 3 * 3 * 5 * sum(range(8))


def objects(build: Path) -> list[Path]:
    found = sorted((build / "src" / "CMakeFiles" / "trit_objects.dir").rglob("*.cpp.o"))
    assert len(found) > 10
    # A file that was removed or renamed leaves its object behind in a kept build.
    folder = build / "src" / "CMakeFiles" / "trit_objects.dir"
    # "__" is CMake's name for "..".
    sources = [str(path.relative_to(folder).with_suffix("")).replace("__", "..") for path in found]
    return [path for path, source in zip(found, sources, strict=True) if (ROOT / "src" / source).is_file()]


def emulate(cpu: str, program: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != "TRIT_TIER"}
    command = ["qemu-aarch64", "-cpu", cpu, str(program), *arguments]
    return subprocess.run(command, env={**inherited, **env}, stdin=subprocess.DEVNULL, **TEXT)


@pytest.mark.parametrize("cpu", CPUS)
def test_every_tier_of_a_cpu_equals_the_scalar_one_and_the_best_is_chosen(kernels: Path, cpu: str) -> None:
    result = emulate(cpu, kernels / "bin" / "trit-selftest")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = dict(line.split(None, 1) for line in result.stdout.splitlines())
    for tier in CPUS["max"]:
        assert lines[tier].startswith("equal to" if tier in CPUS[cpu] else "not on this CPU"), lines[tier]
    assert lines["chosen:"] == CPUS[cpu][0]
    assert lines["look-up:"] == LOOKUPS.get(CPUS[cpu][0], "none")
    assert {packing: lines[f"{packing}:"] for packing in TABLES} == TABLES
    made_for_arm = [line for name, line in lines.items() if re.match(r"(lookup|tl[12])_neon", name)]
    assert len(made_for_arm) == 3 and all(line.startswith("equal to") for line in made_for_arm)
    assert lines["avx2"].startswith("not on this CPU")


@pytest.mark.parametrize(("cpu", "tier"), [(cpu, tier) for cpu, tiers in CPUS.items() for tier in tiers])
def test_tier_equals_arithmetic_written_from_the_contract(kernels: Path, cpu: str, tier: str) -> None:
    result = emulate(cpu, kernels / "bin" / "compare_tiers", tier)
    assert result.returncode == 0, result.stderr
    count = re.fullmatch(rf"{tier}: (\d+) comparisons, all equal\n", result.stdout)
    assert count and int(count[1]) > 3000


@pytest.mark.parametrize("fault", FAULTS)
def test_that_comparison_notices(kernels: Path, fault: str) -> None:
    result = emulate("max", kernels / "bin" / "compare_tiers", "neon_i8mm", fault)
    # A read behind a buffer ends in a segmentation fault, which qemu passes on.
    assert result.returncode == (-11 if fault == "reads_behind" else 1), result.stderr


@pytest.mark.parametrize("tier", ["neon_dotprod", "neon_i8mm"])
def test_a_forced_tier_that_the_cpu_lacks_is_one_sentence_and_exit_code_2(kernels: Path, tier: str) -> None:
    result = emulate("cortex-a53", kernels / "bin" / "trit-selftest", TRIT_TIER=tier)
    assert result.returncode == 2
    assert re.fullmatch(rf"error: TRIT_TIER={tier}: this CPU lacks one of FEAT_\w+.*\n", result.stderr)


@pytest.mark.parametrize("tier", CPUS["max"])
def test_a_forced_tier_runs(kernels: Path, tier: str) -> None:
    result = emulate("max", kernels / "bin" / "trit-selftest", TRIT_TIER=tier)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"chosen: {tier}"


@pytest.mark.parametrize("tier", ["neon_dotprod", "neon_i8mm"])
def test_the_selftest_survives_an_instruction_that_the_cpu_lacks(kernels: Path, tier: str) -> None:
    result = emulate("cortex-a53", kernels / "bin" / "compare_tiers", tier, "selftest")
    assert result.returncode == 1
    assert "stops at an instruction that this machine does not execute" in result.stderr


def test_no_tier_leaks_its_instructions(kernels: Path) -> None:
    """One binary runs on every 64-bit ARM: only tier files have later instructions, and they share no function."""
    need(f"{TRIPLE}-objdump", f"{TRIPLE}-nm")
    for path in objects(kernels):
        name = path.name.removesuffix(".cpp.o")
        code = call(f"{TRIPLE}-objdump", "-d", "--no-show-raw-insn", path).stdout
        used = {pattern for pattern in (DOT, MATRIX) if re.search(pattern, code)}
        assert used == INSTRUCTIONS.get(name, set()), name
        # Contraction would make results depend on the compiler. (What is named q6_k asks for its own.)
        contracted = re.sub(r"<\S*q6_k\S*>:\n.*?\n\n", "", code + "\n\n", flags=re.DOTALL)
        assert not re.search(r"\bfn?m(add|sub|la|ls)\b", contracted), f"{name} has fused multiply-adds"
        if path.parent.name == "tiers" or re.match(r"lookup_|tl[12]_", name):
            # A weak or global function could be the copy that the linker keeps for baseline code.
            symbols = call(f"{TRIPLE}-nm", "-C", "--defined-only", path).stdout.splitlines()
            shared = [line for line in symbols if line.split()[1] in "TWVu"]
            assert not shared, f"{name}: {shared}"


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Path:
    """The engine's llama-completion for 64-bit ARM with our kernels in it."""
    need(f"{TRIPLE}-g++", "qemu-aarch64")
    if not (ROOT / "3rdparty" / "llama.cpp" / "CMakeLists.txt").is_file():
        absent("the engine's source is not there: run setup_env.py")
    options = ["GGML_NATIVE=OFF", "GGML_OPENMP=OFF", "BUILD_SHARED_LIBS=OFF"]
    build = configure("engine", "gcc", *[f"-D{option}" for option in options])
    show = request.config.pluginmanager.getplugin("capturemanager")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["cmake", "--build", str(build), "--target", "llama-completion"]
    with subprocess.Popen(
        command,
        env={**os.environ, "PATH": path, "NINJA_STATUS": "[%f/%t] "},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            count = re.match(r"\[(\d+)/(\d+)\]", line)
            # The first build takes minutes; a later one compiles nothing.
            if count and count[1] != "0" and int(count[1]) % 20 == 0:
                with show.global_and_fixture_disabled():
                    print(f"\ncompiling the engine for {TRIPLE}: {count[1]}/{count[2]}", flush=True)
    assert process.returncode == 0, "".join(lines)[-4000:]
    return build / "bin" / "llama-completion"


def arguments(gguf: Path) -> list[str]:
    prompt = ["-m", str(gguf), "-p", DEMO_PROMPT, "-n", "6", "--temp", "0", "-t", "2"]
    return [*prompt, "-no-cnv", "--no-display-prompt", "--no-warmup", "--verbosity", "4"]


@pytest.fixture(scope="module")
def native_answer(engine_bin: Path, story_gguf: Path) -> str:
    program = engine_bin / "llama-completion"
    result = subprocess.run([str(program), *arguments(story_gguf)], stdin=subprocess.DEVNULL, **TEXT)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "garden" in result.stdout
    return result.stdout


@pytest.mark.parametrize("forced", ["", *CPUS["max"], "scalar"])
def test_the_engine_answers_like_the_native_one(
    engine: Path, native_answer: str, story_gguf: Path, forced: str
) -> None:
    result = emulate("max", engine, *arguments(story_gguf), TRIT_TIER=forced)
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"trit: ternary kernels of tier {forced or 'neon_i8mm'}, self-test passed" in result.stderr
    assert result.stdout == native_answer


@pytest.mark.parametrize("cpu", ["cortex-a76", "cortex-a53"])
def test_the_same_binary_answers_on_older_cpus(engine: Path, native_answer: str, story_gguf: Path, cpu: str) -> None:
    result = emulate(cpu, engine, *arguments(story_gguf))
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"trit: ternary kernels of tier {CPUS[cpu][0]}, self-test passed" in result.stderr
    assert result.stdout == native_answer


@pytest.fixture(scope="module", params=["tl1", "tl2"])
def table_gguf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(request.param, tmp_path_factory.mktemp(request.param))


def converted(name: str, folder: Path) -> Path:
    """The bundled model as set-up converts it with -q."""
    path = folder / f"ggml-model-{name}.gguf"
    call(sys.executable, "-m", "utils.convert", BUNDLED_MODEL, "--outtype", name, "--outfile", path)
    return path


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("packing", ["", "2_bits", "tl1", "tl2"])
def test_files_of_table_indices_give_the_same_answer(
    engine: Path, native_answer: str, table_gguf: Path, cpu: str, packing: str
) -> None:
    result = emulate(cpu, engine, *arguments(table_gguf), TRIT_PACKING=packing)
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"packed at load as {packing or '2_bits'}" in result.stderr
    assert result.stdout == native_answer


@pytest.mark.parametrize("cpu", ["max", "cortex-a53"])
def test_what_is_measured_to_be_fastest_ends_in_the_same_answer(
    kernels: Path, engine: Path, native_answer: str, tmp_path: Path, cpu: str
) -> None:
    """What -q auto does: measure (here what the emulator is good at), convert to that, answer with what was found."""
    call("cmake", "--build", kernels, "--target", "trit-tune")
    program = tmp_path / "trit-tune"
    program.write_text(f'#!/bin/sh\nexec qemu-aarch64 -cpu {cpu} "{kernels}/bin/trit-tune" "$@"\n')
    program.chmod(0o755)
    tuning = tmp_path / "tuning.json"
    flags = ["-m", BUNDLED_MODEL, "--seconds", "0", "--threads", "2", "--bin-dir", tmp_path, "--out", tuning]
    said = call(sys.executable, "-m", "trit.tune", *flags).stdout
    name = said.splitlines()[-1].removeprefix("auto: ").split(",")[0].split(" ")[0]
    assert name in AUTO_TYPES, said
    found = load(tuning)
    assert found.tier == CPUS[cpu][0] and MADE_FOR[str(found.shapes[0].packing)] == name
    gguf = converted(name, tmp_path)
    result = emulate(cpu, engine, *arguments(gguf), TRIT_TUNING=str(tuning))
    assert result.returncode == 0, result.stderr[-2000:]
    assert f"packed at load as {found.shapes[0].packing}" in result.stderr and "warning" not in result.stderr
    assert result.stdout == native_answer
