# SPDX-License-Identifier: MIT
"""What a test needs, from its fixtures and from what its file imports: nobody has to remember a marker.

``engine``: what set-up makes, the compiled programs, or a run of set-up itself. ``torch``: the training packages.
``compiles``: builds C++ code of its own. ``chat``: asks a real chat model, which is fetched once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKERS = {
    "engine": "needs what set-up makes, or runs set-up",
    "torch": "needs the packages for training",
    "compiles": "builds C++ code",
    "chat": "asks a real chat model, which pip fetches once",
}
BY_FIXTURE = {
    "engine": {"engine_bin", "library", "loader", "plain_venv", "checkout", "inside", "wheel"},
    "compiles": {"kernels", "loader", "emulated_avx512", "wheel"},
}
BY_IMPORT = {
    "engine": {"tests.support.fake_checkout", "tests.support.real_chat", "trit.setup"},
    "torch": {"torch", "transformers"},
    "compiles": {"tests.support.kernel_build", "tests.support.stock_engine"},
    "chat": {"tests.support.real_chat"},
}
_IMPORT = re.compile(r"^(?:from ([\w.]+) import (\(?[^#\n]*)|import ([\w.]+))", re.MULTILINE)


@cache
def imported(path: Path) -> frozenset[str]:
    """Modules that a file names in imports at its top, and those that modules of tests/ name there in turn."""
    found: set[str] = set()
    for whole, names, plain in _IMPORT.findall(path.read_text(encoding="utf-8")):
        module = whole or plain
        found |= {module, module.partition(".")[0]}
        if module.partition(".")[0] == "tests":
            parts = [module, *(f"{module}.{name.strip(' (),')}" for name in names.split(","))]
            for file in filter(None, map(_file, parts)):
                found |= {".".join(file.relative_to(ROOT).with_suffix("").parts)} | imported(file)
    return frozenset(found)


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def of_file(path: Path) -> set[str]:
    """Markers that every test of a file has."""
    return {name for name, modules in BY_IMPORT.items() if modules & imported(path)}


def of_fixtures(names: set[str]) -> set[str]:
    """Markers that follow from the fixtures of a test."""
    return {marker for marker, fixtures in BY_FIXTURE.items() if fixtures & names}


def none_is_wanted(marked: set[str], wanted: Callable[[set[str]], bool]) -> bool:
    """Whether no test of a file with these markers can be selected, whatever others a test has besides."""
    return not any(wanted(marked | more) for more in _subsets(MARKERS.keys() - marked))


def _subsets(names: set[str]) -> Iterator[set[str]]:
    for size in range(len(names) + 1):
        yield from map(set, combinations(sorted(names), size))
