# SPDX-License-Identifier: MIT
"""Qwen3.5's dense hybrid with ternary linear layers: Ternary-Bonsai-27B (Qwen3.6's shape, the same graph).

Three layers of four have linear attention (Gated DeltaNet), the fourth attends to everything, with a gate on what it
finds. Where value heads outnumber key heads, a checkpoint has the value heads of a key head side by side; the engine
repeats key heads by turns, so value heads change places: rows of what makes them, columns of what reads them. The
layers that predict further tokens (``mtp.*``) are blocks behind the others. The vision tower is a file of its own for
the engine (mmproj), so it is left out. What of a layer's small and further matrices is ternary, the checkpoint says.
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
    Turns,
    boolean,
    positive_int,
    positive_number,
    rope_parameters,
    rope_theta,
    text,
)
from trit.models.families.llama import FULL, head_layout

LINEAR = "linear_attention"
# transformers' defaults, where neither config.json nor rope_parameters says.
_INTERVAL, _SECTIONS, _ROTATED = 4, [11, 11, 10], 0.25
_VISION = "model.visual."
# transformers leaves these out of its model; upstream's names of their parts.
_FURTHER = (("fc", "eh_proj"), ("pre_fc_norm_embedding", "enorm"), ("pre_fc_norm_hidden", "hnorm"))
_FURTHER_NORM = ("norm", "shared_head_norm")


class Qwen35(Family):
    """See the module's description."""

    architectures = ("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM")

    def gguf_architecture(self, config: Mapping[str, Any]) -> str:
        """``qwen35``; raises UserError for what its graph does not compute."""
        activation = text(config, "hidden_act")
        if activation != "silu":
            raise UserError(f"config.json: hidden_act is {activation!r}, the engine's qwen35 graph has silu")
        if boolean(config, "attention_bias", False):
            raise UserError("config.json: attention_bias is true, the engine's qwen35 graph has no biases there")
        if not boolean(config, "attn_output_gate", True):
            raise UserError("config.json: attn_output_gate is false, the engine's qwen35 graph has that gate")
        if _further(config) > 1:
            raise UserError(
                f"config.json: mtp_num_hidden_layers is {config['mtp_num_hidden_layers']!a}, the engine's qwen35 graph "
                "has one; set it to 0 to convert the model without them"
            )
        if boolean(config, "mtp_use_dedicated_embeddings", False):
            raise UserError(
                "config.json: mtp_use_dedicated_embeddings is true, which is not supported; set it to false"
            )
        _interval(config)
        rope_theta(config)
        return "qwen35"

    def left_out(self, name: str, config: Mapping[str, Any]) -> str | None:
        """The vision tower, and further layers that config.json counts none of."""
        if name.startswith(_VISION):
            return "the vision tower is left out: the engine reads it from a file of its own (mmproj)"
        if name.startswith("mtp.") and not _further(config):
            return "layers that predict further tokens are left out, as mtp_num_hidden_layers says"
        return None

    def tensors(self, config: Mapping[str, Any]) -> list[TensorSpec]:
        """Embedding, blocks of either attention, last norm, head, the block that predicts further tokens."""
        hidden, vocab = positive_int(config, "hidden_size"), positive_int(config, "vocab_size")
        layers, interval = positive_int(config, "num_hidden_layers"), _interval(config)
        specs = [TensorSpec("model.embed_tokens.weight", "token_embd.weight", Kind.EMBEDDING, (vocab, hidden))]
        for i in range(layers):
            here, there = f"model.layers.{i}", f"blk.{i}"
            attention = _attention if (i + 1) % interval == 0 else _linear_attention
            specs += [*attention(config, here, there, Kind.TERNARY), *_rest(config, here, there, Kind.TERNARY)]
        specs.append(TensorSpec("model.norm.weight", "output_norm.weight", Kind.NORM, (hidden,), offset=1.0))
        if not boolean(config, "tie_word_embeddings", False):
            specs.append(TensorSpec("lm_head.weight", "output.weight", Kind.EMBEDDING, (vocab, hidden)))
        for i in range(_further(config)):
            here, there = f"mtp.layers.{i}", f"blk.{layers + i}"
            specs += [*_attention(config, here, there, Kind.EITHER), *_rest(config, here, there, Kind.EITHER)]
            join, *norms = ((f"mtp.{a}.weight", f"{there}.nextn.{b}.weight") for a, b in (*_FURTHER, _FURTHER_NORM))
            specs.append(TensorSpec(*join, Kind.EITHER, (hidden, 2 * hidden)))
            specs += [TensorSpec(*names, Kind.NORM, (hidden,), offset=1.0) for names in norms]
        return specs

    def write_hyperparameters(self, writer: GGUFWriter, config: Mapping[str, Any]) -> None:
        """The keys that the engine's graph reads."""
        heads, kv_heads, size = head_layout(config)
        keys, values, key_size, value_size = _linear_heads(config)
        rope = rope_parameters(config)[1]
        factor = positive_number({"partial_rotary_factor": _ROTATED, **config, **rope}, "partial_rotary_factor")
        writer.add_vocab_size(positive_int(config, "vocab_size"))
        writer.add_context_length(positive_int(config, "max_position_embeddings"))
        writer.add_embedding_length(positive_int(config, "hidden_size"))
        writer.add_block_count(positive_int(config, "num_hidden_layers") + _further(config))
        if _further(config):
            writer.add_nextn_predict_layers(_further(config))
        writer.add_feed_forward_length(positive_int(config, "intermediate_size"))
        writer.add_head_count(heads)
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(size)
        writer.add_value_length(size)
        writer.add_rope_dimension_count(int(size * factor))
        writer.add_rope_dimension_sections(_sections(rope, int(size * factor)))
        writer.add_rope_freq_base(rope_theta(config))
        writer.add_layer_norm_rms_eps(positive_number(config, "rms_norm_eps"))
        writer.add_full_attention_interval(_interval(config))
        writer.add_ssm_conv_kernel(positive_int(config, "linear_conv_kernel_dim"))
        writer.add_ssm_state_size(key_size)
        writer.add_ssm_group_count(keys)
        writer.add_ssm_time_step_rank(values)
        writer.add_ssm_inner_size(values * value_size)


