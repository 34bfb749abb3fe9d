# SPDX-License-Identifier: MIT
"""``MapleForCausalLM``: the keys of deepgrove/maple-preview, its ratio of layers with a window, scales for rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.qwen3 import qwen3_tokenizer
from trit.verify.maple import Maple

FAMILY = "maple"
ROWS = "rows-bf16"
"""bfloat16 values -s, 0, +s with an s for every row, as the published checkpoint has them."""
STORAGE = (ROWS, "fake-bf16")
VARIANTS = ("maple-preview",)

# Sizes with which attention and the choice of experts say something at tiny width.
_SPREAD, _ROUTER = 0.06, 0.2
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(variant: str, storage: str, seed: int = 0) -> Built:
    """A variant's model before it is written."""
    assert variant in VARIANTS and storage in STORAGE
    tokenizer = qwen3_tokenizer(appended=False)
    layers = 4
    description: dict[str, Any] = {
        "architectures": ["MapleForCausalLM"],
        "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_maple.MapleConfig"},
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 512,
        "layer_types": ["sliding_attention"] * (layers - 1) + ["full_attention"],
        "max_position_embeddings": 512,
        "model_type": "maple",
        "moe_intermediate_size": 256,
        "nope_on_global_attention": True,
        "norm_topk_prob": True,
        "num_attention_heads": 4,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_hidden_layers": layers,
        "num_key_value_heads": 1,
        "num_shared_experts": 0,
        "partial_rotary_factor": 0.5,
        "preaffine": False,
        "quantize": True,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000,
        "router_dtype": "fp32",
        "sliding_window": 16,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_bias": False,
        "use_cache": True,
        "use_qk_norm": True,
        "vocab_size": -(-tokenizer.get_vocab_size() // 128) * 128,
    }
    torch.manual_seed(seed)
    model = Maple(description).double()
    stored = _store(model, storage)
    tokens = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "chat_template": _CHAT_TEMPLATE,
    }
    generation = {"do_sample": True, "eos_token_id": [description["eos_token_id"], description["bos_token_id"]]}
    return Built(model, stored, description, tokenizer, tokens, generation)


@torch.no_grad()
def _store(model: nn.Module, storage: str) -> stores.Stored:
    stored = stores.Stored()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            values = torch.rand_like(parameter) + 0.5
        else:
            values = torch.randn_like(parameter) * (_ROUTER if name.endswith("mlp.gate.weight") else _SPREAD)
        if stores.is_projection(name):
            scales = values.abs().mean(dim=1, keepdim=True) if storage == ROWS else values.abs().mean()
            scales = scales.bfloat16().double()
            ternary = (values / scales).round().clamp(-1, 1)
            stored.ternary[name], values = ternary.to(torch.int8), ternary * scales
        stored.tensors[name] = values.bfloat16()
        parameter.copy_(stored.tensors[name])
    return stored


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    build(variant, storage, seed).write(directory)
