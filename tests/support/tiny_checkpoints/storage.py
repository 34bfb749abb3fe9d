# SPDX-License-Identifier: MIT
"""The ways in which checkpoints store the weights of BitLinear layers, and the files of a folder.

Written from the formats' descriptions with torch, not with ``utils.convert``: what is tested must not make the test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

KINDS = (
    "master-bf16",
    "master-f32",
    "packed-bitlinear",
    "packed-autobitlinear",
    "fake-f32",
    "fake-bf16",
    "offline-float",
)
"""master: full-precision weights of training; packed: four values a byte with a weight_scale that divides
("bitlinear") or multiplies ("autobitlinear"); fake: already -s, 0, +s; offline-float: -1, 0, +1 with a weight_scale."""


@dataclass
class Stored:
    """What a checkpoint holds and what it stands for.

    Attributes:
        tensors: Name in the file -> tensor.
        ternary: Name of a linear weight -> int8 [n, k] with values in {-1, 0, 1}.
        scales: Name of a linear weight -> what its ternary values are multiplied with.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    ternary: dict[str, Tensor] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)


def absmean(weight: Tensor) -> tuple[Tensor, float]:
    """Training's rule in float32 (the formula of the BitNet training tips), straight from torch."""
    scale = 1.0 / weight.float().abs().mean().clamp_(min=1e-5)
    return (weight.float() * scale).round().clamp(-1, 1), float(1.0 / scale)


def is_projection(name: str) -> bool:
    """Whether a parameter is the weight of one of a block's linear layers, by transformers' names."""
    return name.endswith("_proj.weight")


def float_dtype(kind: str) -> torch.dtype:
    """The type of the floats in a checkpoint of this kind."""
    return torch.bfloat16 if kind.endswith("bf16") else torch.float32


def quantization_config(kind: str, input_norm_epsilon: float | None = None) -> dict[str, Any] | None:
    """What config.json declares about weights of this kind; None: nothing.

    Args:
        kind: One of ``KINDS``.
        input_norm_epsilon: Of the norms in front of the linear layers, where there are some.
    """
    if kind.startswith("fake") and input_norm_epsilon is None:
        return None
    norms = {} if input_norm_epsilon is None else {"use_rms_norm": True, "rms_norm_eps": input_norm_epsilon}
    return {
        "quant_method": "bitnet",
        "linear_class": "bitlinear" if kind == "packed-bitlinear" else "autobitlinear",
        "quantization_mode": "online" if kind.startswith("master") else "offline",
        **norms,
    }


@torch.no_grad()
def store_model(model: nn.Module, kind: str, ternary: Callable[[str], bool] = is_projection) -> Stored:
    """Draw random parameters for a float64 model and store them; the model is changed to what the file stands for.

    Norms get values from 0.5 to 1.5, embeddings and heads values that are exact in float16 (otherwise the first
    activations would be rounded differently before anything is computed); linear layers keep their random start.

    Args:
        model: Any transformers model, in float64.
        kind: One of ``KINDS``.
        ternary: Says by name which parameters are weights of BitLinear layers.
    """
    stored = Stored()
    dtype = float_dtype(kind)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.copy_(torch.rand_like(parameter) + 0.5)
        if "embed_tokens" in name or "lm_head" in name:
            parameter.copy_((torch.randn_like(parameter) * 0.05).bfloat16().half())
        # What the file holds is what the model computes with.
        parameter.copy_(parameter.to(dtype))
        if ternary(name):
            stored.tensors |= _store_linear(name, parameter.to(dtype), kind, stored)
            parameter.copy_(stored.ternary[name].double() * stored.scales[name])
        else:
            stored.tensors[name] = parameter.to(dtype)
    return stored


def _store_linear(name: str, weight: Tensor, kind: str, stored: Stored) -> dict[str, Tensor]:
    """The stored tensors of one linear layer; notes its ternary values and scale."""
    ternary, scale = absmean(weight)
    stored.ternary[name] = ternary.to(torch.int8)
    if kind.startswith("master"):
        stored.scales[name] = scale
        return {name: weight}
    if kind.startswith("fake"):
        stored.scales[name] = float(torch.tensor(scale).to(weight.dtype))
        return {name: (ternary * stored.scales[name]).to(weight.dtype)}
    # The published checkpoints store weight_scale as bfloat16.
    divides = kind == "packed-bitlinear"
    weight_scale = torch.tensor([1 / scale if divides else scale]).to(torch.bfloat16)
    factor = weight_scale.float()
    stored.scales[name] = float(1 / factor if divides else factor)
    if kind == "offline-float":
        return {name: ternary.to(weight.dtype), f"{name}_scale": weight_scale}
    n = ternary.shape[0] // 4
    codes = (ternary + 1).to(torch.uint8)
    packed = codes[:n] | codes[n : 2 * n] << 2 | codes[2 * n : 3 * n] << 4 | codes[3 * n :] << 6
    return {name: packed, f"{name}_scale": weight_scale}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one of the JSON files of a folder."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_weights(directory: Path, tensors: Mapping[str, Tensor], shards: int = 1) -> None:
    """Write ``model.safetensors``, or that many numbered files and their index."""
    if shards == 1:
        save_file(dict(tensors), directory / "model.safetensors")
        return
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name].contiguous() for name in names[shard::shards]}
        save_file(part, directory / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
