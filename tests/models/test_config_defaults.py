# SPDX-License-Identifier: MIT
"""What a config.json leaves out is what the installed transformers takes, class by class."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassError

from trit.base.errors import UserError
from trit.gguf.types import GGUFWriter
from trit.models.families import all_families, find_family
from trit.models.families.base import rope_parameters
from trit.models.families.defaults import BY_ARCHITECTURE, SIZES, Defaults, complete
from trit.models.families.llama import head_layout

# Classes that come with checkpoints, not with transformers.
FOREIGN = {"MiniCPMConfig", "MapleConfig"}
CLASSES = {defaults.source: defaults for defaults in BY_ARCHITECTURE.values() if defaults.source not in FOREIGN}
ARCHITECTURES = [name for name, defaults in BY_ARCHITECTURE.items() if defaults.source not in FOREIGN]


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


@pytest.mark.parametrize("source", FOREIGN)
def test_foreign_classes_are_still_foreign(source: str) -> None:
    """Then its defaults can be compared, too: take it out of FOREIGN."""
    assert not hasattr(transformers, source)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_least_configuration(architecture: str) -> None:
    """Nothing but its architecture: heads, activations and windows fit the graph, or the graph's refusal is known."""
    config, asks = complete({"architectures": [architecture]})
    defaults = BY_ARCHITECTURE[architecture]
    assert asks.startswith(f"config.json with {defaults.source}'s defaults (") and "vocab_size" in asks
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


# --- any value of any key: refused, or read as transformers reads it

VALUES = (None, True, 0, 1, 2, 3, 4, 64, 512, -1, 2.0, 1e-5, "silu", "x", [], [4], {}, {"rope_type": "default"})
SCALINGS = (
    {"type": "linear", "factor": 2.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 3.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {"rope_type": "dynamic", "factor": 4.0},
    {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_type": "default"}},
    {"rope_type": 5},
    {"rope_type": "linear", "factor": "2"},
)
SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "query_pre_attn_scalar": 16,
    "sliding_window": 64,
}


def read_by_us(config: dict[str, Any]) -> dict[str, Any]:
    """What the engine is told, by transformers' names; raises UserError."""
    name = find_family(config).gguf_architecture(config)
    writer = GGUFWriter(None, name)
    find_family(config).tensors(config)
    find_family(config).write_hyperparameters(writer, config)
    keys = {key.removeprefix(f"{name}."): value.value for key, value in writer.kv_data[0].items()}
    kind = config["rope_scaling"] if config.get("rope_scaling") else config.get("rope_parameters") or {}
    told = {
        "vocab_size": keys["vocab_size"],
        "hidden_size": keys["embedding_length"],
        "intermediate_size": keys["feed_forward_length"],
        "num_hidden_layers": keys["block_count"],
        "num_attention_heads": keys["attention.head_count"],
        "num_key_value_heads": keys["attention.head_count_kv"],
        "max_position_embeddings": keys["context_length"],
        "rms_norm_eps": keys["attention.layer_norm_rms_epsilon"],
        "head_dim": keys.get("attention.key_length", keys["rope.dimension_count"]),
        "rope_theta": keys["rope.freq_base"],
        "rope_type": keys.get("rope.scaling.type", "llama3" if "llama3" in str(kind) else "default"),
        "factor": keys.get("rope.scaling.factor"),
        "original": keys.get("rope.scaling.original_context_length"),
    }
    if "attention.sliding_window" in keys:
        told["sliding_window"] = keys["attention.sliding_window"]
        told["rope_local"] = keys["rope.freq_base_swa"]
    return told


def read_by_them(defaults: Defaults, keys: dict[str, Any]) -> dict[str, Any]:
    config = theirs(defaults, **copy.deepcopy(keys))
    rope = config.rope_parameters
    names = (*SIZES, "max_position_embeddings", "rms_norm_eps", "sliding_window")
    found = {name: getattr(config, name, None) for name in names}
    if found["head_dim"] is None:
        found["head_dim"] = config.hidden_size // config.num_attention_heads
    if "full_attention" in rope:
        found["rope_local"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    found["original"] = rope.get("original_max_position_embeddings") if rope["rope_type"] == "yarn" else None
    factor = rope.get("factor") if rope["rope_type"] in {"linear", "yarn"} else None
    return {**found, "rope_theta": rope["rope_theta"], "rope_type": rope["rope_type"], "factor": factor}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_value_is_refused_or_read_alike(architecture: str) -> None:
    defaults = BY_ARCHITECTURE[architecture]
    named = {"architectures": [architecture]}
    # SiLU is LLaMA's and one of BitNet's; 1bitLLM's class is not LLaMA's, though its configuration is.
    base = {**SMALL, "hidden_act": "silu"} if defaults.source != "Gemma3TextConfig" else SMALL
    mutants = [{key: value for key, value in base.items() if key != gone} for gone in base]
    mutants += [{**base, key: value} for key in (*base, "rope_theta", "rope_local_base_freq") for value in VALUES]
    mutants += [{**base, key: value} for key in ("rope_scaling", "rope_parameters") for value in SCALINGS]
    mutants += [{**base, "rope_scaling": one, "rope_parameters": two} for one in SCALINGS for two in SCALINGS]
    read = 0
    for keys in mutants:
        try:
            ours = read_by_us(complete(named | keys)[0])
        except UserError as error:
            assert str(error).startswith("config.json: "), (keys, error)
            continue
        try:
            wanted = read_by_them(defaults, keys)
        except StrictDataclassError:  # older ones read it: an epsilon of 1, a hidden size that heads do not divide
            continue
        read += 1
        assert ours == {key: wanted[key] for key in ours}, keys
    assert read > 20
