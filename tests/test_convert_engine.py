# SPDX-License-Identifier: MIT
"""Converted files run in the compiled engine and are compared with transformers' own forward pass in float64.

f16 files are compared with the plain forward (ternary weights, float activations): what differs is the engine's own
noise. i2_s files are compared with the forward of quantisation-aware training (the same weights, activations rounded to
int8 per token), which is what the i2_s kernels compute. Rounding makes that forward discontinuous: a difference of 1e-7
moves an activation that lies half way between two integers by a whole step, and everything behind it follows. (Exact
halves are common in bfloat16 checkpoints: an activation that is half of the largest one is 63.5.) So a random two-layer
model amplifies the engine's noise to the size of the rounding itself. How far is measured by running the same i2_s file
with float16 keys and values too, and a one-layer float32 model, with little behind its roundings, shows the agreement.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import TEXT, TinyModel, make_checkpoint
from tokenizers import Tokenizer
from torch import nn

from utils.convert.pipeline import Options, convert
from utils.weight_encodings import ENCODINGS

CONTEXT, CHUNKS = 64, 6
MAX_MEAN_KL = 1e-3


@dataclass
class EngineRun:
    """What llama-perplexity saved: int32 tokens [chunks, context], log-probabilities [chunks, positions, vocabulary].

    The positions are context / 2 ... context - 2 of each chunk.
    """

    tokens: np.ndarray
    logprobs: np.ndarray


def read_logprobs(path: Path) -> EngineRun:
    """Parse the file of ``--save-all-logits`` (perplexity.cpp): per position float32 scale and minimum, then uint16."""
    raw = path.read_bytes()
    assert raw[:8] == b"_logits_"
    context, vocab, chunks = np.frombuffer(raw, "<i4", 3, 8)
    tokens = np.frombuffer(raw, "<i4", chunks * context, 20).reshape(chunks, context)
    row = 2 * ((vocab + 1) // 2) + 4
    words = np.frombuffer(raw, "<u2", offset=20 + 4 * tokens.size).reshape(chunks, -1, row)
    scale, minimum = (np.ascontiguousarray(words[..., i : i + 2]).view("<f4") for i in (0, 2))
    return EngineRun(tokens, scale.astype(np.float64) * words[..., 4 : 4 + vocab] + minimum)


def run_engine(engine_bin: Path, gguf: Path, kv_type: str = "f32") -> EngineRun:
    text, saved = gguf.with_suffix(".txt"), gguf.with_suffix(".logits")
    text.write_text(TEXT, encoding="utf-8", newline="")
    command = [engine_bin / "llama-perplexity", "-m", gguf, "-f", text, "--save-all-logits", saved, "-t", "2"]
    command += ["-c", CONTEXT, "-b", CONTEXT, "--chunks", CHUNKS, "-ctk", kv_type, "-ctv", kv_type, "-fa", "off"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=120)
    return read_logprobs(saved)


class QatLinear(nn.Module):
    """A linear layer whose input is rounded to int8 per token, as in the BitNet training tips; in float64."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
        return nn.functional.linear((x * scale).round().clamp(-128, 127) / scale, self.weight)


def reference(tiny: TinyModel, tokens: np.ndarray, qat: bool) -> np.ndarray:
    """Log-probabilities of transformers' forward in float64, at the positions that the engine saves."""
    model = tiny.model
    if qat:
        for name in tiny.ternary:
            parent = model.get_submodule(name.removesuffix(".weight").rpartition(".")[0])
            leaf = name.removesuffix(".weight").rpartition(".")[2]
            setattr(parent, leaf, QatLinear(getattr(parent, leaf).weight))
    inputs = torch.tensor(tokens)
    inputs[:, 0] = 0  # llama-perplexity starts every chunk with bos
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


Run = Callable[..., EngineRun]


@pytest.fixture
def run(engine_bin: Path, tmp_path: Path) -> Run:
    """Convert a checkpoint to an encoding and run it."""

    def convert_and_run(tiny: TinyModel, outtype: str, kv_type: str = "f32") -> EngineRun:
        gguf = tmp_path / f"{outtype}.gguf"
        if not gguf.exists():
            convert(tiny.directory, gguf, Options(ENCODINGS[outtype], "f16"), progress=False)
        return run_engine(engine_bin, gguf, kv_type)

    return convert_and_run


CASES: dict[str, dict[str, Any]] = {
    "master-bf16": {},
    "packed-bitlinear": {"kv_heads": 1},
    "packed-autobitlinear": {"kv_heads": 4, "tied": False},
    "fake-bf16": {"activation": "silu"},
    "offline-float": {"shards": 2},
}


@pytest.mark.parametrize("kind", CASES)
def test_engine_agrees_with_transformers(kind: str, run: Run, tmp_path: Path) -> None:
    tiny = make_checkpoint(tmp_path / kind, kind, **CASES[kind])

    plain_run = run(tiny, "f16")
    plain = reference(tiny, plain_run.tokens, qat=False)
    f16_noise = float(np.abs(plain - plain_run.logprobs).max())
    plain_kl = float(divergence(plain, plain_run.logprobs).mean())
    plain_wrong, plain_clear = wrong_tops(plain, plain_run.logprobs, f16_noise)

    ternary = run(tiny, "i2_s").logprobs
    noise = max(f16_noise, float(np.abs(ternary - run(tiny, "i2_s", "f16").logprobs).max()))
    qat = reference(tiny, plain_run.tokens, qat=True)
    kl = float(divergence(qat, ternary).mean())
    wrong, clear = wrong_tops(qat, ternary, noise)
    count = qat[..., 0].size
    line = (
        f"{kind}: f16 against the plain forward: max |d log p| {f16_noise:.1e}, KL {plain_kl:.1e}, top token wrong in "
        f"{plain_wrong} of {plain_clear}/{count}; i2_s against QAT: engine's own f16 noise {noise:.1e}, KL {kl:.1e}, "
        f"top token wrong in {wrong} of {clear}/{count}"
    )
    print(line)
    assert plain_kl < MAX_MEAN_KL and kl < MAX_MEAN_KL, line
    assert plain_wrong == wrong == 0, line
    # With few clear winners the comparison of top tokens would say nothing.
    assert plain_clear > 0.9 * count and clear > 0.3 * count, line


def test_one_layer_computes_the_forward_of_training(run: Run, tmp_path: Path) -> None:
    tiny = make_checkpoint(tmp_path / "checkpoint", "master-f32", layers=1)
    got = run(tiny, "i2_s")
    plain = reference(tiny, got.tokens, qat=False)
    qat = reference(tiny, got.tokens, qat=True)
    engine, rounding = np.median(divergence(qat, got.logprobs)), np.median(divergence(qat, plain))
    line = f"one layer: median KL of i2_s to QAT {engine:.1e}; of the plain forward to QAT {rounding:.1e}"
    print(line)
    assert abs(engine) < 0.05 * rounding, line


def test_engine_tokenizes_like_the_checkpoint(run: Run, tmp_path: Path) -> None:
    tiny = make_checkpoint(tmp_path / "checkpoint")
    tokens = run(tiny, "i2_s").tokens.reshape(-1)
    wanted = Tokenizer.from_file(str(tiny.directory / "tokenizer.json")).encode(TEXT).ids[: tokens.size]
    assert tokens.tolist() == wanted
