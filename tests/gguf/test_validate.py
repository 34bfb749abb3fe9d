# SPDX-License-Identifier: MIT
"""Files with numbers that the engine would end itself on are refused in front of it; those that it runs are not."""

from __future__ import annotations

import re
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.engine_models import byte_letters
from tests.support.foreign_files import Key, Tensor, keys_of, rewrite, tensors_of, write_gguf
from tests.support.tiny_gguf import KEYS, tiny_model
from trit.base.errors import UserError, run_main
from trit.base.places import ENGINE_DIR
from trit.gguf import known_order
from trit.gguf.engine_names import ARCHITECTURES, PRE_TOKENIZERS
from trit.gguf.header import RawHeader, read_raw_header
from trit.gguf.identify import identify
from trit.gguf.known_order import refuse_other_order
from trit.gguf.loadable import check_loadable
from trit.gguf.source import Source
from trit.gguf.tensor_numbers import broken_numbers
from trit.gguf.validate import LOOKED_AT, misplaced, unsound
from trit.inspect.command import main as inspect_main

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
GGML = "tokenizer.ggml."


def edited(header: RawHeader, *keys: Key, without: str = "") -> RawHeader:
    """A header with other keys; those that begin with a dot belong to the architecture."""
    metadata, types, counts = dict(header.metadata), dict(header.types), dict(header.counts)
    for name, kind, element, value in keys:
        key = metadata["general.architecture"] + name if name.startswith(".") else name
        metadata[key], types[key] = value, (kind, element)
        if kind == ARRAY:
            counts[key] = len(value)
    if without:
        del metadata[without]
    return replace(header, metadata=metadata, types=types, counts=counts)


