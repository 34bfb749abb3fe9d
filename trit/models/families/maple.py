# SPDX-License-Identifier: MIT
"""Maple's mixture of experts: deepgrove's 20B-A1B, of which 1B counts for a token.

A checkpoint has each expert's three matrices by themselves, with a scale for each row; a file has those of all experts
of a layer in one tensor. Three layers of four look back over a window and rotate a half of each head; the fourth sees
everything and rotates nothing. The router stays float32, as it is computed. Gate and up are clamped before they meet.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from trit.base.errors import UserError
from trit.gguf.types import GGUFWriter
from trit.models.families.base import (
    Family,
    Kind,
    TensorSpec,
    boolean,
    positive_int,
    positive_number,
    rope_parameters,
    rope_theta,
    text,
)
from trit.models.families.llama import FULL, SLIDING, head_layout

# What modeling_maple.py clamps to; config.json does not say it.
CLAMP = 7.0


class Maple(Family):
    """See the module's description."""

    architectures = ("MapleForCausalLM",)

    def gguf_architecture(self, config: Mapping[str, Any]) -> str:
        """``maple``; raises UserError for what its graph does not compute."""
        if (activation := text(config, "hidden_act")) != "silu":
            raise UserError(f"config.json: hidden_act is {activation!r}, the engine's maple graph has silu")
        fixed = {"nope_on_global_attention": True, "norm_topk_prob": True, "tie_word_embeddings": False}
        for key, wanted in {**fixed, "use_bias": False, "use_qk_norm": True}.items():
            if boolean(config, key, wanted) is not wanted:
                raise UserError(f"config.json: {key} is {not wanted}, the engine's maple graph has {wanted}")
        for key in ("num_shared_experts", "first_k_dense_replace"):
            if config.get(key):
                raise UserError(f"config.json: {key} is {config[key]!r}, the engine's maple graph has experts alone")
        return "maple"

    def tensors(self, config: Mapping[str, Any]) -> list[TensorSpec]:
        """Embedding, per block four norms, four matrices, the router and three stacks of experts, last norm, head."""
        hidden, forward = positive_int(config, "hidden_size"), positive_int(config, "moe_intermediate_size")
        vocab, layers = positive_int(config, "vocab_size"), positive_int(config, "num_hidden_layers")
        heads, kv_heads, size = head_layout(config)
        experts = positive_int(config, "num_experts")
        specs = [TensorSpec("model.word_embeddings.weight", "token_embd.weight", Kind.EMBEDDING, (vocab, hidden))]
        for i in range(layers):
            rows = (
                ("input_layernorm", "attn_norm", Kind.NORM, (hidden,)),
                ("self_attn.q_proj", "attn_q", Kind.TERNARY, (heads * size, hidden)),
                ("self_attn.k_proj", "attn_k", Kind.TERNARY, (kv_heads * size, hidden)),
                ("self_attn.v_proj", "attn_v", Kind.TERNARY, (kv_heads * size, hidden)),
                ("self_attn.q_norm", "attn_q_norm", Kind.NORM, (size,)),
                ("self_attn.k_norm", "attn_k_norm", Kind.NORM, (size,)),
                ("self_attn.o_proj", "attn_output", Kind.TERNARY, (hidden, heads * size)),
                ("post_attention_layernorm", "ffn_norm", Kind.NORM, (hidden,)),
                ("mlp.gate", "ffn_gate_inp", Kind.ROUTER, (experts, hidden)),
            )
            for source, target, kind, shape in rows:
                names = f"model.layers.{i}.{source}.weight", f"blk.{i}.{target}.weight"
                specs.append(TensorSpec(*names, kind, shape))
            for name, shape in (("gate", (forward, hidden)), ("up", (forward, hidden)), ("down", (hidden, forward))):
                stack = [f"model.layers.{i}.mlp.experts.{expert}.{name}_proj.weight" for expert in range(experts)]
                target = f"blk.{i}.ffn_{name}_exps.weight"
                specs.append(TensorSpec(stack[0], target, Kind.TERNARY, (experts, *shape), others=tuple(stack[1:])))
        specs.append(TensorSpec("model.norm.weight", "output_norm.weight", Kind.NORM, (hidden,)))
        specs.append(TensorSpec("lm_head.weight", "output.weight", Kind.EMBEDDING, (vocab, hidden)))
        return specs

    def write_hyperparameters(self, writer: GGUFWriter, config: Mapping[str, Any]) -> None:
        """The keys that the engine's graph reads."""
        heads, kv_heads, size = head_layout(config)
        layers, experts = positive_int(config, "num_hidden_layers"), positive_int(config, "num_experts")
        used = positive_int(config, "num_experts_per_tok")
        if used > experts:
            raise UserError(f"config.json: num_experts_per_tok is {used} of {experts} experts")
        share = positive_number({**config, **rope_parameters(config)[1]}, "partial_rotary_factor")
        rotated = int(size * share)
        if rotated % 2 or not 0 < rotated <= size:
            raise UserError(f"config.json: partial_rotary_factor {share:g} turns {rotated} inputs of heads of {size}")
        writer.add_vocab_size(positive_int(config, "vocab_size"))
        writer.add_context_length(positive_int(config, "max_position_embeddings"))
        writer.add_embedding_length(positive_int(config, "hidden_size"))
        writer.add_block_count(layers)
        writer.add_head_count(heads)
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(size)
        writer.add_value_length(size)
        writer.add_rope_dimension_count(rotated)
        writer.add_rope_freq_base(rope_theta(config))
        writer.add_layer_norm_rms_eps(positive_number(config, "rms_norm_eps"))
        writer.add_expert_count(experts)
        writer.add_expert_used_count(used)
        forward = positive_int(config, "moe_intermediate_size")
        writer.add_feed_forward_length(forward)
        writer.add_expert_feed_forward_length(forward)
        writer.add_swiglu_clamp_exp([CLAMP] * layers)
        writer.add_sliding_window(positive_int(config, "sliding_window"))
        writer.add_sliding_window_pattern([kind == SLIDING for kind in _layer_types(config, layers)])


def _layer_types(config: Mapping[str, Any], layers: int) -> list[str]:
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != layers or not set(map(str, kinds)) <= {SLIDING, FULL}:
        raise UserError(
            f"config.json: layer_types is {reprlib.repr(kinds)}, expected {layers} times {SLIDING} or {FULL}"
        )
    return kinds


FAMILY = Maple()
