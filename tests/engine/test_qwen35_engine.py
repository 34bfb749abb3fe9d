# SPDX-License-Identifier: MIT
"""Converted Qwen3.5 hybrids in the compiled engine against transformers' forward in float64."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.agreement import log_probabilities, rounded
from tests.support.engine_logits import CONTEXT, divergence, run_engine
from tests.support.tiny_checkpoints import qwen35
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.linear_layers import GROUPED
from trit.convert.from_checkpoint import Options, convert
from trit.engine.inference import DRAFTS
from trit.engine.server import Server
from trit.gguf.encodings import ENCODINGS
from trit.gguf.loadable import check_loadable

HALF = slice(CONTEXT // 2, -1)


def gguf_of(built: Built, folder: Path, outtype: str) -> Path:
    """The model written and converted; embedding and head as float32, so that nothing else is rounded."""
    if not (folder / "checkpoint").exists():
        built.write(folder / "checkpoint")
    convert(folder / "checkpoint", folder / f"{outtype}.gguf", Options(ENCODINGS[outtype], "f32"), progress=False)
    return folder / f"{outtype}.gguf"


def heads_in_another_order(model: torch.nn.Module) -> torch.nn.Module:
    """What a conversion would make that leaves the columns of out_proj where they are."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("linear_attn.out_proj.weight"):
                parameter.copy_(parameter.reshape(len(parameter), 2, 3, 64).transpose(1, 2).reshape(parameter.shape))
    return model


def test_further_layers_guess_what_the_model_says(engine_bin: Path, tmp_path: Path) -> None:
    """A model in which each token is followed by one other, by a layer that looks at the embedding of the last one.

    With halves of eh_proj in the other order, or another layer's output, every guess would be one token late.
    """
    built = qwen35.build("Ternary-Bonsai-27B", "fake-bf16", layers=2)
    for name, tensor in built.stored.tensors.items():
        silent = name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight"))
        if silent or ("norm" in name and "linear_attn" not in name):
            tensor.zero_()
    tensors = built.stored.tensors
    embedding = tensors["model.language_model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embedding.roll(7, dims=0).contiguous()
    hidden = embedding.shape[1]
    tensors["mtp.fc.weight"] = torch.eye(hidden, 2 * hidden, dtype=embedding.dtype)
    model = gguf_of(built, tmp_path, "i2_s")
    check_loadable(model)
    body = {"prompt": "Where", "n_predict": 40, "temperature": 0, "ignore_eos": True, "return_tokens": True}
    answers = []
    for draft in ("none", "mtp"):
        with Server(model, 1, DRAFTS[draft], slots=1, bin_dir=engine_bin) as server:
            answers.append(server.post("/completion", body))
    plain, drafted = answers
    assert plain["tokens"] == drafted["tokens"]
    assert len(set(np.diff(plain["tokens"]) % len(embedding))) == 1
    timings = drafted["timings"]
    assert timings["draft_n_accepted"] >= 0.9 * timings["draft_n"] > 10, timings


@pytest.mark.parametrize(
    ("variant", "storage", "outtype", "group", "small"),
    [
        # llama.cpp's kernels, which round otherwise, compute q2_0 of fewer than 32 rows.
        ("Ternary-Bonsai-27B", GROUPED, "q2_0", 128, False),
        ("Ternary-Bonsai-27B", "fake-bf16", "i2_s", None, True),
        ("text", "master-bf16", "i2_s", None, True),
    ],
)
def test_next_tokens_agree(
    variant: str, storage: str, outtype: str, group: int | None, small: bool, engine_bin: Path, tmp_path: Path
) -> None:
    built = qwen35.build(variant, storage, seed=1, layers=2, small=small)
    found = run_engine(engine_bin, gguf_of(built, tmp_path, "f32"), chunks=3)
    plain = log_probabilities(built.model, found.tokens)[:, HALF]
    float_kl = float(np.abs(divergence(plain, found.logprobs)).mean())
    ternary = run_engine(engine_bin, gguf_of(built, tmp_path, outtype), chunks=3).logprobs
    names = [name for name in built.stored.ternary if not name.startswith("mtp.")]
    reference = rounded(built.model, names, group)
    for name, module in reference.named_modules():
        if group and name.endswith("linear_attn.out_proj"):
            module.group = 64  # heads of 64 inputs, which lie in another order in the file
    wanted = log_probabilities(reference, found.tokens)[:, HALF]
    # Medians: where a value lies half way between two integers, the positions after it differ by whole steps.
    ours, rounding = np.median(divergence(wanted, ternary)), np.median(divergence(wanted, plain))
    line = f"{variant}: KL of f32 {float_kl:.1e}; median KL of {outtype} {ours:.1e}, of no rounding {rounding:.1e}"
    print(line)
    assert float_kl < 5e-6 and abs(ours) < 0.35 * rounding, line
    if variant != "text":
        wrong = log_probabilities(heads_in_another_order(built.model), found.tokens)[:, HALF]
        assert float(np.median(divergence(wrong, found.logprobs))) > 100 * float_kl