@pytest.fixture
def header(story_gguf: Path) -> RawHeader:
    return read_raw_header(story_gguf)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ((".block_count", U32, None, 1000), ".block_count is 1000, expected 1 to 512"),
        ((".block_count", I32, None, 4), ".block_count is not a uint32"),
        ((".context_length", U32, None, 0), ".context_length is 0, expected 1 to"),
        ((".embedding_length", U32, None, 1 << 30), ".embedding_length is 1073741824"),
        ((".attention.head_count", U32, None, 0), ".attention.head_count 0 is no multiple"),
        ((".attention.head_count_kv", U32, None, 5), ".attention.head_count 4 is no multiple of head_count_kv 5"),
        ((".attention.head_count", ARRAY, U32, [4, 4, 4]), ".attention.head_count has 3 numbers for 4 layers"),
        ((".attention.head_count_kv", ARRAY, I32, [4, 4, -4, 4]), ".attention.head_count_kv holds -4 to 4"),
        ((".attention.head_count_kv", ARRAY, U32, [4, 2, 4, 4]), ".attention.head_count_kv differs between layers"),
        ((".attention.head_count", ARRAY, F32, [4.0] * 4), "head_count is an array, but not of 32-bit integers"),
        ((".attention.key_length", U32, None, 0), ".attention.key_length is 0, expected 1 to"),
        ((".attention.value_length", U32, None, 0), ".attention.value_length is 0, expected 1 to"),
        ((".attention.key_length", U32, None, 96), "4 heads of 96 and 64"),
        ((".attention.value_length", U32, None, 32), "4 heads of 64 and 32"),
        ((".rope.dimension_count", U32, None, 66), ".rope.dimension_count is 66 for heads of 64"),
        ((".rope.dimension_count", U32, None, 31), ".rope.dimension_count is 31, which is odd"),
        ((".rope.scaling.type", STRING, None, "ntk"), ".rope.scaling.type is 'ntk', which is none of"),
        ((".rope.scaling.factor", F32, None, -2.0), ".rope.scaling.factor is -2, expected 0 or 0.001 to 100000"),
        ((".rope.freq_base", F32, None, float("inf")), ".rope.freq_base is inf, expected 10 to 1e+13"),
        ((".attention.layer_norm_rms_epsilon", F32, None, -1e-5), "_rms_epsilon is -1e-05"),
        ((".rope.scaling.attn_factor", F32, None, float("nan")), ".rope.scaling.attn_factor is nan"),
        (("general.name", U32, None, 7), "general.name is not a string"),
        (("general.alignment", 2, None, 32), "general.alignment is not a uint32"),
        (("general.file_type", STRING, None, "i2_s"), "general.file_type is not a uint32"),
        (("tokenizer.chat_template", BOOL, None, True), "tokenizer.chat_template is not a string"),
        ((".expert_count", U32, None, 8), ".expert_used_count is 0 of 8 experts"),
        ((".expert_count", U32, None, 2000), ".expert_count is 2000, expected 0 to 1024"),
        ((".nextn_predict_layers", U32, None, 9), ".nextn_predict_layers is 9"),
        ((".pooling_type", U32, None, 7), ".pooling_type is 7, expected 0 to 4"),
        ((".feed_forward_length", U32, None, 770), "ffn_gate.weight has the shape [768, 256], expected [770, 256]"),
        (("general.architecture", STRING, None, "bitnet-b1.59"), "general.architecture is 'bitnet-b1.59', for which"),
        (("general.architecture", STRING, None, "qwen2"), "qwen2.context_length is missing"),
        ((f"{GGML}model", STRING, None, "sentencepiece"), "model is 'sentencepiece', which the engine does not know"),
        ((f"{GGML}model", STRING, None, "no_vocab"), "it has no tokenizer"),
        ((f"{GGML}model", STRING, None, "llama"), "tokenizer.ggml.scores is missing"),
        ((f"{GGML}pre", STRING, None, "gpt-5"), "tokenizer.ggml.pre is 'gpt-5'"),
        ((f"{GGML}tokens", ARRAY, STRING, ["a", "b", "a\0c"]), "has the token 'a' twice, as 0 and 2"),
        ((f"{GGML}tokens", ARRAY, STRING, ["", "[EMPTY_0]"]), "has the token '[EMPTY_0]' twice, as 0 and 1"),
        ((f"{GGML}tokens", ARRAY, STRING, []), "tokenizer.ggml.tokens is empty"),
        ((f"{GGML}tokens", ARRAY, STRING, ["a"]), "tokens has 1 of the 96 letters that English is written with"),
        ((f"{GGML}tokens", ARRAY, STRING, ["<a>", *byte_letters()]), "has the shape [2013, 256], expected [257, 256]"),
        ((f"{GGML}merges", ARRAY, U32, [1]), "tokenizer.ggml.merges is missing or no array of strings"),
        ((f"{GGML}token_type", ARRAY, I32, [1] * 2012 + [7]), "token_type holds a number that is no type of a token"),
        ((f"{GGML}token_type", ARRAY, I32, [0] * 2013), "token_type holds a number that is no type of a token"),
        ((f"{GGML}token_type", ARRAY, I32, [1, 1]), "token_type has 2 elements for 2013 tokens"),
        ((f"{GGML}scores", ARRAY, U32, [0] * 2013), "scores is no array of float32 or int32 numbers"),
        ((f"{GGML}scores", ARRAY, F32, [float("nan")] * 2013), "scores holds a number that is not finite"),
        ((f"{GGML}add_bos_token", STRING, None, "true"), "add_bos_token is not a bool"),
        (("general.name", STRING, None, "My Phi-3 Mini"), "tokens lacks </s>, which the engine looks for"),
        (("general.name", U32, None, 3), "general.name is not a string"),
        ((f"{GGML}suppress_tokens", ARRAY, U32, [1]), "suppress_tokens is no array of int32 numbers"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_named(key: Key, said: str, header: RawHeader) -> None:
    assert unsound(header) is None
    reason = unsound(edited(header, key))
    assert reason is not None and said in reason, reason


def bare(header: RawHeader, architecture: str, *keys: Key) -> str | None:
    """What is said of a file of an architecture whose shapes are not known, with no hyper-parameter but the least."""
    least: list[Key] = [(f".{name}", U32, None, 4) for name in ("context_length", "embedding_length", "block_count")]
    return unsound(edited(header, ("general.architecture", STRING, None, architecture), *least, *keys))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("block_count", 1, 512),
        ("context_length", 1, (1 << 31) - 1),
        ("embedding_length", 1, 1 << 24),
        ("nextn_predict_layers", 0, 4),
        ("rope.scaling.original_context_length", 0, (1 << 31) - 1),
        ("pooling_type", 0, 4),
        ("attention.head_count", 0, 1 << 24),
        ("attention.key_length", 0, 1 << 24),
        ("attention.value_length", 0, 1 << 24),
        ("rope.dimension_count", 0, 1 << 24),
        ("feed_forward_length", 0, 1 << 24),
        ("expert_group_used_count", 0, 1024),
    ],
)
def test_ranges_end_where_the_engine_s_do(name: str, least: int, most: int, header: RawHeader) -> None:
    """Both ends of a range pass, their neighbours do not."""
    for value in (least, most):
        assert bare(header, "stablelm", (f".{name}", U32, None, value)) is None
    for value in ([least - 1] if least else []) + [most + 1]:
        assert f"stablelm.{name} is {value}, expected {least} to {most}" in str(
            bare(header, "stablelm", (f".{name}", U32, None, value))
        )


