# SPDX-License-Identifier: MIT
"""What a config leaves out of its rope scaling is what transformers takes (modeling_rope_utils.py)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from trit.base.errors import UserError
from trit.gguf.types import GGUFWriter
from trit.models.families.base import (
    Kind,
    TensorSpec,
    boolean,
    positive_int,
    positive_number,
    projection_norm_epsilon,
    projection_norms,
    rope_theta,
)
from trit.models.families.defaults import complete
from trit.models.families.rope import check_scaling, llama3_factors, pair_rows, write_scaling

LLAMA = {"architectures": ["LlamaForCausalLM"]}


def written(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that a configuration becomes, without the architecture's name."""
    writer = GGUFWriter(None, "llama")
    write_scaling(writer, complete(LLAMA | config)[0])
    return {
        key.removeprefix("llama.rope."): value.value
        for key, value in writer.kv_data[0].items()
        if key != "general.architecture"
    }


def test_yarn_s_original_context() -> None:
    """From config.json's top, else from the scaling, else the model's own context."""
    yarn = {"rope_type": "yarn", "factor": 4.0}
    key, context = "original_max_position_embeddings", {"max_position_embeddings": 8192}
    assert written({"rope_scaling": yarn, **context})["scaling.original_context_length"] == 8192
    assert written({"rope_scaling": yarn})["scaling.original_context_length"] == 2048
    inside = {"rope_scaling": yarn | {key: 4096}, **context}
    assert written(inside)["scaling.original_context_length"] == 4096
    assert written({**inside, key: 1024})["scaling.original_context_length"] == 1024


def test_yarn_without_a_factor() -> None:
    """A null factor is the ratio of the contexts; one that is missing is an error there, too."""
    scaling = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 1024}
    assert written({"rope_scaling": scaling, "max_position_embeddings": 8192})["scaling.factor"] == 8
    assert written({"rope_scaling": scaling})["scaling.factor"] == 2
    with pytest.raises(UserError, match="factor of the rope scaling is None"):
        written({"rope_scaling": {"rope_type": "yarn"}})


def test_llama3_s_original_context() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    theta: dict[str, Any] = {"rope_theta": 500000.0}
    left_out = llama3_factors(theta | {"rope_scaling": scaling, "max_position_embeddings": 4096}, 64)
    said = scaling | {"original_max_position_embeddings": 4096}
    assert left_out is not None
    assert np.array_equal(left_out, llama3_factors(theta | {"rope_scaling": said}, 64))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="low_freq_factor 4 is not below high_freq_factor 4"):
        llama3_factors(theta | {"rope_scaling": said | {"low_freq_factor": 4.0}}, 64)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -2, "8", 10**400, True])
def test_numbers_that_scale_nothing(value: Any) -> None:
    with pytest.raises(UserError, match=r"factor of the rope scaling is .*, expected a positive number"):
        written({"rope_scaling": {"rope_type": "linear", "factor": value}})


# --- keys, by hand


def scaled(kind: str, **more: Any) -> dict[str, Any]:
    """The keys of a scaling by 4 of 1,024 positions."""
    return written({"rope_scaling": {"type": kind, "factor": 4.0, "original_max_position_embeddings": 1024, **more}})


def test_keys_of_every_kind() -> None:
    assert written({}) == {"freq_base": 10000.0}
    assert written({"rope_theta": 5e5}) == written({"rope_parameters": {"rope_theta": 5e5}}) == {"freq_base": 5e5}
    assert written({"rope_scaling": {"rope_type": "llama3"}}) == {"freq_base": 10000.0}
    linear = {"freq_base": 10000.0, "scaling.type": "linear", "scaling.factor": 4.0}
    assert scaled("linear") == linear
    yarn = {**linear, "scaling.type": "yarn", "scaling.original_context_length": 1024}
    assert scaled("yarn") == yarn
    assert scaled("yarn", beta_fast=16, beta_slow=None) == {**yarn, "scaling.yarn_beta_fast": 16.0}
    assert scaled("yarn", beta_slow=2.0, beta_fast=0) == {**yarn, "scaling.yarn_beta_slow": 2.0}


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"attention_factor": 2.0}, 2.0),
        ({"attention_factor": 1.0}, 1.0),
        ({"attention_factor": 2.0, "mscale": 1.0, "mscale_all_dim": 0.5}, 2.0),
        ({"mscale": 1.0, "mscale_all_dim": 0.5}, (0.1 * math.log(4) + 1) / (0.05 * math.log(4) + 1)),
        ({"mscale": 0.707, "mscale_all_dim": 0.707}, 1.0),
        ({"mscale": 1.0}, None),
        ({"mscale_all_dim": 1.0}, None),
    ],
)
def test_yarn_s_attention_factor(more: dict[str, Any], wanted: float | None) -> None:
    """What the engine multiplies with is the key times 0.1 ln(factor) + 1."""
    found = scaled("yarn", **more).get("scaling.attn_factor")
    assert found == (None if wanted is None else pytest.approx(wanted / (0.1 * math.log(4) + 1)))
    shrunk = scaled("yarn", **more | {"factor": 0.5}).get("scaling.attn_factor")
    assert shrunk == (None if more.get("attention_factor", 1.0) == 1 else more["attention_factor"])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"rope_scaling": {"type": "dynamic"}}, "of type dynamic is not supported; supported: default, linear, llama3"),
        ({"rope_parameters": {"rope_type": "yarn", "truncate": False}}, "truncate false is not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}, "partial_rotary_factor": 1.0}, "factor is 0.25"),
    ],
)
def test_scalings_that_no_graph_has(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_scaling(config)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rope_scaling": None},
        *({"rope_scaling": {"rope_type": kind}} for kind in ("default", "linear", "llama3", "yarn")),
        {"rope_scaling": {"type": "yarn", "truncate": True}},
        {"rope_scaling": {"type": "linear", "truncate": False}},
        {"partial_rotary_factor": 1.0},
        {"partial_rotary_factor": None},
        {"partial_rotary_factor": 0.5, "rope_parameters": {"partial_rotary_factor": 1}},
    ],
)
def test_scalings_that_graphs_have(config: dict[str, Any]) -> None:
    check_scaling(config)


