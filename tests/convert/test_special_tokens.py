# SPDX-License-Identifier: MIT
"""Which file of a folder says what about special tokens and chat templates, in the order of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import UserError
from trit.convert.special_tokens import NO_DEFAULT, chat_templates, special_ids, stop_ids

VOCAB = {"<s>": 1, "</s>": 2, "<unk>": 0, "<pad>": 3}
FILES = ("tokenizer_config.json", "chat_template.json")


def written(folder: Path, **files: Any) -> Path:
    """A folder with JSON files, whose names are without their ending."""
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("value", "templates"),
    [
        ("{{ a }}", {"default": "{{ a }}"}),
        ("", {}),
        (None, {}),
        ({"default": "{{ a }}", "tool use": "{{ b }}"}, {"default": "{{ a }}", "tool_use": "{{ b }}"}),
        ([{"name": "rag", "template": "b"}, {"name": "default", "template": "a"}], {"rag": "b", "default": "a"}),
        # Names become ends of keys, so that one without a name has none; a template of nothing makes no prompt.
        ([{"name": "", "template": "a"}, {"name": "default", "template": "b"}], {"default": "b"}),
        ({"default": "a", "empty": ""}, {"default": "a"}),
        ({"default": "", "": "a"}, {}),
        ({"A-z.09": "b", "default": "a"}, {"A_z_09": "b", "default": "a"}),
    ],
)
def test_forms_of_chat_templates(file: str, value: Any, templates: dict[str, str], tmp_path: Path) -> None:
    written(tmp_path, **{Path(file).stem: {"chat_template": value}})
    assert chat_templates(tmp_path) == (templates, [])


def test_chats_need_a_template_that_is_called_default(tmp_path: Path) -> None:
    written(tmp_path, tokenizer_config={"chat_template": dict.fromkeys(("rag", "tool_use", "c", "d"), "x")})
    named, notes = chat_templates(tmp_path)
    assert list(named) == ["rag", "tool_use", "c", "d"] and notes == [f"{NO_DEFAULT} (rag, tool_use, c)"]


def test_files_of_templates_come_in_an_order(tmp_path: Path) -> None:
    assert chat_templates(tmp_path) == ({}, [])
    written(tmp_path, chat_template={"chat_template": "third"})
    assert chat_templates(tmp_path)[0] == {"default": "third"}
    written(tmp_path, tokenizer_config={"chat_template": "second"})
    assert chat_templates(tmp_path)[0] == {"default": "second"}
    more = tmp_path / "additional_chat_templates"
    more.mkdir()
    for name in ("tool-use.jinja", "rag.jinja", "rag.txt"):
        (more / name).write_text(name)
    others = {"rag": "rag.jinja", "tool_use": "tool-use.jinja"}
    assert chat_templates(tmp_path) == (others, [f"{NO_DEFAULT} (rag, tool_use)"])
    (tmp_path / "chat_template.jinja").write_text("first")
    assert chat_templates(tmp_path) == ({"default": "first", **others}, [])
    (tmp_path / "chat_template.jinja").write_text("a\0b")
    with pytest.raises(UserError, match=r"chat_template\.jinja: holds a zero character, expected a template's text"):
        chat_templates(tmp_path)


@pytest.mark.parametrize(
    ("says", "old", "config", "ids"),
    [
        ({"bos_token": "<s>"}, {}, {"bos_token_id": 3}, {"bos": 1}),
        ({"bos_token": {"content": "<s>"}}, {}, {}, {"bos": 1}),
        ({}, {"bos_token": "<s>", "pad_token": "<pad>"}, {}, {"bos": 1, "pad": 3}),
        # The old file counts where the new one lists no added tokens, and then before it.
        ({"bos_token": "<unk>"}, {"bos_token": "<s>"}, {}, {"bos": 1}),
        ({"bos_token": "<unk>", "added_tokens_decoder": {}}, {"bos_token": "<s>"}, {}, {"bos": 0}),
        ({"unk_token": "<unk>"}, {}, {}, {"unk": 0}),
        ({"pad_token": "<gone>"}, {}, {"pad_token_id": 3}, {"pad": 3}),
        ({"pad_token": None}, {}, {"pad_token_id": -1, "bos_token_id": 0}, {"bos": 0}),
        ({"eos_token": "</s>"}, {}, {"eos_token_id": 3}, {"eos": 2}),
        ({}, {}, {"eos_token_id": 3}, {}),
    ],
)
def test_where_special_tokens_come_from(
    says: dict[str, Any], old: dict[str, Any], config: dict[str, Any], ids: dict[str, int], tmp_path: Path
) -> None:
    written(tmp_path, tokenizer_config=says, special_tokens_map=old)
    assert special_ids(tmp_path, config, VOCAB, 4) == (ids, [])


def test_ids_beyond_the_model_are_left_out_and_told(tmp_path: Path) -> None:
    left = "is no token of the model and is left out"
    config = {"bos_token_id": 4, "pad_token_id": 3, "unk_token_id": 5, "eos_token_id": [4, 3, 3]}
    assert special_ids(tmp_path, config, {}, 4) == (
        {"pad": 3},
        [f"bos_token_id 4 {left}", f"unk_token_id 5 {left}"],
    )
    assert stop_ids(tmp_path, config, None, 4) == ([3], [f"eos_token_id 4 {left}"])
    assert stop_ids(written(tmp_path, generation_config={"eos_token_id": 1}), config, 2, 4)[0] == [2, 1, 3]