@pytest.mark.parametrize("name", ["context_length", "embedding_length", "block_count"])
def test_what_the_engine_has_no_default_for(name: str, header: RawHeader) -> None:
    architecture = header.metadata["general.architecture"]
    assert unsound(edited(header, without=f"{architecture}.{name}")) == f"{architecture}.{name} is missing"
    epsilon = f"{architecture}.attention.layer_norm_rms_epsilon"
    assert unsound(edited(header, without=epsilon)) == f"{epsilon} is missing"


def test_a_model_says_its_architecture(header: RawHeader) -> None:
    assert unsound(edited(header, without="general.architecture")) == "general.architecture is missing"


@pytest.mark.parametrize(("architecture", "size"), [("bitnet-b1.58", 63), ("stablelm", 5)])
def test_a_default_is_compared_like_a_number_of_the_file(architecture: str, size: int, header: RawHeader) -> None:
    """A file that leaves out how much is rotated means whole heads, whose size may be odd."""
    sizes: list[Key] = [(f".attention.{name}_length", U32, None, size) for name in ("key", "value")]
    changed = edited(header, *sizes, without="bitnet-b1.58.rope.dimension_count")
    if architecture != "bitnet-b1.58":
        assert bare(changed, architecture, (".attention.head_count", U32, None, 1), *sizes) == (
            f"{architecture}.rope.dimension_count is {size} by default, which is odd; the rotary embedding turns pairs"
        )
    else:
        assert f"{architecture}.rope.dimension_count is {size} by default, which is odd" in str(unsound(changed))


@pytest.mark.parametrize(
    ("name", "element", "value", "said"),
    [
        (".classifier.output_labels", U32, [1, 2], ".classifier.output_labels is an array, but not of strings"),
        (".classifier.output_labels", STRING, ["yes", "no"], None),
        ("general.tensor_extra.name", U32, [1], "general.tensor_extra.name is an array, but not of strings"),
        (".attention.head_count_kv", STRING, ["4"] * 4, "head_count_kv is an array, but not of 32-bit integers"),
        (".attention.head_count_kv", BOOL, [True] * 4, None),
        (".attention.head_count_kv", U32, [0, 1, 0, 1 << 24], None),
        (".attention.head_count_kv", U32, [1, 1, 1 + (1 << 24), 1], "holds 1 to 16777217, expected 0 to 16777216"),
        # Of the layers with a window no graph but Gemma's asks.
        (".attention.sliding_window_pattern", F32, [0.5], None),
    ],
)
def test_elements_of_arrays(name: str, element: int, value: list[Any], said: str | None, header: RawHeader) -> None:
    reason = bare(header, "stablelm", (name, ARRAY, element, value))
    assert reason is None if said is None else said in str(reason)


def test_extras_of_tensors_have_a_flag_each(header: RawHeader) -> None:
    name, flag = "general.tensor_extra.name", "general.tensor_extra.prec_a4"
    names: Key = (name, ARRAY, STRING, ["a.weight", "b.weight"])
    said = f"{flag} is no array of 2 bools, one for each of {name}"
    assert bare(header, "stablelm", names, (flag, ARRAY, BOOL, [True, False])) is None
    assert bare(header, "stablelm", names) == said
    assert bare(header, "stablelm", names, (flag, ARRAY, BOOL, [True])) == said
    assert bare(header, "stablelm", names, (flag, ARRAY, U32, [1, 0])) == said
    assert bare(header, "stablelm", names, (flag, BOOL, None, True)) == said


def test_the_first_layer_has_the_size_of_heads(header: RawHeader) -> None:
    """Where a file says a number for each layer: 4 inputs are 2 heads of 2, not 4 heads of 1."""
    assert bare(header, "stablelm", (".attention.head_count", ARRAY, U32, [2, 4, 4, 4])) is None
    reason = bare(header, "stablelm", (".attention.head_count", ARRAY, U32, [4, 2, 2, 2]))
    assert "rope.dimension_count is 1 by default, which is odd" in str(reason)


