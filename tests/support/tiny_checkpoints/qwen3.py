# SPDX-License-Identifier: MIT
"""Qwen3: the keys of Ternary-Bonsai 1.7B, 4B and 8B and of bitnet-embedding-0.6b.

Widths are tiny; tying, head size as a key of its own, the ratios of heads and RoPE are the models' own. The embedding
model is saved as ``Qwen3Model``, without "model." in its names, and its tokenizer appends <|endoftext|>.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.linear_layers import (
    GROUPED,
    INPUT_NORMS,
    add_input_norms,
    declare_input_norms,
    store,
)
from tests.support.tiny_checkpoints.vocabularies import read_bpe

FAMILY = "qwen3"
STORAGE = (GROUPED, "master-bf16", "packed-autobitlinear", "fake-bf16")
VARIANTS = ("Ternary-Bonsai-1.7B", "Ternary-Bonsai-4B", "Ternary-Bonsai-8B", "bitnet-embedding-0.6b", INPUT_NORMS)

_NORMAL_TOKENS = 3840
_MAX_POSITIONS = 512
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What differs from the keys of Ternary-Bonsai-1.7B.
_KEYS: dict[str, dict[str, Any]] = {
    "Ternary-Bonsai-1.7B": {},
    "Ternary-Bonsai-4B": {"num_attention_heads": 8},
    "Ternary-Bonsai-8B": {
        "num_key_value_heads": 1,
        "tie_word_embeddings": False,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
    },
    "bitnet-embedding-0.6b": {
        "architectures": ["Qwen3Model"],
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    INPUT_NORMS: {},
}


def qwen3_tokenizer(appended: bool) -> Tokenizer:
    """Qwen's byte-level BPE cut down to its first tokens; the embedding models' appends <|endoftext|>."""
    bpe = read_bpe("qwen2", _NORMAL_TOKENS)
    tokenizer = Tokenizer(models.BPE(bpe.vocab, bpe.merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in bpe.control])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    end = "<|endoftext|>"
    template = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))])
    tokenizer.post_processor = template if appended else processors.ByteLevel(trim_offsets=False)
    return tokenizer


def build(variant: str, storage: str, seed: int = 0, layers: int = 2) -> Built:
    """A variant's model, of as many layers, before it is written."""
    assert variant in VARIANTS and storage in STORAGE
    embedding = variant.startswith("bitnet-embedding")
    tokenizer = qwen3_tokenizer(appended=embedding)
    description: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 768,
        "max_position_embeddings": _MAX_POSITIONS,
        "max_window_layers": layers,
        "model_type": "qwen3",
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float16" if storage == GROUPED else "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        # Rows that no token has, as in the models.
        "vocab_size": -(-tokenizer.get_vocab_size() // 128) * 128,
        **_KEYS[variant],
    }
    torch.manual_seed(seed)
    config = Qwen3Config(**{**description, "attn_implementation": "eager"})
    model: PreTrainedModel = (Qwen3Model if embedding else Qwen3ForCausalLM)(config).double()
    if embedding:
        add_input_norms(model, config.rms_norm_eps)
    if variant == INPUT_NORMS:
        declared = declare_input_norms(model, storage)
    # The norms alone say that a BitNet embedding model's weights are masters.
    elif storage == GROUPED or (embedding and "master" in storage):
        declared = None
    else:
        declared = stores.quantization_config(storage)
    stored = store(model, storage)
    if declared:
        description["quantization_config"] = declared
    tokens: dict[str, Any] = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": _MAX_POSITIONS,
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    if embedding:
        return Built(model, stored, description, tokenizer, tokens, pooling="lasttoken")
    tokens["chat_template"] = _CHAT_TEMPLATE
    stops = [description["eos_token_id"], description["bos_token_id"]]
    return Built(model, stored, description, tokenizer, tokens, {"do_sample": True, "eos_token_id": stops})


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    build(variant, storage, seed).write(directory)
