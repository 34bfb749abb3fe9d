# SPDX-License-Identifier: MIT
"""The table of keys is what the engine's loader reads: it is asked about every name that it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fuzz.agreement import ends
from tests.support.engine_models import ARCHITECTURES, model
from tests.support.foreign_files import Key, Tensor, write_gguf
from trit.base.places import ENGINE_DIR
from trit.gguf.engine_keys import BOOL, F32, I32, STRING, U16, U32, kinds_read
from trit.gguf.header import ARRAY

F64 = 12
_SAID = {"u16": U16, "u32": U32, "i32": I32, "f32": F32, "bool": BOOL, "str": STRING}
# Lists that have to be some; what becomes of them is in tests/gguf/test_validate.py.
_LISTS = {f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "scores", "merges", "suppress_tokens")}


def names(architecture: str) -> list[str]:
    """Every key that the engine has a name for, of an architecture."""
    source = (ENGINE_DIR / "src" / "llama-arch.cpp").read_text(encoding="utf-8")
    table = source[source.index("LLM_KV_NAMES = {") :].partition("};")[0]
    found = re.findall(r'\{\s*LLM_KV_\w+\s*,\s*"([^"]+)"', table)
    assert len(found) > 200
    return [name.replace("%s", architecture) for name in found]


def without_a_tensor(architecture: str) -> tuple[list[Key], list[Tensor]]:
    """A model that lacks a tensor that every model has."""
    keys, tensors = model(architecture)
    # A rotated basis is read before everything else.
    keys = [key for key in keys if not key[0].startswith("prism.")]
    return keys, [tensor for tensor in tensors if not tensor[0].endswith(("ffn_down.weight", "ffn_down_exps.weight"))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_key_is_read_with_the_type_of_the_table(architecture: str, loader: Path, tmp_path: Path) -> None:
    """With a float64, which it reads nowhere, it names the type that it wants, or does not look at the key.

    A tensor is not there: what is read is read before that ends loading.
    """
    keys, tensors = without_a_tensor(architecture)
    whole = architecture == ARCHITECTURES[0]
    asked = [name for name in names(architecture) if whole or name.startswith(architecture)]
    paths = []
    for i, name in enumerate(asked):
        rest = [row for row in keys if row[0] != name]
        paths.append(write_gguf(tmp_path / f"{i}.gguf", [*rest, (name, F64, None, 1.0)], tensors))
    read = {}
    for name, (how, why) in zip(asked, ends(loader, paths), strict=True):
        assert how == "refused"
        if said := re.search(r"has wrong type f64 but expected type (\w+)", why):
            read[name] = _SAID[said[1]]
        else:
            assert "not found" in why or name in _LISTS or name == "general.alignment", why
    known = kinds_read(architecture)
    assert read == known if whole else read == {name: known[name] for name in known if name.startswith(architecture)}


@pytest.mark.parametrize("architecture", ["bitnet-b1.58", "gemma3"])
def test_arrays_are_read_where_the_table_has_them(architecture: str, loader: Path, tmp_path: Path) -> None:
    """Arrays of a type that none has: what is refused for its elements or its length may be an array."""
    keys, tensors = without_a_tensor(architecture)
    asked = [name for name in names(architecture) if name.startswith(architecture)]
    paths = []
    for i, name in enumerate(asked):
        rest = [row for row in keys if row[0] != name]
        paths.append(write_gguf(tmp_path / f"{i}.gguf", [*rest, (name, ARRAY, F64, [1.0])], tensors))
    found = zip(asked, ends(loader, paths), strict=True)
    arrays = {name for name, (_, why) in found if re.search(r"wrong array length|is not a string/float32", why)}
    wanted = {"feed_forward_length", "attention.head_count", "attention.head_count_kv", "expert_used_count"}
    wanted |= {"classifier.output_labels"}
    if architecture.startswith("gemma"):
        wanted |= {"attention.sliding_window_pattern"}
    assert arrays == {f"{architecture}.{name}" for name in wanted}
