# SPDX-License-Identifier: MIT
"""Hugging Face folders: write one from a trained decoder, read one back to score or to go on training.

Written by default: linear weights as ternary floats (every value exactly -s, 0 or +s), so that any program which knows
``BitNetForCausalLM`` computes with the ternary weights and needs no quantisation package. ``master`` writes the
full-precision weights instead and declares them (``quantization_mode`` "online"), which transformers loads if the
package accelerate is there. All tensors are bfloat16; a scale is rounded to it first, so ternary floats stay exact.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from trit.base.errors import UserError
from trit.base.files import check_input
from trit.models.checkpoint import check_side_files
from trit.models.json_files import read_json
from trit.train.bitlinear import BitLinear, ternary_weight
from trit.train.model import Decoder, DecoderConfig
from trit.train.tokenizer import BOS, EOS, special_id

MAX_ANSWER_TOKENS = 12
_QUANTIZATION = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}


def save_checkpoint(model: Decoder, tokenizer: Tokenizer, directory: Path, *, master: bool = False) -> None:
    """Write a folder that must not exist yet; it appears under its name only when it is complete."""
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_file(_tensors(model, master), partial / "model.safetensors", metadata={"format": "pt"})
        # safetensors makes files for their owner only.
        (partial / "model.safetensors").chmod(0o644)
        tokenizer.save(str(partial / "tokenizer.json"))
        for name, content in _descriptions(model.config, tokenizer, master).items():
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_checkpoint(directory: Path) -> tuple[Decoder, Tokenizer]:
    """Read a folder that :func:`save_checkpoint` wrote, in either form; weights become float32.

    Raises:
        UserError: a file is missing or unreadable, or its tensors are not those that config.json asks for.
    """
    check_side_files(directory)
    config = read_json(directory / "config.json")
    check_input(directory / "model.safetensors")
    try:
        tensors = load_file(directory / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{directory}: is no readable checkpoint folder ({error})") from error
    if not (directory / "tokenizer.json").is_file():
        raise UserError(f"{directory}: has no tokenizer.json; give a folder that trit.train.train_story wrote")
    known = {field.name for field in fields(DecoderConfig)} - {"rope_theta"}
    try:
        theta = float(config["rope_parameters"]["rope_theta"])
        model = Decoder(DecoderConfig(**{key: config[key] for key in known}, rope_theta=theta))
        model.load_state_dict({key.removeprefix("model."): value.float() for key, value in tensors.items()})
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{directory}: config.json and model.safetensors do not fit together: {reason}") from error
    for module in model.modules():
        if isinstance(module, BitLinear):
            _restore_master(module.weight)
    return model.eval(), Tokenizer.from_file(str(directory / "tokenizer.json"))


@torch.no_grad()
def _restore_master(weight: Tensor) -> None:
    """Scale ternary floats t * s in place so that the absmean rule finds t and s again.

    With a share f of non-zeros, mean|t * s| is f * s, not s; mean|t * s / f| is s. Other weights stay as they are.
    """
    magnitudes = weight.abs()
    nonzero = magnitudes > 0
    if bool((magnitudes[nonzero] == magnitudes.max()).all()):
        weight /= nonzero.double().mean().float()


@torch.no_grad()
def _tensors(model: Decoder, master: bool) -> dict[str, Tensor]:
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, BitLinear)}
    tensors = {}
    for name, parameter in model.state_dict().items():
        value = parameter
        if name in linear and not master:
            ternary, scale = ternary_weight(parameter.float())
            value = ternary * scale.bfloat16().float()
        tensors[f"model.{name}"] = value.to("cpu", torch.bfloat16).contiguous()
    return tensors


def _descriptions(config: DecoderConfig, tokenizer: Tokenizer, master: bool) -> dict[str, dict[str, Any]]:
    """The JSON files beside the weights."""
    ids = {"bos_token_id": special_id(tokenizer, BOS), "eos_token_id": special_id(tokenizer, EOS)}
    shape = asdict(config)
    theta = shape.pop("rope_theta")
    model: dict[str, Any] = {
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        **shape,
        **ids,
        "hidden_act": "relu2",
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "tie_word_embeddings": True,
        # The type to compute in. The tensors are stored as bfloat16, and float32 holds each of them exactly.
        "dtype": "float32",
    }
    if master:
        model["quantization_config"] = _QUANTIZATION
    generation = {**ids, "pad_token_id": ids["eos_token_id"], "do_sample": False, "max_new_tokens": MAX_ANSWER_TOKENS}
    tokens = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.max_position_embeddings,
    }
    return {"config.json": model, "generation_config.json": generation, "tokenizer_config.json": tokens}
