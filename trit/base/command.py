# SPDX-License-Identifier: MIT
"""Start a command: import its module, answer Ctrl-C, hand over to the environment's Python if a package is missing.

Standard library only.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from trit.base.errors import UserError, run_main
from trit.base.places import BUILD_DIR, INSTALLED, VENV, python_command

_MOST_NAMES = 5
_FOR_TRAINING = ("torch", "transformers")
_FOR_RELEASES = ("lief", "wheel", "cyclonedx", "packageurl", "ziglang")
_RELEASES = "requirements-release.txt"
# Those that people set; the tests and the build have others.
_ENGINE_VARIABLES = "LLAMA_ARG_"
_VARIABLES = ("TRIT_TIER", "TRIT_PACKING", "TRIT_LOOKUP", "TRIT_TUNING", "TRIT_ATTENTION", "TRIT_HOME")


def run_command(target: str, argv: Sequence[str] | None = None) -> int:
    """Call a command's function with its arguments; its exit code.

    The module is imported here, because an import can fail for want of a package, or be stopped by Ctrl-C.

    Args:
        target: ``MODULE`` or ``MODULE:FUNCTION`` (default: main).
        argv: the command's arguments; None: those of this program.
    """
    module, _, function = target.partition(":")

    def main(argv: Sequence[str] | None) -> int:
        check_environment(os.environ)
        use_own_tuning()
        tell_engine_variables(os.environ)
        try:
            code: int = getattr(importlib.import_module(module), function or "main")(argv)
        except ModuleNotFoundError as error:
            _hand_over(error)
        except ImportError as error:
            raise _unloadable(error) from error
        return code

    return run_main(main, argv)


def check_environment(environment: Mapping[str, str]) -> None:
    """Look at our variables as far as the engine does not: it says itself what is wrong with a tier or a packing.

    Raises:
        UserError: a value cannot be meant, or a name is nearly one of ours.
    """
    attention = environment.get("TRIT_ATTENTION", "")
    if attention not in {"", "on", "off"}:
        raise UserError(f"TRIT_ATTENTION={attention}: expected off, or nothing for our own attention")
    unknown = [name for name in environment if name.startswith("TRIT_") and name not in _VARIABLES]
    if not unknown:
        return
    from difflib import get_close_matches

    for name in unknown:
        if meant := get_close_matches(name, _VARIABLES, 1, 0.85):
            raise UserError(f"{name}: there is no such variable; {meant[0]} may be meant")


def use_own_tuning(installed: bool = INSTALLED, file: Path = BUILD_DIR / "tuning.json") -> None:
    """Name what was measured here to the engine of a wheel, which looks beside itself, where nothing is written."""
    if installed and not os.environ.get("TRIT_TUNING") and file.is_file():
        os.environ["TRIT_TUNING"] = str(file)


def tell_engine_variables(environment: Mapping[str, str]) -> None:
    """Say which of the engine's own variables are set: they change its answers, and may be meant for another one."""
    names = sorted(name for name in environment if name.startswith(_ENGINE_VARIABLES))
    if names:
        shown = ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        what = "is set: the engine takes it" if len(names) == 1 else "are set: the engine takes them"
        print(f"note: {shown} {what} where no flag says otherwise", file=sys.stderr)


def environment_python() -> Path:
    """The Python of the environment that set-up makes, whether it is there or not."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def hand_over() -> None:
    """Run this very command again in the environment that set-up made; return if there is none, or this is it."""
    from trit.base.processes import (
        become,
    )  # only now: the less is imported before run_main, the sooner Ctrl-C is answered

    python = environment_python()
    if python.is_file() and Path(sys.prefix).resolve() != VENV.resolve():
        code = become([python, *sys.orig_argv[1:]])
        sys.exit(code)  # on Windows alone


def _hand_over(error: ModuleNotFoundError) -> NoReturn:
    """Run this very command again where the missing package is.

    Raises:
        UserError: there is no such place; says how to get the package.
        ModuleNotFoundError: a module of our own is missing.
    """
    name = (error.name or "").partition(".")[0]
    if name in {"", "trit", "utils", "tests"}:
        raise error
    hand_over()
    how = python_command("setup_env.py")
    if name in _FOR_TRAINING:
        how = python_command("-m pip install -r requirements-train.txt")
    elif INSTALLED:
        how = f"{sys.executable} -m pip install {name}"
    elif name in _FOR_RELEASES:
        how = f"{sys.executable} -m pip install -r {_RELEASES}"
    raise UserError(f"this Python has no package {name}; install what is needed with: {how}")


def _unloadable(error: ImportError) -> Exception:
    """What to say of a package that is there and does not load; a name that our own modules lack is our fault."""
    if (error.name or "").partition(".")[0] in {"trit", "utils", "tests"}:
        return error
    # A package may explain at length what the loader said in a line.
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    said = " ".join(str(cause).split())
    return UserError(
        f"a package of this Python ({sys.prefix}) does not load: {said}; install the library that is named, or the "
        "package again"
    )
