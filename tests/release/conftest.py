# SPDX-License-Identifier: MIT
"""The wheel of this commit, compiled and packed once for all tests, and an environment that it is installed in."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import missing
from trit.base.places import ENGINE_DIR, ROOT
from trit.release.platforms import PLATFORMS, this_platform

Trit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command that releases make it with; what was compiled earlier in this checkout is used again."""
    platform = this_platform()
    if sys.platform != "linux" or platform not in PLATFORMS:
        pytest.skip("the tests look into a wheel for Linux")
    if importlib.util.find_spec("ziglang") is None or not (ENGINE_DIR / "CMakeLists.txt").is_file():
        missing("the compiler zig or the engine's source is not there: run setup_env.py --test")
    out = tmp_path_factory.mktemp("release")
    command = [sys.executable, "-m", "trit.release", "wheel", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this wheel and nothing else."""
    prefix = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(prefix)], check=True)
    pip = [str(prefix / "bin" / "python"), "-m", "pip", "install", "-q", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True)
    return prefix


@pytest.fixture
def trit(installed: Path, tmp_path: Path) -> Trit:
    """Runs the installed command far from the checkout; ``packages``: with those that it asks pip for."""

    def run(*words: str, packages: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("TRIT_", "PYTHON"))}
        env |= {"TRIT_HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1", **variables}
        if packages:
            env["PYTHONPATH"] = sysconfig.get_path("purelib")
        command = [str(installed / "bin" / "trit"), *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    return run
