# SPDX-License-Identifier: MIT
"""``MiniCPMForCausalLM``: the keys of BitCPM-CANN's files, group-wise scales, and a SentencePiece vocabulary as theirs.

transformers has no class for it. Its Granite computes the same with other words: the three constants are multipliers
there (tests/verify/test_minicpm.py compares it with the formulas of MiniCPM's own code).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import GraniteConfig, GraniteForCausalLM

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.linear_layers import GROUPED, store
from tests.support.tiny_checkpoints.sentencepiece_vocabulary import llama2_tokenizer, read_spm

FAMILY = "minicpm"
STORAGE = (GROUPED, "fake-bf16", "master-bf16")
VARIANTS = ("BitCPM-CANN-0.5B", "BitCPM-CANN-8B")
# Not a model: positions beyond the original context, where the other half of LongRoPE's factors counts.
LONG = "long-context"

_LONG_TOKENS = 1500
_SPREAD = 0.04
_PAIRS = 32  # of a head of 64 inputs
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# What differs from BitCPM-CANN-0.5B. Hidden size over dim_model_base is 4 in the small one, 16 in the large.
_KEYS: dict[str, dict[str, Any]] = {
    "BitCPM-CANN-0.5B": {},
    "BitCPM-CANN-8B": {"dim_model_base": 16, "tie_word_embeddings": False, "num_key_value_heads": 1},
    LONG: {"max_position_embeddings": 128},
}


def _factors(first: float, last: float) -> list[float]:
    return [round(first + (last - first) * i / (_PAIRS - 1), 6) for i in range(_PAIRS)]


def build(variant: str, storage: str, seed: int = 0) -> Built:
    """A variant's model before it is written."""
    assert variant in _KEYS and storage in STORAGE
    tokenizer = llama2_tokenizer(read_spm(_LONG_TOKENS), ["<|im_end|>", "<|im_start|>"])
    context = 32 if variant == LONG else 512
    description: dict[str, Any] = {
        "architectures": ["MiniCPMForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_minicpm.MiniCPMConfig"},
        "bos_token_id": 1,
        "eos_token_id": [2, tokenizer.token_to_id("<|im_end|>")],
        "pad_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 256,
        "initializer_range": 0.1,
        "intermediate_size": 768,
        "max_position_embeddings": context,
        "model_type": "minicpm",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "rope_type": "longrope",
            "long_factor": _factors(1.0, 9.0),
            "short_factor": _factors(1.0, 3.0),
            "original_max_position_embeddings": context,
        },
        "rope_theta": 10000.0,
        "scale_depth": 1.4,
        "scale_emb": 12,
        "dim_model_base": 64,
        "tie_word_embeddings": True,
        "torch_dtype": "float16" if storage == GROUPED else "bfloat16",
        "use_cache": True,
        "vocab_size": -(-tokenizer.get_vocab_size() // 8) * 8,
        **_KEYS[variant],
    }
    torch.manual_seed(seed)
    model = GraniteForCausalLM(
        GraniteConfig(
            **{key: value for key, value in description.items() if key not in {"architectures", "auto_map"}}
            | {"model_type": "granite", "initializer_range": _SPREAD, "attn_implementation": "eager"},
            embedding_multiplier=description["scale_emb"],
            residual_multiplier=description["scale_depth"] / description["num_hidden_layers"] ** 0.5,
            logits_scaling=description["hidden_size"] / description["dim_model_base"],
            attention_multiplier=(2 * _PAIRS) ** -0.5,
        )
    ).double()
    stored = store(model, storage)
    # Else the embeddings, times scale_emb, would drown what the layers add, and attention be nearly uniform.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.mul_(4)
                stored.tensors[name] = 4 * stored.tensors[name]
    if declared := (None if storage == GROUPED else stores.quantization_config(storage)):
        description["quantization_config"] = declared
    tokens = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1000000000000000019884624838656,
        "chat_template": _CHAT_TEMPLATE,
    }
    generation = {
        "do_sample": True,
        "top_p": 0.7,
        "temperature": 0.7,
        **{key: description[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    }
    return Built(model, stored, description, tokenizer, tokens, generation)


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    build(variant, storage, seed).write(directory)
