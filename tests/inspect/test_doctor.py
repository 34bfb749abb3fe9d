# SPDX-License-Identifier: MIT
"""``trit doctor``: what it finds, what it advises, and that its report can be shown to everybody."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fake_engine import program
from trit.base import places
from trit.base.places import BUNDLED_MODEL
from trit.cli import version
from trit.inspect import advisories, doctor
from trit.inspect.machine import cpu_features, huge_pages, read_selftest

SELFTEST = """\
avx512_amx   not on this CPU (needs AVX-512 F, BW, AMX-INT8)
neon_i8mm    not on this CPU (needs FEAT_DotProd, FEAT_I8MM)
avx2         equal to the scalar reference
scalar       equal to the scalar reference
lookup_avx2_t32 equal to the scalar reference
tl1_neon_2560 not on this CPU
tl2_avx2_2560 equal to the scalar reference
"""
CHOSEN = "look-up: none\ntl1: none\ntl2: tl2_avx2_2560\nchosen: avx2\n"
ENGINE = "print('version: 1 (build 0, commit abc123)\\nbuilt with GNU 12 for Linux')"


def test_the_self_test_s_words() -> None:
    test = read_selftest(SELFTEST + CHOSEN, arm=False)
    assert test.tiers == ["avx2", "scalar"] and test.chosen == "avx2" and test.failed == {}
    assert test.lacking == {"avx512_amx": "AVX-512 F, BW, AMX-INT8"}, "what ARM lacks says nothing here"
    assert test.lookups == {"tl2": "tl2_avx2_2560"}
    assert list(read_selftest(SELFTEST, arm=True).lacking) == ["neon_i8mm"]
    broken = read_selftest(SELFTEST.replace("equal to the scalar reference", "FAILED: k = 128", 1), arm=False)
    assert broken.failed == {"avx2": "k = 128"} and broken.tiers == ["scalar"] and broken.chosen == ""


def test_features_in_the_words_of_the_kernel(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx avx2 f16c fma avx512_vnni avx2_like\nflags\t\t: amx_tile\n")
    assert cpu_features(info) == ["avx2", "f16c", "fma", "avx512_vnni"]
    info.write_text("processor : 0\nFeatures : fp asimd asimddp i8mm\n")
    assert cpu_features(info) == ["asimd", "asimddp", "i8mm"]
    info.write_text("processor : 0\nisa : rv64imafdcv\n")
    assert cpu_features(info) is None


@pytest.mark.parametrize(
    ("text", "word"), [("always [madvise] never\n", "madvise"), ("[always] madvise never\n", "always"), ("", None)]
)
def test_huge_pages(text: str, word: str | None, tmp_path: Path) -> None:
    file = tmp_path / "enabled"
    assert huge_pages(file) is None
    file.write_text(text)
    assert huge_pages(file) == word


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that works, of stand-ins, with this Python's own packages."""
    root = tmp_path / "checkout"
    folder = root / "build" / "bin"
    for path in (root / "3rdparty" / "llama.cpp", root / "stamps", folder):
        path.mkdir(parents=True)
    (root / "setup_env.py").touch()
    (root / "3rdparty" / "llama.cpp" / "CMakeLists.txt").touch()
    (root / "model.gguf").touch()
    for name in doctor.PROGRAMS:
        program(folder, name, ENGINE)
    selftest(root, SELFTEST + CHOSEN)
    monkeypatch.setattr(doctor, "ROOT", root)
    monkeypatch.setattr(doctor, "BUILD_DIR", root / "build")
    monkeypatch.setattr(doctor, "ENGINE_DIR", root / "3rdparty" / "llama.cpp")
    monkeypatch.setattr(doctor, "STAMPS", root / "stamps")
    monkeypatch.setattr(doctor, "engine_program", lambda name: folder / name)
    monkeypatch.setattr(doctor, "default_model", lambda: root / "model.gguf")
    monkeypatch.setattr(doctor.provenance, "engine_commit", lambda: "abc123")
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")
    for name in [name for name in os.environ if name.startswith("TRIT_")]:
        monkeypatch.delenv(name)
    return root


def selftest(root: Path, output: str, code: int = 0) -> None:
    program(root / "build" / "bin", "trit-selftest", f"print({output!r}); raise SystemExit({code})")


