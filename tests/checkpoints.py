# SPDX-License-Identifier: MIT
"""Tiny random BitNet checkpoints of every kind, made with transformers, and helpers of the converter's tests."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BitNetConfig, BitNetForCausalLM

from utils.cli import run_main
from utils.convert.__main__ import main

KINDS = (
    "master-bf16",
    "master-f32",
    "packed-bitlinear",
    "packed-autobitlinear",
    "fake-f32",
    "fake-bf16",
    "offline-float",
)
TEXT = (
    "Mary went to the kitchen. Daniel moved to the garden, didn't he? They've 12 apples; 345 pears & 6 plums!\n\n"
    "Where is Mary?\nAnswer: the kitchen.   Tabs\tand naïve café, 東京, emoji 🙂 and £5.\r\n"
) * 12


@dataclass
class TinyModel:
    """A model in float64 whose linear weights are the ternary values, and what its checkpoint was made from."""

    directory: Path
    model: BitNetForCausalLM
    ternary: dict[str, np.ndarray] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)


def absmean(weight: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Training's rule in float32 (the formula of the BitNet training tips), straight from torch."""
    scale = 1.0 / weight.float().abs().mean().clamp_(min=1e-5)
    return (weight.float() * scale).round().clamp(-1, 1), float(1.0 / scale)


def make_tokenizer(path: Path, vocab_size: int) -> None:
    """A byte-level BPE tokenizer with <|bos|>, <|eos|> and a user-defined token, in GPT-2's style; adds bos."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|bos|>", "<|eos|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
    )
    tokenizer.save(str(path))


def make_checkpoint(
    directory: Path,
    kind: str = "master-bf16",
    *,
    layers: int = 2,
    kv_heads: int = 2,
    tied: bool = True,
    hidden: int = 256,
    ffn: int = 512,
    activation: str = "relu2",
    shards: int = 1,
    seed: int = 0,
) -> TinyModel:
    """Write a checkpoint folder of one kind and return the float64 model that it stands for."""
    torch.manual_seed(seed)
    config = BitNetConfig(
        vocab_size=384,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        hidden_act=activation,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        attn_implementation="eager",
    )
    model = BitNetForCausalLM(config).eval()
    dtype = torch.bfloat16 if kind.endswith("bf16") else torch.float32
    tiny = TinyModel(directory, model.double())
    stored: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(torch.rand_like(parameter) + 0.5)
            if "embed_tokens" in name or "lm_head" in name:
                # Exact in float16: otherwise the first activations are rounded differently before anything is computed.
                parameter.copy_((torch.randn_like(parameter) * 0.05).bfloat16().half())
            # What the file holds is what the model computes with.
            parameter.copy_(parameter.to(dtype))
            if parameter.dim() == 2 and "proj" in name:
                ternary, scale = absmean(parameter.to(dtype))
                for key, value in _linear(name, parameter, ternary, scale, kind, dtype, tiny).items():
                    stored[key] = value
                parameter.copy_(ternary.double() * tiny.scales[name])
            else:
                stored[name] = parameter.to(dtype)
    _write(directory, config, stored, kind, shards)
    return tiny


def _linear(
    name: str,
    parameter: torch.Tensor,
    ternary: torch.Tensor,
    scale: float,
    kind: str,
    dtype: torch.dtype,
    tiny: TinyModel,
) -> dict[str, torch.Tensor]:
    """The stored tensors of one linear layer; notes its ternary values and scale."""
    tiny.ternary[name] = ternary.numpy().astype(np.int8)
    if kind.startswith("master"):
        tiny.scales[name] = scale
        return {name: parameter.to(dtype)}
    if kind.startswith("fake"):
        tiny.scales[name] = float(torch.tensor(scale).to(dtype))
        return {name: (ternary * tiny.scales[name]).to(dtype)}
    # The published checkpoints store weight_scale as bfloat16.
    divides = kind == "packed-bitlinear"
    weight_scale = torch.tensor([1 / scale if divides else scale]).to(torch.bfloat16)
    factor = weight_scale.float()
    tiny.scales[name] = float(1 / factor if divides else factor)
    if kind == "offline-float":
        return {name: ternary.to(dtype), f"{name}_scale": weight_scale}
    n = ternary.shape[0] // 4
    codes = (ternary + 1).to(torch.uint8)
    packed = codes[:n] | codes[n : 2 * n] << 2 | codes[2 * n : 3 * n] << 4 | codes[3 * n :] << 6
    return {name: packed, f"{name}_scale": weight_scale}


def _write(directory: Path, config: BitNetConfig, stored: dict[str, torch.Tensor], kind: str, shards: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    description = config.to_dict()
    description["architectures"] = ["BitNetForCausalLM"]
    if not kind.startswith("fake"):
        description["quantization_config"] = {
            "quant_method": "bitnet",
            "linear_class": "bitlinear" if kind == "packed-bitlinear" else "autobitlinear",
            "quantization_mode": "online" if kind.startswith("master") else "offline",
        }
    (directory / "config.json").write_text(json.dumps(description))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 5]}))
    make_tokenizer(directory / "tokenizer.json", 380)
    tokenizer_config = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "chat_template": "{{ messages[0].content }}"}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    names = sorted(stored)
    if shards == 1:
        save_file(stored, directory / "model.safetensors")
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: stored[name].contiguous() for name in names[shard::shards]}
        save_file(part, directory / file)
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def refusal(capsys: pytest.CaptureFixture[str], directory: Path, *flags: str, code: int = 2) -> str:
    """Run the converter, which has to fail: the one line of its error, after a check that nothing is left behind."""
    before = sorted(directory.iterdir()) if directory.is_dir() else []
    capsys.readouterr()
    assert run_main(main, [str(directory), *flags]) == code
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert captured.out == "" and len(lines) == 1 and lines[0].startswith("error: "), captured
    if directory.is_dir():
        assert sorted(directory.iterdir()) == before
    return lines[0]


def edit_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps(value))