# Name -> least, most, whether 0 stands for none: a thousand times beyond what published models have.
FLOATS: dict[str, tuple[float, float, bool]] = {
    "rope.freq_base": (10.0, 1e13, False),
    "rope.freq_base_swa": (10.0, 1e13, False),
    "attention.layer_norm_rms_epsilon": (1e-15, 1e-2, False),
    "attention.layer_norm_epsilon": (1e-15, 1e-2, True),
    "attention.group_norm_epsilon": (1e-15, 1e-2, True),
    "attention.clamp_kqv": (1e-3, 1e5, True),
    "attention.max_alibi_bias": (1e-3, 1e5, True),
    "rope.scaling.factor": (1e-3, 1e5, True),
    "rope.scale_linear": (1e-3, 1e5, True),
    "rope.scaling.attn_factor": (1e-3, 1e3, False),
    "rope.scaling.alpha": (1e-3, 1e6, True),
    "rope.scaling.yarn_log_multiplier": (1e-4, 1e3, True),
    "attention.scale": (1e-6, 1e6, True),
    "logit_scale": (1e-6, 1e6, True),
    "residual_scale": (1e-6, 1e6, True),
    "embedding_scale": (1e-6, 1e6, True),
    "attn_logit_softcapping": (1e-2, 1e5, True),
    "final_logit_softcapping": (1e-2, 1e5, True),
}


@pytest.mark.parametrize(("name", "least", "most", "none"), [(name, *row) for name, row in FLOATS.items()])
def test_floats_that_every_graph_multiplies_with(
    name: str, least: float, most: float, none: bool, header: RawHeader
) -> None:
    def said(value: float) -> str | None:
        return bare(header, "stablelm", (f".{name}", F32, None, value))

    assert said(least) is None and said(most) is None and (said(0.0) is None) == none
    wrong = [float("inf"), float("-inf"), float("nan"), -least, -most, least * 0.99, most * 1.01, 1e-38, 3e38]
    for value in wrong:
        assert str(said(value)).startswith(f"stablelm.{name} is {value:g}, expected "), value
    assert "is not a float32" in str(bare(header, "stablelm", (f".{name}", U32, None, 1)))


def test_a_float_that_a_graph_does_not_read_may_be_anything(header: RawHeader) -> None:
    assert unsound(edited(header, (".logit_scale", F32, None, float("nan")))) is None


@pytest.mark.parametrize(
    ("experts", "used", "groups", "used_groups", "said"),
    [
        (0, 0, 0, 0, None),
        (8, 1, 0, 0, None),
        (8, 8, 0, 0, None),
        (8, 9, 0, 0, "expert_used_count is 9 of 8 experts"),
        (8, 0, 0, 0, "expert_used_count is 0 of 8 experts"),
        (0, 1, 0, 0, "expert_used_count is 1 of 0 experts"),
        (8, [2, 8, 1, 2], 0, 0, None),
        (8, [2, 2, 9, 2], 0, 0, "expert_used_count is 9 of 8 experts"),
        (8, 2, 1, 0, None),
        (8, 2, 4, 1, None),
        (8, 2, 4, 3, None),
        (8, 2, 4, 0, "expert_group_count is 4 of 8 experts, 0 used"),
        (8, 2, 4, 4, "expert_group_count is 4 of 8 experts, 4 used"),
        (8, 2, 3, 1, "expert_group_count is 3 of 8 experts"),
        (8, 2, 8, 1, "expert_group_count is 8 of 8 experts"),
        (1024, 1024, 0, 0, None),
        (1025, 2, 0, 0, "expert_count is 1025, expected 0 to 1024"),
        (8, 2, 1025, 2, "expert_group_count is 1025, expected 0 to 1024"),
    ],
)
def test_experts(
    experts: int, used: int | list[int], groups: int, used_groups: int, said: str | None, header: RawHeader
) -> None:
    many = isinstance(used, list)
    reason = bare(
        header,
        "stablelm",
        (".expert_count", U32, None, experts),
        (".expert_used_count", ARRAY if many else U32, U32 if many else None, used),
        (".expert_group_count", U32, None, groups),
        (".expert_group_used_count", U32, None, used_groups),
    )
    assert reason is None if said is None else said in str(reason)


