# SPDX-License-Identifier: MIT
"""Kernels and packed weights under the compilers' sanitizers: memory, undefined behaviour, threads."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.kernel_build import COMPILERS, TEXT, build_kernels, call
from tests.support.tiers import ROOT, TIERS

if os.name != "posix":
    pytest.skip("the drivers are POSIX", allow_module_level=True)

FLAGS = {
    "memory": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "threads": ["-fsanitize=thread"],
}
# AddressSanitizer says what leaks, too; where it may not trace this process, it fails for no fault of ours.
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1", "TSAN_OPTIONS": "halt_on_error=1"}


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != "TRIT_TIER"}
    return subprocess.run([str(program), *arguments], env={**inherited, **OPTIONS}, **TEXT)


def useless(folder: Path, compiler: str, flags: list[str]) -> str:
    """Why a program of no content does not work with a sanitizer; empty if it does."""
    if shutil.which(compiler) is None:
        return f"{compiler} is not installed"
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    result = subprocess.run([compiler, *flags, str(probe), "-o", str(folder / "probe")], **TEXT)
    if result.returncode == 0:
        result = run(folder / "probe")
    return f"{compiler} {' '.join(flags)}: {result.stderr.strip()[-200:]}" if result.returncode != 0 else ""


def build(folder: Path, kind: str, *drivers: str) -> Path:
    """A folder with drivers, they and the kernels compiled with a sanitizer by the first compiler that has it."""
    reasons = {compiler: useless(folder, compiler, FLAGS[kind]) for compiler in COMPILERS}
    compiler = next((name for name, reason in reasons.items() if not reason), None)
    if compiler is None:
        pytest.skip("no sanitizer: " + "; ".join(reasons.values()))
    flags = ["-O1", "-g1", "-fno-omit-frame-pointer", *FLAGS[kind]]
    # Instrumented code makes gcc warn of things that are not there; test_repo.py has the warnings.
    settings = ["-DTRIT_WARNINGS_AS_ERRORS=OFF", "-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_CXX_FLAGS={' '.join(flags)}"]
    kernels = build_kernels(folder / "kernels", compiler, *settings, targets=("trit_objects",))
    objects = sorted((kernels / "src" / "CMakeFiles" / "trit_objects.dir").rglob("*.cpp.o"))
    assert len(objects) > 10
    options = ["-std=c++17", "-ffp-contract=off", "-pthread", f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}"]
    for name in drivers:
        call(compiler, *flags, *options, ROOT / "tests" / "support" / f"{name}.cpp", *objects, "-o", folder / name)
    return folder


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("memory"), "memory", "packed_driver", "compare_tiers")


@pytest.fixture(scope="module")
def threads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("threads"), "threads", "packed_driver")


def check(program: Path, tier: str, *arguments: str) -> None:
    result = run(program, tier, *arguments)
    if result.returncode == 2:
        pytest.skip(f"this CPU cannot run tier {tier}")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.endswith("all equal\n") and result.stderr == ""


@pytest.mark.parametrize("tier", TIERS)
def test_packed_weights_stay_in_their_memory(memory: Path, tier: str) -> None:
    check(memory / "packed_driver", tier)


@pytest.mark.parametrize("tier", TIERS)
def test_kernels_stay_in_their_memory_and_equal_the_contract(memory: Path, tier: str) -> None:
    check(memory / "compare_tiers", tier)


@pytest.mark.parametrize("tier", TIERS)
def test_threads_share_a_matrix(threads: Path, tier: str) -> None:
    check(threads / "packed_driver", tier, "few")


@pytest.mark.parametrize(
    ("fault", "report"), [("short", "heap-buffer-overflow"), ("signed", "signed integer overflow")]
)
def test_the_sanitizer_would_notice(memory: Path, fault: str, report: str) -> None:
    result = run(memory / "packed_driver", "scalar", fault)
    assert result.returncode not in (0, 2) and report in result.stderr


def test_the_thread_sanitizer_would_notice(threads: Path) -> None:
    result = run(threads / "packed_driver", "scalar", "race")
    assert result.returncode not in (0, 2) and "data race" in result.stderr
