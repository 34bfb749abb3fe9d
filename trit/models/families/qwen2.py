# SPDX-License-Identifier: MIT
"""Qwen2's shape with ternary linear layers: LLaMA's with biases on q, k and v, and a graph that rotates halves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.models.families.llama import Llama
from trit.models.families.rope import KINDS


class Qwen2(Llama):
    """See the module's description."""

    architectures = ("Qwen2ForCausalLM",)
    architecture = "qwen2"
    scalings = KINDS
    pairs = False

    def attention_biases(self, config: Mapping[str, Any]) -> set[str]:
        """Qwen2's, which no key of the configuration switches off."""
        return {"q", "k", "v"}


FAMILY = Qwen2()
