# SPDX-License-Identifier: MIT
"""Names of a checkpoint's tensors -> names in the file, by gguf-py's own table, and what changes on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import gguf
import torch
from torch import Tensor

# Architectures that share their names with one that gguf-py knows.
_KNOWN_AS = {"bitnet-b1.58": "bitnet", "bitnet-25": "bitnet", "maple": "qwen3moe"}
# Architectures whose graph rotates neighbouring pairs.
_PAIRED = ("llama", "minicpm")
# What gguf-py's table lacks: transformers' names of BitNet's two inner norms, and of Qwen3.5's bias of time steps.
_MORE = (
    (re.compile(r"(?:model\.)?layers\.(\d+)\.self_attn\.attn_sub_norm"), "blk.{}.attn_sub_norm"),
    (re.compile(r"(?:model\.)?layers\.(\d+)\.mlp\.ffn_sub_norm"), "blk.{}.ffn_sub_norm"),
    (re.compile(r"(?:model\.)?layers\.(\d+)\.linear_attn\.dt_bias"), "blk.{}.ssm_dt.bias"),
)
# Of the layer that predicts further tokens, which transformers leaves out.
_FURTHER = re.compile(r"mtp\.layers\.(\d+)\.(.+)")
_FURTHER_PARTS = {
    "fc": "eh_proj",
    "pre_fc_norm_embedding": "enorm",
    "pre_fc_norm_hidden": "hnorm",
    "norm": "shared_head_norm",
}
# The norm in front of one linear layer: in embedding models, and by transformers' option use_rms_norm.
# One expert's matrix, which is part of a tensor of all.
EXPERT = re.compile(r"(.*\.experts\.)(\d+)\.(.*)")
INPUT_NORM, DECLARED_INPUT_NORM = "_proj.norm.weight", "_proj.rms_norm.weight"
_INPUT_NORMS = re.compile(r"(.*_proj)\.(?:rms_)?norm\.weight")


def file_name(architecture: str, blocks: int, further: int = 0) -> Callable[[str], str | None]:
    """A function from a checkpoint's name to the file's, None if there is none.

    Args:
        architecture: Of the file.
        blocks: Of its graph.
        further: Blocks behind them, which predict further tokens.
    """
    known = _KNOWN_AS.get(architecture, architecture)
    number = next((key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == known), None)
    table = gguf.get_tensor_name_map(number, blocks + further) if number is not None else None

    def translate(name: str) -> str | None:
        stem = name.removesuffix(".weight").removesuffix(".bias")
        suffix = name[len(stem) :]
        if match := _INPUT_NORMS.fullmatch(name):
            layer = translate(match[1])
            return None if layer is None else f"{layer}_norm_in{suffix}"
        if match := _FURTHER.fullmatch(name):
            return translate(f"model.layers.{blocks + int(match[1])}.{match[2]}")
        for part, target in _FURTHER_PARTS.items():
            if name == f"mtp.{part}.weight":
                return f"blk.{blocks}.nextn.{target}.weight"
        for pattern, target in _MORE:
            if match := pattern.fullmatch(stem):
                return target.format(match[1]) + suffix
        if table is None:
            return None
        if match := EXPERT.fullmatch(stem):
            stem = f"{match[1]}{match[3]}"
        # Bare encoders (AutoModel) save their tensors without the leading "model.".
        for candidate in (stem, f"model.{stem}"):
            if found := table.get_name(candidate):
                return str(found) + suffix
        return None

    return translate


def _interleave(rows: Tensor, heads: int) -> Tensor:
    """Rows of a head from halves (transformers' rotary order) to pairs (llama.cpp's for _PAIRED)."""
    size = rows.shape[0] // heads
    return rows.reshape(heads, 2, size // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _as_in_qwen35(name: str, values: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Norms plus one, decays in place of their logarithms, value heads of a key head no more side by side."""
    part = name.rpartition("linear_attn.")[2]
    if "norm" in name:
        return values if part == "norm.weight" else values + 1
    if part == name:
        return values
    if part == "conv1d.weight":
        values = values.squeeze(1)
    elif part == "A_log":
        values = -values.double().exp()
    keys = config["linear_num_key_heads"]
    each = config["linear_num_value_heads"] // keys
    if part == "out_proj.weight":
        return values.reshape(len(values), keys, each, -1).transpose(1, 2).reshape(len(values), -1)
    skip = 2 * keys * config["linear_key_head_dim"] if part in {"conv1d.weight", "in_proj_qkv.weight"} else 0
    tail = values[skip:]
    heads = tail.reshape(keys, each, -1, *tail.shape[1:]).transpose(0, 1)
    return torch.cat([values[:skip], heads.reshape(tail.shape)])


def as_in_file(name: str, values: Tensor, architecture: str, config: Mapping[str, Any]) -> Tensor:
    """A checkpoint's values as the file of that architecture has them: q and k rows in pairs, norms plus one."""
    if architecture == "qwen35":
        return _as_in_qwen35(name, values, config)
    heads = config["num_attention_heads"]
    if architecture in _PAIRED and name.endswith(("q_proj.weight", "q_proj.bias")):
        return _interleave(values, heads)
    if architecture in _PAIRED and name.endswith(("k_proj.weight", "k_proj.bias")):
        return _interleave(values, config.get("num_key_value_heads") or heads)
    if architecture == "gemma3" and name.endswith("norm.weight") and not _INPUT_NORMS.fullmatch(name):
        return values + 1
    return values
