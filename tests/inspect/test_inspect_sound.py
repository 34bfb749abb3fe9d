# SPDX-License-Identifier: MIT
"""What an inspection says of models that load, beyond that they do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.engine_models import ARRAY, STRING, U32, byte_letters, model
from tests.support.foreign_files import Tensor, write_gguf
from trit.base.errors import run_main
from trit.gguf.loadable import check_loadable
from trit.inspect.command import main


def inspected(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run_main(main, [str(path), "--no-speed"])
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.mark.parametrize("architecture", ["gemma-embedding", "qwen3"])
def test_an_embedding_model_gets_the_server_s_command(
    architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys, tensors = model(architecture)
    path = write_gguf(tmp_path / "m.gguf", keys, tensors)
    if architecture == "qwen3":
        assert "run_inference.py -m" in inspected(path, capsys)[1]
        write_gguf(path, [*keys, ("qwen3.pooling_type", U32, None, 3)], tensors)
    code, said = inspected(path, capsys)
    assert code == 0 and f"run_inference_server.py -m {path} -- --embeddings" in said and "run_inference.py" not in said
    assert "an embedding model: it gives vectors, not answers" in said


def test_bytes_without_a_token_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys, tensors = model("llama")
    gone = byte_letters()[0xE2]
    for key, _, _, value in keys:
        if key.endswith(".tokens"):
            value[value.index(gone)] = "other"
    assert any(row[:3] == ("tokenizer.ggml.tokens", ARRAY, STRING) for row in keys)
    code, said = inspected(write_gguf(tmp_path / "m.gguf", keys, tensors), capsys)
    assert code == 0 and "no token stands for 1 bytes (0xe2): they are left out of a text" in said


@pytest.mark.parametrize("name", ["token_embd.weight", "output.weight", "blk.1.ffn_down.weight"])
def test_matrices_are_read_for_numbers_that_are_none(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a run does not look, which finds them in its logits."""
    keys, tensors = model("qwen2")
    changed: list[Tensor] = []
    for row in tensors:
        values = np.frombuffer(row[3], "<f4").copy().reshape(row[1])
        if row[0] == name:
            values[5, 7] = np.inf
        changed.append((*row[:3], values.tobytes()))
    path = write_gguf(tmp_path / "m.gguf", keys, changed)
    check_loadable(path)
    code, said = inspected(path, capsys)
    assert code == 2 and f"{name} holds a number that is not finite" in said