@pytest.mark.parametrize("architecture", ["hunyuan_vl", "hunyuan-dense"])
def test_one_expert_is_none_to_hunyuan(architecture: str, header: RawHeader) -> None:
    # Something else is missing where every tensor's shape is known.
    assert "expert" not in str(bare(header, architecture, (".expert_count", U32, None, 1)))
    assert "0 of 2 experts" in str(bare(header, architecture, (".expert_count", U32, None, 2)))
    assert "0 of 1 experts" in str(bare(header, "stablelm", (".expert_count", U32, None, 1)))


@pytest.mark.parametrize(
    ("model", "tokens", "bos", "eos", "adds_bos"),
    [
        ("llama", 256, 1, 2, True),
        ("bert", 256, 101, None, True),
        ("gpt2", 256, 11, 11, False),
        ("hybriddna", 12, 11, 11, False),
        ("whitespace", 12, 11, 11, False),
        ("gemma4", 12, None, None, True),
        ("t5", 12, None, 1, False),
        ("rwkv", 256, None, None, False),
        ("plamo2", 256, 1, 2, False),
    ],
)
def test_special_tokens_of_a_file_that_names_none(
    model: str, tokens: int, bos: int | None, eos: int | None, adds_bos: bool, header: RawHeader
) -> None:
    """The engine's defaults count where the vocabulary has them, and a flag that is there before the tokenizer's."""
    texts = [f"\\x{i:02x}" if model == "rwkv" else f"<0x{i:02X}>" for i in range(tokens)]
    if model == "gpt2":
        texts = byte_letters()
    base: list[Key] = [
        (f"{GGML}model", STRING, None, model),
        (f"{GGML}tokens", ARRAY, STRING, texts),
        (f"{GGML}scores", ARRAY, F32, [0.0] * tokens),
        (f"{GGML}token_type", ARRAY, I32, [6 if model in ("llama", "plamo2") else 1] * tokens),
        ("general.architecture", STRING, None, "stablelm"),
        *((f"stablelm.{name}", U32, None, 4) for name in ("context_length", "embedding_length", "block_count")),
    ]
    plain = edited(header, *base)
    gone = {f"{GGML}{name}" for name in ("bos_token_id", "eos_token_id", "add_bos_token", "add_eos_token")}
    metadata = {key: value for key, value in plain.metadata.items() if key not in gone}
    plain = replace(plain, metadata=metadata)

    def lacks(name: str, *keys: Key) -> bool:
        reason = unsound(edited(plain, *keys))
        assert reason is None or f"{name}_token_id is missing or no token" in reason
        return reason is not None

    assert lacks("bos") == (adds_bos and bos is None)
    assert not lacks("bos", (f"{GGML}add_bos_token", BOOL, None, False))
    off: Key = (f"{GGML}add_bos_token", BOOL, None, False)
    for name, default in (("bos", bos), ("eos", eos)):
        on: Key = (f"{GGML}add_{name}_token", BOOL, None, True)
        keys = [off, on]
        assert lacks(name, *keys) == (default is None)
        assert not lacks(name, *keys, (f"{GGML}{name}_token_id", U32, None, tokens - 1))
        assert lacks(name, *keys, (f"{GGML}{name}_token_id", U32, None, tokens)) == (default is None)


@pytest.mark.parametrize(
    ("model", "name", "default", "always"),
    [
        ("hybriddna", "bos", 11, False),
        ("hybriddna", "eos", 11, False),
        ("whitespace", "bos", 11, False),
        ("whitespace", "eos", 11, False),
        ("bert", "bos", 101, True),
        ("t5", "eos", 1, False),
    ],
)
def test_a_default_that_the_vocabulary_has_not(
    model: str, name: str, default: int, always: bool, header: RawHeader
) -> None:
    """It is the last of just so many tokens and one; a file that says nothing adds it only where the engine does."""
    for tokens in (default, default + 1):
        keys: list[Key] = [
            (f"{GGML}model", STRING, None, model),
            (f"{GGML}tokens", ARRAY, STRING, [f"t{i}" for i in range(tokens)]),
            (f"{GGML}scores", ARRAY, F32, [0.0] * tokens),
            (f"{GGML}token_type", ARRAY, I32, [1] * tokens),
            (f"{GGML}{name}_token_id", U32, None, tokens),
        ]
        unsaid = edited(header, *keys, without=f"{GGML}add_bos_token")
        added = edited(unsaid, (f"{GGML}add_{name}_token", BOOL, None, True))
        said = f"tokenizer.ggml.{name}_token_id is missing or no token, but one is to be added to every text"
        assert bare(added, "stablelm") == (said if tokens == default else None)
        assert bare(unsaid, "stablelm") == (said if always and tokens == default else None)


