# SPDX-License-Identifier: MIT
"""The one reader of a folder's JSON: encodings, and values that have not the form that their key must have."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import UserError
from trit.models.json_files import parse_json, read_json, read_json_if_there, read_json_value, read_text

BPE: dict[str, Any] = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_both_kinds_of_utf_8(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": "\u00e9"}', encoding=encoding)
    assert read_json(tmp_path / "config.json") == {"a": "\u00e9"}


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-16", r"is UTF-16 text, expected UTF-8; save it as UTF-8"),
        ("utf-32", r"is UTF-32 text, expected UTF-8; save it as UTF-8"),
        ("latin-1", r"is not UTF-8 text \(byte 0xe9 at 7\); save it as UTF-8, or download it again"),
    ],
)
def test_other_encodings(encoding: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.jinja").write_bytes('{"a": "\u00e9"}'.encode(encoding))
    with pytest.raises(UserError, match=rf"x\.jinja: {told}$"):
        read_text(tmp_path / "x.jinja")


def test_files_that_may_be_missing(tmp_path: Path) -> None:
    assert read_json_if_there(tmp_path / "generation_config.json") == {}
    (tmp_path / "generation_config.json").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"generation_config\.json: is not there"):
        read_json_if_there(tmp_path / "generation_config.json")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("config.json", {"eos_token_id": "1"}, "eos_token_id is '1', expected a token id or a list of token ids"),
        ("config.json", {"eos_token_id": True}, "eos_token_id is True, expected a token id or a list of token ids"),
        ("config.json", {"eos_token_id": [1, [2]]}, "eos_token_id[1] is [2], expected a token id, a whole number from"),
        ("generation_config.json", {"eos_token_id": 2.0}, "eos_token_id is 2.0, expected a token id or a list of"),
        ("config.json", {"rope_scaling": "linear"}, "rope_scaling is 'linear', expected an object"),
        ("config.json", {"architectures": "BitNet"}, "architectures is 'BitNet', expected a list"),
        ("config.json", {"quantization_config": {"modules_to_not_convert": [7]}},
         "quantization_config.modules_to_not_convert[0] is 7, expected text"),
        ("generation_config.json", {"top_k": 2**40}, f"top_k is {2**40}, expected a whole number"),
        ("generation_config.json", {"temperature": float("nan")}, "temperature is nan, expected a number"),
        ("tokenizer_config.json", {"chat_template": 7}, "chat_template is 7, expected a template's text, or named"),
        ("tokenizer_config.json", {"chat_template": [{"name": "a"}]}, "chat_template[0].template is None, expected it"),
        ("tokenizer_config.json", {"chat_template": {"default": 1}}, "chat_template.default is 1, expected text"),
        ("tokenizer_config.json", {"add_bos_token": "yes"}, "add_bos_token is 'yes', expected true or false"),
        ("tokenizer_config.json", {"bos_token": {"id": 1}}, "bos_token.content is None, expected it to be there"),
        ("special_tokens_map.json", {"eos_token": 5}, "eos_token is 5, expected a token's text, or an object with its"),
        ("added_tokens.json", {"<a>": "3"}, "<a> is '3', expected a token id"),
        ("tokenizer.json", {}, "model is None, expected it to be there"),
        ("tokenizer.json", {"model": [1]}, "model is [1], expected an object"),
        ("tokenizer.json", {"model": {**BPE, "vocab": {"a\0": 0}}}, "model.vocab.a\\x00 is 'a\\x00', expected a tok"),
        ("tokenizer.json", {"model": {**BPE, "vocab": {"a": -1}}}, "model.vocab.a is -1, expected a token id"),
        ("tokenizer.json", {"model": {**BPE, "merges": [["a", "b\0"]]}}, "model.merges[0] is ['a', 'b\\x00'], expec"),
        ("tokenizer.json", {"model": {**BPE, "merges": ["a b", "a b c"]}}, "model.merges[1] is 'a b c', expected two"),
        ("tokenizer.json", {"model": BPE, "added_tokens": [{"id": 3, "content": "<\0>"}]},
         "added_tokens[0].content is '<\\x00>', expected text without zero characters"),
        ("tokenizer.json", {"model": BPE, "normalizer": {"type": "Sequence", "normalizers": [5]}},
         "normalizer.normalizers[0] is 5, expected an object"),
    ],
)  # fmt: skip
def test_values_without_their_form(name: str, value: Any, told: str, tmp_path: Path) -> None:
    """By file and key, with what is there and what is expected."""
    (tmp_path / name).write_text(json.dumps(value))
    with pytest.raises(UserError) as caught:
        read_json_value(tmp_path / name)
    assert str(caught.value.args[0]).startswith(f"{tmp_path / name}: {told}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config.json", {"eos_token_id": [1, 2], "pad_token_id": -1, "rope_scaling": None, "anything": [{"else": 1}]}),
        ("tokenizer_config.json", {"bos_token": {"__type": "AddedToken", "content": "<s>"}, "eos_token": "</s>"}),
        ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": "{{ a }}"}]}),
        ("tokenizer_config.json", {"chat_template": {"default": "{{ a }}", "rag": "{{ b }}"}}),
        ("tokenizer.json", {"model": {"type": "Unigram", "vocab": [["a", -1.5]]}}),
        ("tokenizer.json", {"model": {**BPE, "merges": ["a b"]}, "added_tokens": [], "post_processor": None}),
        ("anything.json", [1, "\0"]),
    ],
)
def test_values_with_their_form(name: str, value: Any, tmp_path: Path) -> None:
    assert parse_json(tmp_path / name, json.dumps(value)) == value


def each(names: str, *values: Any) -> dict[str, list[Any]]:
    """Some keys -> values that none of them may have."""
    return {name: list(values) for name in names.split()}


IDS = "bos_token_id unk_token_id pad_token_id eos_token_id"
# File -> the keys that are read -> values that they may not have. "" is the file itself, a dot leads to a part.
WRONG: dict[str, dict[str, list[Any]]] = {
    "config.json": {
        **each("architectures layer_types", {}, "text", [1]),
        **each("rope_parameters rope_scaling quantization_config compression_config", [], "text"),
        **each("quantization_config.quant_method quantization_config.linear_class", 1, []),
        **each(IDS, -2, 2**32, 1.0, "1", False, {}),
        "": [[], "text"],
        "model_type": [1],
        "_name_or_path": [1, "a\0b"],
        "quantization_config.quantization_mode": [1],
        "quantization_config.modules_to_not_convert": ["text", [None]],
    },
    "generation_config.json": {
        **each("top_k penalty_last_n mirostat", 1.5, "1", True, 2**31, -(2**31) - 1),
        **each("top_p min_p xtc_probability xtc_threshold temperature", "1", True, float("inf"), -1e39),
        **each("penalty_repeat mirostat_tau mirostat_eta", "1", False, float("nan"), 1e39),
        **each(IDS, -2, 2**32, 1.0),
        "sequence": [1, "\0"],
    },
    "tokenizer_config.json": {
        **each("bos_token eos_token unk_token pad_token sep_token cls_token mask_token", 1, "\0", {}),
        **each("add_bos_token add_eos_token", 1, "true"),
        **each("added_tokens_decoder.1.special added_tokens_decoder.1.lstrip", 1, "true"),
        **each("added_tokens_decoder.1.rstrip added_tokens_decoder.1.single_word", 0, "false"),
        "added_tokens_decoder.1.normalized": [1],
        "added_tokens_decoder": [[], {"1": "text"}, {"1": {}}, {"1": {"content": 1}}],
        "chat_template": [1, ["text"], [{"name": "a"}], [{"template": "b"}], {"a": 1}, "\0"],
    },
    "special_tokens_map.json": {"bos_token": [1, {}]},
    "chat_template.json": {"": [[]], "chat_template": [1]},
    "added_tokens.json": {"<a>": ["1", -2, 2**32, None]},
    "tokenizer.json": {
        **each("model.byte_fallback model.ignore_merges model.fuse_unk", 1, "true"),
        **each("model.continuing_subword_prefix model.end_of_word_suffix", 1, []),
        **each("normalizer pre_tokenizer post_processor", "text", {}, {"type": 1}),
        "model": [None, "BPE"],
        "model.type": [1],
        "model.vocab": [[], {"a": 2**32}, {"a": None}, {"\0": 1}],
        "model.merges": [{}, "a b", ["ab"], [["a"]], [["a", 1]], [["a", "b", "c"]], [None]],
        "model.unk_token": [1, "\0"],
        "model.dropout": ["0.1", True],
        "added_tokens": [{}, [{"id": 3}], [{"content": "a"}], [{"id": -2, "content": "a"}]],
        "normalizer.pattern": ["text"],
        "pre_tokenizer.pretokenizers": [{}, [{}]],
        "post_processor.processors": [{}, [{}]],
    },
}
WHOLE: dict[str, Any] = {
    "config.json": {"quantization_config": {}},
    "tokenizer_config.json": {"added_tokens_decoder": {"1": {"content": "<a>"}}},
    "tokenizer.json": {"model": BPE, "normalizer": {"type": "a"}, "pre_tokenizer": {"type": "b"},
                       "post_processor": {"type": "c"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [(name, key, value) for name, rows in WRONG.items() for key, values in rows.items() for value in values],
)
def test_every_key_that_is_read_has_a_form(name: str, key: str, value: Any) -> None:
    """What stands in its place is named; everything around it is as it should be."""
    whole = copy.deepcopy(WHOLE.get(name, {}))
    assert parse_json(Path(name), json.dumps(whole)) == whole
    *parts, last = key.split(".")
    inner = whole
    for part in parts:
        inner = inner[part]
    inner[last] = value
    with pytest.raises(UserError, match=rf"^{re.escape(name)}: {re.escape(key)}.* expected "):
        parse_json(Path(name), json.dumps(whole if key else value))


def test_ends_of_ranges_have_their_form() -> None:
    for name, value in (
        ("config.json", {"bos_token_id": 2**32 - 1, "eos_token_id": [0, -1]}),
        ("generation_config.json", {"top_k": -(2**31), "mirostat": 2**31 - 1, "top_p": 3.4e38, "temperature": -3.4e38}),
        ("tokenizer.json", {"model": {**BPE, "vocab": {"a": 0, "b": 2**32 - 1}, "merges": [["a", "b"], "b a"]}}),
    ):
        assert parse_json(Path(name), json.dumps(value)) == value


def test_text_that_gguf_cannot_hold(tmp_path: Path) -> None:
    """Half of a pair of surrogates is JSON, and no UTF-8."""
    with pytest.raises(UserError, match=r"chat_template\.json: chat_template is '\\ud800', expected a template's text"):
        parse_json(tmp_path / "chat_template.json", r'{"chat_template": "\ud800"}')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": [{"size": NUMBER}]}', "size is a number of 6,000 digits; download the file again"),
        ('{"b": 3, "layers": -NUMBER}', "layers is a number of 6,001 digits; download the file again"),
        ("[NUMBER]", "has a number of too many digits; download the file again"),
    ],
)
def test_numbers_without_end_are_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        parse_json(tmp_path / "config.json", text.replace("NUMBER", "8" * 6000))
    assert str(error.value) == f"{tmp_path / 'config.json'}: {said}"
