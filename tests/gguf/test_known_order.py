# SPDX-License-Identifier: MIT
"""What is remembered of a file's order: for this file as it is, and never in the way."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.foreign_files import WRITERS, random_rows, write_gguf
from tests.support.tiny_gguf import KEYS
from trit.base.errors import UserError
from trit.gguf import known_order
from trit.gguf.header import read_raw_header
from trit.gguf.known_order import refuse_other_order


class Looks:
    """Stands in for the program that looks at the weights."""

    def __init__(self) -> None:
        self.code, self.said, self.commands = 0, "arm\n", []  # type: tuple[int, str, list[list[object]]]

    def __call__(self, command: list[object], seconds: float, **options: object) -> tuple[int, str]:
        self.commands.append(command)
        return self.code, self.said


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looks:
    looks = Looks()
    monkeypatch.setattr(known_order, "_KEPT", tmp_path / "kept")
    monkeypatch.setattr(known_order, "capture", looks)
    return looks


def refused(path: Path) -> bool:
    try:
        refuse_other_order(path, read_raw_header(path))
    except UserError as error:
        assert str(error).startswith(f"{path}: its i2_s is in the order of ") and "--i2-s-layout" in str(error)
        return True
    return False


@pytest.fixture
def model(tmp_path: Path) -> Path:
    kind, writer = WRITERS["i2_s"]
    return write_gguf(tmp_path / "m.gguf", KEYS, [("w", (4, 128), kind, writer(random_rows(4, 128), 0.5))])


def test_it_is_looked_at_once(model: Path, looks: Looks) -> None:
    assert refused(model) and refused(model) and len(looks.commands) == 1
    (kept,) = (model.parent / "kept").iterdir()
    stat = model.stat()
    told = {"path": str(model), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "order": "arm"}
    assert kept.read_text(encoding="utf-8") == json.dumps(told) + "\n"
    looks.said = "published\n"
    os.utime(model, ns=(1, 1))
    assert not refused(model) and not refused(model) and len(looks.commands) == 2
    model.write_bytes(model.read_bytes() + bytes(32))
    os.utime(model, ns=(1, 1))
    assert not refused(model) and len(looks.commands) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", "null"])
def test_what_is_kept_is_no_answer(text: str, model: Path, looks: Looks) -> None:
    assert refused(model)
    (kept,) = (model.parent / "kept").iterdir()
    kept.write_text(text)
    assert refused(model) and len(looks.commands) == 2
    told = json.loads(kept.read_text())
    del told["order"]
    kept.write_text(json.dumps(told))
    assert refused(model) and len(looks.commands) == 3


@pytest.mark.parametrize(("code", "said"), [(1, "arm"), (0, ""), (0, "nobody's"), (0, "published")])
def test_what_speaks_for_no_other_order(code: int, said: str, model: Path, looks: Looks) -> None:
    looks.code, looks.said = code, said
    assert not refused(model) and not refused(model)
    # A look that failed is tried again.
    assert len(looks.commands) == 1 + code


def test_a_folder_that_cannot_be_written(model: Path, looks: Looks) -> None:
    (model.parent / "kept").write_text("a file")
    assert refused(model) and refused(model) and len(looks.commands) == 2


def test_which_python_looks(model: Path, looks: Looks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").touch()
    for python, used in ((tmp_path / "python", tmp_path / "python"), (tmp_path / "gone", sys.executable)):
        monkeypatch.setattr(known_order, "environment_python", lambda python=python: python)
        looks.code = 1
        assert not refused(model)
        assert looks.commands[-1] == [used, "-m", "trit.gguf.order", model.resolve()]


def test_other_types_are_not_looked_at(looks: Looks, tmp_path: Path) -> None:
    assert not refused(write_gguf(tmp_path / "f.gguf", KEYS, [("w", (8,), 0, bytes(32))])) and not looks.commands
