# SPDX-License-Identifier: MIT
"""Special tokens, stops and chat templates of a folder, from the files and in the order of transformers.

A special token is the text that tokenizer_config.json has for it, or special_tokens_map.json in folders so old that
tokenizer_config.json lists no added tokens; config.json's id is taken where no file has a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.models.json_files import CONFIG, read_json_if_there, read_text

NAMES = ("bos", "eos", "unk", "pad")
NO_DEFAULT = "chats have no template, because none of those in the folder is called default"


def special_ids(
    directory: Path, config: Mapping[str, Any], vocab: Mapping[str, int], vocab_size: int
) -> tuple[dict[str, int], list[str]]:
    """Name of a special token -> its id, for those that there are; what is left out, a clause each.

    Args:
        directory: The folder.
        config: Its config.json.
        vocab: Text -> id of all tokens; empty where only tokenizer.model has them.
        vocab_size: Rows of the model's embedding.
    """
    says = read_json_if_there(directory / "tokenizer_config.json")
    if "added_tokens_decoder" not in says:
        says = {**says, **read_json_if_there(directory / "special_tokens_map.json")}
    ids: dict[str, int] = {}
    notes: list[str] = []
    for name in NAMES:
        entry = says.get(f"{name}_token")
        text = entry["content"] if isinstance(entry, dict) else entry
        number = vocab.get(text) if text else None
        if number is None and name != "eos":  # whose ids stop_ids reads
            number = config.get(f"{name}_token_id")
        if number is None or number == -1:
            continue
        if number < vocab_size:
            ids[name] = number
        else:
            notes.append(_left_out(f"{name}_token_id", number))
    return ids, notes


def stop_ids(
    directory: Path, config: Mapping[str, Any], eos: int | None, vocab_size: int
) -> tuple[list[int], list[str]]:
    """Ids that end a generation: the tokenizer's eos, then those of generation_config.json and config.json; notes.

    Raises:
        UserError: there is none; the engine would silently take token 11.
    """
    generation = read_json_if_there(directory / "generation_config.json")
    sources = [eos, generation.get("eos_token_id"), config.get("eos_token_id")]
    listed = [i for source in sources for i in (source if isinstance(source, list) else [source]) if i is not None]
    ids = [i for i in dict.fromkeys(listed) if 0 <= i < vocab_size]
    if not ids:
        raise UserError(f"{directory}: no file names an eos_token_id that is a token; add it to {CONFIG}")
    others = [i for i in dict.fromkeys(listed) if i not in ids]
    return ids, [_left_out("eos_token_id", i) for i in others]


def _left_out(key: str, number: int) -> str:
    return f"{key} {number} is no token of the model and is left out"


def chat_templates(directory: Path) -> tuple[dict[str, str], list[str]]:
    """Name -> chat template, and what to know: a clause each. The one that chats take is called "default".

    Files of their own win, as in transformers: chat_template.jinja and those of additional_chat_templates, then what
    tokenizer_config.json has, then chat_template.json.
    """
    own = directory / "chat_template.jinja"
    named = {"default": _template(own)} if own.is_file() else {}
    named |= {path.stem: _template(path) for path in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    if not named:
        found = read_json_if_there(directory / "tokenizer_config.json").get("chat_template")
        if found is None:
            found = read_json_if_there(directory / "chat_template.json").get("chat_template")
        if isinstance(found, list):
            found = {entry["name"]: entry["template"] for entry in found}
        named = found if isinstance(found, dict) else {"default": found} if found else {}
    # A name becomes the end of a GGUF key.
    named = {re.sub("[^A-Za-z0-9]", "_", name): template for name, template in named.items() if name and template}
    return named, [] if not named or "default" in named else [f"{NO_DEFAULT} ({', '.join(list(named)[:3])})"]


def _template(path: Path) -> str:
    text = read_text(path)
    if "\0" in text:
        raise UserError(f"{path}: holds a zero character, expected a template's text; download the file again")
    return text
