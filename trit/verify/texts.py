# SPDX-License-Identifier: MIT
"""Tokens and chat prompts: the engine's against those of tokenizer.json and of transformers."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trit.base.errors import UserError
from trit.engine.server import Refused, Server
from trit.models.json_files import CONFIG, read_json_if_there
from trit.verify import engine
from trit.verify.report import Check, judged, left_out
from trit.verify.weights import GgufFile

DATA = Path(__file__).resolve().parent / "data"
TEXT = DATA / "text.txt"
# Unicode ranges that random strings are drawn from: ASCII, Latin, Greek and Cyrillic, Hebrew and Arabic, Devanagari and
# Thai, Hangul Jamo, punctuation and spaces, kana and CJK, Hangul, presentation forms, emoji, mathematical letters.
_RANGES = (
    (0x09, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x4FF), (0x590, 0x6FF), (0x900, 0xE7F), (0x1100, 0x11FF),
    (0x2000, 0x206F), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFEFF), (0x1F300, 0x1FAFF),
    (0x1D400, 0x1D7FF),
)  # fmt: skip
_RANDOM_STRINGS = 150


def load_tokenizer(directory: Path) -> Tokenizer:
    """The checkpoint's tokenizer.json, without the padding and truncation that a trainer may have left in it.

    Raises:
        UserError: it cannot be read.
    """
    path = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers package raises bare Exception for everything
        raise UserError(f"{path}: cannot be read ({error}); download the file again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def load_chat_tokenizer(directory: Path) -> Any:
    """The checkpoint's tokenizer as transformers makes it, for its chat template; raises UserError if it cannot.

    Of a checkpoint that comes with code of its own, which is never run, as its tokenizer.json alone says.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
    own_code = any("auto_map" in read_json_if_there(directory / name) for name in (CONFIG, "tokenizer_config.json"))
    loader: Any = PreTrainedTokenizerFast if own_code else AutoTokenizer
    try:
        return loader.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{directory}: transformers cannot load its tokenizer ({reason})") from None


def nasty_strings(special: Iterable[str]) -> list[str]:
    """The shipped corpus, each special token inside a sentence, and random strings from many scripts."""
    shipped: list[str] = json.loads((DATA / "nasty.json").read_text(encoding="utf-8"))
    spelled = [f"a {token} b{token}{token}\n {token}" for token in special]
    random = Random(0)
    made = []
    for _ in range(_RANDOM_STRINGS):
        low, high = random.choice(_RANGES)
        made.append("".join(chr(random.randint(low, high)) for _ in range(random.randint(1, 24))))
    return [*shipped, *spelled, *made]


def check_tokens(tokenizer: Tokenizer, server: Server) -> Check:
    """Ids with and without the special tokens at the ends, over :func:`nasty_strings`.

    The engine does not apply Unicode's normal form NFC, which some tokenizer.json ask for: it gets normalised text.
    """
    special_tokens = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    strings = nasty_strings(special_tokens[:8])
    normalises = json.loads(tokenizer.to_str()).get("normalizer") == {"type": "NFC"}
    count = wrong = changed = 0
    first = ""
    for text in strings:
        given = unicodedata.normalize("NFC", text) if normalises else text
        changed += given != text
        for special in (True, False):
            wanted = tokenizer.encode(text, add_special_tokens=special).ids
            found = engine.tokenize(server, given, special)
            count += len(wanted)
            if wanted != found:
                wrong += 1
                first = first or _difference(tokenizer, text, wanted, found)
    measured = f"{len(strings)} strings, {count:,} tokens: " + (f"{wrong} differ; {first}" if wrong else "equal")
    if changed:
        measured += f"; {changed} strings were not in NFC, which the engine leaves to its caller"
    return judged("tokens", not wrong, measured, "equal", strings=len(strings), tokens=count, wrong=wrong, first=first)


def _difference(tokenizer: Tokenizer, text: str, wanted: list[int], found: list[int]) -> str:
    place = next((i for i, pair in enumerate(zip(wanted, found, strict=False)) if pair[0] != pair[1]), 0)
    place = place if wanted[:place] == found[:place] else 0
    if wanted[: len(found)] == found or found[: len(wanted)] == wanted:
        place = min(len(wanted), len(found))
    ours, theirs = found[place : place + 3], wanted[place : place + 3]
    words = [tokenizer.id_to_token(token) for token in theirs]
    return f"first in {text[:60]!a}, token {place}: {ours}, tokenizer.json {theirs} ({words!a})"


def conversations() -> list[dict[str, Any]]:
    """Shipped conversations: a name, messages, and whether the assistant's turn is opened."""
    found: list[dict[str, Any]] = json.loads((DATA / "conversations.json").read_text(encoding="utf-8"))
    return found


def check_template(directory: Path, file: GgufFile, server: Server) -> Check:
    """Chat prompts of :func:`conversations`, character by character; what one refuses the other has to refuse."""
    inside = file.field("tokenizer.chat_template")
    tokenizer = load_chat_tokenizer(directory)
    if not tokenizer.chat_template:
        if inside:
            return judged("chat template", False, "the file has one, the checkpoint has none", "the same")
        return left_out("chat template", "the checkpoint has none")
    bos = tokenizer.bos_token if file.adds_bos() else None
    wrong = ""
    talks = conversations()
    for talk in talks:
        wanted = _by_transformers(tokenizer, talk, bos)
        found = _by_engine(server, talk, bos)
        if wanted != found:
            wrong = wrong or f"{talk['name']}: {found!a}, transformers {wanted!a}"
    measured = f"{len(talks)} conversations: {wrong or 'equal'}"
    return judged("chat template", not wrong, measured, "equal", conversations=len(talks), first=wrong)


def _by_transformers(tokenizer: Any, talk: dict[str, Any], bos: str | None) -> str | None:
    """The prompt without the bos in front (the engine leaves it to the tokenizer); None: refused."""
    try:
        prompt = tokenizer.apply_chat_template(
            talk["messages"], tokenize=False, add_generation_prompt=talk["add_generation_prompt"]
        )
    except Exception:  # whatever a template raises
        return None
    return str(prompt).removeprefix(bos or "")


def _by_engine(server: Server, talk: dict[str, Any], bos: str | None) -> str | None:
    body = {key: talk[key] for key in ("messages", "add_generation_prompt")}
    try:
        return str(server.post("/apply-template", body)["prompt"]).removeprefix(bos or "")
    except Refused:
        return None
