# SPDX-License-Identifier: MIT
"""A BitNet b1.58 decoder, equal to transformers' ``BitNetForCausalLM`` with tied embeddings.

LLaMA's block with a norm before the output projection of attention and one before the down projection, a gate with
squared ReLU, and rotary embeddings that rotate halves. Parameters carry the names that transformers uses, without the
leading ``model.``. All seven linear layers of a block are BitLinear; embedding (= head) and norms are not quantised.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trit.train.bitlinear import BitLinear, bit_linears


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder; the names are those of transformers' ``BitNetConfig``."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_size(self) -> int:
        """Elements of one attention head."""
        return self.hidden_size // self.num_attention_heads


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Map float [..., size] -> the same shape."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rotary_table(length: int, head_size: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, float [length, head_size] each, in the type of ``like``."""
    exponents = torch.arange(0, head_size, 2, device=like.device, dtype=torch.float32) / head_size
    angles = torch.arange(length, device=like.device, dtype=torch.float32)[:, None] * (1.0 / theta**exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + head_size / 2) of float [batch, heads, length, head_size] by its position's angle."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention; several query heads may share a key/value head (grouped-query attention)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.group = config.num_attention_heads // config.num_key_value_heads
        kv_size = config.num_key_value_heads * config.head_size
        self.q_proj = BitLinear(config.hidden_size, config.hidden_size)
        self.k_proj = BitLinear(config.hidden_size, kv_size)
        self.v_proj = BitLinear(config.hidden_size, kv_size)
        self.o_proj = BitLinear(config.hidden_size, config.hidden_size)
        self.attn_sub_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Map float [batch, length, hidden] -> the same shape; ``dtype`` as in :func:`bit_linears`."""
        batch, length, _ = x.shape
        parts = bit_linears(x, [self.q_proj, self.k_proj, self.v_proj], dtype)
        query, key, value = (part.view(batch, length, -1, self.head_size).transpose(1, 2) for part in parts)
        query, key = rotate(query, cos, sin) * self.head_size**-0.5, rotate(key, cos, sin)
        if self.group > 1:
            key, value = (part.repeat_interleave(self.group, dim=1) for part in (key, value))
        operand = dtype or x.dtype
        scores = (query.to(operand) @ key.to(operand).transpose(-1, -2)).to(x.dtype)
        future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        mixed = (weights.to(operand) @ value.to(operand)).to(x.dtype)
        mixed = self.attn_sub_norm(mixed.transpose(1, 2).reshape(batch, length, -1))
        return bit_linears(mixed, [self.o_proj], dtype)[0]


class FeedForward(nn.Module):
    """down(norm(relu(gate(x))^2 * up(x)))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = BitLinear(config.hidden_size, config.intermediate_size)
        self.up_proj = BitLinear(config.hidden_size, config.intermediate_size)
        self.down_proj = BitLinear(config.intermediate_size, config.hidden_size)
        self.ffn_sub_norm = RMSNorm(config.intermediate_size, config.rms_norm_eps)

    def forward(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Map float [batch, length, hidden] -> the same shape."""
        gate, up = bit_linears(x, [self.gate_proj, self.up_proj], dtype)
        return bit_linears(self.ffn_sub_norm(gate.relu().square() * up), [self.down_proj], dtype)[0]


class Block(nn.Module):
    """One layer of the decoder."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Map float [batch, length, hidden] -> the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, dtype)
        x = x + self.mlp(self.post_attention_layernorm(x), dtype)
        return x


class Decoder(nn.Module):
    """The whole model. ``matmul_dtype`` None is the reference; bfloat16 is the fast way for training."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.matmul_dtype: torch.dtype | None = None
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def init_weights(self) -> None:
        """Normal start values; what is added to the residual stream starts smaller, by 1 / sqrt(2 * layers)."""
        nn.init.normal_(self.embed_tokens.weight, std=0.1)
        for name, module in self.named_modules():
            if isinstance(module, BitLinear):
                adds = name.endswith(("o_proj", "down_proj"))
                nn.init.normal_(module.weight, std=0.02 * (2 * self.config.num_hidden_layers) ** (-0.5 * adds))

    def hidden_states(self, ids: Tensor) -> list[Tensor]:
        """Map int [batch, length] -> float [batch, length, hidden] after each block, before the last norm."""
        x = self.embed_tokens(ids)
        cos, sin = rotary_table(ids.shape[1], self.config.head_size, self.config.rope_theta, x)
        states = []
        for block in self.layers:
            x = block(x, cos, sin, self.matmul_dtype)
            states.append(x)
        return states

    def head(self, hidden: Tensor) -> Tensor:
        """Map float [..., hidden] of the last block -> logits [..., vocab]."""
        return functional.linear(self.norm(hidden), self.embed_tokens.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Map int [batch, length] -> logits [batch, length, vocab]."""
        return self.head(self.hidden_states(ids)[-1])

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], eos: int, max_new: int) -> list[list[int]]:
        """Greedy continuation of each prompt, up to ``eos`` (left out) or ``max_new`` tokens.

        The prompts are padded on the right: a causal model does not look at what comes later, so the padding
        changes nothing. There is no cache: the whole sequence is computed for every token, which is fast enough here.
        """
        device = self.embed_tokens.weight.device
        rows = torch.arange(len(prompts), device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        longest = int(lengths.max())
        ids = torch.full((len(prompts), longest + max_new), eos, device=device)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt, device=device)
        ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        for step in range(max_new):
            hidden = self.hidden_states(ids[:, : longest + step])[-1]
            chosen = self.head(hidden[rows, lengths + step - 1]).argmax(-1)
            ids[rows, lengths + step] = chosen
            ended |= chosen == eos
            if bool(ended.all()):
                break
        answers = [row[start : start + max_new].tolist() for row, start in zip(ids, lengths.tolist(), strict=True)]
        return [answer[: answer.index(eos)] if eos in answer else answer for answer in answers]
