# SPDX-License-Identifier: MIT
"""Qwen3's dense shape with ternary linear layers: Ternary-Bonsai 1.7B, 4B and 8B, and microsoft/bitnet-embedding-0.6b.

LLaMA's shape with a norm of every query and key head, heads whose size is its own key, and a graph that rotates halves.
The embedding model is the decoder without a head (``Qwen3Model``); each of its linear layers has an RMS norm of its own
in front of it, which the engine's ``qwen3`` graph applies where the file has it (3rdparty/patches).
"""

from __future__ import annotations

from trit.models.families.llama import Llama
from trit.models.families.rope import KINDS


class Qwen3(Llama):
    """See the module's description."""

    architectures = ("Qwen3ForCausalLM", "Qwen3Model")
    architecture = "qwen3"
    scalings = KINDS
    pairs = False
    head_norms = (("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"))
    input_norm = "norm"
    base_models = ("Qwen3Model",)


FAMILY = Qwen3()
