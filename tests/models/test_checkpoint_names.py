# SPDX-License-Identifier: MIT
"""Which files and names a folder means: transformers' order of weights, and wrappers' names read as one prefix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from trit.base.errors import UserError
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS
from trit.gguf.header import read_raw_header
from trit.inspect.command import inspect
from trit.models.checkpoint import Checkpoint
from trit.models.names import name_notes, plain_name, quantised_by, refuse_other_methods

SEED = Path(__file__).parents[1] / "fuzz" / "seeds" / "whole"
LAST = "model.layers.0.mlp.down_proj.weight"
INDEX = "model.safetensors.index.json"


def weights() -> dict[str, np.ndarray]:
    """The seed's tensors by their plain names."""
    return {plain_name(name): data for name, data in load_file(SEED / "model.safetensors").items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model, with plain names."""
    folder = Path(shutil.copytree(SEED, tmp_path / "model"))
    save_file(weights(), folder / "model.safetensors")
    return folder


def data_of(folder: Path, outfile: Path) -> tuple[bytes, list[str]]:
    """What the converter makes of a folder's tensors, and what it says."""
    report = convert(folder, outfile, Options(ENCODINGS["f16"], None), progress=False)
    header = read_raw_header(outfile)
    return outfile.read_bytes()[header.data_offset :], list(report.lines("f16"))


def rename(folder: Path, change: Callable[[str], str]) -> None:
    save_file({change(name): data for name, data in weights().items()}, folder / "model.safetensors")


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


# --- files


def other_weights(path: Path) -> None:
    """The model with other embeddings."""
    save_file(weights() | {"model.embed_tokens.weight": weights()["model.embed_tokens.weight"] * 2}, path)


def test_the_whole_file_comes_before_shards(folder: Path, tmp_path: Path) -> None:
    """As in transformers; the index and its files are left aside, and that is said."""
    expected, lines = data_of(folder, tmp_path / "a.gguf")
    assert "weights read from model.safetensors" in lines and not any("transformers" in line for line in lines)
    other_weights(folder / "part.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(weights(), "part.safetensors")}))
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    found, lines = data_of(folder, tmp_path / "b.gguf")
    assert found == expected
    assert (
        f"note: weights are those of model.safetensors, as in transformers, not of {INDEX} or pytorch_model.bin"
        in lines
    )
    (folder / "model.safetensors").unlink()
    found, lines = data_of(folder, tmp_path / "c.gguf")
    assert found != expected and "weights read from part.safetensors" in lines


def test_an_index_comes_before_torch_s_files_and_names_what_is_gone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "old.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    index = {"weight_map": {name: f"shard-{i}.safetensors" for i, name in enumerate(weights())}}
    (folder / INDEX).write_text(json.dumps(index))
    words = (
        rf"shard-0\.safetensors and \d+ more files is missing, which {INDEX} names \(found old\.safetensors, pytorch"
    )
    with pytest.raises(UserError, match=words):
        Checkpoint.open(folder)


def test_config_may_name_the_file(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "best.safetensors")
    change_config(folder, transformers_weights="best.safetensors")
    assert Checkpoint.open(folder).files == [folder / "best.safetensors"]
    change_config(folder, transformers_weights="../best.safetensors")
    with pytest.raises(UserError, match=r"transformers_weights is '\.\./best\.safetensors'"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "..", "x" * 4000, "", "a\0"])
def test_an_index_that_leaves_its_folder(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "x.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {LAST: name}}))
    with pytest.raises(UserError, match="expected the name of a file beside it") as caught:
        Checkpoint.open(folder)
    assert len(str(caught.value)) < 400


# --- names


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name: f"module._orig_mod.{name}", "without module._orig_mod."),
        (lambda name: f"base_model.model.{name}", "without base_model.model."),
        (
            lambda name: f"_fsdp_wrapped_module.base_model.model.{name}",
            "without _fsdp_wrapped_module.base_model.model.",
        ),
        (lambda name: name.replace("layers.0.", "layers.0._orig_mod."), "without _orig_mod."),
        (lambda name: name.replace("layers.0.", "layers.0._checkpoint_wrapped_module."), "_checkpoint_wrapped_module."),
        (lambda name: name.replace("model.", "language_model.model.", 1), "without language_model."),
        (
            lambda name: name.replace("model.", "model.language_model._orig_mod.", 1),
            "without language_model._orig_mod.",
        ),
        (lambda name: name.removeprefix("model."), ""),
    ],
)
def test_wrappers_are_one_prefix(change: Callable[[str], str], said: str, folder: Path, tmp_path: Path) -> None:
    expected, _ = data_of(folder, tmp_path / "a.gguf")
    rename(folder, change)
    found, lines = data_of(folder, tmp_path / "b.gguf")
    assert found == expected
    notes = [line for line in lines if "tensor names" in line]
    assert len(notes) == bool(said) and said in "".join(notes)
    assert inspect(folder).refused is None


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("model.norm.weight", "model.norm.weight"),
        ("norm.weight", "model.norm.weight"),
        ("model.model.norm.weight", "model.norm.weight"),
        ("embed_tokens.weight", "model.embed_tokens.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.lm_head.weight", "lm_head.weight"),
        ("module.lm_head.weight", "lm_head.weight"),
        ("base_model.model.model.layers.3.x.weight", "model.layers.3.x.weight"),
        ("language_model.model.layers.3._fsdp_wrapped_module.x", "model.layers.3.x"),
        ("model.layers.3._checkpoint_wrapped_module._orig_mod.x", "model.layers.3.x"),
        ("module", "module"),
        ("model", "model"),
        ("model.vision.weight", "model.vision.weight"),
        ("module.model.vision.weight", "module.model.vision.weight"),
        ("classifier.weight", "classifier.weight"),
        ("", ""),
    ],
)
def test_plain_names(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize("part", ["lora_A", "lora_embedding_B", "base_layer", "modules_to_save"])
def test_parts_of_adapters(part: str) -> None:
    for name in (f"model.layers.0.q_proj.{part}.weight", f"base_model.model.lm_head.{part}"):
        with pytest.raises(UserError, match=f"^{name}: is part of an adapter, not of a model; merge it into its base"):
            plain_name(name)
    assert plain_name(f"model.layers.x{part}.weight") == f"model.layers.x{part}.weight"


@pytest.mark.parametrize(
    ("names", "note"),
    [
        ([], ""),
        (["model.norm.weight", "lm_head.weight", "vision.weight"], ""),
        (["norm.weight", "layers.0.x"], ""),
        (["norm.weight", "lm_head.weight"], "with model. in front"),
        (["module.model.norm.weight", "module.lm_head.weight"], "without module."),
        (["module.model.norm.weight", "model.layers._orig_mod.0.x"], "without module. and _orig_mod."),
        (["module.norm.weight", "norm.weight", "lm_head.weight"], "without module. and with model. in front"),
        (["model.model.norm.weight"], "without model."),
        (["model.layers.0._orig_mod.module.x"], "without _orig_mod.module."),
    ],
)
def test_what_is_said_of_names(names: list[str], note: str) -> None:
    assert name_notes(names) == ([f"tensor names are read {note}"] if note else [])


def test_names_without_model_beside_a_head(folder: Path, tmp_path: Path) -> None:
    head = {"lm_head.weight": weights()["model.embed_tokens.weight"]}
    change_config(folder, tie_word_embeddings=False)
    save_file(weights() | head, folder / "model.safetensors")
    expected, _ = data_of(folder, tmp_path / "a.gguf")
    save_file({k.removeprefix("model."): v for k, v in (weights() | head).items()}, folder / "model.safetensors")
    found, lines = data_of(folder, tmp_path / "b.gguf")
    assert found == expected and "note: tensor names are read with model. in front" in lines


def refusal(folder: Path) -> str:
    """What converter and inspector say, which is the same."""
    with pytest.raises(UserError) as caught:
        convert(folder, folder / "x.gguf", Options(ENCODINGS["f16"], None), progress=False)
    assert inspect(folder).refused == str(caught.value)
    return str(caught.value)


def test_names_in_errors_are_the_file_s(folder: Path) -> None:
    tensors = {f"module._orig_mod.{name}": data for name, data in weights().items()}
    gone = tensors.pop(f"module._orig_mod.{LAST}")
    save_file(tensors, folder / "model.safetensors")
    assert f": module._orig_mod.{LAST} missing; the checkpoint is not whole" in refusal(folder)
    save_file(tensors | {f"module._orig_mod.{LAST}": gone[:1]}, folder / "model.safetensors")
    assert refusal(folder).startswith(f"module._orig_mod.{LAST}: ")
    extra = {f"module._orig_mod.{LAST}": gone, "module._orig_mod.model.layers.0.mlp.router.weight": gone}
    save_file(tensors | extra, folder / "model.safetensors")
    assert "unexpected tensor module._orig_mod.model.layers.0.mlp.router.weight" in refusal(folder)


def test_two_copies_under_two_prefixes(folder: Path) -> None:
    """Nothing says which of them is the model (a run's averaged weights, say)."""
    save_file(weights() | {f"module.{LAST}": weights()[LAST]}, folder / "model.safetensors")
    assert f"{LAST} and module.{LAST} are both {LAST}" in refusal(folder) or f"module.{LAST} and" in refusal(folder)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.layers.0.self_attn.q_proj.base_layer.weight",
        "model.layers.0.self_attn.v_proj.lora_magnitude_vector.default.weight",
    ],
)
def test_adapters_are_to_be_merged(name: str, folder: Path) -> None:
    save_file(weights() | {name: weights()[LAST]}, folder / "model.safetensors")
    assert refusal(folder).startswith(
        f"{name}: is part of an adapter"
    ) and "merge it into its base model first" in refusal(folder)