def told(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, dict[str, str]]:
    """The findings by their names; the exit code has to be this."""
    assert doctor.main(["--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["well"] == (code == 0) == all(finding["well"] for finding in report["findings"])
    return {finding["name"]: finding for finding in report["findings"]}


def wrong(findings: dict[str, dict[str, str]]) -> set[str]:
    return {name for name, finding in findings.items() if not finding["well"]}


def test_where_all_works(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys)
    assert "tier avx2, equal to the scalar reference; tl2_avx2_2560" in found["kernels"]["found"]
    assert "this CPU can run avx2, scalar" in found["tiers"]["found"]
    assert found["engine"]["found"].startswith("llama.cpp abc123, GNU 12 for Linux; compiled here")
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any(line.startswith("NO ") for line in lines)
    report = lines[lines.index("```text") + 1 : -1]
    assert "faults:    none" in report and any(
        line.startswith("kernels:   tier avx2 of avx2, scalar") for line in report
    )


def test_what_is_missing_is_named_with_what_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "build" / "bin" / "llama-server").unlink()
    (place / "build" / "bin" / "trit-selftest").unlink()
    (place / "model.gguf").unlink()
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("numpy", "torch") else "1.0")
    monkeypatch.setattr(doctor, "environment_python", lambda: place / "no-python")
    found = told(capsys, 1)
    assert wrong(found) == {"engine", "kernels", "model", "packages"}
    assert "llama-server missing" in found["engine"]["found"]
    assert "numpy (convert" in found["packages"]["found"] and "torch" not in found["packages"]["found"]
    assert "no torch (train" in found["more packages"]["found"]
    assert all("setup_env.py" in found[name]["advice"] for name in wrong(found))
    (place / ".venv").mkdir()
    monkeypatch.setattr(doctor, "environment_python", lambda: Path(sys.executable))
    assert "packages" not in wrong(told(capsys, 1)), "commands hand over to the environment that has them"


def test_without_a_source_the_programs_are_enough(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "3rdparty" / "llama.cpp" / "CMakeLists.txt").unlink()
    (place / "stamps" / "build.json").write_text('{"key": "a", "wheel": "trit_cpp-9.whl"}')
    found = told(capsys)
    assert "from trit_cpp-9.whl" in found["engine"]["found"] and "not needed" in found["engine source"]["found"]
    (place / "build" / "bin" / "llama-cli").unlink()
    assert wrong(told(capsys, 1)) == {"engine", "engine source"}


def test_an_installed_package_needs_no_checkout(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "setup_env.py").unlink()
    for module in (doctor, places):
        monkeypatch.setattr(module, "INSTALLED", True)
    (place / "model.gguf").unlink()
    (place / "3rdparty" / "llama.cpp" / "CMakeLists.txt").unlink()
    monkeypatch.setattr(advisories, "FILE", place / "none.json")
    found = told(capsys)
    assert "an installed package" in found["trit"]["found"] and "from the package" in found["engine"]["found"]
    (place / "build" / "bin" / "llama-cli").unlink()
    assert "pip install" in told(capsys, 1)["engine"]["advice"]


@pytest.mark.parametrize(
    ("spoil", "name", "words", "advice"),
    [
        ("other", "engine", "llama.cpp def456", "setup_env.py"),
        ("dead", "engine", "does not start here: no AVX2", "setup_env.py"),
        ("wrong", "kernels", "avx2 FAILED: k = 128", "--clean"),
        ("variable", "kernels", "TRIT_TIER=avx9: there is no such tier", ""),
    ],
)
def test_programs_that_do_not_work(
    spoil: str, name: str, words: str, advice: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place / "build" / "bin"
    if spoil == "other":
        program(folder, "llama-completion", ENGINE.replace("abc123", "def456"))
    elif spoil == "dead":
        program(folder, "llama-completion", "print('no AVX2'); raise SystemExit(2)")
    elif spoil == "wrong":
        selftest(place, SELFTEST.replace("equal to the scalar reference", "FAILED: k = 128", 1), 1)
    else:
        selftest(place, "error: TRIT_TIER=avx9: there is no such tier", 2)
    found = told(capsys, 1)
    assert wrong(found) == {name}
    assert (
        words in found[name]["found"]
        and advice in found[name]["advice"]
        and bool(advice) == bool(found[name]["advice"])
    )


def test_the_report_names_nobody(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a program says: folders, the user and the machine become words."""
    home = tmp_path / "home" / "mary.poppins"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("TRIT_TUNING", str(home / "tuning.json"))
    monkeypatch.setattr(getpass, "getuser", lambda: "mary.poppins")
    monkeypatch.setattr(socket, "gethostname", lambda: "cherry-tree-17.example")
    monkeypatch.setattr(platform, "node", lambda: "cherry-tree-17.example")
    says = (
        f"{home}/x.so: mary.poppins@cherry-tree-17.example may not load {place}/build/bin, {sys.prefix}/lib, "
        "maryland, cherry-tree-17: gone"
    )
    program(place / "build" / "bin", "llama-completion", f"print({says!r}); raise SystemExit(1)")
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    lines = out.partition("```text\n")[2].splitlines()
    report = " ".join(" ".join(lines).split())
    assert "faults: engine: does not start here: HOME/x.so: USER@HOST" in report and "maryland" in report
    for name in ("mary.poppins", "cherry-tree", str(tmp_path), sys.prefix):
        assert name not in report.replace(" ", ""), name
    assert max(map(len, lines)) <= 80
    assert "TRIT_TUNING=a path" in report


def test_the_real_engine(engine_bin: Path) -> None:
    """The tier is the one that ``trit --version`` names; before set-up nothing but the standard library is needed."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", "from trit.inspect import doctor; raise SystemExit(doctor.main(['--json']))"],
        cwd=BUNDLED_MODEL.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert found["engine"]["well"] and found["kernels"]["well"]
    assert version().endswith(f"tier {report['facts']['selftest']['chosen']}")
    assert engine_bin.is_dir() and report["facts"]["machine"]["threads"]["default"] >= 1
    assert report["facts"]["packages"]["numpy"] is None, "-S hides the packages"
