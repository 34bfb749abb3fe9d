# SPDX-License-Identifier: MIT
"""What transformers takes for keys that a config.json leaves out: the defaults of each configuration class.

Rows are copied from transformers 5.23; tests/models/test_config_defaults.py compares them with what is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Defaults:
    """The defaults of one class: its name in transformers, and key -> value."""

    source: str
    values: Mapping[str, Any]


_ALL: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
LLAMA = Defaults(
    "LlamaConfig",
    {
        **_ALL,
        "vocab_size": 32000,
        "intermediate_size": 11008,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 10000.0,
    },
)
MISTRAL = Defaults(
    "MistralConfig",
    {
        **_ALL,
        "vocab_size": 32000,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "hidden_act": "silu",
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "rope_theta": 10000.0,
    },
)
BITNET = Defaults(
    "BitNetConfig",
    {
        "vocab_size": 128256,
        "hidden_size": 2560,
        "intermediate_size": 6912,
        "num_hidden_layers": 30,
        "num_attention_heads": 20,
        "num_key_value_heads": 5,
        "hidden_act": "relu2",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "rope_theta": 500000.0,
    },
)
_QWEN = {
    **_ALL,
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "rope_theta": 10000.0,
}
QWEN2 = Defaults("Qwen2Config", _QWEN)
QWEN3 = Defaults("Qwen3Config", {**_QWEN, "head_dim": 128, "attention_bias": False})
GEMMA3 = Defaults(
    "Gemma3TextConfig",
    {
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
    },
)
QWEN35 = Defaults(
    "Qwen3_5TextConfig",
    {
        "vocab_size": 248320,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "rope_theta": 10000.0,
    },
)
# Its class comes with its checkpoints (configuration_minicpm.py), not with transformers.
MINICPM = Defaults(
    "MiniCPMConfig",
    {
        **LLAMA.values,
        "tie_word_embeddings": True,
        "scale_emb": 1,
        "dim_model_base": 1,
        "scale_depth": 1,
    },
)
HUNYUAN_DENSE = Defaults(
    "HunYuanDenseV1Config",
    {
        **_ALL,
        "vocab_size": 290943,
        "intermediate_size": 11008,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "rope_theta": 10000.0,
    },
)
# As MiniCPM's (configuration_maple.py).
MAPLE = Defaults(
    "MapleConfig",
    {
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 4096,
        "moe_intermediate_size": 512,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "hidden_act": "silu",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "sliding_window": 512,
    },
)
# 1bitLLM's class is a copy of LLaMA's; its config.json calls itself one.
BY_ARCHITECTURE = {
    "LlamaForCausalLM": LLAMA,
    "LLaMAForCausalLM": LLAMA,
    "BitnetForCausalLM": LLAMA,
    "MistralForCausalLM": MISTRAL,
    "BitNetForCausalLM": BITNET,
    "Qwen2ForCausalLM": QWEN2,
    "Qwen3ForCausalLM": QWEN3,
    "Qwen3Model": QWEN3,
    "Qwen3_5ForConditionalGeneration": QWEN35,
    "Qwen3_5ForCausalLM": QWEN35,
    "Gemma3ForCausalLM": GEMMA3,
    "Gemma3TextModel": GEMMA3,
    "MiniCPMForCausalLM": MINICPM,
    "HunYuanDenseV1ForCausalLM": HUNYUAN_DENSE,
    "MapleForCausalLM": MAPLE,
}
# What tensors have to fit.
SIZES = {
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
}


def text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a multimodal model's text part, which such a config.json has inside; others as they are."""
    inside = config.get("text_config")
    if not isinstance(inside, Mapping):
        return dict(config)
    own = {key: value for key, value in config.items() if key not in ("text_config", "vision_config", "model_type")}
    return {**own, **inside, "architectures": config.get("architectures")}


def complete(config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A configuration with transformers' defaults for what it leaves out, and who asks for the sizes in it.

    The latter is for messages: "config.json", and the sizes that are not in it where there are such. A configuration
    of an architecture that no family knows stays as it is.
    """
    config = text_part(config)
    known = next((BY_ARCHITECTURE[name] for name in config.get("architectures") or [] if name in BY_ARCHITECTURE), None)
    if known is None:
        return dict(config), "config.json"
    taken = [f"{key} {known.values[key]}" for key in known.values if key in SIZES - config.keys() and known.values[key]]
    asks = f"config.json with {known.source}'s defaults ({', '.join(taken)})" if taken else "config.json"
    return {**known.values, **config}, asks
