# SPDX-License-Identifier: MIT
"""Hostile and absurd values in a checkpoint's files: one sentence, soon, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import EXIT_USAGE, run_main
from trit.convert.command import main
from trit.inspect.command import inspect
from trit.models.checkpoint import SIDE_FILES

SEED = Path(__file__).parents[1] / "fuzz" / "seeds" / "whole"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SEED, tmp_path / "model"))


def refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The converter's one line; the inspector refuses, too, and no output is there."""
    capsys.readouterr()
    outfile = folder.parent / "out.gguf"
    assert run_main(main, [str(folder), "--outtype", "f16", "--outfile", str(outfile)]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and len(said) < 600 and "Traceback" not in said
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert inspect(folder).refused
    return said


def change(path: Path, *keys: str, value: Any) -> None:
    """Set one value somewhere in a JSON file."""
    tree = node = json.loads(path.read_text())
    for key in keys[:-1]:
        node = node.setdefault(key, {})
    node[keys[-1]] = value
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize("value", [2**31 + 5, 2**32 - 1, 2**40, -1, 1.5, "x"])
def test_token_ids(value: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list of tokens is as long as the largest id: 10 GB for 2^31."""
    change(folder / "tokenizer.json", "model", "vocab", "zz", value=value)
    assert "tokenizer.json" in refusal(folder, capsys)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["[" * 150_000, '{"a":' * 150_000, "9" * 5000, "\ud800", "{", "[1]"])
def test_texts_that_parsers_stumble_over(
    name: str, text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert str(folder) in refusal(folder, capsys)


@pytest.mark.parametrize("value", [0, -3, 10**9, 10**4000, 0.5, float("nan"), float("inf"), "4", [4], {}, True])
@pytest.mark.parametrize(
    "key",
    [
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "vocab_size",
    ],
)
def test_absurd_sizes(key: str, value: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder / "config.json", key, value=value)
    refusal(folder, capsys)


@pytest.mark.parametrize("value", [0, -1.0, 1e308, 1e-300, 10**4000, float("nan"), float("-inf"), "x", [1], None])
@pytest.mark.parametrize("keys", [("rms_norm_eps",), ("rope_parameters", "rope_theta"), ("max_position_embeddings",)])
def test_absurd_numbers(keys: tuple[str, ...], value: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder / "config.json", *keys, value=value)
    assert keys[-1] in refusal(folder, capsys)


@pytest.mark.parametrize("value", [[1, {"name": 5}], [{"name": "default", "template": 7}]])
def test_templates_that_are_none(value: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder / "tokenizer_config.json", "chat_template", value=value)
    refusal(folder, capsys)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are POSIX's")
@pytest.mark.parametrize("name", SIDE_FILES)
def test_pipes_and_devices(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the place of every file that any reader opens."""
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        assert f"{folder / name}: is a " in refusal(folder, capsys)


@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX's")
def test_a_model_card_that_is_a_pipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(folder / "README.md")
    assert "README.md: is a pipe" in refusal(folder, capsys)


def test_a_pooling_module_outside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modules = [{"type": "sentence_transformers.models.Pooling", "path": "../../elsewhere"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    run = [str(folder), "--outtype", "f16", "--outfile", str(folder.parent / "out.gguf")]
    assert run_main(main, run) == EXIT_USAGE
    assert "names the folder '../../elsewhere', expected one beside it" in capsys.readouterr().err
