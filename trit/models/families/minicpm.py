# SPDX-License-Identifier: MIT
"""MiniCPM's shape with ternary linear layers: BitCPM-CANN 0.5B, 1B, 3B and 8B.

LLaMA's shape with three constants: embeddings times ``scale_emb``, what each attention and feed-forward adds times
``scale_depth`` / sqrt(layers), and the head's input divided by ``hidden_size`` / ``dim_model_base``. The engine's
``minicpm`` graph has them as keys. Its positions may be LongRoPE's: factors for short and for long contexts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trit.base.errors import UserError
from trit.gguf.types import GGUFWriter
from trit.models.families.base import positive_int, positive_number
from trit.models.families.llama import Llama
from trit.models.families.rope import LONGROPE


class MiniCPM(Llama):
    """See the module's description."""

    architectures = ("MiniCPMForCausalLM",)
    architecture = "minicpm"
    scalings = ("default", "linear", LONGROPE)

    def gguf_architecture(self, config: Mapping[str, Any]) -> str:
        """``minicpm``; raises UserError for what its graph does not compute."""
        if config.get("num_experts"):
            raise UserError("config.json: num_experts, so this is MiniCPM-MoE, which is not supported; MiniCPM's is")
        if config.get("sparse_config"):
            raise UserError(
                "config.json: sparse_config, attention to a part of the context, is not supported; without it the "
                "model attends to all of it: take sparse_config out"
            )
        return super().gguf_architecture(config)

    def write_hyperparameters(self, writer: GGUFWriter, config: Mapping[str, Any]) -> None:
        """LLaMA's keys, and the three constants."""
        super().write_hyperparameters(writer, config)
        layers, hidden = positive_int(config, "num_hidden_layers"), positive_int(config, "hidden_size")
        writer.add_embedding_scale(positive_number(config, "scale_emb"))
        writer.add_residual_scale(positive_number(config, "scale_depth") / math.sqrt(layers))
        writer.add_logit_scale(hidden / positive_number(config, "dim_model_base"))


FAMILY = MiniCPM()
