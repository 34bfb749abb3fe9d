# SPDX-License-Identifier: MIT
"""Decoders of LLaMA's shape with ternary linear layers, and LLaMA's own two norms per block.

Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E, and what transformers' BitNet integration, onebitllms or axolotl make of a
LLaMA or Mistral model. The engine's ``llama`` graph rotates neighbouring pairs (RoPE type NORM) where transformers
rotates halves, so the rows of q and k change places within each head.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from trit.base.errors import UserError
from trit.gguf.types import GGUFWriter
from trit.models.families.base import (
    Family,
    Floats,
    Kind,
    TensorSpec,
    boolean,
    positive_int,
    positive_number,
    projection_norms,
    text,
    write_projection_norms,
)
from trit.models.families.rope import KINDS, LONGROPE, check_scaling, llama3_factors, longrope_factors, write_scaling

# What a layer looks back over, in layer_types.
SLIDING, FULL = "sliding_attention", "full_attention"


class Llama(Family):
    """See the module's description."""

    architectures: tuple[str, ...] = ("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM")
    architecture = "llama"
    # Whether q and k change from halves to pairs.
    pairs = True
    # Of a block: norms of the hidden size, and norms of the size of a head.
    block_norms: tuple[tuple[str, str], ...] = (
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    )
    head_norms: tuple[tuple[str, str], ...] = ()
    # What is missing in the stored values of these norms.
    norm_offset = 0.0
    # What a linear layer calls the norm of its own input, if the family knows it.
    input_norm = ""
    # Saved without a head, whatever config.json says of it.
    base_models: tuple[str, ...] = ()
    # Kinds of RoPE scaling that model and graph know. LongRoPE: BitCPM-CANN-1B.
    scalings: tuple[str, ...] = (*KINDS, LONGROPE)

    def plain(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The configuration in the words of LLaMA's, where the family has one of its own for the rotary embedding."""
        return config

    def gguf_architecture(self, config: Mapping[str, Any]) -> str:
        """``llama``; raises UserError for what its graph does not compute."""
        check_scaling(self.plain(config), self.scalings)
        activation = text(config, "hidden_act")
        if activation != "silu":
            raise UserError(
                f"config.json: hidden_act is {activation!r}, the engine's {self.architecture} graph has silu"
            )
        context = positive_int(config, "max_position_embeddings")
        used = config.get("sliding_window") is not None and boolean(config, "use_sliding_window", True)
        window = positive_int(config, "sliding_window") if used else context
        # A window that nothing reaches beyond is none.
        if others := set(config.get("layer_types") or []) - ({FULL, SLIDING} if used else {FULL}):
            raise UserError(
                f"config.json: layer_types has {reprlib.repr(min(others))}, the engine's {self.architecture} graph has "
                f"{FULL} alone"
            )
        if window < context:
            raise UserError(
                f"config.json: sliding_window {window} in a context of {context} is not supported; set "
                f"max_position_embeddings to {window} to use the model in that context"
            )
        return self.architecture

    def attention_biases(self, config: Mapping[str, Any]) -> set[str]:
        """The projections of attention that have a bias."""
        return {"q", "k", "v", "o"} if boolean(config, "attention_bias", False) else set()

    def tensors(self, config: Mapping[str, Any]) -> list[TensorSpec]:
        """Embedding, per block the norms, seven ternary matrices, their biases and input norms, last norm, head."""
        hidden, ffn = positive_int(config, "hidden_size"), positive_int(config, "intermediate_size")
        vocab, layers = positive_int(config, "vocab_size"), positive_int(config, "num_hidden_layers")
        heads, kv_heads, size = head_layout(config)
        biased = self.attention_biases(config)
        mlp_bias = boolean(config, "mlp_bias", False)
        linears = (
            ("self_attn.q_proj", "attn_q", (heads * size, hidden), "q" in biased, heads),
            ("self_attn.k_proj", "attn_k", (kv_heads * size, hidden), "k" in biased, kv_heads),
            ("self_attn.v_proj", "attn_v", (kv_heads * size, hidden), "v" in biased, 0),
            ("self_attn.o_proj", "attn_output", (hidden, heads * size), "o" in biased, 0),
            ("mlp.gate_proj", "ffn_gate", (ffn, hidden), mlp_bias, 0),
            ("mlp.up_proj", "ffn_up", (ffn, hidden), mlp_bias, 0),
            ("mlp.down_proj", "ffn_down", (hidden, ffn), mlp_bias, 0),
        )
        specs = [TensorSpec("model.embed_tokens.weight", "token_embd.weight", Kind.EMBEDDING, (vocab, hidden))]
        for i in range(layers):
            here, there = f"model.layers.{i}", f"blk.{i}"
            norms = [(*names, hidden) for names in self.block_norms] + [(*names, size) for names in self.head_norms]
            for source, target, width in norms:
                names = f"{here}.{source}.weight", f"{there}.{target}.weight"
                specs.append(TensorSpec(*names, Kind.NORM, (width,), offset=self.norm_offset))
            for source, target, shape, bias, rope_heads in linears:
                names, order = (f"{here}.{source}", f"{there}.{target}"), rope_heads if self.pairs else 0
                specs.append(TensorSpec(f"{names[0]}.weight", f"{names[1]}.weight", Kind.TERNARY, shape, order))
                if bias:
                    specs.append(TensorSpec(f"{names[0]}.bias", f"{names[1]}.bias", Kind.BIAS, shape[:1], order))
                specs += projection_norms(config, *names, shape[1])
                if self.input_norm:
                    norm = f"{names[0]}.{self.input_norm}.weight", f"{names[1]}_norm_in.weight"
                    specs.append(TensorSpec(*norm, Kind.INPUT_NORM, shape[1:]))
        last = TensorSpec("model.norm.weight", "output_norm.weight", Kind.NORM, (hidden,), offset=self.norm_offset)
        specs.append(last)
        headless = set(self.base_models) & set(config.get("architectures") or [])
        if not headless and not boolean(config, "tie_word_embeddings", False):
            specs.append(TensorSpec("lm_head.weight", "output.weight", Kind.EMBEDDING, (vocab, hidden)))
        return specs

    def computed(self, config: Mapping[str, Any]) -> dict[str, Floats]:
        """The frequency factors of LLaMA 3.1's RoPE, or LongRoPE's."""
        size = head_layout(config)[2]
        factors = llama3_factors(config, size)
        return longrope_factors(config, size) if factors is None else {"rope_freqs.weight": factors}

    def write_hyperparameters(self, writer: GGUFWriter, config: Mapping[str, Any]) -> None:
        """The keys that the engine's graph reads."""
        heads, kv_heads, size = head_layout(config)
        writer.add_vocab_size(positive_int(config, "vocab_size"))
        writer.add_context_length(positive_int(config, "max_position_embeddings"))
        writer.add_embedding_length(positive_int(config, "hidden_size"))
        writer.add_block_count(positive_int(config, "num_hidden_layers"))
        writer.add_feed_forward_length(positive_int(config, "intermediate_size"))
        writer.add_head_count(heads)
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(size)
        writer.add_value_length(size)
        writer.add_rope_dimension_count(size)
        write_scaling(writer, self.plain(config))
        writer.add_layer_norm_rms_eps(positive_number(config, "rms_norm_eps"))
        write_projection_norms(writer, config)


def head_layout(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """(query heads, key/value heads, size of a head); raises UserError if they do not fit each other."""
    hidden, heads = positive_int(config, "hidden_size"), positive_int(config, "num_attention_heads")
    kv_heads = heads if config.get("num_key_value_heads") is None else positive_int(config, "num_key_value_heads")
    given = config.get("head_dim") is not None
    size = positive_int(config, "head_dim") if given else hidden // heads
    if (not given and hidden % heads) or heads % kv_heads or size % 2:
        raise UserError(
            f"config.json: {heads} query heads of {hidden / heads if not given else size:g} and {kv_heads} key/value "
            f"heads do not fit hidden_size {hidden}"
        )
    return heads, kv_heads, size


FAMILY = Llama()
