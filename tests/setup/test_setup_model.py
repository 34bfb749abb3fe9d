# SPDX-License-Identifier: MIT
"""What set-up says of a folder before it installs or compiles anything for it."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from pathlib import Path

import pytest

from tests.support.foreign_files import rewrite
from tests.support.tiny_gguf import KEYS, tiny_model
from trit.base.errors import UserError
from trit.base.places import BUNDLED_MODEL
from trit.base.progress import StepLine
from trit.setup import model
from trit.setup.context import Setup
from trit.setup.options import parse_options


def prepared(folder: Path, tmp_path: Path, *flags: str) -> Setup:
    setup = Setup(parse_options(["-md", str(folder), "-ld", str(tmp_path / "logs"), *flags]))
    setup.python = Path(sys.executable)
    return setup


def run(setup: Setup) -> str:
    """The step that comes before anything is compiled."""
    with StepLine(1, 1, model.NAME, model.DEED) as line:
        said = model.run(setup, line)
        line.done(said)
        return said


def test_a_damaged_file_is_refused_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    path = tiny_model(folder / "only.gguf", stablelm__expert_count=8)
    with pytest.raises(UserError, match=r"stablelm\.expert_used_count is 0 of 8 experts; download or convert it again"):
        model.check_options(prepared(folder, tmp_path))
    assert tiny_model(path).stat().st_size < 4096 and KEYS
    model.check_options(prepared(folder, tmp_path))


def test_a_folder_is_inspected_before_anything_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "STAMPS", tmp_path / "stamps")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED_MODEL / name, folder)
    header = json.dumps({"lora_A": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    adapter = struct.pack("<Q", len(header)) + header + bytes(4)
    (folder / "model.safetensors").write_bytes(adapter)
    with pytest.raises(UserError, match="the checkpoint is not whole"):
        run(prepared(folder, tmp_path))
    assert not (tmp_path / "stamps").exists()
    shutil.copy(BUNDLED_MODEL / "model.safetensors", folder)
    run(prepared(folder, tmp_path))
    # What was looked at stays good until a file changes.
    monkeypatch.setattr(model, "tool", lambda *_: pytest.fail("looked again"))
    run(prepared(folder, tmp_path))


def test_a_file_in_another_order_is_refused(story_gguf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    rewrite(story_gguf, folder / "arm.gguf", "i2_s_arm")
    with pytest.raises(UserError, match="built for ARM, with which the engine would answer nonsense"):
        run(prepared(folder, tmp_path))
