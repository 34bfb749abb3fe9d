# SPDX-License-Identifier: MIT
"""Linear layers that transformers has not: scales for groups of inputs, and a norm of a layer's own in front of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_checkpoints.storage import Stored, is_projection, quantization_config, store_model

GROUPED = "grouped-f16"
"""Float16 values -s, 0, +s with an s of its own for every 128 inputs, embedding and head too (Ternary-Bonsai)."""
GROUP = 128


INPUT_NORMS = "use_rms_norm"
"""The variant of a family that transformers' BitNet integration makes of its model with this option."""
INPUT_NORM_EPSILON = 1e-6
"""What transformers gives the norms of its option ``use_rms_norm``, whatever epsilon the model has."""


class NormedLinear(nn.Module):
    """``linear(norm(x))``: a BitNet layer as microsoft/bitnet-embedding-* name its parameters, without rounding."""

    norm_name = "norm"

    def __init__(self, linear: nn.Linear, epsilon: float) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        norm = nn.RMSNorm(linear.in_features, eps=epsilon, dtype=linear.weight.dtype)
        self.add_module(self.norm_name, norm)

    def forward(self, x: Tensor) -> Tensor:
        """X [..., k] -> [..., n]."""
        return nn.functional.linear(self.get_submodule(self.norm_name)(x), self.weight, self.bias)


class DeclaredNormedLinear(NormedLinear):
    """The same as transformers' BitNet integration names them (``use_rms_norm`` of quantization_config)."""

    norm_name = "rms_norm"


def add_input_norms(model: nn.Module, epsilon: float, layer: type[NormedLinear] = NormedLinear) -> None:
    """Put a norm in front of every projection of a model's blocks."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and is_projection(f"{name}.weight"):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, layer(module, epsilon))


def declare_input_norms(model: nn.Module, storage: str) -> dict[str, Any] | None:
    """Put norms in front of every projection as that option does; what config.json declares then."""
    add_input_norms(model, INPUT_NORM_EPSILON, DeclaredNormedLinear)
    return quantization_config(storage, INPUT_NORM_EPSILON)


def store(model: nn.Module, kind: str) -> Stored:
    """``store_model`` for its kinds and :data:`GROUPED`; the model is changed to what the file stands for."""
    return store_grouped(model) if kind == GROUPED else store_model(model, kind)


@torch.no_grad()
def store_grouped(model: nn.Module, ternary_layer: Callable[[str], bool] = is_projection) -> Stored:
    """:data:`GROUPED`; the model is changed to what the file stands for. Vectors and convolutions keep their start."""
    stored = Stored()
    for name, parameter in model.named_parameters():
        embedding = "embed_tokens" in name or "lm_head" in name
        if "norm" in name:
            values = (torch.rand_like(parameter) + 0.5).half()
        elif not ternary_layer(name) and not embedding:
            values = parameter.half()
        else:
            weights = torch.randn_like(parameter, dtype=torch.float32) * 0.05
            groups = weights.reshape(len(weights), -1, GROUP)
            scales = groups.abs().mean(dim=-1, keepdim=True).half()
            ternary = (groups / scales.float()).round().clamp(-1, 1)
            values = (ternary * scales).half().reshape(parameter.shape)
            if not embedding:
                stored.ternary[name] = ternary.reshape(parameter.shape).to(torch.int8)
        stored.tensors[name] = values
        parameter.copy_(values)
    return stored
