# SPDX-License-Identifier: MIT
"""Set-up without a compiler: the engine's programs out of a wheel (``--wheel FILE``)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.support.fake_checkout import HOLD, PROGRAM, Checkout, make_checkout
from trit import __version__
from trit.base.errors import UserError
from trit.base.places import LOCK, engine_program
from trit.setup import wheel
from trit.setup.build import programs
from trit.setup.options import parse_options

NAMES = [path.name for path in programs()]
HERE = f"linux_{platform.machine()}"
FOLDER = "trit/some/where/"


def make_wheel(
    path: Path,
    *,
    commit: str = "abc123",
    lock: str | None = "abc123",
    version: str = __version__,
    tag: str = HERE,
    name: str = "trit-cpp",
    folder: str = FOLDER,
    names: list[str] = NAMES,
    code: int = 0,
    more: dict[str, str] | None = None,
) -> Path:
    """A wheel whose programs are scripts; every argument spoils one thing."""
    program = f"#!{sys.executable}\nimport sys\nif '--version' in sys.argv:\n"
    program += f"    print('version: 1 (build 0, commit {commit})')\n    sys.exit({code})\n"
    program += PROGRAM.partition("\n")[2].format(hold=HOLD).replace(" a fake answer", " an answer of the wheel")
    about = f"trit_cpp-{version}.dist-info"
    files = {
        "trit/__init__.py": "",
        **{folder + one: program for one in names},
        f"{folder}libtrit-engine.so": "a library",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n",
        **({"trit/llama.cpp.lock.json": json.dumps({"commit": lock})} if lock else {}),
        **(more or {}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
    return path


@pytest.fixture
def checkout(tmp_path: Path, plain_venv: Path) -> Checkout:
    return make_checkout(tmp_path, plain_venv)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine's commit of wheels that fit."""
    monkeypatch.setattr(wheel, "pinned", lambda: "abc123")
    return "abc123"


def without_compiler(checkout: Checkout) -> dict[str, str]:
    """A PATH on which there is nothing but what set-up needs besides a compiler."""
    return {"PATH": str(checkout.tools), "CC": "", "CXX": ""}


def steps(output: str) -> list[str]:
    return [line.split()[1] for line in output.splitlines() if line.startswith("[")]


def test_a_host_without_a_compiler_gets_an_answer(checkout: Checkout, tmp_path: Path) -> None:
    env = without_compiler(checkout)
    given = make_wheel(tmp_path / "trit_cpp-any-name.whl")
    refused = checkout.run("--no-run", **env)
    assert refused.returncode == 2
    assert "no C++17 compiler was found" in refused.stderr
    assert "--compiler zig" in refused.stderr and "--wheel FILE" in refused.stderr
    (checkout.root / "dist").mkdir()
    near = make_wheel(checkout.root / "dist" / "trit_cpp-1-py3-none-x.whl")
    make_wheel(checkout.root / "dist" / "trit_cpp-0-py3-none-x.whl", tag="win_arm64")
    assert f"--wheel {near}\n" in checkout.run("--no-run", **env).stderr, "one that is at hand, and fits, is named"

    done = checkout.run("--wheel", str(given), **env)
    assert done.returncode == 0, done.stderr
    assert steps(done.stdout) == ["tools", "model", "engine", "tuning", "conversion", "self-test", "answer"]
    assert "answer:  an answer of the wheel" in done.stdout and checkout.gguf.is_file()
    assert not checkout.engine.exists(), "no source is fetched"
    assert (checkout.root / "build" / "bin" / "libtrit-engine.so").read_text() == "a library"
    assert checkout.leftovers() == []

    before = {path: path.stat().st_mtime_ns for path in (checkout.root / "build").rglob("*")}
    again = checkout.run("--no-run", "--wheel", str(given), **env)
    assert "up to date: llama.cpp abc123 of trit_cpp-any-name.whl" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (checkout.root / "build").rglob("*")} == before
    make_wheel(given, more={f"{FOLDER}more": "another file"})
    assert "up to date: llama.cpp" not in checkout.run("--no-run", "--wheel", str(given), **env).stdout
    assert (checkout.root / "build" / "bin" / "more").is_file()


