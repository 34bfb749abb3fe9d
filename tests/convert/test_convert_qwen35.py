# SPDX-License-Identifier: MIT
"""Qwen3.5 checkpoints: what is read back, keys, what is left out, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import refusal
from tests.support.tiny_checkpoints import qwen35
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.linear_layers import GROUPED
from trit.convert.from_checkpoint import Options, convert
from trit.convert.report import Report
from trit.gguf.encodings import ENCODINGS, spread_scale
from trit.gguf.types import read_header

BONSAI = "Ternary-Bonsai-27B"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built]:
    folder = tmp_path_factory.mktemp("qwen35") / "checkpoint"
    built = qwen35.build(BONSAI, GROUPED, layers=2, small=False)
    built.write(folder)
    return folder, built


@pytest.fixture
def checkpoint(pristine: tuple[Path, Built], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine[0], tmp_path / "checkpoint"))


def converted(folder: Path, outtype: str = "q2_0") -> tuple[Path, Report]:
    outfile = folder.parent / f"{outtype}.gguf"
    return outfile, convert(folder, outfile, Options(ENCODINGS[outtype], "f32"), progress=False)


def edit_text(folder: Path, **changes: Any) -> None:
    """Change keys of the text model's part of config.json; None drops one."""
    config = json.loads((folder / "config.json").read_text())
    text = {**config["text_config"], **changes}
    config["text_config"] = {key: value for key, value in text.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def by_turns(values: torch.Tensor, axis: int, skip: int, size: int, groups: int = 2, each: int = 3) -> np.ndarray:
    """Value heads as the file has them, in plain loops."""
    order = list(range(skip))
    for j in range(each):
        for group in range(groups):
            first = skip + (group * each + j) * size
            order += range(first, first + size)
    return values.index_select(axis, torch.tensor(order)).numpy()


def test_everything_reads_back_in_its_place(pristine: tuple[Path, Built], tmp_path: Path) -> None:
    _, built = pristine
    built.write(tmp_path / "checkpoint")
    path, report = converted(tmp_path / "checkpoint")
    assert report.kinds == {"ternary floats in groups of 128": len(built.stored.ternary)}
    (vision,) = (note for note in report.notes if "vision" in note)
    assert "mmproj" in vision
    table = read_header(path).tensors
    parameters = {name: value.detach().float() for name, value in built.model.named_parameters()}

    def values(name: str) -> np.ndarray:
        entry = table[name]
        if entry.ggml_type == 42:
            ternary, scale = ENCODINGS["q2_0"].unpack(entry.read(path), *entry.shape, name)
            return np.asarray(ternary * spread_scale(scale, *entry.shape, 64).repeat(64, axis=1))
        return entry.read(path).view({0: "<f4", 1: "<f2"}[entry.ggml_type]).reshape(entry.shape)

    linear = "model.layers.0.linear_attn"
    wanted = {
        "attn_qkv.weight": by_turns(parameters[f"{linear}.in_proj_qkv.weight"], 0, 256, 64),
        "attn_gate.weight": by_turns(parameters[f"{linear}.in_proj_z.weight"], 0, 0, 64),
        "ssm_alpha.weight": by_turns(parameters[f"{linear}.in_proj_a.weight"], 0, 0, 1),
        "ssm_beta.weight": by_turns(parameters[f"{linear}.in_proj_b.weight"], 0, 0, 1),
        "ssm_out.weight": by_turns(parameters[f"{linear}.out_proj.weight"], 1, 0, 64),
        "ssm_conv1d.weight": by_turns(parameters[f"{linear}.conv1d.weight"][:, 0], 0, 256, 64),
        "ssm_a": by_turns(-parameters[f"{linear}.A_log"].double().exp().float(), 0, 0, 1),
        "ssm_dt.bias": by_turns(parameters[f"{linear}.dt_bias"], 0, 0, 1),
        "ssm_norm.weight": parameters[f"{linear}.norm.weight"].numpy(),
        "attn_norm.weight": parameters["model.layers.0.input_layernorm.weight"].numpy() + 1,
    }
    for name, value in wanted.items():
        np.testing.assert_array_equal(values(f"blk.0.{name}"), value, err_msg=name)
    assert table["blk.0.ssm_alpha.weight"].ggml_type == 1, "floats keep their type"
    further = {"fc.weight": "eh_proj", "pre_fc_norm_hidden.weight": "hnorm", "norm.weight": "shared_head_norm"}
    for source, target in further.items():
        value = parameters[f"mtp.{source}"].numpy() + ("norm" in source)
        np.testing.assert_array_equal(values(f"blk.2.nextn.{target}.weight"), value, err_msg=target)


def test_keys(checkpoint: Path) -> None:
    metadata = read_header(converted(checkpoint)[0]).metadata
    found = {key.removeprefix("qwen35."): value for key, value in metadata.items() if key.startswith("qwen35.")}
    assert found == {
        "vocab_size": metadata["qwen35.vocab_size"],
        "context_length": 512,
        "embedding_length": 256,
        "block_count": 3,
        "nextn_predict_layers": 1,
        "feed_forward_length": 768,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 64,
        "attention.value_length": 64,
        "attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "rope.dimension_count": 16,
        "rope.dimension_sections": [3, 3, 2, 0],
        "rope.freq_base": 1e7,
        "full_attention_interval": 2,
        "ssm.conv_kernel": 4,
        "ssm.state_size": 64,
        "ssm.group_count": 2,
        "ssm.time_step_rank": 6,
        "ssm.inner_size": 384,
    }
    assert metadata["tokenizer.ggml.pre"] == "qwen35"


def test_a_scale_for_all_of_a_row_of_heads_goes_with_each(tmp_path: Path) -> None:
    """One scale for all 384 inputs of out_proj, or for 192, which are three heads: their columns change places."""
    built = qwen35.build(BONSAI, GROUPED, layers=2, further=0)
    name = "model.language_model.layers.0.linear_attn.out_proj.weight"
    tensor = built.stored.tensors[name]
    signs = tensor.sign().reshape(len(tensor), 1, -1)
    scales = torch.rand(len(tensor), 1, 1).half() + 0.1
    built.stored.tensors[name] = (signs * scales).reshape(tensor.shape).contiguous()
    built.write(tmp_path / "checkpoint")
    path, _ = converted(tmp_path / "checkpoint")
    entry = read_header(path).tensors["blk.0.ssm_out.weight"]
    ternary, scale = ENCODINGS["q2_0"].unpack(entry.read(path), *entry.shape, "x")
    found = ternary * spread_scale(scale, *entry.shape, 64).repeat(64, axis=1)
    np.testing.assert_array_equal(found, by_turns(built.stored.tensors[name].float(), 1, 0, 64))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', the engine's qwen35 graph has silu"),
        ({"attention_bias": True}, "attention_bias is true"),
        ({"attn_output_gate": False}, "attn_output_gate is false"),
        ({"mtp_num_hidden_layers": 2}, "mtp_num_hidden_layers is 2, the engine's qwen35 graph has one"),
        ({"mtp_use_dedicated_embeddings": True}, "mtp_use_dedicated_embeddings is true"),
        ({"linear_num_value_heads": 5}, "linear_num_value_heads is 5, no multiple of 2"),
        ({"linear_value_head_dim": 32}, "linear_key_head_dim is 64 and linear_value_head_dim 32"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types is"),
        (
            {"rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.25, "mrope_section": [11, 11, 10]}},
            "mrope_section is [11, 11, 10], expected three numbers that make up the 8 rotated pairs",
        ),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e7}}, "rope scaling of type yarn is not supported"),
    ],
)
def test_refusals(changes: dict[str, Any], reason: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_text(checkpoint, **changes)
    assert reason in refusal(capsys, checkpoint)


def test_further_layers_that_are_not_counted_are_left_out(checkpoint: Path) -> None:
    edit_text(checkpoint, mtp_num_hidden_layers=None)
    path, report = converted(checkpoint)
    assert "layers that predict further tokens are left out, as mtp_num_hidden_layers says" in report.notes
    header = read_header(path)
    assert header.metadata["qwen35.block_count"] == 2 and "blk.2.attn_norm.weight" not in header.tensors


def test_another_tensor_is_not_left_out(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    save_file({**tensors, "mtp.layers.1.mlp.up_proj.weight": torch.ones(2, 2)}, checkpoint / "model.safetensors")
    assert "unexpected tensor mtp.layers.1.mlp.up_proj.weight" in refusal(capsys, checkpoint)