def _attention(config: Mapping[str, Any], here: str, there: str, kind: Kind) -> list[TensorSpec]:
    """A layer that attends to everything; its queries come with their gates."""
    hidden, (heads, kv_heads, size) = positive_int(config, "hidden_size"), head_layout(config)
    shapes = (
        ("q", "attn_q", (2 * heads * size, hidden)),
        ("k", "attn_k", (kv_heads * size, hidden)),
        ("v", "attn_v", (kv_heads * size, hidden)),
        ("o", "attn_output", (hidden, heads * size)),
    )
    matrices = [
        TensorSpec(f"{here}.self_attn.{a}_proj.weight", f"{there}.{b}.weight", kind, shape) for a, b, shape in shapes
    ]
    norms = ((f"{here}.self_attn.{a}_norm.weight", f"{there}.attn_{a}_norm.weight") for a in "qk")
    return matrices + [TensorSpec(*names, Kind.NORM, (size,), offset=1.0) for names in norms]


def _linear_attention(config: Mapping[str, Any], here: str, there: str, kind: Kind) -> list[TensorSpec]:
    hidden, (keys, values, key_size, value_size) = positive_int(config, "hidden_size"), _linear_heads(config)
    mixed, inner = 2 * keys * key_size, values * value_size
    taps = positive_int(config, "linear_conv_kernel_dim")
    here = f"{here}.linear_attn"

    def turns(axis: int, size: int, skip: int = 0) -> Turns | None:
        return Turns(axis, skip, keys, size) if keys != values else None

    def spec(
        source: str, target: str, kind: Kind, shape: tuple[int, ...], order: Turns | None = None, **more: Any
    ) -> TensorSpec:
        return TensorSpec(f"{here}.{source}", f"{there}.{target}", kind, shape, turns=order, **more)

    channels = mixed + inner
    return [
        spec("in_proj_qkv.weight", "attn_qkv.weight", kind, (channels, hidden), turns(0, value_size, mixed)),
        spec("in_proj_z.weight", "attn_gate.weight", kind, (inner, hidden), turns(0, value_size)),
        spec("in_proj_a.weight", "ssm_alpha.weight", Kind.EITHER, (values, hidden), turns(0, 1)),
        spec("in_proj_b.weight", "ssm_beta.weight", Kind.EITHER, (values, hidden), turns(0, 1)),
        spec("out_proj.weight", "ssm_out.weight", kind, (hidden, inner), turns(1, value_size)),
        spec(
            "conv1d.weight", "ssm_conv1d.weight", Kind.NORM, (channels, taps), turns(0, value_size, mixed),
            stored=(channels, 1, taps),
        ),
        spec("A_log", "ssm_a", Kind.NORM, (values,), turns(0, 1), decays=True),
        spec("dt_bias", "ssm_dt.bias", Kind.BIAS, (values,), turns(0, 1)),
        spec("norm.weight", "ssm_norm.weight", Kind.NORM, (value_size,)),
    ]  # fmt: skip