def test_compiled_and_taken_programs_are_never_mixed(checkout: Checkout, tmp_path: Path) -> None:
    given = make_wheel(tmp_path / "w.whl")
    stray = checkout.root / "build" / "compile_commands.json"
    (checkout.root / "build.partial" / "bin").mkdir(parents=True)
    assert checkout.run("--no-run").returncode == 0
    assert checkout.leftovers() == [], "what a killed run unpacked goes with the next one"
    stray.touch()
    assert checkout.run("--no-run", "--wheel", str(given)).returncode == 0
    assert not stray.exists(), "trit tune would compile, and ninja put the compiled programs back"
    compiled = checkout.run()
    assert "compiled with" in compiled.stdout and "answer:  a fake answer" in compiled.stdout
    assert not (checkout.root / "build" / "bin" / "libtrit-engine.so").exists()
    assert "up to date in build/bin" in checkout.run("--no-run").stdout


def test_a_wheel_that_does_not_start_leaves_what_was_built(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.run("--no-run").returncode == 0
    for given, words in (
        (make_wheel(tmp_path / "a.whl", code=1), "its programs do not start here (version: 1"),
        (make_wheel(tmp_path / "b.whl", commit="def456", lock=None), "its engine is llama.cpp def456"),
    ):
        refused = checkout.run("--wheel", str(given))
        assert refused.returncode == 2 and words in refused.stderr
    assert "up to date in build/bin" in checkout.run("--no-run").stdout
    assert checkout.leftovers() == []


def test_a_wrong_wheel_is_refused_before_anything_is_done(checkout: Checkout, tmp_path: Path) -> None:
    other = make_wheel(tmp_path / "other.whl", version="99.1")
    inside = checkout.root / "build" / "w.whl"
    inside.parent.mkdir()
    make_wheel(inside)
    for arguments, words in (
        (["--wheel", str(tmp_path / "gone.whl")], "is not there"),
        (["--wheel", str(other)], f"is version 99.1, this checkout is {__version__}"),
        (["--clean", "--wheel", str(inside)], "--clean deletes the folder that it is in"),
    ):
        refused = checkout.run(*arguments)
        assert refused.returncode == 2 and words in refused.stderr and refused.stdout == ""
    assert not (checkout.root / "logs").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the made wheels are for Linux")
@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        ({"version": "0.0.9"}, "is version 0.0.9, this checkout is"),
        ({"lock": "0badbeef"}, "its engine is llama.cpp 0badbeef, this checkout's is abc123"),
        ({"tag": "win_amd64"}, "is for win_amd64, this machine is linux_"),
        ({"tag": f"manylinux_2_999_{platform.machine()}"}, "needs glibc 2.999, this machine has"),
        ({"tag": "manylinux_2_17_sparc"}, "is for manylinux_2_17_sparc"),
        ({"name": "numpy"}, "is a wheel of numpy, expected trit-cpp"),
        ({"more": {"trit/x/3rdparty/patches/0001-a.patch": "other"}}, "its engine has other patches"),
        ({"names": []}, "take a wheel of a platform, not one of Python alone"),
        ({"names": NAMES[:-2]}, f"lacks {', '.join(NAMES[-2:])};"),
        ({"more": {f"{FOLDER}../../../evil": "x"}}, "would leave the folder of the programs"),
    ],
)
def test_what_does_not_fit_is_said(spoiled: dict[str, object], words: str, tmp_path: Path, pinned: str) -> None:
    path = make_wheel(tmp_path / "a.whl", **spoiled)  # type: ignore[arg-type]
    with pytest.raises(UserError) as refused:
        wheel.check(wheel.read(path))
    assert f"--wheel {path}: " in str(refused.value) and words in str(refused.value)
    assert ";" in str(refused.value), "it says what to do"


def test_one_that_fits(tmp_path: Path, pinned: str) -> None:
    ours = {f"trit/x/3rdparty/patches/{path.name}": path.read_text("utf-8") for path in wheel.PATCHES.glob("*.patch")}
    assert ours and wheel.read(make_wheel(tmp_path / "b.whl", more=ours)).patches.keys() == {
        name.rpartition("/")[2] for name in ours
    }
    if sys.platform.startswith("linux"):
        wheel.check(wheel.read(tmp_path / "b.whl"))
    for tag in (HERE, "any", f"manylinux1_{platform.machine()}"):
        found = wheel.read(make_wheel(tmp_path / "a.whl", tag=tag, folder="elsewhere/"))
        assert found.folder == "elsewhere/" and found.commit == pinned
        if sys.platform.startswith("linux"):
            wheel.check(found)


