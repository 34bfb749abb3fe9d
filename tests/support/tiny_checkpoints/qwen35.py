# SPDX-License-Identifier: MIT
"""Qwen3.5's dense hybrid: the keys of Ternary-Bonsai-27B, whose config.json has the text model inside.

Widths are tiny; the ratios of heads, the sizes of heads of linear attention, sections and share of the rotary embedding
are the model's own. ``text`` is saved by the class without vision, its value heads as many as its key heads. The
first of them has a layer that predicts further tokens and a tensor of a vision tower beside the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5DecoderLayer, Qwen3_5RMSNorm

from tests.support.tiny_checkpoints import storage as stores
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.linear_layers import GROUPED, store_grouped
from tests.support.tiny_checkpoints.vocabularies import read_bpe
from trit.convert.pretokenizers import QWEN_3_5

FAMILY = "qwen35"
STORAGE = (GROUPED, "fake-bf16", "master-bf16")
VARIANTS = ("Ternary-Bonsai-27B", "text")

_NORMAL_TOKENS = 3840
_MAX_POSITIONS = 512
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Projections of linear attention whose rows are heads: floats in some models.
SMALL = ("in_proj_a.weight", "in_proj_b.weight")
_NAMES = ("in_proj_qkv.weight", "in_proj_z.weight", *SMALL, "_proj.weight", "mtp.fc.weight")


class Further(torch.nn.Module):
    """The layer that predicts the token after the next, by the names of its tensors; transformers has no class for it.

    Of the normed hidden state of a token and the embedding of the next one.
    """

    def __init__(self, config: Qwen3_5TextConfig) -> None:
        super().__init__()
        full = Qwen3_5TextConfig(**{**config.to_dict(), "num_hidden_layers": 1, "layer_types": ["full_attention"]})
        full._attn_implementation = "eager"
        self.fc = torch.nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.layers = torch.nn.ModuleList([Qwen3_5DecoderLayer(full, 0)])
        for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
            self.add_module(name, Qwen3_5RMSNorm(config.hidden_size, eps=config.rms_norm_eps))


def is_ternary(name: str) -> bool:
    """Whether a parameter is the weight of a linear layer."""
    return name.endswith(_NAMES)


def qwen35_tokenizer() -> Tokenizer:
    """Qwen's byte-level BPE cut down to its first tokens, with Qwen3.5's expression."""
    bpe = read_bpe("qwen2", _NORMAL_TOKENS)
    tokenizer = Tokenizer(models.BPE(bpe.vocab, bpe.merges))
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_3_5), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in bpe.control])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ("<think>", "</think>")])
    return tokenizer


def text_config(variant: str, tokenizer: Tokenizer, layers: int) -> dict[str, Any]:
    """The keys of the text model."""
    interval = min(4, layers)
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_output_gate": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "full_attention_interval": interval,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 256,
        "initializer_range": 0.02,
        "intermediate_size": 768,
        "layer_types": ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(layers)],
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 64,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2 if variant == "text" else 6,
        "linear_value_head_dim": 64,
        "max_position_embeddings": _MAX_POSITIONS,
        "model_type": "qwen3_5_text",
        "num_attention_heads": 4,
        "num_hidden_layers": layers,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": [3, 3, 2],
            "partial_rotary_factor": 0.25,
            "rope_theta": 10000000.0,
            "rope_type": "default",
        },
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": -(-tokenizer.get_vocab_size() // 128) * 128,
    }


def build(variant: str, storage: str, seed: int = 0, layers: int = 4, further: int = 1, small: bool = True) -> Built:
    """A variant's model, of as many layers, before it is written.

    Args:
        variant: One of ``VARIANTS``.
        storage: One of ``STORAGE``.
        seed: Of the random weights.
        layers: How many; the fourth, or the last of fewer, attends to everything.
        further: Layers that predict further tokens, of the variant with a vision tower.
        small: Whether the matrices of ``SMALL`` are ternary, too.
    """
    assert variant in VARIANTS and storage in STORAGE
    tokenizer = qwen35_tokenizer()
    description = text_config(variant, tokenizer, layers)
    further = 0 if variant == "text" else further
    torch.manual_seed(seed)
    config = Qwen3_5TextConfig(**{**description, "attn_implementation": "eager"})
    model = Qwen3_5ForCausalLM(config).double()
    if further:
        model.add_module("mtp", Further(config).double())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("conv1d.weight"):
                parameter.copy_(torch.randn_like(parameter) * 0.5)

    def ternary(name: str) -> bool:
        return is_ternary(name) and (small or not name.endswith(SMALL))

    grouped = storage == GROUPED
    stored = store_grouped(model, ternary) if grouped else stores.store_model(model, storage, ternary)
    written: dict[str, Any] = {"architectures": ["Qwen3_5ForCausalLM"], **description}
    if variant != "text":
        names = {name: name if name.startswith("mtp.") else _wrapped(name) for name in stored.tensors}
        stored.tensors = {names[name]: tensor for name, tensor in stored.tensors.items()}
        stored.tensors["model.visual.patch_embed.proj.bias"] = torch.zeros(8)
        written = {
            "architectures": ["Qwen3_5ForConditionalGeneration"],
            "image_token_id": 5,
            "model_type": "qwen3_5",
            "text_config": {**description, "mtp_num_hidden_layers": further, "mtp_use_dedicated_embeddings": False},
            "tie_word_embeddings": False,
            "vision_config": {"depth": 1, "hidden_size": 8, "model_type": "qwen3_5_vision"},
        }
    if declared := None if storage == GROUPED else stores.quantization_config(storage):
        written["quantization_config"] = declared
    tokens: dict[str, Any] = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": _MAX_POSITIONS,
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    stops = [description["eos_token_id"], tokenizer.token_to_id("<|endoftext|>")]
    return Built(model, stored, written, tokenizer, tokens, {"do_sample": True, "eos_token_id": stops})


def _wrapped(name: str) -> str:
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def make(directory: Path, variant: str, storage: str, seed: int = 0) -> None:
    """Write the folder; see ``TinyFamily`` in this package."""
    build(variant, storage, seed).write(directory)
