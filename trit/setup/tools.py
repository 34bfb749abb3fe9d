# SPDX-License-Identifier: MIT
"""Step 1: a Python environment with our requirements in it (cmake and ninja among them), and a compiler.

The environment is the active one (venv, virtualenv or conda) or else ``.venv`` in this folder. A stamp in the
environment's own folder notes which requirement files are in; it says so before pip starts, too, because a pip that
was killed can leave a package that pip itself then takes for whole.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path

from trit.base.errors import CommandError, UserError
from trit.base.files import atomic_output
from trit.base.places import CACHE_DIR, ROOT, VENV
from trit.base.processes import capture
from trit.base.progress import StepLine
from trit.setup.compiler import check_there_is_one, find_compiler
from trit.setup.context import Setup, digest, read_stamp, write_stamp

NAME = "tools"
DEED = "Python packages, cmake, ninja, a compiler"

_STAMP = "trit-setup.json"
# There while .venv is being made: a pip that is only half unpacked can still be imported.
_UNFINISHED = CACHE_DIR / "venv.unfinished"


def run(setup: Setup, line: StepLine) -> str:
    """Make or find the environment, install what is missing, find a compiler."""
    # Lists of places are parted by these: CMake's by the first, a PATH by the other.
    if parting := {";", os.pathsep} & set(str(ROOT)):
        raise UserError(
            f"{ROOT}: nothing can be built in a folder with {parting.pop()!r} in its name; move the checkout"
        )
    prefix = active_environment() or VENV
    setup.python = environment_python(prefix)
    if not setup.options.wheel:
        # Before anything is downloaded.
        check_there_is_one(setup)
    installed = False
    # Windows' programs in it have the old place compiled in.
    if prefix == VENV and _moved() and not _UNFINISHED.exists() and os.name != "nt":
        line.update("adapting .venv to its new place")
        adapt_venv()
    if not usable(setup.python) or (prefix == VENV and (_UNFINISHED.exists() or _moved())):
        if prefix != VENV:
            raise UserError(f"the active environment {prefix} has no pip; add it with: {setup.python} -m ensurepip")
        line.update("making .venv")
        make_venv(setup)
        installed = True
    wanted = ["requirements.txt"]
    if setup.options.test:
        wanted += ["requirements-train.txt", "requirements-test.txt", "requirements-release.txt"]
    for name in wanted:
        # torch comes in builds of many kinds, from many indexes: no list of hashes would have them all.
        hashes = [] if name == "requirements-train.txt" else ["--require-hashes"]
        installed |= install(setup, line, prefix, name, [*hashes, "-r", str(ROOT / name)])
    # The package itself, from this folder: the command trit, and `import trit` from anywhere. What builds it is there.
    installed |= install(setup, line, prefix, "pyproject.toml", ["--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    if not setup.options.wheel:
        line.update("looking for a compiler")
        setup.compiler = find_compiler(setup)
    where = ".venv" if prefix == VENV else str(prefix)
    state = "installed in" if installed else "up to date in"
    compiler = setup.compiler.name if setup.compiler else "no compiler"
    return f"{state} {where} (Python {platform.python_version()}), {compiler}"


def active_environment() -> Path | None:
    """Prefix of the virtual or conda environment that we run in; None outside of one."""
    if sys.prefix != sys.base_prefix or os.environ.get("CONDA_PREFIX") == sys.prefix:
        return Path(sys.prefix)
    return None


def environment_python(prefix: Path) -> Path:
    """The Python program of an environment."""
    if Path(sys.prefix) == prefix:
        return Path(sys.executable)
    return script_path(prefix, "python")


def script_path(prefix: Path, name: str) -> Path:
    """A program inside a virtual environment."""
    return prefix / "Scripts" / f"{name}.exe" if os.name == "nt" else prefix / "bin" / name


def usable(python: Path) -> bool:
    """Whether an environment works: its Python starts, is of our version (an upgrade breaks a venv), and has pip."""
    code, output = capture([python, "-c", "import pip, sys; print(*sys.version_info[:2])"])
    return code == 0 and output.split() == [str(part) for part in sys.version_info[:2]]


def _moved() -> bool:
    """Whether ``.venv`` was made in another place: its programs still point there."""
    return read_stamp(VENV / _STAMP).get("prefix", str(VENV)) != str(VENV)


def adapt_venv() -> None:
    """Make a ``.venv`` that was moved or copied with its checkout work here; what is installed in it stays.

    Its scripts name its Python by the full path: that is replaced. The package in this folder is installed anew.
    """
    if VENV.is_symlink():
        # What it points to is another checkout's, and may still be in use there.
        return VENV.unlink()
    stamp = read_stamp(VENV / _STAMP)
    old, new = os.fsencode(stamp.pop("prefix")), os.fsencode(VENV)
    for script in script_path(VENV, "python").parent.iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        text = script.read_bytes()
        if old in text and b"\0" not in text:
            mode = script.stat().st_mode
            with atomic_output(script) as partial:
                partial.write_bytes(text.replace(old, new))
                partial.chmod(mode)
    stamp.pop("pyproject.toml", None)
    # Only now: until all of it is done, the old place is noted.
    write_stamp(VENV / _STAMP, {**stamp, "prefix": str(VENV)})


def make_venv(setup: Setup) -> None:
    """Make ``.venv`` anew, over whatever is there.

    Raises:
        UserError: this Python cannot make environments; names the package that it lacks.
    """
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        raise UserError(f"this Python cannot make virtual environments; {venv_hint()}, then run this again")
    _UNFINISHED.touch()
    if VENV.is_symlink():
        # "--clear" would empty what it points to, which may be somebody else's.
        VENV.unlink()
    try:
        setup.run([sys.executable, "-m", "venv", "--clear", VENV], "making .venv", NAME)
        _UNFINISHED.unlink()
    except CommandError as error:
        if "ensurepip" in " ".join(error.tail):
            raise UserError(
                f"this Python cannot fill virtual environments; {venv_hint()}, then run this again"
            ) from error
        raise


def venv_hint() -> str:
    """What gives this Python venv and ensurepip; Debian and its kin pack them apart."""
    if Path("/etc/debian_version").exists():
        sudo = "" if os.geteuid() == 0 else "sudo "
        return f"install them with: {sudo}apt install python{sys.version_info.major}.{sys.version_info.minor}-venv"
    return "it lacks the standard modules venv and ensurepip: install a complete Python 3.10 or newer"


def requirement_lines(path: Path) -> list[str]:
    """The lines of a file of requirements, without comments."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def install(setup: Setup, line: StepLine, prefix: Path, name: str, what: list[str]) -> bool:
    """Install ``what`` (pip's arguments) unless the stamp has the file ``name``; whether anything was done."""
    stamp_file = prefix / _STAMP
    stamp = read_stamp(stamp_file)
    wanted = digest(*requirement_lines(ROOT / name))
    if stamp.get(name) == wanted and "unfinished" not in stamp:
        return False
    repair = ["--force-reinstall"] if "unfinished" in stamp else []
    write_stamp(stamp_file, {**stamp, "unfinished": name})
    pip_install(setup, line, [*repair, *what], f"installing {name}")
    stamp.pop("unfinished", None)
    write_stamp(stamp_file, {**stamp, name: wanted, "prefix": str(prefix)})
    return True


def pip_install(setup: Setup, line: StepLine, arguments: list[str], what: str) -> None:
    """Run pip in the environment; the user's pip settings (index, proxy, certificates) hold.

    Raises:
        CommandError: pip failed.
    """

    def show(text: str) -> None:
        if text.startswith(("Collecting", "Installing", "  Downloading")):
            line.update(f"pip: {text.strip()}")

    pip = ["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar", "off"]
    try:
        setup.run([setup.python, *pip, *arguments], what, NAME, on_line=show)
    except CommandError as error:
        raise CommandError(f"{error}; {network_hint(error.tail)}", error.tail, error.returncode) from error


def network_hint(tail: list[str]) -> str:
    """What to do about a pip that failed."""
    text = " ".join(tail).lower()
    if "no space left" in text:
        return "the disk is full: free some space and run this again"
    if any(word in text for word in ("connection", "resolve", "timed out", "proxy", "ssl", "no matching distribution")):
        return "check that the network reaches the Python package index (pip's index and proxy settings are used)"
    return "mend what pip says above and run this again"
