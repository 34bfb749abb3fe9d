# SPDX-License-Identifier: MIT
"""BitLinear: a linear layer that computes with ternary weights and int8 activations while it is being trained.

Source of the formulas: "The Era of 1-bit LLMs: Training Tips, Code and FAQ" (Microsoft, 2024). For weights w [n, k] and
activations x [..., k] of one layer:

* weights, one scale per tensor: s = max(mean|w|, 1e-5), t = clamp(round(w / s), -1, 1), w_q = t * s;
* activations, one scale per token: r = 127 / max(max|x|, 1e-5), a = clamp(round(x * r), -128, 127), x_q = a / r;
* straight-through estimator: gradients flow as if both roundings were the identity.

``round`` rounds half to even. The paper also puts a norm without weights before the activations' rounding; as in
BitNet-b1.58-2B-4T, here the norms are layers of the model itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-5


def ternary_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Ternarise by the absmean rule.

    Args:
        weight: float [n, k].

    Returns:
        float [n, k] with values in {-1, 0, 1}; float [] scale s to multiply with.
    """
    # Multiplied with 1 / s, not divided by s: transformers and our converter do the same, so ties fall alike.
    inverse = 1.0 / weight.abs().mean().clamp(min=EPSILON)
    return (weight * inverse).round().clamp(-1, 1), 1.0 / inverse


def int8_activation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round each token to int8 by the absmax rule.

    Args:
        x: float [..., k].

    Returns:
        float [..., k] with whole values in [-128, 127]; float [..., 1] factor r to divide by.
    """
    factor = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp(min=EPSILON)
    return (x * factor).round().clamp(-128, 127), factor


def quantize_weight(weight: Tensor) -> Tensor:
    """w_q of the formulas above: float [n, k]."""
    ternary, scale = ternary_weight(weight)
    return ternary * scale


def quantize_activation(x: Tensor) -> Tensor:
    """x_q of the formulas above: float [..., k]."""
    rounded, factor = int8_activation(x)
    return rounded / factor


class BitLinear(nn.Linear):
    """Linear layer without bias; ``weight`` [n, k] is the full-precision master weight that the optimiser changes."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map float [..., k] -> float [..., n], with the straight-through estimator."""
        x_q = input + (quantize_activation(input) - input).detach()
        w_q = self.weight + (quantize_weight(self.weight) - self.weight).detach()
        return functional.linear(x_q, w_q)


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """The value of ``rounded`` with the gradient of ``x``."""
    return x + (rounded - x).detach()


def fused_bit_linears(x: Tensor, layers: list[BitLinear], dtype: torch.dtype) -> list[Tensor]:
    """Several layers of one input as one matrix product with narrow operands; same values and gradients.

    Whole numbers up to 128 are exact in bfloat16, so the operands lose nothing: the scales, which count as constants
    for the gradient, are applied outside of the product. torch.compile makes few loops of the rest.

    Args:
        x: float [..., k].
        layers: Layers with k inputs.
        dtype: Type of the operands of the product, such as ``torch.bfloat16``.

    Returns:
        One float [..., n_i] for each layer.
    """
    rounded, factor = int8_activation(x.detach())
    activations = straight_through(x * factor, rounded).to(dtype)
    ternaries, scales = [], []
    for layer in layers:
        ternary, scale = ternary_weight(layer.weight.detach())
        ternaries.append(straight_through(layer.weight / scale, ternary).to(dtype))
        scales.append(scale.expand(layer.out_features))
    product = functional.linear(activations, torch.cat(ternaries)).to(x.dtype)
    sizes = [layer.out_features for layer in layers]
    return list(torch.split(product * torch.cat(scales) / factor, sizes, dim=-1))


def bit_linears(x: Tensor, layers: list[BitLinear], dtype: torch.dtype | None) -> list[Tensor]:
    """Apply layers to one input: layer by layer if ``dtype`` is None, else as :func:`fused_bit_linears`."""
    return [layer(x) for layer in layers] if dtype is None else fused_bit_linears(x, layers, dtype)
