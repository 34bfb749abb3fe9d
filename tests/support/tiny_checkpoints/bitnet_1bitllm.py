# SPDX-License-Identifier: MIT
"""1bitLLM's ``BitnetForCausalLM``: full-precision weights, declared by ``weight_bits``, and LLaMA 2's vocabulary.

Their modelling code computes what transformers' BitNet does with SiLU; two norms have other names. The feed-forward
widths keep what is particular about the models': 8640 (3B) is no multiple of 128, 5460 (xl) not even of 64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BitNetConfig, BitNetForCausalLM

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.sentencepiece_vocabulary import llama2_tokenizer, read_spm
from tests.support.tiny_checkpoints.vocabularies import save_tokenizer

FAMILY = "bitnet_1bitllm"
STORAGE = ("master-f32", "bin")
VARIANTS = ("bitnet_b1_58-large", "bitnet_b1_58-xl", "bitnet_b1_58-3B")

_LONG_TOKENS = 1500
_FEED_FORWARD = {"bitnet_b1_58-large": 640, "bitnet_b1_58-xl": 660, "bitnet_b1_58-3B": 576}
_NORMS = {"attn_sub_norm": "inner_attn_ln", "ffn_sub_norm": "ffn_layernorm"}


def build(variant: str, storage: str, seed: int = 0) -> tuple[BitNetForCausalLM, stores.Stored, dict[str, Any]]:
    """(float64 model that computes what the files stand for, what they hold, config.json)."""
    assert variant in VARIANTS and storage in STORAGE
    description: dict[str, Any] = {
        "architectures": ["BitnetForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 384,
        "initializer_range": 0.02,
        "input_bits": 8,
        "intermediate_size": _FEED_FORWARD[variant],
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "pad_token_id": 32000,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": len(read_spm(_LONG_TOKENS).tokens) + 2,
        "weight_bits": 1,
    }
    description["pad_token_id"] = description["vocab_size"] - 2
    torch.manual_seed(seed)
    keys = {key: value for key, value in description.items() if key not in {"model_type", "architectures"}}
    model = BitNetForCausalLM(BitNetConfig(**keys)).double()
    stored = stores.store_model(model, "master-f32")
    for name in list(stored.tensors):
        renamed = name
        for theirs, ours in _NORMS.items():
            renamed = renamed.replace(theirs, ours)
        stored.tensors[renamed] = stored.tensors.pop(name)
    return model, stored, description


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    _, stored, description = build(variant, storage, seed)
    directory.mkdir(parents=True, exist_ok=True)
    if storage == "bin":
        torch.save(stored.tensors, directory / "pytorch_model.bin")
    else:
        stores.write_weights(directory, stored.tensors)
    stores.write_json(directory / "config.json", description)
    ends = {key: description[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    stores.write_json(directory / "generation_config.json", {"_from_model_config": True, **ends})
    tokens = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": "<pad>",
        "padding_side": "right",
        "sp_model_kwargs": {},
        "tokenizer_class": "BitnetTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }
    stores.write_json(directory / "tokenizer_config.json", tokens)
    save_tokenizer(llama2_tokenizer(read_spm(_LONG_TOKENS), ["<pad>", "</line>"]), directory)
