# SPDX-License-Identifier: MIT
"""Maple by the formulas of its own code, token by token in plain tensors: what trit.verify's modules compute."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.support.tiny_checkpoints import maple

EPSILON, THETA, CLAMP = 1e-6, 10000.0, 7.0


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean() + EPSILON) * weight


def turned(head: Tensor, place: int, rotated: int) -> Tensor:
    out = head.clone()
    for pair in range(rotated // 2):
        angle = place * THETA ** (-2 * pair / rotated)
        a, b = head[pair], head[pair + rotated // 2]
        out[pair] = a * math.cos(angle) - b * math.sin(angle)
        out[pair + rotated // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


def logits(weights: dict[str, Tensor], config: dict[str, object], ids: list[int]) -> Tensor:
    """[length, vocabulary]."""
    size, window, used = 64, int(str(config["sliding_window"])), int(str(config["num_experts_per_tok"]))
    kinds = config["layer_types"]
    assert isinstance(kinds, list)
    x = [weights["model.word_embeddings.weight"][i] for i in ids]
    for i, kind in enumerate(kinds):
        w = {name.removeprefix(f"model.layers.{i}."): value for name, value in weights.items()}
        sliding = kind == "sliding_attention"
        heads: dict[str, list[list[Tensor]]] = {"q": [], "k": [], "v": []}
        for place, token in enumerate(x):
            h = norm(token, w["input_layernorm.weight"])
            for name, rows in heads.items():
                parts = list((w[f"self_attn.{name}_proj.weight"] @ h).split(size))
                if name != "v":
                    parts = [norm(part, w[f"self_attn.{name}_norm.weight"]) for part in parts]
                    parts = [turned(part, place, size // 2) for part in parts] if sliding else parts
                rows.append(parts)
        after = []
        for place, token in enumerate(x):
            first = max(0, place - window + 1) if sliding else 0
            mixed = []
            for head, query in enumerate(heads["q"][place]):
                shared = head * len(heads["k"][0]) // len(heads["q"][0])
                scores = torch.stack(
                    [query @ heads["k"][past][shared] / math.sqrt(size) for past in range(first, place + 1)]
                )
                values = torch.stack([heads["v"][past][shared] for past in range(first, place + 1)])
                mixed.append(torch.softmax(scores, 0) @ values)
            token = token + w["self_attn.o_proj.weight"] @ torch.cat(mixed)
            h = norm(token, w["post_attention_layernorm.weight"])
            chances = torch.softmax(w["mlp.gate.weight"] @ h, 0)
            best = sorted(range(len(chances)), key=lambda expert: -float(chances[expert]))[:used]
            total = sum(chances[expert] for expert in best)
            for expert in best:
                part = {name: w[f"mlp.experts.{expert}.{name}_proj.weight"] for name in ("gate", "up", "down")}
                gate = torch.minimum(part["gate"] @ h, torch.tensor(CLAMP))
                up = torch.clamp(part["up"] @ h, -CLAMP, CLAMP)
                token = token + chances[expert] / total * (part["down"] @ (gate * torch.sigmoid(gate) * up))
            after.append(token)
        x = after
    return torch.stack([weights["lm_head.weight"] @ norm(token, weights["model.norm.weight"]) for token in x])


@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_the_modules_compute_the_formulas(scale: float) -> None:
    """With larger experts, too, whose gates and ups are clamped."""
    built = maple.build("maple-preview", maple.ROWS)
    with torch.no_grad():
        for name, parameter in built.model.named_parameters():
            if ".mlp.experts." in name:
                parameter.mul_(scale)
        ids = list(range(5, 5 + 24))
        theirs = built.model(torch.tensor([ids])).logits[0]
        weights = dict(built.model.state_dict())
        ours = logits(weights, built.config, ids)
    assert float((theirs - ours).abs().max()) < 1e-9 * float(ours.abs().max())
