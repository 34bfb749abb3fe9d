# SPDX-License-Identifier: MIT
"""Whole GGUF models compared: what they hold, and what they answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trit.base.places import DEMO_PROMPT, ROOT
from trit.gguf.types import read_header


def assert_same_model(path: Path, reference: Path) -> None:
    """The same metadata, but for where the file is from, and the same bytes in every tensor."""
    a, b = read_header(path), read_header(reference)
    origin = ("trit.source.", "trit.converter.", "trit.padding")
    for left, right in ((a.metadata, b.metadata), (a.types, b.types)):
        assert [(key, value) for key, value in left.items() if not key.startswith(origin)] == [
            (key, value) for key, value in right.items() if not key.startswith(origin)
        ]
    assert list(a.tensors) == list(b.tensors)
    for name, entry in a.tensors.items():
        other = b.tensors[name]
        assert (entry.shape, entry.ggml_type) == (other.shape, other.ggml_type), name
        assert entry.read(path).tobytes() == other.read(reference).tobytes(), name


def ask(model: Path) -> subprocess.CompletedProcess[str]:
    """Ask the bundled model's question."""
    command = [sys.executable, "run_inference.py", "-m", str(model), "-p", DEMO_PROMPT, "-n", "6", "-temp", "0"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def answer(model: Path) -> str:
    result = ask(model)
    result.check_returncode()
    return result.stdout
