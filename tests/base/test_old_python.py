# SPDX-License-Identifier: MIT
"""Every entry point, started by a Python that is too old, says which one is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from trit.base.places import ROOT

SCRIPTS = sorted([*ROOT.glob("*.py"), *ROOT.glob("utils/*.py")])
MODULES = sorted(path for path in ROOT.glob("trit/**/__main__.py"))

# The version is only pretended, so the rule about syntax is kept by test_an_old_python_can_read_it.
OLD = "import runpy, sys; sys.version_info = (3, 7, 17); sys.argv = [sys.argv[1]]; "


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / "trit" / "__init__.py"], ids=lambda path: path.name)
def test_an_old_python_can_read_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 6))
    assert "from __future__ import annotations" not in text


@pytest.mark.parametrize("path", [*SCRIPTS, *MODULES], ids=lambda path: str(path.relative_to(ROOT)))
def test_it_says_which_python_is_needed(path: Path) -> None:
    if path.name == "__init__.py":
        pytest.skip("a package is not started")
    if path in MODULES:
        name = ".".join(path.parent.relative_to(ROOT).parts)
        start = f"runpy.run_module({name!r}, run_name='__main__')"
    else:
        start = f"runpy.run_path({str(path)!r}, run_name='__main__')"
    command = [sys.executable, "-S", "-E", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {OLD}{start}", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: trit.cpp needs Python 3.10 or newer, this is ")
    assert done.stderr.count("\n") == 1
