# SPDX-License-Identifier: MIT
"""Where, when, with what and how something was measured: a figure without that says nothing."""

from __future__ import annotations

import datetime
import hashlib
import json
import shlex
from collections.abc import Sequence
from typing import Any

from trit.base.host import cpu_name, physical_cores, usable_cpus
from trit.base.places import INSTALLED, LOCK, ROOT
from trit.base.processes import capture

# What a wheel says of the checkout that it was made in: trit/release writes it.
ORIGIN = "origin.json"
# What this program is made of, beside the engine that the lock pins and the bundled model.
_SOURCES = (
    *("CMakeLists.txt", "cmake", "include", "src", "preset_kernels", "3rdparty/llama.cpp.lock.json"),
    *("3rdparty/patches", "pyproject.toml", "requirements.in", "trit"),
)
_NONE = {"__pycache__", "_bundle"}


def commit() -> str:
    """Our commit, with "-dirty" if files were changed since; "unknown" outside of git.

    That of a wheel is the one that it was made of.
    """
    if INSTALLED:
        return _origin("commit")
    code, output = capture(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=9", "--exclude=*"])
    return output.strip() if code == 0 else "unknown"


def sources() -> str:
    """A hash over names and contents of our own sources; of a wheel over those that it was made of."""
    if INSTALLED:
        return _origin("sources")
    total = hashlib.sha256()
    for name in _SOURCES:
        place = ROOT / name
        files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
        for inside, path in sorted((path.relative_to(ROOT).as_posix(), path) for path in files):
            if not _NONE & set(inside.split("/")):
                total.update(f"{inside}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:20]


def origin() -> str:
    """What a wheel that is made now keeps of this checkout, as JSON."""
    return json.dumps({"commit": commit(), "sources": sources()}) + "\n"


def _origin(name: str) -> str:
    try:
        return str(json.loads((ROOT / ORIGIN).read_text(encoding="utf-8"))[name])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def engine_commit() -> str:
    """The engine's commit that this checkout pins."""
    try:
        return str(json.loads(LOCK.read_text(encoding="utf-8"))["commit"])[:9]
    except (OSError, ValueError, KeyError):
        return "unknown"


def facts(command: Sequence[str], compiler: str | None = None) -> dict[str, Any]:
    """What goes with every result.

    Args:
        command: that repeats it, from ``trit`` on.
        compiler: of the kernels; None: not known.
    """
    return {
        "cpu": cpu_name(),
        "cores": physical_cores(),
        "logical_cpus": usable_cpus(),
        **({"compiler": compiler} if compiler else {}),
        "commit": commit(),
        "engine_commit": engine_commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": shlex.join(command if INSTALLED else [".venv/bin/python", "-m", *command]),
    }
