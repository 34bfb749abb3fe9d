# SPDX-License-Identifier: MIT
"""Gemma 3: the keys of bitnet-embedding-270m, saved as ``Gemma3TextModel``, without "model." in its names.

Widths are tiny; the ratio of heads, the pattern of layers with a window, rotary bases and tying are the model's own;
the hidden size is a multiple of 128 but not of 256, as the model's 640. The tokenizer is of Gemma's kind (spaces are
replaced, none is put in front, bytes for what is no token), made from LLaMA's vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import Gemma3TextConfig, Gemma3TextModel, PreTrainedModel

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.linear_layers import (
    GROUPED,
    INPUT_NORMS,
    add_input_norms,
    declare_input_norms,
    store,
)
from tests.support.tiny_checkpoints.vocabularies import vocabulary_metadata

FAMILY = "gemma3"
STORAGE = (GROUPED, "master-bf16", "packed-autobitlinear", "fake-bf16")
VARIANTS = ("bitnet-embedding-270m", INPUT_NORMS)

_MERGED_TOKENS = 3000
# The sixth looks back over everything.
_LAYERS = 7
_WINDOW = 32
_MAX_POSITIONS = 512
_SPACE = "\u2581"
_CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>")


def gemma_tokenizer() -> Tokenizer:
    """A tokenizer of Gemma's kind that puts <bos> in front and <eos> at the end."""
    texts = vocabulary_metadata("llama-spm")["tokenizer.ggml.tokens"]
    merged = [text for text in texts[259:] if len(text) > 1][:_MERGED_TOKENS]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    characters = sorted(set("".join(merged)))
    vocab = {text: i for i, text in enumerate([*_CONTROL, *bytes_, *merged, *characters])}
    normal = {*merged, *characters}
    # As tokenizer.json is made of a SentencePiece model: every way to join two tokens to a third, in the third's order.
    merges = [
        (text[:i], text[i:])
        for text in merged
        for i in range(1, len(text))
        if text[:i] in normal and text[i:] in normal
    ]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in _CONTROL])
    ends = [(text, tokenizer.token_to_id(text)) for text in ("<bos>", "<eos>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    return tokenizer


def build(variant: str, storage: str, seed: int = 0, layers: int = _LAYERS) -> Built:
    """A variant's model, of as many layers, before it is written."""
    assert variant in VARIANTS and storage in STORAGE
    tokenizer = gemma_tokenizer()
    description: dict[str, Any] = {
        "architectures": ["Gemma3TextModel"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": None,
        "bos_token_id": tokenizer.token_to_id("<bos>"),
        "eos_token_id": tokenizer.token_to_id("<eos>"),
        "final_logit_softcapping": None,
        "head_dim": 128,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 384,
        "initializer_range": 0.02,
        "intermediate_size": 768,
        "layer_types": ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(layers)],
        "max_position_embeddings": _MAX_POSITIONS,
        "model_type": "gemma3_text",
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "num_key_value_heads": 1,
        "pad_token_id": tokenizer.token_to_id("<pad>"),
        "query_pre_attn_scalar": 128,
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "sliding_window": _WINDOW,
        "torch_dtype": "float16" if storage == GROUPED else "bfloat16",
        "use_bidirectional_attention": False,
        "use_cache": True,
        "vocab_size": -(-tokenizer.get_vocab_size() // 128) * 128,
    }
    torch.manual_seed(seed)
    config = Gemma3TextConfig(**{**description, "attn_implementation": "eager"})
    model: PreTrainedModel = Gemma3TextModel(config).double()
    if variant == INPUT_NORMS:
        declared = declare_input_norms(model, storage)
    else:
        add_input_norms(model, config.rms_norm_eps)
        declared = None if storage == GROUPED or "master" in storage else stores.quantization_config(storage)
    stored = store(model, storage)
    if declared:
        description["quantization_config"] = declared
    tokens = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "add_eos_token": True,
        "bos_token": "<bos>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<eos>",
        "model_max_length": _MAX_POSITIONS,
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    return Built(model, stored, description, tokenizer, tokens, pooling="lasttoken")


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    build(variant, storage, seed).write(directory)
