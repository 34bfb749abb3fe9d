# SPDX-License-Identifier: MIT
"""``HunYuanDenseV1ForCausalLM`` with ternary linear layers: the keys of Hy-MT 1.8B, its alpha and its tied head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import HunYuanDenseV1Config, HunYuanDenseV1ForCausalLM

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.linear_layers import GROUPED, store
from tests.support.tiny_checkpoints.vocabularies import llama3_tokenizer

FAMILY = "hunyuan_dense"
STORAGE = (GROUPED, "fake-bf16", "master-bf16")
VARIANTS = ("Hy-MT1.5-1.8B", "plain-positions")

_NORMAL_TOKENS = 3840
_SPREAD = 0.04
_CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def build(variant: str, storage: str, seed: int = 0) -> Built:
    """A variant's model before it is written."""
    assert variant in VARIANTS and storage in STORAGE
    tokenizer = llama3_tokenizer(_NORMAL_TOKENS)
    ids = {text: tokenizer.token_to_id(f"<|{text}|>") for text in ("begin_of_text", "end_of_text", "eot_id")}
    stretched = {"alpha": 1000.0, "beta_fast": 32, "beta_slow": 1, "factor": 1.0, "mscale": 1.0, "type": "dynamic"}
    description: dict[str, Any] = {
        "architectures": ["HunYuanDenseV1ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": ids["begin_of_text"],
        "eos_token_id": ids["end_of_text"],
        "eod_token_id": ids["eot_id"],
        "pad_token_id": 0,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 768,
        "max_position_embeddings": 512,
        "mlp_bias": False,
        "model_type": "hunyuan_v1_dense",
        "num_attention_heads": 8,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "rope_scaling": stretched if variant == VARIANTS[0] else None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": variant == VARIANTS[0],
        "torch_dtype": "float16" if storage == GROUPED else "bfloat16",
        "use_cache": True,
        "use_qk_norm": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    torch.manual_seed(seed)
    config = HunYuanDenseV1Config(
        **{**description, "initializer_range": _SPREAD, "attn_implementation": "eager"},
    )
    model = HunYuanDenseV1ForCausalLM(config).double()
    stored = store(model, storage)
    if declared := (None if storage == GROUPED else stores.quantization_config(storage)):
        description["quantization_config"] = declared
    tokens = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "chat_template": _CHAT_TEMPLATE,
    }
    generation = {"do_sample": True, "temperature": 0.7, "eos_token_id": [ids["end_of_text"], ids["eot_id"]]}
    return Built(model, stored, description, tokenizer, tokens, generation)


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    build(variant, storage, seed).write(directory)
