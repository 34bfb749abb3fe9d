# SPDX-License-Identifier: MIT
"""Reference forward passes in float64 for models whose linear layers round their input as the engine's kernels do."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from trit.verify.reference import round_to_int8


class RoundedLinear(nn.Module):
    """A linear layer behind an optional norm, its input rounded to int8 per token, or per group of inputs."""

    def __init__(self, linear: nn.Module, group: int | None) -> None:
        super().__init__()
        self.weight, self.norm, self.group = linear.weight, getattr(linear, "norm", None), group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.norm is None else self.norm(x)
        return nn.functional.linear(round_to_int8(x, self.group or x.shape[-1]), self.weight)


def rounded(model: nn.Module, ternary: Iterable[str], group: int | None = None) -> nn.Module:
    """A copy of a model whose ternary layers (names of their weights) are :class:`RoundedLinear`."""
    model = copy.deepcopy(model)
    for name in ternary:
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        module = model.get_submodule(parent)
        setattr(module, leaf, RoundedLinear(getattr(module, leaf), group))
    return model


def log_probabilities(model: nn.Module, tokens: np.ndarray) -> np.ndarray:
    """Float64 [chunks, positions, vocabulary] of a causal model, for int [chunks, positions] token ids."""
    with torch.no_grad():
        return np.asarray(torch.log_softmax(model(torch.tensor(tokens)).logits.double(), dim=-1).numpy())
