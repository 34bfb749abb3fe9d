# SPDX-License-Identifier: MIT
"""The tools step: environments and compilers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.fake_checkout import Checkout, make_checkout
from trit.base.errors import UserError
from trit.base.progress import StepLine
from trit.setup import compiler, tools, zig
from trit.setup.context import Compiler, Setup
from trit.setup.options import parse_options


def make_setup(*arguments: str) -> Setup:
    return Setup(parse_options(arguments))


@pytest.fixture
def checkout(tmp_path: Path, plain_venv: Path) -> Checkout:
    return make_checkout(tmp_path, plain_venv)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\nimport sys\n{text}\n")
    path.chmod(0o755)
    return path


def fake_compiler(folder: Path, name: str, macros: dict[str, str], works: bool = True) -> None:
    """A script that answers to -dM like a compiler and "compiles" scripts."""
    lines = "".join(f"#define {key} {value}\n" for key, value in macros.items())
    script(
        folder / name,
        f"if '-dM' in sys.argv: print({lines!r}); sys.exit(0)\n"
        f"if not {works}: print('fatal error: filesystem: No such file or directory'); sys.exit(1)\n"
        "out = sys.argv[sys.argv.index('-o') + 1]\n"
        f"open(out, 'w').write('#!{sys.executable}\\n')\n"
        "import os; os.chmod(out, 0o755)",
    )


def gcc(version: int) -> dict[str, str]:
    return {"__GNUC__": str(version), "__GNUC_MINOR__": "2", "__GNUC_PATCHLEVEL__": "0"}


def clang(version: int) -> dict[str, str]:
    return gcc(4) | {
        "__clang_major__": str(version),
        "__clang_minor__": "0",
        "__clang_patchlevel__": "6",
    }


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH to put compilers on, and no compiler from the environment or from an earlier run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiler, "STAMPS", tmp_path / "stamps")
    monkeypatch.setattr(sys, "platform", "linux")
    return folder


def pair(folder: Path, cc: str, cxx: str, macros: dict[str, str], works: bool = True) -> None:
    for name in (cc, cxx):
        fake_compiler(folder, name, macros, works)


def test_new_enough_compiler_is_taken_and_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(path, "gcc", "g++", gcc(9))
    pair(path, "clang", "clang++", clang(14))
    pair(path, "gcc-12", "g++-12", gcc(12))
    found = compiler.find_compiler(make_setup())
    assert (found.name, Path(found.cc).name, Path(found.cxx).name) == ("gcc 12.2.0", "gcc-12", "g++-12")
    monkeypatch.setattr(compiler, "probe", lambda cc, cxx: pytest.fail("probed again"))
    assert compiler.find_compiler(make_setup()) == found


def test_compiler_flag_and_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(path, "gcc", "g++", gcc(13))
    pair(path, "clang", "clang++", clang(17))
    assert compiler.find_compiler(make_setup()).name == "gcc 13.2.0"
    assert compiler.find_compiler(make_setup("--compiler", "clang")).name == "clang 17.0.6"
    assert compiler.find_compiler(make_setup()).name == "clang 17.0.6", "a choice holds until there is another"
    assert compiler.find_compiler(make_setup("--compiler", str(path / "clang"))).cxx == str(path / "clang++")
    monkeypatch.setenv("CXX", "clang++")
    assert compiler.find_compiler(make_setup()).cc == str(path / "clang")
    (path / "clang").unlink()
    with pytest.raises(UserError, match="clang is not there"):
        compiler.find_compiler(make_setup("--compiler", str(path / "clang++")))
    with pytest.raises(UserError, match="none of gcc"):
        compiler.find_compiler(make_setup("--compiler", "/bin/fortran"))


def test_no_usable_compiler_says_what_was_seen(path: Path) -> None:
    with pytest.raises(UserError, match=r"no C\+\+17 compiler was found; install .*--compiler zig"):
        compiler.find_compiler(make_setup())
    pair(path, "gcc", "g++", gcc(9))
    pair(path, "clang", "clang++", clang(18), works=False)
    with pytest.raises(UserError, match=r"gcc 9.2.0 is too old, 11 is needed; clang 18.0.6 cannot build .*filesystem"):
        compiler.find_compiler(make_setup())
    script(path / "g++", "sys.exit(1)")
    with pytest.raises(UserError, match="does not run as a compiler"):
        compiler.find_compiler(make_setup("--compiler", "gcc"))


def test_this_machine_s_compiler_compiles() -> None:
    candidates = compiler._candidates("auto")
    if not candidates:
        pytest.skip("no compiler on this machine")
    results = [compiler.probe(*candidate) for candidate in candidates]
    assert any(isinstance(result, Compiler) for result in results), results


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("ubuntu", "apt install g++"),
        ("rocky", "dnf install gcc-c++"),
        ("arch", "pacman -S gcc"),
        ("odd", "gcc 11 or newer"),
    ],
)
def test_install_hint_fits_the_system(system: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    like = {"ubuntu": "debian", "rocky": "rhel centos fedora"}.get(system, "")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": system, "ID_LIKE": like})
    assert expected in compiler.install_hint()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "xcode-select --install" in compiler.install_hint()
    monkeypatch.setattr(sys, "platform", "win32")
    assert "winget install" in compiler.install_hint()


def test_zig_wrappers_call_zig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "ziglang"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    script(package / "zig", "print('0.15.1' if sys.argv[1] == 'version' else sys.argv[1:])")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setattr(zig, "compile_probe", lambda cc, cxx: None)
    setup = make_setup("--compiler", "zig")
    setup.python = tmp_path / "python"
    setup.python.symlink_to(sys.executable)
    found = zig.zig_compiler(setup)
    assert found.name == "zig 0.15.1"
    for tool, word in (("zig-cc", "cc"), ("zig-c++", "c++"), ("zig-ar", "ar"), ("zig-ranlib", "ranlib")):
        assert compiler.capture([tmp_path / tool, "-c", "a b"])[1].strip() == str([word, "-c", "a b"])
    assert found.defines == {
        "CMAKE_AR": str(tmp_path / "zig-ar"),
        "CMAKE_RANLIB": str(tmp_path / "zig-ranlib"),
        "CMAKE_C_FLAGS": "-mcpu=baseline",
        "CMAKE_CXX_FLAGS": "-mcpu=baseline",
        "BUILD_SHARED_LIBS": "OFF",
    }


def test_python_without_ensurepip_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = tools.importlib.util.find_spec
    monkeypatch.setattr(
        tools.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find_spec(name)
    )
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/etc/debian_version")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(UserError, match=f"apt install python{version}-venv, then run this again") as error:
        tools.make_venv(make_setup())
    assert error.value.exit_code == 2
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(UserError, match="install a complete Python"):
        tools.make_venv(make_setup())


def test_active_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    assert tools.active_environment() is None
    monkeypatch.setenv("CONDA_PREFIX", sys.prefix)
    assert tools.active_environment() == Path(sys.prefix)
    assert tools.environment_python(Path(sys.prefix)) == Path(sys.executable)
    assert tools.environment_python(Path("/x")).parts[-2:] == ("bin", "python")


def test_broken_environment_is_not_usable(tmp_path: Path) -> None:
    assert not tools.usable(tmp_path / "nothing")
    assert not tools.usable(script(tmp_path / "python", "print(2, 7)"))


def test_requirements_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# comment\ny>=2\n\nx==1\n")
    assert tools.requirement_lines(tmp_path / "a.txt") == ["y>=2", "x==1"]


def test_missing_package_explains_itself(checkout: Checkout) -> None:
    (checkout.root / "requirements.txt").write_text("no-such-package==1 --hash=sha256:" + "0" * 64)
    result = checkout.run()
    assert result.returncode == 1
    assert "No matching distribution found for no-such-package" in result.stderr
    assert "network reaches the Python package index" in result.stderr
    assert "logs/tools.log" in result.stderr


def test_a_compiler_that_appears_later_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(path, "clang-16", "clang++-16", clang(16))
    first = compiler.find_compiler(make_setup())
    pair(path, "gcc", "g++", gcc(14))
    monkeypatch.setenv("PATH", f"/somewhere/else{os.pathsep}{path}")
    assert compiler.find_compiler(make_setup()) == first
    (path / "clang++-16").unlink()
    assert compiler.find_compiler(make_setup()).name == "gcc 14.2.0"


@pytest.mark.parametrize("name", ["a;b", f"a{os.pathsep}b"])
def test_a_folder_that_no_list_can_hold(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "ROOT", Path("/x") / name / "trit")
    with StepLine(1, 1, "tools", "") as line, pytest.raises(UserError, match="in its name; move the checkout"):
        tools.run(make_setup(), line)


def test_a_moved_environment_is_adapted_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv = tmp_path / "new place" / ".venv"
    scripts = tools.script_path(venv, "python").parent
    scripts.mkdir(parents=True)
    monkeypatch.setattr(tools, "VENV", venv)
    long = "#!/bin/sh\n'''exec' \"/old/place/.venv/bin/python\" \"$0\" \"$@\"\n' '''\nimport sys\n"
    (scripts / "tool").write_text(long)
    (scripts / "tool").chmod(0o755)
    (scripts / "program").write_bytes(b"\x7fELF\0/old/place/.venv\0")
    (scripts / "other").write_text("#!/usr/bin/python3\n")
    (venv / "lib").mkdir()
    (venv / "lib" / "package.py").touch()
    notes = {"requirements.txt": "a", "pyproject.toml": "b", "prefix": "/old/place/.venv"}
    (venv / "trit-setup.json").write_text(json.dumps(notes))
    assert tools._moved()
    tools.adapt_venv()
    assert not tools._moved()
    assert (scripts / "tool").read_text() == long.replace("/old/place", str(venv.parent))
    assert os.access(scripts / "tool", os.X_OK)
    assert b"/old/place/.venv" in (scripts / "program").read_bytes()
    assert (venv / "lib" / "package.py").is_file()
    # The package of this folder is the only one to be installed again.
    assert json.loads((venv / "trit-setup.json").read_text()) == {"requirements.txt": "a", "prefix": str(venv)}