def test_what_all_tensors_share(header: RawHeader) -> None:
    def said(name: str, ggml_type: int = 0, shape: tuple[int, ...] = (256,)) -> str | None:
        tensor = replace(header.tensors["output_norm.weight"], name=name, ggml_type=ggml_type, shape=shape)
        keys: list[Key] = [("general.architecture", STRING, None, "stablelm")]
        keys += [(f".{key}", U32, None, 4) for key in ("context_length", "embedding_length", "block_count")]
        return unsound(replace(edited(header, *keys), tensors={name: tensor}))

    assert said("n" * 63) is None and "more than 63 bytes ('nnnnnnnnnnnnnnnnnnnn'...)" in str(said("n" * 64))
    assert "more than 63 bytes" in str(said("é" * 32))
    assert said("blk.3.x") is None and said("blk.x.y") == "'blk.x.y' is in no layer"
    assert said("v", ggml_type=30) is None and said("v", ggml_type=8, shape=(2, 256)) is None
    assert said("v", ggml_type=8) == "v is a vector of type q8_0; the engine wants floats there"
    assert unsound(replace(header, tensors={})) == "it has no weights: only a vocabulary"


def with_tokenizer(header: RawHeader, model: str, tokens: list[str], **more: Any) -> str | None:
    """What is said of a file of another architecture with this tokenizer."""
    keys: list[Key] = [
        (f"{GGML}model", STRING, None, model),
        (f"{GGML}tokens", ARRAY, STRING, tokens),
        (f"{GGML}scores", ARRAY, F32, [0.0] * len(tokens)),
        (f"{GGML}token_type", ARRAY, I32, more.get("types", [6 if token.startswith("<0x") else 1 for token in tokens])),
        (f"{GGML}add_bos_token", BOOL, None, model != "rwkv"),
        ("general.architecture", STRING, None, "stablelm"),
    ]
    for name in ("context_length", "embedding_length", "block_count"):
        keys.append((f"stablelm.{name}", U32, None, 4))
    return unsound(edited(header, *keys, without=f"{GGML}bos_token_id"))


def test_tokenizers_of_bytes_need_all_bytes(header: RawHeader) -> None:
    all_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    assert with_tokenizer(header, "llama", ["a", "b", "c", *all_bytes]) is None
    # Text may be a token itself, a byte of more than seven bits may not.
    assert with_tokenizer(header, "llama", [*all_bytes[:97], "a", *all_bytes[98:]]) is None
    for byte in (0x80, 0xFF):
        lacking = [chr(byte), *all_bytes[:byte], *all_bytes[byte + 1 :]]
        assert f"lacks <0x{byte:02X}>" in str(with_tokenizer(header, "llama", lacking))
    assert "lacks <0x61>" in str(with_tokenizer(header, "plamo2", [*all_bytes[:97], "a", *all_bytes[98:]]))
    assert "the token 'xy' is a byte" in str(with_tokenizer(header, "llama", ["xy", *all_bytes], types=[6] * 257))
    world = [f"\\x{byte:02x}" for byte in range(256)]
    assert with_tokenizer(header, "rwkv", world) is None
    assert with_tokenizer(header, "rwkv", [*world[:10], "\\n", *world[11:65], "A", *world[66:]]) is None
    assert "lacks the byte 255" in str(with_tokenizer(header, "rwkv", world[:255]))


def test_a_token_that_is_always_added_has_to_be_one(header: RawHeader) -> None:
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    assert with_tokenizer(header, "bert", tokens) is None
    assert "bos_token_id is missing or no token" in str(with_tokenizer(header, "bert", tokens[:50]))


def test_keys_with_a_default_may_be_missing(header: RawHeader) -> None:
    for name in ("attention.head_count_kv", "rope.freq_base", "rope.dimension_count"):
        key = f"{header.metadata['general.architecture']}.{name}"
        if key in header.metadata:
            assert unsound(edited(header, without=key)) is None
    assert unsound(edited(header, (f"{GGML}padding_token_id", U32, None, 2**32 - 1))) is None
    assert unsound(edited(header, (".rope.scaling.type", STRING, None, "yarn"))) is None
    assert unsound(edited(header, (".attention.head_count", ARRAY, U32, [4] * 4))) is None


