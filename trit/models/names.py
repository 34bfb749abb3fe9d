# SPDX-License-Identifier: MIT
"""Names of tensors as transformers' models have them, whatever the trainer's tools have put into them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trit.base.errors import UserError

# Parts of names that stand for a wrapper: torch.compile, FSDP, activation checkpoints, DDP and DeepSpeed, PEFT's model
# around a merged one, the text model of a multimodal one.
WRAPPERS = {
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "module",
    "base_model",
    "language_model",
}
# What a decoder's names begin with, behind "model." and beside it.
INSIDE, BESIDE = {"embed_tokens", "layers", "norm"}, {"lm_head", "mtp"}
# What PEFT's adapters have in names, and in a folder.
ADAPTER_PARTS, ADAPTER_FILE = ("lora_", "base_layer", "modules_to_save"), "adapter_config.json"
# Ends of names that quantisation methods make, none of which is ternary.
OTHER_METHODS = {
    **dict.fromkeys(("qweight", "qzeros", "g_idx"), "GPTQ or AWQ"),
    **dict.fromkeys(("weight_scale_inv", "input_scale"), "fp8"),
    **dict.fromkeys(("absmax", "quant_map", "SCB"), "bitsandbytes"),
    **dict.fromkeys(("weight_packed", "weight_shape", "weight_zero_point"), "compressed-tensors"),
}
MERGE = "merge it into its base model first (peft: merge_and_unload, then save_pretrained) and convert what that saves"


def plain_name(name: str) -> str:
    """A decoder's tensor without wrappers, with ``model.`` in front of all but the head; other names as they are.

    Raises:
        UserError: it is a part of an adapter.
    """
    parts = name.split(".")
    if any(part.startswith(ADAPTER_PARTS) for part in parts):
        raise UserError(f"{name}: is part of an adapter, not of a model; {MERGE}")
    parts = [part for part in parts if part not in WRAPPERS]
    while parts[:1] == ["model"]:
        parts = parts[1:]
    if not parts or parts[0] not in INSIDE | BESIDE:
        return name
    return ".".join(parts if parts[0] in BESIDE else ["model", *parts])


def refuse_other_methods(config: Mapping[str, Any]) -> None:
    """Raise UserError where config.json says that the weights are quantised by another method than BitNet's."""
    declared = config.get("quantization_config") or config.get("compression_config") or {}
    method = declared.get("quant_method")
    if method is None and (declared.get("load_in_4bit") or declared.get("load_in_8bit")):
        method = "bitsandbytes"  # as transformers reads configurations without a method
    if method is not None and method != "bitnet":
        raise UserError(
            f"config.json: quantization_config says {method}, which keeps other numbers than ternary ones; convert the "
            "model from before that step, or one with quant_method bitnet"
        )


def quantised_by(name: str) -> str | None:
    """The method that has left a tensor of this name, which no plain model has."""
    return OTHER_METHODS.get(name.rpartition(".")[2])


def refuse_adapter(directory: Path) -> None:
    """Raise UserError for a folder of PEFT's: what its weights are is said by another folder."""
    if os.path.lexists(directory / ADAPTER_FILE):
        raise UserError(
            f"{directory}: is an adapter's folder ({ADAPTER_FILE}); {MERGE}, or take {ADAPTER_FILE} away if these "
            "weights are merged already"
        )


def name_notes(names: Iterable[str]) -> list[str]:
    """One clause about how a checkpoint's names differ from plain ones; none where there is nothing to say."""
    plain = {name: plain_name(name) for name in names}
    put_in: dict[str, None] = {}
    bare = False
    for name in (name for name in plain if name != plain[name]):
        if name.endswith(f".{plain[name]}"):
            put_in[name.removesuffix(plain[name])] = None
        elif wrappers := [part for part in name.split(".") if part in WRAPPERS]:
            put_in["".join(f"{part}." for part in wrappers)] = None
        else:
            bare = True
    said = [f"without {' and '.join(put_in)}"] if put_in else []
    # A base model is saved so, which is nothing to say.
    if bare and any(name.startswith("lm_head.") for name in plain.values()):
        said.append("with model. in front")
    return [f"tensor names are read {' and '.join(said)}"] if said else []
