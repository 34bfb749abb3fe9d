# SPDX-License-Identifier: MIT
"""Hunyuan's dense shape with ternary linear layers: Hy-MT 1.8B, the translator, in 1.25 bits.

LLaMA's shape with a norm of every query and key head behind the rotary embedding, which the engine's ``hunyuan-dense``
graph has, too, and rotates halves. Its positions are stretched by a constant ``alpha``, which becomes part of the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.models.families.base import positive_number, rope_parameters
from trit.models.families.llama import Llama, head_layout
from trit.models.families.rope import KINDS, SCALING


class HunyuanDense(Llama):
    """See the module's description."""

    architectures = ("HunYuanDenseV1ForCausalLM",)
    architecture = "hunyuan-dense"
    scalings = KINDS
    pairs = False
    head_norms = (("self_attn.query_layernorm", "attn_q_norm"), ("self_attn.key_layernorm", "attn_k_norm"))

    def plain(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The configuration with ``alpha`` in the rotary base: base * alpha^(size / (size - 2)), as transformers."""
        kind, parameters = rope_parameters(config)
        if kind != "dynamic" or not parameters.get("alpha"):
            return config
        alpha = positive_number(parameters, "alpha", of=SCALING)
        size = head_layout(config)[2]
        base = positive_number({**config, **parameters}, "rope_theta") * alpha ** (size / (size - 2))
        return {**config, "rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": base}}


FAMILY = HunyuanDense()
