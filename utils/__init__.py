# SPDX-License-Identifier: MIT
"""The tools of trit.cpp; ``python3 -m utils.NAME`` runs one, with any Python.

Most need packages that set-up has put into ``.venv``. A Python that lacks one hands the command over to the one there.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

_FOR_TRAINING = ("torch", "transformers")


def _hand_over(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Run the command again where the missing package is, or say in one sentence how to get it."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name in {"", "utils", "trit.measure.committed", "tests"}:
        sys.__excepthook__(kind, error, trace)
        return
    environment = Path(__file__).resolve().parent.parent / ".venv"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.is_file() and Path(sys.prefix).resolve() != environment.resolve():
        command = [str(python), *sys.orig_argv[1:]]
        if os.name != "nt":  # there the caller would not wait for the new process
            os.execv(python, command)
        os._exit(subprocess.call(command))
    how = "python3 setup_env.py"
    if name in _FOR_TRAINING:
        how = f"{sys.executable} -m pip install -r requirements-train.txt"
    print(f"error: this Python has no package {name}; install what is needed with: {how}", file=sys.stderr)
    os._exit(2)


# This package is being imported to run one of its modules, or one of its files by its path.
if sys.argv[:1] == ["-m"] or Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:
    sys.excepthook = _hand_over
