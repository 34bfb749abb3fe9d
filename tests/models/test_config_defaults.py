# SPDX-License-Identifier: MIT
"""What a config.json leaves out is what the installed transformers takes, class by class."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from trit.models.families import all_families, find_family
from trit.models.families.base import rope_parameters
from trit.models.families.defaults import BY_ARCHITECTURE, SIZES, Defaults, complete
from trit.models.families.llama import head_layout

CLASSES = {defaults.source: defaults for defaults in BY_ARCHITECTURE.values()}


def theirs(defaults: Defaults, **keys: Any) -> Any:
    return getattr(transformers, defaults.source)(**keys)


def rope_base_of(config: Any, kind: str | None) -> float:
    return float((config.rope_parameters[kind] if kind else config.rope_parameters)["rope_theta"])


@pytest.mark.parametrize("defaults", CLASSES.values(), ids=CLASSES)
def test_every_row(defaults: Defaults) -> None:
    config = theirs(defaults)
    fields = type(config).__dataclass_fields__
    nested = defaults.source == "Gemma3TextConfig"
    for key, value in defaults.values.items():
        if key == "rope_theta":
            found: Any = rope_base_of(config, "full_attention" if nested else None)
        elif key == "rope_local_base_freq":
            found = rope_base_of(config, "sliding_attention")
        else:
            # Qwen2's attention reads a head_dim that its class has no field for.
            found = fields[key].default if key in fields else None
        assert (type(found), found) == (type(value), value), key


@pytest.mark.parametrize("defaults", CLASSES.values(), ids=CLASSES)
def test_no_key_is_forgotten(defaults: Defaults) -> None:
    """Every key of ours that the class has a default for is in its row: those of the families' code."""
    keys = {*SIZES, "rms_norm_eps", "max_position_embeddings", "tie_word_embeddings", "attention_bias", "mlp_bias"}
    keys |= {"hidden_act", "hidden_activation", "sliding_window", "use_sliding_window", "query_pre_attn_scalar"}
    fields = type(theirs(defaults)).__dataclass_fields__
    has = {key for key in keys & fields.keys() if fields[key].default is not None}
    # A window that is not used has no size that counts.
    unused = {"sliding_window"} if "use_sliding_window" in defaults.values else set()
    assert has - unused <= defaults.values.keys()


def test_every_architecture_has_a_row() -> None:
    assert {name for family in all_families() for name in family.architectures} == BY_ARCHITECTURE.keys()


@pytest.mark.parametrize("architecture", BY_ARCHITECTURE)
def test_the_least_configuration(architecture: str) -> None:
    """Nothing but its architecture: heads, activations and windows fit the graph, or the graph's refusal is known."""
    config, asks = complete({"architectures": [architecture]})
    defaults = BY_ARCHITECTURE[architecture]
    assert (
        asks.startswith("config.json (without ")
        and "intermediate_size" in asks
        and asks.endswith(f"defaults of {defaults.source})")
    )
    their = theirs(defaults)
    head_size = getattr(their, "head_dim", None) or their.hidden_size // their.num_attention_heads
    assert head_layout(config) == (their.num_attention_heads, their.num_key_value_heads, head_size)
    assert complete({**config, "head_dim": head_size})[1] == "config.json"
    find_family(config).tensors(config)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "MistralForCausalLM", "Qwen3Model", "BitNetForCausalLM"])
@pytest.mark.parametrize(
    "keys",
    [
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_parameters": {"rope_type": "default"}},
        {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 7.0},
        {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 9.0}},
        {"rope_scaling": None, "rope_parameters": None, "rope_theta": 11.0},
        {
            "rope_scaling": {"rope_type": "default"},
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 9.0},
            "rope_theta": 5.0,
        },
    ],
)
def test_which_scaling_counts(keys: dict[str, Any], architecture: str) -> None:
    config, _ = complete({"architectures": [architecture], **keys})
    kind, parameters = rope_parameters(config)
    found = {"rope_theta": config["rope_theta"], **parameters, "rope_type": kind}
    # Theirs writes into what it is given.
    copied = {key: dict(value) if isinstance(value, dict) else value for key, value in keys.items()}
    wanted = theirs(BY_ARCHITECTURE[architecture], **copied).rope_parameters
    assert {key: found.get(key) for key in wanted} == wanted
