# SPDX-License-Identifier: MIT
"""BitNet b1.58 decoders: transformers' ``BitNetForCausalLM`` (BitNet-b1.58-2B-4T, our bundled model) and 1bitLLM's.

A LLaMA-like decoder with a norm before the output projection of attention and one before the down projection, a gate
with squared ReLU or SiLU, and rotary embeddings that rotate halves (NEOX order in the engine: q and k need no
permutation). 1bitLLM's models (bitnet_b1_58-large, -xl, -3B) come from code of their own, which names the two norms
differently and declares master weights by ``weight_bits``.
"""

from __future__ import annotations

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
    projection_norms,
    rope_theta,
    text,
    write_projection_norms,
)

# hidden_act -> the engine's architecture; they share tensors and keys and differ in the activation of the gate.
ARCHITECTURE_OF_ACTIVATION = {"relu2": "bitnet-b1.58", "silu": "bitnet"}
# The norms before the output projection and the down projection.
SUB_NORMS = ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm")
SUB_NORMS_1BITLLM = ("self_attn.inner_attn_ln", "mlp.ffn_layernorm")


class BitNet(Family):
    """See the module's description."""

    architectures = ("BitNetForCausalLM", "BitnetForCausalLM")

    def gguf_architecture(self, config: Mapping[str, Any]) -> str:
        """``bitnet-b1.58`` for squared ReLU, ``bitnet`` for SiLU."""
        activation = text(config, "hidden_act")
        if activation not in ARCHITECTURE_OF_ACTIVATION:
            known = " or ".join(ARCHITECTURE_OF_ACTIVATION)
            raise UserError(f"config.json: hidden_act is {activation!r}, the engine's BitNet graphs have {known}")
        return ARCHITECTURE_OF_ACTIVATION[activation]

    def tensors(self, config: Mapping[str, Any]) -> list[TensorSpec]:
        """Embedding, per block four norms and seven ternary matrices, last norm, head if not tied."""
        hidden, ffn = positive_int(config, "hidden_size"), positive_int(config, "intermediate_size")
        vocab, layers = positive_int(config, "vocab_size"), positive_int(config, "num_hidden_layers")
        heads, kv_heads = _heads(config)
        kv = hidden // heads * kv_heads
        sub_norms = SUB_NORMS_1BITLLM if "weight_bits" in config else SUB_NORMS
        specs = [TensorSpec("model.embed_tokens.weight", "token_embd.weight", Kind.EMBEDDING, (vocab, hidden))]
        for i in range(layers):
            rows = (
                ("input_layernorm", "attn_norm", Kind.NORM, (hidden,)),
                ("self_attn.q_proj", "attn_q", Kind.TERNARY, (hidden, hidden)),
                ("self_attn.k_proj", "attn_k", Kind.TERNARY, (kv, hidden)),
                ("self_attn.v_proj", "attn_v", Kind.TERNARY, (kv, hidden)),
                (sub_norms[0], "attn_sub_norm", Kind.NORM, (hidden,)),
                ("self_attn.o_proj", "attn_output", Kind.TERNARY, (hidden, hidden)),
                ("post_attention_layernorm", "ffn_norm", Kind.NORM, (hidden,)),
                ("mlp.gate_proj", "ffn_gate", Kind.TERNARY, (ffn, hidden)),
                ("mlp.up_proj", "ffn_up", Kind.TERNARY, (ffn, hidden)),
                (sub_norms[1], "ffn_sub_norm", Kind.NORM, (ffn,)),
                ("mlp.down_proj", "ffn_down", Kind.TERNARY, (hidden, ffn)),
            )
            for source, target, kind, shape in rows:
                names = f"model.layers.{i}.{source}", f"blk.{i}.{target}"
                specs.append(TensorSpec(f"{names[0]}.weight", f"{names[1]}.weight", kind, shape))
                if kind is Kind.TERNARY:
                    specs += projection_norms(config, *names, shape[-1])
        specs.append(TensorSpec("model.norm.weight", "output_norm.weight", Kind.NORM, (hidden,)))
        if not boolean(config, "tie_word_embeddings", False):
            specs.append(TensorSpec("lm_head.weight", "output.weight", Kind.EMBEDDING, (vocab, hidden)))
        return specs

    def write_hyperparameters(self, writer: GGUFWriter, config: Mapping[str, Any]) -> None:
        """The keys that the engine's ``bitnet`` graphs read."""
        heads, kv_heads = _heads(config)
        hidden = positive_int(config, "hidden_size")
        writer.add_vocab_size(positive_int(config, "vocab_size"))
        writer.add_context_length(positive_int(config, "max_position_embeddings"))
        writer.add_embedding_length(hidden)
        writer.add_block_count(positive_int(config, "num_hidden_layers"))
        writer.add_feed_forward_length(positive_int(config, "intermediate_size"))
        writer.add_head_count(heads)
        writer.add_head_count_kv(kv_heads)
        writer.add_rope_dimension_count(hidden // heads)
        writer.add_rope_freq_base(rope_theta(config))
        writer.add_layer_norm_rms_eps(positive_number(config, "rms_norm_eps"))
        write_projection_norms(writer, config)


def _heads(config: Mapping[str, Any]) -> tuple[int, int]:
    """(query heads, key/value heads); raises UserError if they do not divide the hidden size or each other."""
    hidden, heads = positive_int(config, "hidden_size"), positive_int(config, "num_attention_heads")
    kv_heads = heads if config.get("num_key_value_heads") is None else positive_int(config, "num_key_value_heads")
    head_size = hidden / heads if config.get("head_dim") is None else positive_int(config, "head_dim")
    if head_size * heads != hidden or hidden % heads or heads % kv_heads:
        raise UserError(
            f"config.json: {heads} query heads of {head_size:g} and {kv_heads} key/value heads do not fit "
            f"hidden_size {hidden}"
        )
    return heads, kv_heads


FAMILY = BitNet()
