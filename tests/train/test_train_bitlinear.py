# SPDX-License-Identifier: MIT
"""BitLinear against the formulas of the training tips, written out once more in numpy's float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from transformers.integrations import bitnet as reference

from trit.train.bitlinear import BitLinear, fused_bit_linears, quantize_activation, quantize_weight, ternary_weight

N, K, TOKENS = 24, 40, 7


@pytest.fixture
def eager() -> Iterator[None]:
    """transformers compiles its roundings; here they run as they are written."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


def numpy_weight(w: np.ndarray) -> np.ndarray:
    scale = max(np.abs(w).mean(), 1e-5)
    return np.clip(np.rint(w / scale), -1, 1) * scale


def numpy_activation(x: np.ndarray) -> np.ndarray:
    rows = []
    for token in x:
        factor = 127 / max(np.abs(token).max(), 1e-5)
        rows.append(np.clip(np.rint(token * factor), -128, 127) / factor)
    return np.stack(rows)


def make_layer(seed: int, dtype: torch.dtype = torch.float64) -> tuple[BitLinear, torch.Tensor]:
    torch.manual_seed(seed)
    layer = BitLinear(K, N).to(dtype)
    x = torch.randn(TOKENS, K, dtype=dtype) * torch.logspace(-3, 3, TOKENS, dtype=dtype)[:, None]
    return layer, x.requires_grad_()


def test_forward_is_the_formula() -> None:
    layer, x = make_layer(0)
    expected = numpy_activation(x.detach().numpy()) @ numpy_weight(layer.weight.detach().numpy()).T
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def test_gradients_take_the_roundings_for_the_identity() -> None:
    layer, x = make_layer(1)
    grad = torch.randn(TOKENS, N, dtype=torch.float64)
    layer(x).backward(grad)
    assert x.grad is not None and layer.weight.grad is not None
    expected_x = grad.numpy() @ numpy_weight(layer.weight.detach().numpy())
    expected_w = grad.numpy().T @ numpy_activation(x.detach().numpy())
    np.testing.assert_allclose(x.grad.numpy(), expected_x, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(layer.weight.grad.numpy(), expected_w, rtol=1e-12, atol=1e-9)


def test_fused_equals_readable() -> None:
    layers = [make_layer(seed)[0] for seed in (2, 3, 4)]
    _, x = make_layer(5)
    grad = torch.randn(TOKENS, 3 * N, dtype=torch.float64)
    results = []
    for fused in (False, True):
        for tensor in (x, *(layer.weight for layer in layers)):
            tensor.grad = None
        parts = fused_bit_linears(x, layers, torch.float64) if fused else [layer(x) for layer in layers]
        output = torch.cat(parts, dim=-1)
        output.backward(grad)
        results.append([output.detach(), *(t.grad.clone() for t in (x, *(layer.weight for layer in layers)))])
    for readable, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, readable, rtol=1e-10, atol=1e-10)


def test_narrow_operands_are_exact_before_the_last_rounding() -> None:
    """bfloat16 holds int8 and ternary values exactly, so only the product's own rounding (8 bits) is left."""
    layer, x = make_layer(6, torch.float32)
    (fast,) = fused_bit_linears(x, [layer], torch.bfloat16)
    # float32 sums of products do not cancel to exactly zero, as whole numbers do: hence the small absolute part.
    for token, expected in zip(fast, layer(x), strict=True):
        torch.testing.assert_close(token, expected, rtol=2**-8, atol=1e-6 * float(expected.detach().abs().max()))


@pytest.mark.usefixtures("eager")
def test_roundings_equal_those_of_transformers() -> None:
    layer, x = make_layer(7, torch.float32)
    assert torch.equal(quantize_weight(layer.weight), reference.WeightQuant.apply(layer.weight))
    assert torch.equal(quantize_activation(x), reference.ActQuant.apply(x))


def test_ties_go_to_even_and_zeros_stay_zeros() -> None:
    # mean|w| = 1: 0.5 is a tie that goes to 0, 1.5 would go to 2 and is clamped.
    ternary, scale = ternary_weight(torch.tensor([[0.5, -0.5, 1.5, -1.5]]))
    assert ternary.tolist() == [[0, 0, 1, -1]] and scale.item() == 1
    assert not quantize_activation(torch.zeros(2, 8)).any()
    assert not quantize_weight(torch.zeros(4, 8)).any()
    # The largest element of a token becomes 127, whatever its size; the factor of tiny tokens is bounded.
    assert quantize_activation(torch.tensor([[-3.0, 1.5]]))[0].tolist() == pytest.approx([-3.0, 64 * 3 / 127])
    assert not quantize_activation(torch.full((1, 4), 1e-9)).any()
