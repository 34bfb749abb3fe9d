# SPDX-License-Identifier: MIT
"""Log-probabilities of the compiled engine, and of transformers' forward in float64, with which they are compared."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.support.checkpoints import TEXT
from trit.engine.logprobs import SavedLogprobs as EngineRun
from trit.engine.logprobs import read_logprobs
from trit.verify.reference import round_to_int8

__all__ = ["EngineRun", "divergence", "int8_activations", "reference", "run_engine", "wrong_tops"]

CONTEXT, CHUNKS = 64, 6


def run_engine(engine_bin: Path, gguf: Path, kv_type: str = "f32", chunks: int = CHUNKS, *flags: str) -> EngineRun:
    text, saved = gguf.with_suffix(".txt"), gguf.with_suffix(".logits")
    text.write_text(TEXT, encoding="utf-8", newline="")
    command = [engine_bin / "llama-perplexity", "-m", gguf, "-f", text, "--save-all-logits", saved, "-t", "2"]
    command += [
        "-c",
        CONTEXT,
        "-b",
        CONTEXT,
        "--chunks",
        chunks,
        "-ctk",
        kv_type,
        "-ctv",
        kv_type,
        "-fa",
        "off",
        *flags,
    ]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=120)
    return read_logprobs(saved)


class QatLinear(nn.Module):
    """A linear layer whose input is rounded to int8 per token, as in the BitNet training tips; in float64."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(round_to_int8(x, x.shape[-1]), self.weight, self.bias)


def int8_activations(model: nn.Module, ternary: Iterable[str]) -> None:
    """Let the linear layers of these weights round their inputs, in place; biases are added as before."""
    for name in ternary:
        parent, _, leaf = name.removesuffix(".weight").rpartition(".")
        linear = model.get_submodule(f"{parent}.{leaf}")
        setattr(model.get_submodule(parent), leaf, QatLinear(linear.weight, linear.bias))


def reference(model: nn.Module, tokens: np.ndarray, bos: int | np.ndarray = 0) -> np.ndarray:
    """Log-probabilities of transformers' forward in float64, at the positions that the engine saves."""
    inputs = torch.tensor(tokens)
    inputs[:, 0] = torch.as_tensor(bos)  # llama-perplexity starts every chunk with it
    with torch.no_grad():
        logits = model(inputs).logits
    return torch.log_softmax(logits[:, CONTEXT // 2 : -1].double(), dim=-1).numpy()


def divergence(wanted: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence at every position."""
    return np.asarray((np.exp(wanted) * (wanted - got)).sum(axis=-1))


def wrong_tops(wanted: np.ndarray, got: np.ndarray, noise: float) -> tuple[int, int]:
    """(positions whose top token differs, positions compared): those where the reference's margin is above the noise.

    Noise moves the first and the second candidate, so the margin has to be above twice its size.
    """
    ordered = np.sort(wanted, axis=-1)
    clear = ordered[..., -1] - ordered[..., -2] > 2 * noise
    differs = wanted.argmax(axis=-1) != got.argmax(axis=-1)
    return int((differs & clear).sum()), int(clear.sum())