@pytest.mark.parametrize("damage", ["cut", "bytes", "no metadata", "text"])
def test_a_damaged_wheel(damage: str, tmp_path: Path, pinned: str) -> None:
    path = make_wheel(tmp_path / "a.whl")
    whole = path.read_bytes()
    place = whole.index(b"a library")
    path.write_bytes(
        {
            "cut": whole[:-200],
            "bytes": whole[:place] + b"A" + whole[place + 1 :],
            "no metadata": whole.replace(b"METADATA", b"METATATA"),
            "text": b"a text",
        }[damage]
    )
    with pytest.raises(UserError, match=r"a\.whl: .*download or build it again"):
        wheel.unpack(wheel.read(path), tmp_path / "out")


@pytest.mark.parametrize(
    ("platform_name", "libc", "tag", "words"),
    [
        ("linux-aarch64", ("glibc", "2.28"), "manylinux_2_28_aarch64", ""),
        ("linux-aarch64", ("glibc", "2.28"), "manylinux2014_aarch64", ""),
        ("linux-aarch64", ("glibc", "2.17"), "manylinux_2_28_aarch64", "needs glibc 2.28, this machine has glibc 2.17"),
        ("linux-x86_64", ("glibc", "2.9"), "manylinux2010_x86_64", "needs glibc 2.12, this machine has glibc 2.9"),
        ("linux-x86_64", ("", ""), "manylinux_2_17_x86_64", "needs glibc 2.17, this machine has another C library"),
        ("linux-x86_64", ("", ""), "musllinux_1_2_x86_64", ""),
        ("linux-x86_64", ("glibc", "2.36"), "musllinux_1_2_x86_64", "needs musl, this machine has glibc 2.36"),
        ("linux-x86_64", ("glibc", "2.36"), "macosx_11_0_x86_64", "is for macosx_11_0_x86_64, this machine is linux_"),
        ("linux-x86_64", ("glibc", "2.36"), "any", ""),
        ("win-amd64", ("", ""), "win_amd64", ""),
        ("win-arm64", ("", ""), "win_amd64", "is for win_amd64, this machine is win_arm64"),
        ("win-amd64", ("", ""), "win32", "is for win32, this machine is win_amd64"),
    ],
)
def test_platform_tags(
    platform_name: str, libc: tuple[str, str], tag: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_platform", lambda: platform_name)
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    assert wheel.misfit(tag).startswith(words) and bool(wheel.misfit(tag)) == bool(words)


@pytest.mark.parametrize(
    ("machine", "tag", "fits"),
    [
        ("arm64", "macosx_11_0_arm64", True),
        ("arm64", "macosx_11_0_universal2", True),
        ("x86_64", "macosx_11_0_arm64", False),
        ("x86_64", "macosx_15_0_x86_64", False),
    ],
)
def test_platform_tags_of_macs(machine: str, tag: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_platform", lambda: "macosx-10.13-universal2")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("14.2.1", ("", "", ""), machine))
    assert (wheel.misfit(tag) == "") == fits


@pytest.mark.parametrize("flag", [["--compiler", "gcc"], ["--native"], ["--jobs", "2"], ["--test"]])
def test_flags_of_compiling_are_refused_beside_it(flag: list[str]) -> None:
    with pytest.raises(UserError, match=f"--wheel compiles nothing, and {flag[0]} is for"):
        parse_options(["--wheel", "a.whl", *flag])


def test_the_real_programs_go_through_a_wheel(engine_bin: Path, tmp_path: Path) -> None:
    """Packed, unpacked elsewhere, and they start: the engine says its commit, the kernels equal the reference."""
    path = tmp_path / "real.whl"
    make_wheel(path, names=[], lock=None)
    with zipfile.ZipFile(path, "a") as archive:
        for file in engine_bin.iterdir():
            archive.write(file.resolve(), FOLDER + file.name)
    found = wheel.read(path)
    assert set(NAMES) <= found.names
    wheel.unpack(found, tmp_path / "bin")
    wheel.try_programs(found, tmp_path / "bin")
    commit = json.loads(LOCK.read_text(encoding="utf-8"))["commit"]
    assert wheel.pinned() == commit
    done = subprocess.run([engine_program("trit-selftest", tmp_path / "bin")], capture_output=True, text=True)
    assert done.returncode == 0 and "chosen: " in done.stdout
    assert os.access(tmp_path / "bin" / NAMES[0], os.X_OK)
