# SPDX-License-Identifier: MIT
"""One product: what the engine plans for its tensors is what the tuner and the benchmark time under a way's name."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.kernel_build import TEXT, build_kernels, call, need
from tests.support.tiers import TIERS
from trit.base.places import ROOT
from trit.models.shapes import SHAPES, matrices

# What the tools' side does otherwise in each: a way's name, or the number of threads.
FAULTS = ("threads", "panels", "least", "packing", "table", "at_once")


@pytest.fixture(scope="module")
def driver(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's adapter (src/ggml/mul_mat.cpp) and the tools' products in one program."""
    if os.name != "posix":
        pytest.skip("finds ggml's library as Linux and macOS do")
    need("c++")
    folder = tmp_path_factory.mktemp("plans")
    kernels = build_kernels(folder / "kernels", None, targets=("trit_objects",))
    ggml = ROOT / "3rdparty" / "llama.cpp" / "ggml"
    # Headers of the engine may have what we are warned of.
    engine = [ggml / "include", ggml / "src", ggml / "src" / "ggml-cpu"]
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{ROOT / 'include'}"]
    flags += [f"-I{ROOT / 'src'}", *(word for path in engine for word in ("-isystem", str(path)))]
    sources = [
        ROOT / "src" / f"{name}.cpp" for name in ("ggml/mul_mat", "ggml/repack", "tools/measure", "tools/product")
    ]
    objects = sorted((kernels / "src" / "CMakeFiles" / "trit_objects.dir").rglob("*.cpp.o"))
    libraries = [f"-L{engine_bin}", "-lggml-base", f"-Wl,-rpath,{engine_bin}"]
    program = folder / "plan_driver"
    call("c++", *flags, ROOT / "tests" / "support" / "plan_driver.cpp", *sources, *objects, *libraries, "-o", program)
    return program


def run(driver: Path, tier: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIT_")}
    return subprocess.run([str(driver), *arguments], env={**inherited, "TRIT_TIER": tier}, **TEXT)


@pytest.mark.parametrize("tier", TIERS)
def test_the_engine_plans_what_the_tools_time(driver: Path, tier: str) -> None:
    result = run(driver, tier)
    if "this CPU lacks" in result.stderr:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr
    count = re.fullmatch(rf"{tier}: (\d+) plans, all equal\n", result.stdout)
    assert count and int(count[1]) >= 600 * 12 * 5


@pytest.mark.parametrize("fault", FAULTS)
def test_that_comparison_notices(driver: Path, fault: str) -> None:
    for tier in TIERS:
        result = run(driver, tier, fault)
        if result.returncode == 1:
            assert re.match(r"\d+x\d+, \d+ tokens, \d+ threads, way \S+:\n  engine: .*\n  tools:  .*\n", result.stderr)
            return
    pytest.fail("no tier noticed it")


# The busiest thread's work over the mean, where there is enough of it.
EVEN = 1.15
THREADS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64, 96)
TOKENS = (1, 8, 128, 512)


def test_threads_have_even_work(driver: Path) -> None:
    """Every matrix of known models: threads share panels of 64 rows, and from 32 tokens on parts of their tokens."""
    sizes = {(n, k) for shape in SHAPES.values() for n, k in matrices(shape).values()}
    cases = [(n, k, m, threads) for n, k in sorted(sizes) for m in TOKENS for threads in THREADS]
    lines = "".join(f"{n} {k} {m} {threads}\n" for n, k, m, threads in cases)
    result = subprocess.run([str(driver), "work"], input=lines, **TEXT)
    assert result.returncode == 0, result.stderr
    missed = set()
    for (n, k, m, threads), line in zip(cases, result.stdout.split(), strict=True):
        # Blocks of tokens that stay in a cache, and chunks of at least 16 tokens: a panel is divided by them.
        block = min(max((1 << 20) // k // 12 * 12, 12), 240, m)
        tokens = m / -(-m // block)
        chunks = min(max(int(tokens) // 16, 1), 16)
        units = -(-n // 64) * chunks
        bound = -(-units // threads) * threads / units
        if chunks > 1:  # they differ by a token
            bound *= 1 + chunks / tokens
        assert float(line) <= max(EVEN, bound) + 1e-6, (n, k, m, threads, line)
        if bound > EVEN:
            missed.add((units, threads))
    # Where the bound is larger, there are fewer than 12 units for a thread.
    assert all(units < 12 * threads for units, threads in missed)