def _rest(config: Mapping[str, Any], here: str, there: str, kind: Kind) -> list[TensorSpec]:
    """Norms and feed-forward matrices of any block."""
    hidden, ffn = positive_int(config, "hidden_size"), positive_int(config, "intermediate_size")
    norms = (("input_layernorm", "attn_norm"), ("post_attention_layernorm", "post_attention_norm"))
    shapes = (("gate", (ffn, hidden)), ("up", (ffn, hidden)), ("down", (hidden, ffn)))
    return [
        *(TensorSpec(f"{here}.{a}.weight", f"{there}.{b}.weight", Kind.NORM, (hidden,), offset=1.0) for a, b in norms),
        *(TensorSpec(f"{here}.mlp.{a}_proj.weight", f"{there}.ffn_{a}.weight", kind, shape) for a, shape in shapes),
    ]


def _further(config: Mapping[str, Any]) -> int:
    """How many layers predict further tokens."""
    if config.get("mtp_num_hidden_layers", 0) in (0, None):
        return 0
    return positive_int(config, "mtp_num_hidden_layers")


def _linear_heads(config: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """(key heads, value heads, size of a key head, of a value head) of linear attention; raises UserError."""
    names = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
    keys, values, key_size, value_size = (positive_int(config, name) for name in names)
    if values % keys:
        raise UserError(f"config.json: linear_num_value_heads is {values}, no multiple of {keys} linear_num_key_heads")
    if key_size != value_size:
        raise UserError(
            f"config.json: linear_key_head_dim is {key_size} and linear_value_head_dim {value_size}, the engine's "
            "qwen35 graph has them equal"
        )
    return keys, values, key_size, value_size


def _interval(config: Mapping[str, Any]) -> int:
    """Each so manieth layer attends to everything; raises UserError where layer_types says otherwise."""
    layers = positive_int(config, "num_hidden_layers")
    types = config.get("layer_types")
    if types is None:
        return positive_int({"full_attention_interval": _INTERVAL, **config}, "full_attention_interval")
    interval = types.index(FULL) + 1 if isinstance(types, list) and FULL in types else layers + 1
    if types != [LINEAR if (i + 1) % interval else FULL for i in range(layers)]:
        raise UserError(
            f"config.json: layer_types is {reprlib.repr(types)}, expected {layers} of {LINEAR}, with {FULL} at each "
            "so manieth"
        )
    return interval


def _sections(rope: Mapping[str, Any], rotated: int) -> list[int]:
    """How many rotated pairs go by time, height and width of a place in a picture, and a fourth that is unused.

    Where a small model does not say, all go by time, as they do for text whatever the numbers are.
    """
    given = rope.get("mrope_section")
    if given is None:
        return [*_SECTIONS, 0] if sum(_SECTIONS) == rotated // 2 else [max(rotated // 2, 1), 0, 0, 0]
    whole = isinstance(given, list) and len(given) == 3 and all(type(size) is int and size >= 0 for size in given)
    if not whole or sum(given) != rotated // 2:
        raise UserError(
            f"config.json: mrope_section is {reprlib.repr(given)}, expected three numbers that make up the "
            f"{rotated // 2} rotated pairs"
        )
    return [*given, 0]


FAMILY = Qwen35()
