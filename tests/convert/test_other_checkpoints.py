# SPDX-License-Identifier: MIT
"""What people give that is no ternary checkpoint, or half of one: a sentence that names the method and the way out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from trit.base.errors import EXIT_USAGE, run_main
from trit.convert.command import main
from trit.inspect.command import inspect

SEED = Path(__file__).parents[1] / "fuzz" / "seeds" / "whole"
LAYER = "_orig_mod.model.layers.0."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SEED, tmp_path / "model"))


def refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The converter's one line, which is the inspector's verdict, too; no output is there."""
    outfile = folder.parent / "out.gguf"
    assert run_main(main, [str(folder), "--outtype", "f16", "--outfile", str(outfile)]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and len(said) < 600
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert str(inspect(folder).verdict).removeprefix("refused: ") in said
    return said


def change_config(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def change_tensors(folder: Path, **changes: Any) -> None:
    """Replace, add or (None) take away tensors: by their names behind ``LAYER``, with two underscores for a dot."""
    tensors = load_file(folder / "model.safetensors")
    for key, values in changes.items():
        name = LAYER + key.replace("__", ".")
        tensors.pop(name, None)
        if values is not None:
            tensors[name] = values
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("declared", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
    ],
)
def test_another_method(declared: Any, method: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the weights are looked at, which are of types that no ternary model has."""
    change_config(folder, quantization_config=declared)
    change_tensors(folder, self_attn__q_proj__weight=np.zeros((8, 1), np.int32))
    said = refusal(folder, capsys)
    assert f"quantization_config says {method}, which keeps other numbers than ternary ones; convert the mod" in said


@pytest.mark.parametrize(
    ("tensor", "values", "method"),
    [
        ("mlp__up_proj__qweight", np.zeros((2, 8), np.int32), "GPTQ or AWQ"),
        ("mlp__up_proj__weight_scale_inv", np.ones((1, 1), np.float32), "fp8"),
        ("mlp__up_proj__weight__absmax", np.ones(4, np.float32), "bitsandbytes"),
        ("mlp__up_proj__weight_packed", np.zeros((2, 8), np.int32), "compressed-tensors"),
    ],
)
def test_tensors_of_another_method(
    tensor: str, values: Any, method: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where config.json does not tell."""
    change_config(folder, quantization_config=None)
    change_tensors(folder, **{tensor: values})
    said = refusal(folder, capsys)
    assert LAYER + tensor.replace("__", ".") in said and method in said and "ternary" in said


@pytest.mark.parametrize("values", [np.zeros((8, 8), np.int64), np.zeros((8, 8), bool), np.zeros((8, 8), np.int8)])
def test_types_that_no_checkpoint_has(values: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_tensors(folder, self_attn__q_proj__weight=values)
    assert f"error: {LAYER}self_attn.q_proj.weight: stored as " in refusal(folder, capsys)


def test_bytes_in_the_place_of_a_norm(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_tensors(folder, input_layernorm__weight=np.ones(8, np.uint8))
    assert f"{LAYER}input_layernorm.weight: expected floating-point values, found U8" in refusal(folder, capsys)


def test_a_matrix_that_is_transposed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"self_attn__q": 8, "self_attn__k": 4, "self_attn__v": 4, "self_attn__o": 8, "mlp__gate": 16}
    shapes: dict[str, tuple[int, int]] = {name: (count, 8) for name, count in rows.items()}
    for name, shape in (shapes | {"mlp__up": (8, 16), "mlp__down": (8, 16)}).items():
        key = f"{name}_proj__weight"
        change_tensors(folder, **{key: np.ones(shape, np.float32), f"{key}_scale": None})
    said = refusal(folder, capsys)
    assert f"{LAYER}mlp.up_proj.weight: has shape [8, 16], config.json asks for [16, 8]; it is sto" in said


def test_weights_of_two_checkpoints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Packed ones and floats, whatever they are declared to be."""
    change_config(folder, quantization_config={"quant_method": "bitnet", "quantization_mode": "online"})
    change_tensors(folder, self_attn__q_proj__weight=np.ones((8, 8), np.float32), self_attn__q_proj__weight_scale=None)
    said = refusal(folder, capsys)
    assert "is packed and " in said and f"{LAYER}self_attn.q_proj.weight is not" in said and "two checkpoints" in said


def test_layers_that_are_missing_or_too_many(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named by their numbers, not by their tensors."""
    tensors = load_file(folder / "model.safetensors")
    for layer in (1, 3, 4):
        tensors |= {
            name.replace("layers.0.", f"layers.{layer}."): value for name, value in tensors.items() if LAYER in name
        }
    save_file(tensors, folder / "model.safetensors")
    change_config(folder, num_hidden_layers=5)
    said = refusal(folder, capsys)
    assert "has no layer 2 (_orig_mod.model.layers.2.*), but num_hidden_layers is 5 in config.json" in said
    change_config(folder, num_hidden_layers=2)
    said = refusal(folder, capsys)
    assert "also has layer 3, 4 (_orig_mod.model.layers.3.*), but num_hidden_layers is 2 in config.json" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("consolidated.00.pth", "(found consolidated.00.pth); save the model with transformers (save_pretrained)"),
        ("model.pt", "(found model.pt); save the model with transformers (save_pretrained)"),
        ("ggml-model-q4_0.gguf", "(found ggml-model-q4_0.gguf); name the GGUF file itself"),
        ("weights.npz", "(found no weights); download the weights, too"),
    ],
)
def test_weights_of_another_form(name: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert said in refusal(folder, capsys)


def test_a_folder_of_gguf_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").rename(folder / "m-i2_s.gguf")
    (folder / "config.json").unlink()
    assert f"it is a folder of GGUF files; name the file itself, {folder / 'm-i2_s.gguf'}" in refusal(folder, capsys)


def test_an_adapter_beside_whole_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert "take adapter_config.json away if these weights are merged already" in refusal(folder, capsys)


def test_sizes_that_are_defaults_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """transformers would take 6912 rows, and the file has 16."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "intermediate_size"}))
    assert "config.json with BitNetConfig's defaults (intermediate_size 6912) asks for [" in refusal(folder, capsys)
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "num_key_value_heads"}))
    said = refusal(folder, capsys)
    assert "5 key/value heads do not fit" in said and "BitNetConfig's defaults (num_key_value_heads 5)" in said
