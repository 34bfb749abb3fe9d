# SPDX-License-Identifier: MIT
"""What a config leaves out of its rope scaling is what transformers takes (modeling_rope_utils.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trit.base.errors import UserError
from trit.gguf.types import GGUFWriter
from trit.models.families.rope import llama3_factors, write_scaling


def written(config: dict[str, Any]) -> dict[str, Any]:
    """The keys that a configuration becomes, without the architecture's name."""
    writer = GGUFWriter(None, "llama")
    write_scaling(writer, config, 10000.0, 2048)
    return {key.removeprefix("llama.rope."): value.value for key, value in writer.kv_data[0].items()}


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
    with pytest.raises(UserError, match="factor of the rope scaling is None"):
        written({"rope_scaling": {"rope_type": "yarn"}})


def test_llama3_s_original_context() -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    left_out = llama3_factors({"rope_scaling": scaling, "max_position_embeddings": 4096}, 64, 500000.0, 2048)
    said = scaling | {"original_max_position_embeddings": 4096}
    assert left_out is not None
    assert np.array_equal(left_out, llama3_factors({"rope_scaling": said}, 64, 500000.0, 2048))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="low_freq_factor 4 is not below high_freq_factor 4"):
        llama3_factors({"rope_scaling": said | {"low_freq_factor": 4.0}}, 64, 500000.0, 2048)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -2, "8", 10**400, True])
def test_numbers_that_scale_nothing(value: Any) -> None:
    with pytest.raises(UserError, match=r"factor of the rope scaling is .*, expected a positive number"):
        written({"rope_scaling": {"rope_type": "linear", "factor": value}})