def test_tensors_are_those_of_the_architecture(header: RawHeader) -> None:
    tensors = header.tensors
    norm = tensors["blk.1.attn_norm.weight"]

    def said(**changes: Any) -> str | None:
        changed = {name: tensor for name, tensor in tensors.items() if changes.get(name, tensor) is not None}
        return unsound(replace(header, tensors={**changed, **{k: v for k, v in changes.items() if v is not None}}))

    assert said(**{norm.name: None}) == "blk.1.attn_norm.weight is missing"
    assert "the engine wants float32 or float16" in str(said(**{norm.name: replace(norm, ggml_type=30)}))
    assert said(**{norm.name: replace(norm, ggml_type=1)}) is None
    assert said(**{norm.name: replace(norm, shape=(1, 1, 256))}) is None
    assert "expected [256]" in str(said(**{norm.name: replace(norm, shape=(2, 128))}))
    assert "'blk.1.attn_gate.weight' is no tensor of a" in str(said(**{"blk.1.attn_gate.weight": norm}))
    assert "is no tensor of a" in str(said(**{"blk.4.attn_norm.weight": norm}))
    assert "'rope_freqs.weight' is no tensor of a" in str(said(**{"rope_freqs.weight": norm}))
    embedding = tensors["token_embd.weight"]
    assert "type i8, which the engine does not multiply" in str(
        said(**{embedding.name: replace(embedding, ggml_type=24)})
    )


def test_vectors_and_scales_have_to_be_numbers(story_gguf: Path, tmp_path: Path) -> None:
    """The second norm, a half-precision norm, scales behind matrices of three encodings."""
    opened = Source.open(story_gguf)
    whole = bytearray(story_gguf.read_bytes())
    norm = opened.found["blk.2.ffn_norm.weight"].tensor
    matrix = opened.found["blk.3.ffn_down.weight"]
    for at, value, said in (
        (norm.offset + 4 * 200, float("-inf"), "blk.2.ffn_norm.weight holds a number that is not finite"),
        (matrix.tensor.offset + matrix.nbytes - 32, -0.25, "blk.3.ffn_down.weight has a scale of -0.25"),
        (matrix.tensor.offset + matrix.nbytes - 32, float("nan"), "blk.3.ffn_down.weight holds a number that is not"),
    ):
        data = bytearray(whole)
        data[at : at + 4] = struct.pack("<f", value)
        path = tmp_path / "m.gguf"
        path.write_bytes(data)
        with pytest.raises(UserError, match=re.escape(f"{path}: {said}")):
            check_loadable(path)
    half: list[Tensor] = [("output_norm.weight", (8,), 1, np.full(8, np.inf, "<f2").tobytes())]
    path = write_gguf(tmp_path / "half.gguf", KEYS, half)
    assert broken_numbers(path, identify(read_raw_header(path))) == (
        "output_norm.weight holds a number that is not finite"
    )
    for layout in ("tl1", "tl2"):
        with pytest.raises(UserError, match=r"blk\.0\.attn_q\.weight .*scale of -1"):
            check_loadable(rewritten(story_gguf, tmp_path / f"{layout}.gguf", layout))


def rewritten(story: Path, path: Path, layout: str) -> Path:
    """The story model in a layout, with the first matrix's scale negative."""
    item = Source.open(rewrite(story, path, layout)).found["blk.0.attn_q.weight"]
    assert item.layout is not None
    data = bytearray(path.read_bytes())
    at = item.tensor.offset + item.nbytes - item.layout.sizes(0, 256)[0]
    data[at : at + 4] = struct.pack("<f", -1.0)
    path.write_bytes(data)
    return path


def test_bytes_behind_the_last_tensor_are_nobody_s(tmp_path: Path) -> None:
    tensors: list[Tensor] = [(f"{name}.weight", (8,), 0, bytes(32)) for name in ("a", "b")]
    path = write_gguf(tmp_path / "m.gguf", KEYS, tensors)
    raw = path.read_bytes()
    for more in (1, 32, 1000):
        path.write_bytes(raw + bytes(more))
        assert [item.problem for item in identify(read_raw_header(path))] == [None, None]
    # Between two tensors there are none.
    header = read_raw_header(path)
    apart = {name: replace(tensor, span=tensor.span + 32) for name, tensor in header.tensors.items()}
    assert identify(replace(header, tensors=apart))[0].problem == "as f32 takes 32 bytes and has 64"