def test_llama3_s_factors() -> None:
    """The four wavelengths are 2 pi, 20 pi, 200 pi and 2000 pi."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = {"rope_theta": 10000.0, "rope_scaling": scaling | {"original_max_position_embeddings": 1200}}
    found = llama3_factors(config, 8)
    smooth = (1200 / (200 * math.pi) - 1) / 3
    assert found is not None and found.dtype == np.float32
    assert found.tolist() == pytest.approx([1, 1, 1 / ((1 - smooth) / 8 + smooth), 8])
    assert llama3_factors({"rope_scaling": {**scaling, "rope_type": "yarn"}}, 8) is None


def test_rows_of_halves_become_rows_of_pairs() -> None:
    rows = np.arange(12).reshape(12, 1) * np.array([1, 100])
    assert pair_rows(rows, 2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert pair_rows(rows, 1)[:, 1].tolist() == [100 * i for i in (0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11)]
    assert pair_rows(rows, 0) is rows and pair_rows(np.arange(4), 1).tolist() == [0, 2, 1, 3]


# --- numbers of a configuration


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [
        ("hidden_size", 1, True),
        ("hidden_size", 2**31 - 1, True),
        ("hidden_size", 2**31, False),
        ("hidden_size", 0, False),
        ("hidden_size", -1, False),
        ("hidden_size", 2.0, False),
        ("hidden_size", True, False),
        ("hidden_size", None, False),
        ("num_hidden_layers", 512, True),
        ("num_hidden_layers", 513, False),
        ("vocab_size", 1 << 22, True),
        ("vocab_size", (1 << 22) + 1, False),
    ],
)
def test_integers(key: str, value: Any, fits: bool) -> None:
    if fits:
        assert positive_int({key: value}, key) == value
        return
    with pytest.raises(UserError, match=rf"^config\.json: {key} is .*, expected a positive integer up to \d+$"):
        positive_int({key: value}, key)


@pytest.mark.parametrize("value", [1.2e-38, 3.4e38, 1, 7])
def test_numbers(value: float) -> None:
    assert positive_number({"x": value}, "x") == value and positive_number({}, "x", value) == value
    for wrong in (1.1e-38, 3.5e38, 0, -1, True, "1", None, float("nan")):
        with pytest.raises(UserError, match=r"^config\.json: x of y is .*, expected a positive number$"):
            positive_number({"x": wrong}, "x", value, "y")
    with pytest.raises(UserError, match=r"^config\.json: x is None, expected a positive number$"):
        positive_number({}, "x")


def test_truth_values() -> None:
    for default in (True, False):
        assert boolean({}, "x", default) is boolean({"x": None}, "x", default) is default
        assert boolean({"x": True}, "x", default) is True and boolean({"x": False}, "x", default) is False
        for wrong in (0, 1, "true", []):
            with pytest.raises(UserError, match=r"^config\.json: x is .*, expected true or false$"):
                boolean({"x": wrong}, "x", default)


def test_norms_in_front_of_projections() -> None:
    on = {"quantization_config": {"use_rms_norm": True}}
    assert projection_norm_epsilon(on) == 1e-6
    assert projection_norm_epsilon({"quantization_config": {"use_rms_norm": True, "rms_norm_eps": 1e-5}}) == 1e-5
    for off in ({}, {"quantization_config": None}, {"quantization_config": {"use_rms_norm": False}}):
        assert projection_norm_epsilon(off) is None and projection_norms(off, "a.b", "c", 7) == []
    spec = TensorSpec("a.b.rms_norm.weight", "c_norm_in.weight", Kind.NORM, (7,))
    assert projection_norms(on, "a.b", "c", 7) == [spec] and (spec.rope_heads, spec.offset) == (0, 0.0)


def test_plain_rotary_embeddings() -> None:
    assert rope_theta(complete(LLAMA)[0]) == 10000 and rope_theta({"rope_theta": 7}) == 7
    assert rope_theta({"rope_theta": 7, "rope_parameters": {"rope_type": "default", "rope_theta": 9.0}}) == 9
    # rope_scaling counts where both are there, as in transformers: with the base at config.json's top.
    both = {"rope_theta": 7, "rope_parameters": {"rope_type": "yarn", "rope_theta": 9.0}}
    assert rope_theta({**both, "rope_scaling": {"type": "default"}}) == 7
    with pytest.raises(UserError, match="of type x is not supported, only plain rotary embeddings are"):
        rope_theta({"rope_scaling": {"type": "x"}})
