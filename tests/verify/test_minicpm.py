# SPDX-License-Identifier: MIT
"""MiniCPM by the formulas of its own code, in float64: what transformers' Granite computes with its multipliers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.support.tiny_checkpoints import minicpm


def logits(weights: dict[str, Tensor], config: dict[str, object], ids: Tensor) -> Tensor:
    """[length] -> [length, vocabulary]: configuration_minicpm.py's constants where modeling_minicpm.py has them."""
    number = {key: float(value) for key, value in config.items() if isinstance(value, int | float)}
    layers, heads, kv_heads = (
        int(number[f"num_{key}"]) for key in ("hidden_layers", "attention_heads", "key_value_heads")
    )
    size = int(number["hidden_size"]) // heads
    scaling = config["rope_scaling"]
    assert isinstance(scaling, dict)
    original = scaling["original_max_position_embeddings"]
    factors = torch.tensor(scaling["long_factor" if len(ids) > original else "short_factor"], dtype=torch.float64)
    stretch = math.sqrt(1 + math.log(number["max_position_embeddings"] / original) / math.log(original))
    frequencies = number["rope_theta"] ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.outer(torch.arange(len(ids), dtype=torch.float64), frequencies / factors).repeat(1, 2)
    cos, sin = angles.cos() * stretch, angles.sin() * stretch

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.pow(2).mean(-1, keepdim=True) + number["rms_norm_eps"]).rsqrt() * weights[f"{name}.weight"]

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin

    def split(x: Tensor, name: str, count: int) -> Tensor:
        return (x @ weights[f"{name}.weight"].T).reshape(len(ids), count, size).transpose(0, 1)

    future = torch.full((len(ids), len(ids)), -torch.inf, dtype=torch.float64).triu(1)
    depth = number["scale_depth"] / math.sqrt(layers)
    x = weights["model.embed_tokens.weight"][ids] * number["scale_emb"]
    for i in range(layers):
        here = f"model.layers.{i}"
        h = norm(x, f"{here}.input_layernorm")
        q = turned(split(h, f"{here}.self_attn.q_proj", heads))
        k = turned(split(h, f"{here}.self_attn.k_proj", kv_heads)).repeat_interleave(heads // kv_heads, dim=0)
        v = split(h, f"{here}.self_attn.v_proj", kv_heads).repeat_interleave(heads // kv_heads, dim=0)
        weight = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(size) + future, dim=-1)
        mixed = (weight @ v).transpose(0, 1).reshape(len(ids), -1)
        x = x + mixed @ weights[f"{here}.self_attn.o_proj.weight"].T * depth
        h = norm(x, f"{here}.post_attention_layernorm")
        gate, up = (h @ weights[f"{here}.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (torch.nn.functional.silu(gate) * up) @ weights[f"{here}.mlp.down_proj.weight"].T * depth
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return norm(x, "model.norm") / (number["hidden_size"] / number["dim_model_base"]) @ head.T


@pytest.mark.parametrize("variant", [*minicpm.VARIANTS, minicpm.LONG])
def test_granite_computes_minicpm(variant: str) -> None:
    built = minicpm.build(variant, "fake-bf16")
    ids = torch.arange(5, 5 + 48)
    with torch.no_grad():
        theirs = built.model(ids[None]).logits[0]
        ours = logits({name: value.double() for name, value in built.model.state_dict().items()}, built.config, ids)
    # Norms, softmax and angles are computed in float32 there.
    assert float((theirs - ours).abs().max()) < 1e-5 * float(ours.std())
