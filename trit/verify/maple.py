# SPDX-License-Identifier: MIT
"""Maple's forward pass, for which transformers has no class: modules with the names of modeling_maple.py's.

Written from its public formulas; tests/verify/test_maple.py has them a second time, as plain tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

CLAMP = 7.0


class Norm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(size)), epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., size] -> the same shape."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weight


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class Attention(nn.Module):
    """Over a window with half of each head rotated, or over everything with nothing rotated."""

    def __init__(self, config: Mapping[str, Any], layer: int) -> None:
        super().__init__()
        hidden, epsilon = config["hidden_size"], config["rms_norm_eps"]
        self.heads, self.kv_heads, self.size = (
            config["num_attention_heads"],
            config["num_key_value_heads"],
            config["head_dim"],
        )
        sliding = config["layer_types"][layer] == "sliding_attention"
        self.window = config["sliding_window"] if sliding else None
        rotary = {**config, **(config.get("rope_scaling") or config.get("rope_parameters") or {})}
        self.rotated = int(self.size * rotary["partial_rotary_factor"]) if sliding else 0
        self.theta = rotary["rope_theta"]
        self.q_proj, self.o_proj = _linear(hidden, self.heads * self.size), _linear(self.heads * self.size, hidden)
        self.k_proj, self.v_proj = (_linear(hidden, self.kv_heads * self.size) for _ in range(2))
        self.q_norm, self.k_norm = (Norm(self.size, epsilon) for _ in range(2))

    def _turned(self, x: Tensor) -> Tensor:
        if not self.rotated:
            return x
        places = torch.arange(x.shape[-2], dtype=torch.float64)
        exponents = torch.arange(0, self.rotated, 2, dtype=torch.float64) / self.rotated
        angles = torch.outer(places, self.theta**-exponents)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x[..., : self.rotated].chunk(2, dim=-1)
        rest = x[..., self.rotated :]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [sequences, length, hidden] -> the same shape."""
        count, length, _ = x.shape

        def split(rows: Tensor, heads: int) -> Tensor:
            return rows.reshape(count, length, heads, self.size).transpose(1, 2)

        q = self._turned(self.q_norm(split(self.q_proj(x), self.heads)))
        k = self._turned(self.k_norm(split(self.k_proj(x), self.kv_heads)))
        v = split(self.v_proj(x), self.kv_heads)
        k, v = (each.repeat_interleave(self.heads // self.kv_heads, dim=1) for each in (k, v))
        places = torch.arange(length)
        back = places[:, None] - places
        seen = (back >= 0) & (back < (self.window or length))
        weights = (q @ k.transpose(-1, -2) * self.size**-0.5).masked_fill(~seen, -torch.inf).softmax(-1)
        mixed: Tensor = self.o_proj((weights @ v).transpose(1, 2).reshape(count, length, -1))
        return mixed


class Gate(nn.Module):
    """The router: the weights of all experts, which only as many of the largest as are used keep, summing to 1."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config["num_experts"], config["hidden_size"]))
        self.used = config["num_experts_per_tok"]

    def forward(self, x: Tensor) -> Tensor:
        """Map [tokens, hidden] -> [tokens, experts]."""
        chances = (x @ self.weight.T).softmax(-1)
        best = chances.topk(self.used, dim=-1)
        kept = torch.zeros_like(chances).scatter(-1, best.indices, best.values)
        return kept / kept.sum(-1, keepdim=True)


class Expert(nn.Module):
    """silu(min(gate, 7)) * clamp(up, -7, 7), then down."""

    def __init__(self, hidden: int, forward: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (
            _linear(hidden, forward),
            _linear(hidden, forward),
            _linear(forward, hidden),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [tokens, hidden] -> the same shape."""
        gate, up = self.gate_proj(x).clamp(max=CLAMP), self.up_proj(x).clamp(-CLAMP, CLAMP)
        added: Tensor = self.down_proj(nn.functional.silu(gate) * up)
        return added


class Experts(nn.Module):
    """All experts of a layer; each computes the tokens that the router gives it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        sizes = config["hidden_size"], config["moe_intermediate_size"]
        self.gate, self.experts = Gate(config), nn.ModuleList(Expert(*sizes) for _ in range(config["num_experts"]))

    def forward(self, x: Tensor) -> Tensor:
        """Map [sequences, length, hidden] -> the same shape."""
        tokens = x.reshape(-1, x.shape[-1])
        shares, out = self.gate(tokens), torch.zeros_like(tokens)
        for i, expert in enumerate(self.experts):
            mine = shares[:, i].nonzero()[:, 0]
            if len(mine):
                out[mine] += expert(tokens[mine]) * shares[mine, i, None]
        return out.reshape(x.shape)


class Layer(nn.Module):
    """Attention and experts, each with a norm in front."""

    def __init__(self, config: Mapping[str, Any], layer: int) -> None:
        super().__init__()
        hidden, epsilon = config["hidden_size"], config["rms_norm_eps"]
        self.input_layernorm, self.post_attention_layernorm = Norm(hidden, epsilon), Norm(hidden, epsilon)
        self.self_attn, self.mlp = Attention(config, layer), Experts(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map [sequences, length, hidden] -> the same shape."""
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Token ids to normed hidden states."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config["num_hidden_layers"]))
        self.norm = Norm(config["hidden_size"], config["rms_norm_eps"])

    def forward(self, ids: Tensor, use_cache: bool = False) -> Tensor:
        """Map [sequences, length] -> [sequences, length, hidden]."""
        x = self.word_embeddings(ids)
        for layer in self.layers:
            x = layer(x)
        normed: Tensor = self.norm(x)
        return normed


class Maple(nn.Module):
    """Token ids to logits; called as a model of transformers is."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = Decoder(config)
        self.lm_head = _linear(config["hidden_size"], config["vocab_size"])

    def forward(self, ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        """Map [sequences, length] -> logits [sequences, length, vocabulary]."""
        return SimpleNamespace(logits=self.lm_head(self.model(ids)))
