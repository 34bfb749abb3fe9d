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
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BitNetConfig, BitNetForCausalLM

from tests.support.tiny_checkpoints.storage import KINDS, quantization_config, store_model, write_weights
from trit.base.errors import run_main
from trit.convert.command import main

__all__ = ["KINDS", "TEXT", "TinyModel", "edit_json", "make_checkpoint", "make_tokenizer", "refusal"]

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
    tiny = TinyModel(directory, BitNetForCausalLM(config).eval().double())
    stored = store_model(tiny.model, kind)
    tiny.ternary = {name: ternary.numpy() for name, ternary in stored.ternary.items()}
    tiny.scales = stored.scales
    _write(directory, config, stored.tensors, kind, shards)
    return tiny


def _write(directory: Path, config: BitNetConfig, stored: dict[str, torch.Tensor], kind: str, shards: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    description = config.to_dict()
    description["architectures"] = ["BitNetForCausalLM"]
    declared = quantization_config(kind)
    if declared:
        description["quantization_config"] = declared
    (directory / "config.json").write_text(json.dumps(description))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 5]}))
    make_tokenizer(directory / "tokenizer.json", 380)
    tokenizer_config = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "chat_template": "{{ messages[0].content }}"}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    write_weights(directory, stored, shards)


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
