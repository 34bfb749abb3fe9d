# SPDX-License-Identifier: MIT
"""A slice of the spoiled models through our check and the engine; all of them: ``python -m tests.fuzz.agreement``."""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("the program forks", allow_module_level=True)

from tests.fuzz import agreement
from tests.fuzz.engine import refused
from tests.support.engine_models import ARCHITECTURES, model
from tests.support.foreign_files import write_gguf

# Every so manieth mutant; a prime, so that all kinds are among them.
STEP = 47


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_slice(architecture: str, loader: Path) -> None:
    counts: Counter[str] = Counter()
    number = ARCHITECTURES.index(architecture)
    files = islice(agreement.mutants(architecture), number, None, STEP)
    found = list(agreement.disagreements(loader, files, counts))
    assert not found, "\n".join(found)
    assert counts["passed, engine: loaded"] > 3 and counts["refused, engine: refused"] > 10


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whole_models_pass(architecture: str, tmp_path: Path) -> None:
    assert refused(write_gguf(tmp_path / "m.gguf", *model(architecture))) is None


def test_a_disagreement_would_be_noticed(loader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, tensors = model("llama")
    short = [("short", keys, tensors[:-1])]
    assert not list(agreement.disagreements(loader, short))
    monkeypatch.setattr(agreement, "refused", lambda path: None)
    (line,) = agreement.disagreements(loader, short)
    assert line.startswith("short: passes, but the engine: refused")
    monkeypatch.setattr(agreement, "refused", lambda path: "it is Tuesday")
    assert list(agreement.disagreements(loader, [("whole", keys, tensors)])) == [
        "whole: the engine loads it, but: it is Tuesday"
    ]