def test_data_is_where_the_engine_looks(tmp_path: Path) -> None:
    """The engine wants the tensors of a file behind each other in the table's order."""
    tensors: list[Tensor] = [(f"{name}.weight", (8,), 0, bytes(32)) for name in ("a", "b")]
    path = write_gguf(tmp_path / "m.gguf", KEYS, tensors)
    header = read_raw_header(path)
    assert misplaced(header, identify(header)) is None
    swapped = replace(header, tensors=dict(reversed(header.tensors.items())))
    assert "b.weight begins at byte" in str(misplaced(swapped, identify(swapped)))


def test_data_that_cannot_be_mapped(tmp_path: Path) -> None:
    """general.alignment may be 16, and then the data begin wherever the header ends."""
    refused = set()
    for letters in range(1, 33):
        keys: list[Key] = [("general.alignment", 4, None, 16), ("general.name", 8, None, "x" * letters)]
        tensor: Tensor = ("a.weight", (8,), 0, bytes(32))
        header = read_raw_header(write_gguf(tmp_path / "m.gguf", keys, [tensor], alignment=16))
        reason = misplaced(header, identify(header))
        assert (reason is None) == (header.data_offset % 32 == 0)
        refused.add(reason is None)
        assert reason is None or "no multiple of 32: the engine cannot map it there" in reason
    assert refused == {True, False}


def test_names_are_the_engine_s(engine_bin: Path) -> None:
    source = (ENGINE_DIR / "src" / "llama-arch.cpp").read_text(encoding="utf-8")
    table = source[source.index("LLM_ARCH_NAMES = {") :].partition("};")[0]
    assert set(re.findall(r'"([^"]+)"', table)) == ARCHITECTURES | {"clip", "(unknown)"}
    vocabulary = (ENGINE_DIR / "src" / "llama-vocab.cpp").read_text(encoding="utf-8")
    assert set(re.findall(r'tokenizer_pre == "([^"]+)"', vocabulary)) == PRE_TOKENIZERS


def test_inspect_says_the_same(story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Source.open(story_gguf)
    keys = [
        (key, kind, element, 0 if key.endswith("head_count_kv") else value)
        for key, kind, element, value in keys_of(source.header)
    ]
    path = write_gguf(tmp_path / "m.gguf", keys, tensors_of(source))
    with pytest.raises(UserError) as error:
        check_loadable(path)
    assert run_main(inspect_main, [str(path), "--no-speed"]) == 2
    assert capsys.readouterr().err == f"error: {error.value}\n"
    other = tiny_model(tmp_path / "other.gguf")
    assert run_main(inspect_main, [str(other), "--no-speed"]) == 0
    assert "loads as it is, if its tensors are those of stablelm" in capsys.readouterr().out


def test_costs_little(tmp_path: Path, header: RawHeader) -> None:
    """A vocabulary of 128,256 tokens; 66 ms measured, header included."""
    keys = keys_of(
        header,
        tokens=[*byte_letters(), *(f"token{i}" for i in range(128_000))],
        token_type=[1] * 128_256,
        merges=[f"a{i} b{i}" for i in range(280_147)],
    )
    path = write_gguf(tmp_path / "m.gguf", keys, [("output_norm.weight", (1,), 0, bytes(4))])
    times = []
    for _ in range(3):
        started = time.process_time()
        assert "token_embd.weight is missing" in str(unsound(read_raw_header(path, LOOKED_AT)))
        times.append(time.process_time() - started)
    assert min(times) < 1


@pytest.mark.parametrize("order", ["arm", "rows4"])
def test_another_order_is_refused_and_remembered(
    order: str, story_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_order, "_KEPT", tmp_path / "kept")
    path = rewrite(story_gguf, tmp_path / "m.gguf", f"i2_s_{order}")
    header = check_loadable(path)
    for _ in range(2):
        with pytest.raises(UserError, match=rf"answer nonsense; convert it: .* --i2-s-layout {order}$"):
            refuse_other_order(path, header)
        # The second time nothing is looked at.
        monkeypatch.setattr(known_order, "capture", lambda *_, **__: pytest.fail("looked again"))
    monkeypatch.undo()
    monkeypatch.setattr(known_order, "_KEPT", tmp_path / "kept")
    # A file that has changed is looked at again.
    path.write_bytes(story_gguf.read_bytes())
    refuse_other_order(path, check_loadable(path))
