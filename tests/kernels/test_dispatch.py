# SPDX-License-Identifier: MIT
"""Which tier runs: the real dispatch.cpp and selftest.cpp of src/kernels/ over tiers made up in fake_tiers.cpp."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.kernel_build import TEXT, call, need
from tests.support.tiers import ROOT

if os.name != "posix":
    pytest.skip("fake_tiers.cpp and its signals are POSIX", allow_module_level=True)

KERNELS = ["quantize", "i2_s", "panel of 2 bits", "panel of 5 trits", "finish", "accumulate", "q6_k"]
FAULTS = {
    "illegal": "stops at an instruction that this machine does not execute",
    "wrong": "differs from the scalar reference",
}
every_fault = pytest.mark.parametrize(
    ("kernel", "fault"), [(kernel, fault) for kernel in KERNELS for fault in FAULTS], ids=str
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("c++")
    folder = tmp_path_factory.mktemp("dispatch")
    (folder / "trit_tiers.inc").write_text(
        "".join(f"TRIT_TIER({name})\n" for name in ("scalar", "faulty", "absent", "good"))
    )
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-pthread"]
    flags += ["-DTRIT_BUILD", f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}", f"-I{folder}"]
    scalar = folder / "scalar.o"
    kernels = ROOT / "src" / "kernels"
    call("c++", *flags, "-Dtrit_tier_scalar=trit_tier_reference", "-c", kernels / "tiers" / "scalar.cpp", "-o", scalar)
    sources = [kernels / f"{name}.cpp" for name in ("dispatch", "selftest", "panel")]
    call("c++", *flags, *sources, ROOT / "tests" / "support" / "fake_tiers.cpp", scalar, "-o", folder / "fake_tiers")
    return folder / "fake_tiers"


def run(program: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key != "TRIT_TIER"}
    return subprocess.run([str(program), *arguments], env={**inherited, **env}, **TEXT)


def chosen(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    assert "not all threads" not in result.stdout
    return result.stdout.splitlines()[-1].removeprefix("chosen: ")


def test_tiers_are_listed_by_falling_rank(program: Path) -> None:
    names = re.findall(r"^(-?\d+): (\w+)$", run(program).stdout, re.MULTILINE)
    expected = ["none", "absent", "faulty", "good", "scalar", "none"]
    assert names == [(str(i - 1), name) for i, name in enumerate(expected)]


@pytest.mark.parametrize("env", [{}, {"TRIT_TIER": ""}], ids=["unset", "empty"])
@pytest.mark.parametrize(("lacks", "best"), [("", "faulty"), ("faulty", "good"), ("faulty good", "scalar")])
def test_the_best_supported_tier_is_chosen_silently(program: Path, env: dict[str, str], lacks: str, best: str) -> None:
    result = run(program, LACKS=lacks, **env)
    assert chosen(result) == best
    assert result.stderr == ""


@every_fault
@pytest.mark.parametrize("env", [{}, {"TRIT_TIER": ""}], ids=["unset", "empty"])
def test_a_tier_that_fails_is_reported_and_the_next_best_taken(
    program: Path, env: dict[str, str], kernel: str, fault: str
) -> None:
    result = run(program, FAULT=f"{kernel}:{fault}", **env)
    assert chosen(result) == "good"
    warning = re.fullmatch(r"warning: tier faulty is skipped: (.*); please report this .*\n", result.stderr)
    assert warning, result.stderr
    named = "finish or accumulate" if kernel in ("finish", "accumulate") else kernel
    assert re.fullmatch(rf"{named} \(k = \d+, m = \d+\) {FAULTS[fault]}", warning[1])


@every_fault
def test_a_forced_tier_that_fails_ends_the_program(program: Path, kernel: str, fault: str) -> None:
    result = run(program, FAULT=f"{kernel}:{fault}", TRIT_TIER="faulty")
    assert result.returncode == 2 and "chosen" not in result.stdout
    assert re.fullmatch(rf"error: TRIT_TIER=faulty: self-test failed: .* {FAULTS[fault]}\n", result.stderr)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("avx9000", "there is no such tier; this build has absent faulty good scalar"),
        ("Good", "there is no such tier; this build has absent faulty good scalar"),
        (" ", "there is no such tier; this build has absent faulty good scalar"),
        ("absent", "this CPU lacks one of nothing; unset TRIT_TIER to use what it has"),
        ("faulty", "this CPU lacks one of GOOD FORTUNE; unset TRIT_TIER to use what it has"),
    ],
)
def test_a_forced_tier_that_is_not_there_is_one_sentence_and_exit_code_2(
    program: Path, name: str, sentence: str
) -> None:
    result = run(program, TRIT_TIER=name, LACKS="faulty")
    assert result.returncode == 2 and "chosen" not in result.stdout
    assert result.stderr == f"error: TRIT_TIER={name}: {sentence}\n"


@pytest.mark.parametrize("name", ["faulty", "good", "scalar"])
def test_a_forced_tier_is_chosen_whatever_its_rank(program: Path, name: str) -> None:
    result = run(program, TRIT_TIER=name)
    assert chosen(result) == name and result.stderr == ""


def test_without_any_tier_the_program_ends(program: Path) -> None:
    result = run(program, FAULT="i2_s:wrong", LACKS="good scalar")
    assert result.returncode == 1 and "chosen" not in result.stdout
    warning, error = result.stderr.splitlines()
    assert warning.startswith("warning: tier faulty is skipped: i2_s")
    assert error.startswith("error: no tier passes its self-test")


@pytest.mark.parametrize("fault", ["", "i2_s:wrong", "q6_k:illegal"])
def test_eight_threads_at_once_try_each_tier_once(program: Path, fault: str) -> None:
    result = run(program, FAULT=fault)
    assert chosen(result) == ("good" if fault else "faulty")
    assert "faulty was tried: 1\n" in result.stdout
    assert result.stderr.count("\n") == (1 if fault else 0)


@pytest.mark.parametrize("fault", ["", "panel of 5 trits:illegal"])
@pytest.mark.parametrize(("then", "code"), [("then-illegal", -signal.SIGILL), ("own-handler", 77)])
def test_illegal_instructions_after_the_selftest_are_the_program_s_own_matter(
    program: Path, then: str, code: int, fault: str
) -> None:
    result = run(program, then, FAULT=fault)
    assert result.returncode == code
    assert f"chosen: {'good' if fault else 'faulty'}" in result.stdout
