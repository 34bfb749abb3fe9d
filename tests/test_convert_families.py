# SPDX-License-Identifier: MIT
"""Checkpoints of LLaMA's shape and 1bitLLM's: converted, read back, and run in the engine against transformers.

How the comparison works is in test_convert_engine.py. What is compared here are graphs and configurations, so every
case also says how far off a wrong conversion would be: the median KL divergence of the engine to the reference, against
that of the reference to itself with one thing changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import edit_json, refusal
from engine_logits import EngineRun, divergence, int8_activations, reference, run_engine
from safetensors.torch import load_file, save_file

from utils.convert.__main__ import main
from utils.convert.pipeline import Options, Report, convert
from utils.gguf_types import read_header
from utils.tiny_checkpoints import bitnet_1bitllm, llama, qwen2
from utils.weight_encodings import ENCODINGS

MAX_KL = 1e-4
# With others a rounding of the first token, which is the same in all chunks, may fall on the other side.
SEED = 1
FAMILIES: dict[str, Any] = {"llama": llama, "qwen2": qwen2, "bitnet_1bitllm": bitnet_1bitllm}
LAYER = "model.layers.0"


def swap_rotated_halves(model: torch.nn.Module) -> None:
    """What is wrong with q if its rows are not reordered for the graph, or for one that needs no reordering."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("q_proj.weight"):
                size = model.config.head_dim if getattr(model.config, "head_dim", None) else 64
                halves = parameter.reshape(-1, 2, size // 2, parameter.shape[-1])
                parameter.copy_(halves.transpose(1, 2).reshape(parameter.shape))


def other_positions(model: torch.nn.Module) -> None:
    """Plain rotary positions in place of scaled ones."""
    rotary = model.model.rotary_emb
    size = 2 * rotary.inv_freq.shape[0]
    base = model.config.rope_parameters["rope_theta"]
    rotary.inv_freq = 1 / base ** (torch.arange(0, size, 2).double() / size)
    rotary.attention_scaling = 1.0


def no_biases(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()


def other_scale(model: torch.nn.Module) -> None:
    """Scales of the down projection off by 2 %."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("down_proj.weight"):
                parameter.mul_(1.02)


def engine_run(folder: Path, outtype: str, engine_bin: Path) -> tuple[EngineRun, Report]:
    gguf = folder / f"{outtype}.gguf"
    report = convert(folder, gguf, Options(ENCODINGS[outtype], "f16"), progress=False)
    return run_engine(engine_bin, gguf), report


Change = Callable[[torch.nn.Module], None]
CASES: list[tuple[str, str, str, Sequence[Change]]] = [
    ("llama", "Llama3-8B-1.58-100B-tokens", "packed-bitlinear", [swap_rotated_halves]),
    ("llama", "Falcon3-1B-Instruct-1.58bit", "packed-bitlinear", [swap_rotated_halves]),
    ("llama", "Falcon3-7B-1.58bit", "packed-autobitlinear", [swap_rotated_halves]),
    ("llama", "Falcon-E-1B-Base", "fake-bf16", [swap_rotated_halves]),
    ("llama", "Llama-3.2-1B-onebitllms", "master-bf16", [swap_rotated_halves, other_positions]),
    ("llama", "biased-yarn", "offline-float", [swap_rotated_halves, other_positions, no_biases]),
    ("qwen2", "Qwen2.5-0.5B-onebitllms", "master-f32", [swap_rotated_halves, no_biases]),
    ("bitnet_1bitllm", "bitnet_b1_58-large", "bin", [other_scale]),
    ("bitnet_1bitllm", "bitnet_b1_58-xl", "master-f32", [other_scale]),
    ("bitnet_1bitllm", "bitnet_b1_58-3B", "master-f32", [other_scale]),
]


@pytest.mark.parametrize(("family", "variant", "storage", "changes"), CASES, ids=[case[1] for case in CASES])
def test_engine_agrees_with_transformers(
    family: str, variant: str, storage: str, changes: Sequence[Change], engine_bin: Path, tmp_path: Path
) -> None:
    module = FAMILIES[family]
    module.make(tmp_path, variant, storage, SEED)
    model, stored, description = module.build(variant, storage, SEED)
    bos = description["bos_token_id"]
    plain_run, _ = engine_run(tmp_path, "f16", engine_bin)
    wanted = reference(model, plain_run.tokens, bos)
    kl = float(np.median(divergence(wanted, plain_run.logprobs)))
    wrong = []
    for change in changes:
        changed = copy.deepcopy(model)
        change(changed)
        wrong.append(float(np.median(divergence(wanted, reference(changed, plain_run.tokens, bos)))))
    rounded, report = engine_run(tmp_path, "i2_s", engine_bin)
    assert sum(report.kinds.values()) == len(stored.ternary) == 14
    # What became f16 computes with float activations.
    odd = "down" if "as f16" in str(report.notes) else "none"
    int8_activations(model, [name for name in stored.ternary if odd not in name])
    qat = reference(model, plain_run.tokens, bos)
    qat_kl = float(np.median(divergence(qat, rounded.logprobs)))
    line = f"{variant}: KL of f16 {kl:.1e}, of i2_s to QAT {qat_kl:.1e}; of wrong conversions {[f'{x:.1e}' for x in wrong]}"
    print(line)
    assert kl < MAX_KL and qat_kl < MAX_KL, line
    assert 5 * max(kl, qat_kl) < min(wrong), line
