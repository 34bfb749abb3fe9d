# SPDX-License-Identifier: MIT
"""``Qwen2ForCausalLM`` with BitLinear layers, as trainers write it: the keys of Qwen2.5-0.5B (biases on q, k and v)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.linear_layers import INPUT_NORMS, declare_input_norms
from tests.support.tiny_checkpoints.vocabularies import llama3_tokenizer, save_tokenizer

FAMILY = "qwen2"
STORAGE = stores.KINDS
VARIANTS = ("Qwen2.5-0.5B-onebitllms", INPUT_NORMS)

_NORMAL_TOKENS = 3840
# Twice the models' own: at tiny width attention would be nearly uniform, and say nothing about positions.
_SPREAD = 0.04


def build(variant: str, storage: str, seed: int = 0) -> tuple[Qwen2ForCausalLM, stores.Stored, dict[str, Any]]:
    """(float64 model that computes what the files stand for, what they hold, config.json)."""
    assert variant in VARIANTS and storage in STORAGE
    tokenizer = llama3_tokenizer(_NORMAL_TOKENS)
    description: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id("<|begin_of_text|>"),
        "eos_token_id": tokenizer.token_to_id("<|end_of_text|>"),
        "hidden_act": "silu",
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 640,
        "max_position_embeddings": 512,
        "max_window_layers": 24,
        "model_type": "qwen2",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**{**description, "initializer_range": _SPREAD})).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):  # transformers starts them at 0
                parameter.copy_(torch.randn_like(parameter) * _SPREAD)
    normed = variant == INPUT_NORMS
    declared = declare_input_norms(model, storage) if normed else stores.quantization_config(storage)
    stored = stores.store_model(model, storage)
    return model, stored, {**description, **({"quantization_config": declared} if declared else {})}


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    _, stored, description = build(variant, storage, seed)
    directory.mkdir(parents=True, exist_ok=True)
    stores.write_weights(directory, stored.tensors)
    stores.write_json(directory / "config.json", description)
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end_of_text|>", "bos_token": None}
    stores.write_json(directory / "tokenizer_config.json", tokens)
    save_tokenizer(llama3_tokenizer(_NORMAL_TOKENS), directory)
