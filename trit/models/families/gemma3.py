# SPDX-License-Identifier: MIT
"""Gemma 3's text model with ternary linear layers: microsoft/bitnet-embedding-270m.

Norms before and after attention and feed-forward, norms of query and key heads, all stored as weight - 1; a gate with
GELU; most layers look back over a window only and have a rotary base of their own. The norms that a BitNet model has in
front of its linear layers are plain ones: their weights are stored as they are (a comment in bitnet.cpp's converter).
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from trit.base.errors import UserError
from trit.gguf.types import GGUFWriter
from trit.models.families.base import (
    Floats,
    TensorSpec,
    boolean,
    positive_int,
    positive_number,
    rope_parameters,
    table,
    text,
)
from trit.models.families.llama import FULL, SLIDING, Llama, head_layout
from trit.models.families.rope import KINDS

# Every so manieth layer looks back over everything, where config.json has no layer_types.
DEFAULT_PATTERN = 6


class Gemma3(Llama):
    """See the module's description."""

    architectures = ("Gemma3ForCausalLM", "Gemma3TextModel")
    architecture = "gemma3"
    scalings = KINDS
    pairs = False
    block_norms = (
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "post_attention_norm"),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
    )
    head_norms = (("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"))
    norm_offset = 1.0
    input_norm = "norm"
    base_models = ("Gemma3TextModel",)

    def gguf_architecture(self, config: Mapping[str, Any]) -> str:
        """``gemma3``; raises UserError for what its graph does not compute."""
        full = _of_full_layers(config)
        activation, scalar = text(full, "hidden_activation"), positive_number(full, "query_pre_attn_scalar")
        size = head_layout(full)[2]
        if activation != "gelu_pytorch_tanh":
            raise UserError(
                f"config.json: hidden_activation is {activation!r}, the engine's gemma3 graph has gelu_pytorch_tanh"
            )
        if scalar != size:
            raise UserError(
                f"config.json: query_pre_attn_scalar is {scalar:g}, the engine's gemma3 graph has head_dim ({size})"
            )
        if boolean(full, "use_bidirectional_attention", False):
            raise UserError(
                "config.json: use_bidirectional_attention is true, the engine's gemma3 graph looks back only"
            )
        if full.get("attn_logit_softcapping"):
            raise UserError("config.json: attn_logit_softcapping is set, which the engine's gemma3 graph has not")
        if rope_parameters(full)[0] == "llama3":
            raise UserError("config.json: rope scaling of type llama3 is not supported, gemma3's graph has not got it")
        return super().gguf_architecture({**full, "hidden_act": "silu", "sliding_window": None, "layer_types": None})

    def tensors(self, config: Mapping[str, Any]) -> list[TensorSpec]:
        """LLaMA's with two more norms per block, and the norms of the heads."""
        return super().tensors(_of_full_layers(config))

    def computed(self, config: Mapping[str, Any]) -> dict[str, Floats]:
        """Nothing: LLaMA 3's scaling is refused."""
        return {}

    def write_hyperparameters(self, writer: GGUFWriter, config: Mapping[str, Any]) -> None:
        """LLaMA's keys, those of the window, and the cap of the logits."""
        full = _of_full_layers(config)
        super().write_hyperparameters(writer, full)
        if full.get("final_logit_softcapping"):
            writer.add_final_logit_softcapping(positive_number(full, "final_logit_softcapping"))
        kinds = _layer_types(full)
        if SLIDING not in kinds:
            return
        writer.add_sliding_window(positive_int(full, "sliding_window"))
        writer.add_sliding_window_pattern([kind == SLIDING for kind in kinds])
        writer.add_rope_freq_base_swa(_local_theta(config))


def _of_full_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the rotary parameters of the layers that see everything at its top, for LLaMA's code.

    transformers adds ``rope_scaling`` to what ``rope_parameters`` has for these layers.
    """
    rope, scaling = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    if others := rope.keys() - {FULL, SLIDING}:
        raise UserError(
            f"config.json: rope_parameters has {min(others)!a}, expected {FULL} and {SLIDING}, each with its own"
        )
    if "type" in scaling and "rope_type" not in scaling:
        raise UserError(
            "config.json: rope_scaling has type and no rope_type, which transformers 5 ignores and 4 did not; name it "
            "rope_type, or take rope_scaling away"
        )
    return {**config, "rope_parameters": {**table(rope, FULL), **scaling}, "rope_scaling": None}


def _local_theta(config: Mapping[str, Any]) -> float:
    """Base of the rotary embedding of the layers with a window; raises UserError if their positions are scaled."""
    local = table(config.get("rope_parameters") or {}, SLIDING)
    if (kind := local.get("rope_type", local.get("type", "default"))) != "default":
        raise UserError(f"config.json: {SLIDING} has rope scaling {reprlib.repr(kind)}, which gemma3's graph has not")
    return positive_number({"rope_theta": config["rope_local_base_freq"], **local}, "rope_theta", of=SLIDING)


def _layer_types(config: Mapping[str, Any]) -> list[str]:
    """What each layer looks back over; raises UserError if it is said of too few layers, or of an unknown kind."""
    layers = positive_int(config, "num_hidden_layers")
    pattern = positive_int({"sliding_window_pattern": DEFAULT_PATTERN, **config}, "sliding_window_pattern")
    types = config.get("layer_types") or [SLIDING if (i + 1) % pattern else FULL for i in range(layers)]
    if len(types) != layers or not set(types) <= {SLIDING, FULL}:
        raise UserError(
            f"config.json: layer_types has {len(types)} entries of {reprlib.repr(sorted(set(types)))}, expected "
            f"{layers} of {SLIDING} and {FULL}"
        )
    return list(types)


FAMILY = Gemma3()
