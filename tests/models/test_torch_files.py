# SPDX-License-Identifier: MIT
"""Checkpoints in ``.bin`` files: the same GGUF file as from safetensors, nothing executed, clear refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import make_checkpoint, refusal
from trit.base.places import ROOT
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import read_header
from trit.models.checkpoint import _open_file

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pristine") / "checkpoint"
    return make_checkpoint(directory, "packed-bitlinear", layers=1, hidden=128, ffn=256).directory


@pytest.fixture
def pickled(pristine: Path, tmp_path: Path) -> Path:
    """The same checkpoint in one ``.bin`` file."""
    directory = Path(shutil.copytree(pristine, tmp_path / "checkpoint"))
    save(directory, load_file(directory / "model.safetensors"))
    return directory


def save(directory: Path, state: Any, **options: Any) -> None:
    (directory / "model.safetensors").unlink(missing_ok=True)
    torch.save(state, directory / "pytorch_model.bin", **options)


def state_of(directory: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(directory / "pytorch_model.bin", weights_only=True))


def converted(directory: Path, outfile: Path) -> dict[str, bytes]:
    """The tensors; the metadata name the files that they come from."""
    convert(directory, outfile, Options(ENCODINGS["i2_s"], "f16"), progress=False)
    return {name: entry.read(outfile).tobytes() for name, entry in read_header(outfile).tensors.items()}


@pytest.mark.parametrize("shards", [1, 2])
def test_same_file_as_from_safetensors(shards: int, pristine: Path, pickled: Path, tmp_path: Path) -> None:
    if shards > 1:
        state, weight_map = state_of(pickled), {}
        (pickled / "pytorch_model.bin").unlink()
        for shard in range(shards):
            file = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
            part = {name: state[name] for name in sorted(state)[shard::shards]}
            torch.save(part, pickled / file)
            weight_map |= dict.fromkeys(part, file)
        (pickled / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert converted(pickled, tmp_path / "bin.gguf") == converted(pristine, tmp_path / "safetensors.gguf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_every_dtype_is_read_in_place(dtype: torch.dtype, tmp_path: Path) -> None:
    """As from safetensors, the same tensors in the same type: numbers, names, shapes."""
    state = {"a.weight": torch.arange(12).reshape(3, 4).to(dtype), "b": torch.tensor([7.0, 0.0]).to(dtype)}
    path, other = tmp_path / "model.bin", tmp_path / "model.safetensors"
    torch.save(state, path)
    save_file(state, other)
    found, expected = (
        {tensor.name: (tensor.dtype, tensor.shape, tensor.read(0, tensor.size).tolist()) for tensor in _open_file(file)}
        for file in (path, other)
    )
    assert found == expected and len(found) == 2


def test_tensors_that_share_a_storage(pristine: Path, pickled: Path, tmp_path: Path) -> None:
    """A tied head is the same storage; slices of one storage start inside it."""
    state = state_of(pickled)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    norms = torch.stack([torch.zeros(128), state["model.norm.weight"]])
    state["model.norm.weight"] = norms[1]
    save(pickled, state)
    assert converted(pickled, tmp_path / "bin.gguf") == converted(pristine, tmp_path / "safetensors.gguf")


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.flag),)


def test_nothing_is_executed(pickled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(pickled, {**state_of(pickled), "bomb": Bomb(tmp_path / "executed")})
    assert "pytorch_model.bin: not a torch checkpoint of plain tensors" in refusal(capsys, pickled)
    assert not (tmp_path / "executed").exists()
    torch.load(pickled / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "executed").exists(), "the bomb is none, so this test would say nothing"


@pytest.mark.parametrize("keep", [0, 100, -1000])
def test_truncated(keep: int, pickled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = pickled / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:keep])
    words = "not a torch checkpoint of plain tensors" if keep else "is empty"
    assert f"pytorch_model.bin: {words}" in refusal(capsys, pickled)


def test_forms_that_are_not_read(pickled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = state_of(pickled)
    save(pickled, state, _use_new_zipfile_serialization=False)
    assert "not a torch checkpoint of plain tensors (File is not a zip file)" in refusal(capsys, pickled)
    save(pickled, {"epoch": 3, "state_dict": state})
    assert "holds other things than named tensors" in refusal(capsys, pickled)
    save(pickled, {**state, Q_PROJ: torch.zeros(128, 32, dtype=torch.uint8).T})
    assert f"{Q_PROJ}: is a view with other strides" in refusal(capsys, pickled)
    save(pickled, {**state, Q_PROJ: torch.zeros(128, 128, dtype=torch.int64)})
    assert f"{Q_PROJ}: stored as torch.int64 in pytorch_model.bin; expected one of torch" in refusal(capsys, pickled)


def test_compressed_archive(pickled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = pickled / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        records = [(record, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for record, data in records:
            archive.writestr(record.filename, data)
    assert "is compressed" in refusal(capsys, pickled)


def test_bytes_of_another_order(pickled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a big-endian machine writes them: torch would turn them when it reads, a file cannot be turned in place."""
    path = pickled / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records:
            archive.writestr(name, b"big" if name.endswith("/byteorder") else data)
    assert "its bytes are big-endian" in refusal(capsys, pickled)


def test_without_torch(pickled: Path) -> None:
    """Everything else runs without it; here it is hidden from the interpreter."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from trit.base.errors import run_main; from trit.convert.command import main\n"
        f"sys.exit(run_main(main, [{str(pickled)!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert "pytorch_model.bin: reading .bin files needs torch; install it with" in result.stderr