def test_an_adapter_s_folder(folder: Path) -> None:
    """It has no config.json of its own."""
    for path in folder.iterdir():
        path.unlink()
    save_file({"x": np.ones(1)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert "is an adapter's folder (adapter_config.json); merge it" in refusal(folder)


def test_one_rope_of_two_is_told(folder: Path) -> None:
    note = "of config.json's rope_parameters and rope_scaling the latter counts, as in transformers"
    rope = {"rope_type": "linear", "factor": 2.0}
    for scaling, parameters, told in ((rope, rope, True), (rope, None, False), (None, rope, False), ({}, rope, False)):
        change_config(folder, rope_scaling=scaling, rope_parameters=parameters)
        assert (note in Checkpoint.open(folder).notes) == told


def test_norms_that_the_config_turns_off_or_on(folder: Path) -> None:
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"]
    norm = LAST.replace(".weight", ".rms_norm.weight")
    save_file(weights() | {norm: np.ones(16, np.float32)}, folder / "model.safetensors")
    assert f"unexpected tensor {norm}, of norms that config.json turns off" in refusal(folder)
    change_config(folder, quantization_config=quantization | {"use_rms_norm": True})
    save_file(weights(), folder / "model.safetensors")
    assert "rms_norm.weight" in refusal(folder) and "missing, norms that config.json asks for" in refusal(folder)


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        ({"quantization_config": {"quant_method": "bitnet"}}, None),
        ({"quantization_config": {"load_in_4bit": False, "load_in_8bit": False}}, None),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "awq", "load_in_4bit": True}}, "awq"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        # Old files of bitsandbytes name no method.
        ({"quantization_config": {"load_in_4bit": True, "load_in_8bit": False}}, "bitsandbytes"),
        ({"quantization_config": {"load_in_4bit": False, "load_in_8bit": True}}, "bitsandbytes"),
    ],
)
def test_other_methods_are_named(config: dict[str, object], method: str | None) -> None:
    if method is None:
        refuse_other_methods(config)
        return
    with pytest.raises(
        UserError, match=rf"^config\.json: quantization_config says {method}, which keeps other numbers"
    ):
        refuse_other_methods(config)


@pytest.mark.parametrize(
    ("names", "method"),
    [
        (("qweight", "qzeros", "g_idx"), "GPTQ or AWQ"),
        (("weight_scale_inv", "input_scale"), "fp8"),
        (("weight.absmax", "weight.quant_map", "SCB"), "bitsandbytes"),
        (("weight_packed", "weight_shape", "weight_zero_point"), "compressed-tensors"),
        (("weight", "bias", "weight_scale", "qweight.weight"), None),
    ],
)
def test_tensors_of_other_methods_are_known_by_their_ends(names: tuple[str, ...], method: str | None) -> None:
    for name in names:
        assert quantised_by(f"model.layers.0.self_attn.q_proj.{name}") == method
        assert quantised_by(name.rpartition(".")[2]) == method
