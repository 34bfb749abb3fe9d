# SPDX-License-Identifier: MIT
"""Qwen3's dense shape with ternary linear layers: Ternary-Bonsai 1.7B, 4B and 8B, and microsoft/bitnet-embedding-0.6b.

LLaMA's shape with a norm of every query and key head, heads whose size is its own key, and a graph that rotates halves.
The embedding model is the decoder without a head (``Qwen3Model``); each of its linear layers has an RMS norm of its own
in front of it, which the engine's ``qwen3`` graph applies where the file has it (3rdparty/patches).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.gguf.types import GGUFWriter
from trit.models.families.base import TensorSpec
from trit.models.families.llama import Llama

# Defaults of transformers' Qwen3Config that are not LLaMA's.
DEFAULTS = {"use_sliding_window": False, "head_dim": 128, "max_position_embeddings": 32768}


class Qwen3(Llama):
    """See the module's description."""

    architectures = ("Qwen3ForCausalLM", "Qwen3Model")
    architecture = "qwen3"
    pairs = False
    head_norms = (("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"))
    input_norm = "norm"
    base_models = ("Qwen3Model",)

    def gguf_architecture(self, config: Mapping[str, Any]) -> str:
        """``qwen3``; raises UserError for what its graph does not compute."""
        return super().gguf_architecture({**DEFAULTS, **config})

    def tensors(self, config: Mapping[str, Any]) -> list[TensorSpec]:
        """LLaMA's, and the norms of the heads."""
        return super().tensors({**DEFAULTS, **config})

    def write_hyperparameters(self, writer: GGUFWriter, config: Mapping[str, Any]) -> None:
        """LLaMA's keys."""
        super().write_hyperparameters(writer, {**DEFAULTS, **config})


FAMILY = Qwen3()
