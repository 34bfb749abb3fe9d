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

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.support.checkpoints import TEXT, TinyModel, make_checkpoint
from tests.support.engine_logits import EngineRun, divergence, int8_activations, reference, run_engine, wrong_tops
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS

MAX_MEAN_KL = 1e-3


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
    plain = reference(tiny.model, plain_run.tokens)
    f16_noise = float(np.abs(plain - plain_run.logprobs).max())
    plain_kl = float(divergence(plain, plain_run.logprobs).mean())
    plain_wrong, plain_clear = wrong_tops(plain, plain_run.logprobs, f16_noise)

    ternary = run(tiny, "i2_s").logprobs
    noise = max(f16_noise, float(np.abs(ternary - run(tiny, "i2_s", "f16").logprobs).max()))
    int8_activations(tiny.model, tiny.ternary)
    qat = reference(tiny.model, plain_run.tokens)
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
    plain = reference(tiny.model, got.tokens)
    int8_activations(tiny.model, tiny.ternary)
    qat = reference(tiny.model, got.tokens)
    engine, rounding = np.median(divergence(qat, got.logprobs)), np.median(divergence(qat, plain))
    line = f"one layer: median KL of i2_s to QAT {engine:.1e}; of the plain forward to QAT {rounding:.1e}"
    print(line)
    assert abs(engine) < 0.05 * rounding, line


def test_engine_tokenizes_like_the_checkpoint(run: Run, tmp_path: Path) -> None:
    tiny = make_checkpoint(tmp_path / "checkpoint")
    tokens = run(tiny, "i2_s").tokens.reshape(-1)
    wanted = Tokenizer.from_file(str(tiny.directory / "tokenizer.json")).encode(TEXT).ids[: tokens.size]
    assert tokens.tolist() == wanted
