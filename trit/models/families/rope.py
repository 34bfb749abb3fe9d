# SPDX-License-Identifier: MIT
"""RoPE scaling of graphs that know it: which kinds there are, their keys, and LLaMA 3's frequency factors."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from gguf import RopeScalingType

from trit.base.errors import UserError
from trit.gguf.types import GGUFWriter
from trit.models.families.base import Floats, positive_int, positive_number, rope_base, rope_parameters

Value = TypeVar("Value", bound=np.generic)

SCALING = "the rope scaling"
KINDS = ("default", "linear", "llama3", "yarn")
# For graphs that look for its factors.
LONGROPE = "longrope"


def pair_rows(values: npt.NDArray[Value], heads: int) -> npt.NDArray[Value]:
    """Rows of ``heads`` heads, each (first half, second half) of its dimensions -> each as its rotated pairs.

    Transformers rotates dimension i with i + size / 2 of a head, graphs with RoPE type NORM 2i with 2i + 1; with q's
    and k's rows reordered alike, every product of a query and a key stays what it was.

    Args:
        values: [heads * size, ...].
        heads: How many heads the rows belong to; 0 leaves them as they are.
    """
    if heads == 0:
        return values
    pairs = values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2)
    return np.asarray(pairs.reshape(values.shape), dtype=values.dtype)


def check_scaling(config: Mapping[str, Any], kinds: tuple[str, ...] = KINDS) -> None:
    """Raise UserError if the positions are scaled in a way that the family's graph does not know."""
    kind, parameters = rope_parameters(config)
    if kind not in kinds:
        way_out = ""
        if kind == "dynamic":  # transformers scales nothing up to there
            context = config.get("max_position_embeddings")
            way_out = f"; without it the model is the same in its {reprlib.repr(context)} positions"
        raise UserError(
            f"config.json: rope scaling of type {reprlib.repr(kind)[1:-1]} is not supported; supported: "
            f"{', '.join(kinds)}{way_out}"
        )
    if kind == "yarn" and parameters.get("truncate") is False:
        raise UserError("config.json: rope scaling yarn with truncate false is not supported, the engine truncates")
    factor = parameters.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if factor not in (None, 1.0):
        raise UserError(f"config.json: partial_rotary_factor is {factor}, the engine's graph rotates whole heads")


def original_context(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> int:
    """The context before scaling, by transformers' order: config.json's top, the scaling, the model's context."""
    key, context = "original_max_position_embeddings", config.get("max_position_embeddings")
    return positive_int({key: context, **parameters, **({key: config[key]} if key in config else {})}, key)


def write_scaling(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    """Add the ``rope.*`` keys but for the dimension count.

    YaRN: the engine multiplies queries and keys with ``attn_factor * (0.1 ln(factor) + 1)``, transformers with
    ``attention_factor``, whose default is the second term alone.
    """
    writer.add_rope_freq_base(rope_base(config))
    kind, parameters = rope_parameters(config)
    if kind == LONGROPE:
        original = original_context(config, parameters)
        writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(_longrope_attention(config, original))
    if kind not in {"linear", "yarn"}:
        return
    original = original_context(config, parameters) if kind == "yarn" else 0
    if kind == "yarn" and "factor" in parameters and parameters["factor"] is None:
        factor = positive_int(config, "max_position_embeddings") / original
    else:
        factor = positive_number(parameters, "factor", of=SCALING)
    writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
    writer.add_rope_scaling_factor(factor)
    if kind == "linear":
        return
    writer.add_rope_scaling_orig_ctx_len(original)
    default = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    wanted = default
    if parameters.get("attention_factor") is not None:
        wanted = positive_number(parameters, "attention_factor", of=SCALING)
    elif parameters.get("mscale") and parameters.get("mscale_all_dim") and factor > 1:
        mscale, all_dimensions = (positive_number(parameters, key, of=SCALING) for key in ("mscale", "mscale_all_dim"))
        wanted = (0.1 * mscale * math.log(factor) + 1) / (0.1 * all_dimensions * math.log(factor) + 1)
    if wanted != default:
        writer.add_rope_scaling_attn_factors(wanted / default)
    for key, add in (
        ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
        ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
    ):
        if parameters.get(key):
            add(positive_number(parameters, key, of=SCALING))


def llama3_factors(config: Mapping[str, Any], head_size: int) -> Floats | None:
    """What LLaMA 3.1 and later divide each rotation frequency by: float32 [head_size / 2]; None for other scalings.

    Formula of transformers (modeling_rope_utils.py, rope type "llama3"): wavelengths below original / high keep their
    frequency, those above original / low are slowed by ``factor``, between them it changes smoothly.
    """
    kind, parameters = rope_parameters(config)
    if kind != "llama3":
        return None
    keys = ("factor", "low_freq_factor", "high_freq_factor")
    factor, low, high = (positive_number(parameters, key, of=SCALING) for key in keys)
    original = original_context(config, parameters)
    if not low < high:
        raise UserError(f"config.json: low_freq_factor {low:g} is not below high_freq_factor {high:g}")
    exponents = np.arange(0, head_size, 2, dtype=np.float64) / head_size
    wavelengths = 2 * np.pi * rope_base(config) ** exponents
    smooth = np.clip((original / wavelengths - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - smooth) / factor + smooth), dtype=np.float32)


def _longrope_attention(config: Mapping[str, Any], original: int) -> float:
    """What LongRoPE multiplies queries and keys with: sqrt(1 + log(context / original) / log(original))."""
    ratio = positive_int(config, "max_position_embeddings") / original
    return math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 < original else 1.0


def longrope_factors(config: Mapping[str, Any], head_size: int) -> dict[str, Floats]:
    """What LongRoPE divides each rotation frequency by, in long contexts and in short ones: float32 [head_size / 2].

    Nothing for other scalings. The engine takes the long ones where its context is larger than the original one.

    Raises:
        UserError: they are no numbers, or not as many as a head has pairs.
    """
    kind, parameters = rope_parameters(config)
    if kind != LONGROPE:
        return {}
    found = {}
    for name in ("long", "short"):
        key = f"{name}_factor"
        values = parameters.get(key)
        if not isinstance(values, list) or len(values) != head_size // 2:
            raise UserError(
                f"config.json: {key} of {SCALING} is {reprlib.repr(values)}, expected {head_size // 2} numbers, one "
                "for each pair of a head"
            )
        factors = [positive_number({key: value}, key, of=SCALING) for value in values]
        found[f"rope_factors_{name}.weight"] = np.array(factors, dtype=np.float32)
    return found
