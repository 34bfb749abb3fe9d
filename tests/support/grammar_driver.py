# SPDX-License-Identifier: MIT
"""The engine's grammars of schemas without a model: ``grammar_driver.cpp`` as a function."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.kernel_build import call
from trit.base.places import ENGINE_DIR, ROOT


def build_driver(engine_bin: Path, program: Path) -> Path:
    """Compile the driver against the engine that is built."""
    includes = [ROOT / "src", *(ENGINE_DIR / name for name in ("src", "include", "ggml/include", "vendor"))]
    links = [f"-L{engine_bin}", "-lllama-common", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{engine_bin}"]
    source = ROOT / "tests" / "support" / "grammar_driver.cpp"
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "clang++"
    call(compiler, "-std=c++17", "-O1", *(f"-I{path}" for path in includes), source, *links, "-o", program)
    return program


def ask(driver: Path, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The driver's answers to requests, in one process."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run([str(driver)], input=lines, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:], len(done.stdout.splitlines()))
    return [json.loads(line) for line in done.stdout.splitlines()]
