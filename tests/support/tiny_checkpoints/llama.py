# SPDX-License-Identifier: MIT
"""``LlamaForCausalLM`` with BitLinear layers: the keys of the published ternary models and of what trainers write.

The published ones store packed weights and declare no more than ``quant_method``: the scale divides ("bitlinear").
Widths are tiny; ratios of heads, head size where config.json names it, RoPE base and tying are the models' own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.linear_layers import INPUT_NORMS, declare_input_norms
from tests.support.tiny_checkpoints.vocabularies import llama3_tokenizer, save_tokenizer

FAMILY = "llama"
STORAGE = stores.KINDS
VARIANTS = (
    "Llama3-8B-1.58-100B-tokens",
    "Falcon3-1B-Instruct-1.58bit",
    "Falcon3-7B-1.58bit",
    "Falcon-E-1B-Base",
    "Llama-3.2-1B-onebitllms",
    "biased-yarn",
    INPUT_NORMS,
    "BitCPM-CANN-1B",
    "SmolLM2-135M-onebitllms",
)
# Its matrices have no whole blocks of i2_s: hidden size 576 there, 192 here.
ODD = VARIANTS[-1]

_NORMAL_TOKENS = 3840
# Twice the models' own: at tiny width attention would be nearly uniform, and say nothing about positions.
_SPREAD = 0.04
_MAX_POSITIONS = 512
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

# What differs from LLaMA 3's keys.
_KEYS: dict[str, dict[str, Any]] = {
    "Llama3-8B-1.58-100B-tokens": {"rope_interleaved": False, "is_bitnet_config": True},
    "Falcon3-1B-Instruct-1.58bit": {
        "hidden_size": 512,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000042,
        "is_bitnet_config": True,
    },
    "Falcon3-7B-1.58bit": {
        "hidden_size": 384,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000042,
        "is_bitnet_config": True,
    },
    "Falcon-E-1B-Base": {
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "rope_theta": 10000.0,
        "is_bitnet_config": True,
    },
    # A LLaMA 3.2 trained further with BitLinear layers: scaled positions, tied head.
    "Llama-3.2-1B-onebitllms": {
        "head_dim": 64,
        "tie_word_embeddings": True,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 128,
            "rope_type": "llama3",
        },
    },
    # Not one model, but what LlamaConfig also has: biases, YaRN, a head size that is not hidden size / heads.
    "biased-yarn": {
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 32,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "attention_factor": 1.25,
            "original_max_position_embeddings": 128,
        },
    },
    INPUT_NORMS: {},
    # LLaMA's shape with LongRoPE's factors, the same for short and long contexts.
    "BitCPM-CANN-1B": {
        "head_dim": 64,
        "rope_scaling": {
            "rope_type": "longrope",
            "factor": 1.0,
            "long_factor": [1 + pair / 8 for pair in range(32)],
            "short_factor": [1 + pair / 8 for pair in range(32)],
            "original_max_position_embeddings": _MAX_POSITIONS,
        },
    },
    ODD: {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rope_theta": 100000,
        "tie_word_embeddings": True,
    },
}


def configuration(variant: str, storage: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json of a variant."""
    ids = {text: tokenizer.token_to_id(f"<|{text}|>") for text in ("begin_of_text", "end_of_text")}
    description: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids["begin_of_text"],
        "eos_token_id": ids["end_of_text"],
        "hidden_act": "silu",
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 640,
        "max_position_embeddings": _MAX_POSITIONS,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
        **_KEYS[variant],
    }
    if storage == "packed-bitlinear":
        description["quantization_config"] = {"modules_to_not_convert": None, "quant_method": "bitnet"}
    elif declared := stores.quantization_config(storage):
        description["quantization_config"] = declared
    return description


def build(variant: str, storage: str, seed: int = 0) -> tuple[LlamaForCausalLM, stores.Stored, dict[str, Any]]:
    """(float64 model that computes what the files stand for, what they hold, config.json)."""
    assert variant in VARIANTS and storage in STORAGE
    description = configuration(variant, storage, llama3_tokenizer(_NORMAL_TOKENS))
    torch.manual_seed(seed)
    keys = {key: value for key, value in description.items() if key != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**{**keys, "initializer_range": _SPREAD})).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):  # transformers starts them at 0
                parameter.copy_(torch.randn_like(parameter) * _SPREAD)
    if variant == INPUT_NORMS:
        description["quantization_config"] = declare_input_norms(model, storage)
    stored = stores.store_model(model, storage)
    return model, stored, description


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    _, stored, description = build(variant, storage, seed)
    directory.mkdir(parents=True, exist_ok=True)
    stores.write_weights(directory, stored.tensors)
    stores.write_json(directory / "config.json", description)
    ends = {key: description[key] for key in ("bos_token_id", "eos_token_id")}
    stores.write_json(directory / "generation_config.json", {"_from_model_config": True, **ends})
    tokens = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": _MAX_POSITIONS,
        "chat_template": _CHAT_TEMPLATE,
    }
    stores.write_json(directory / "tokenizer_config.json", tokens)
    save_tokenizer(llama3_tokenizer(_NORMAL_TOKENS), directory)
