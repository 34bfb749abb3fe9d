# SPDX-License-Identifier: MIT
"""``BitNetForCausalLM``: the keys of BitNet-b1.58-2B-4T's files, four query heads to a key/value head as there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BitNetConfig, BitNetForCausalLM

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.linear_layers import INPUT_NORMS, declare_input_norms
from tests.support.tiny_checkpoints.vocabularies import llama3_tokenizer, save_tokenizer

FAMILY = "bitnet"
STORAGE = stores.KINDS
VARIANTS = ("BitNet-b1.58-2B-4T", INPUT_NORMS)

_NORMAL_TOKENS = 3840
_MAX_POSITIONS = 512
# "User: ...<|eot_id|>Assistant: ", begun by <|begin_of_text|>.
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set content = message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    assert variant in VARIANTS and storage in STORAGE
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = llama3_tokenizer(_NORMAL_TOKENS)
    ids = {text: tokenizer.token_to_id(f"<|{text}|>") for text in ("begin_of_text", "end_of_text", "eot_id")}
    description: dict[str, Any] = {
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "hidden_act": "relu2",
        "initializer_range": 0.02,
        "max_position_embeddings": _MAX_POSITIONS,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": ids["begin_of_text"],
        "eos_token_id": ids["end_of_text"],
    }
    torch.manual_seed(seed)
    model = BitNetForCausalLM(BitNetConfig(**description)).double()
    normed = variant == INPUT_NORMS
    declared = declare_input_norms(model, storage) if normed else stores.quantization_config(storage)
    stores.write_weights(directory, stores.store_model(model, storage).tensors)
    if declared:
        description["quantization_config"] = declared
    stores.write_json(directory / "config.json", description)
    stops = [ids["end_of_text"], ids["eot_id"]]
    generation = {"bos_token_id": ids["begin_of_text"], "eos_token_id": stops, "do_sample": True, "temperature": 0.6}
    stores.write_json(directory / "generation_config.json", generation)
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
    save_tokenizer(tokenizer, directory)
