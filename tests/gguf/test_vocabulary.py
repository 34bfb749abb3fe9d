# SPDX-License-Identifier: MIT
"""Vocabularies that the engine loads, and then drops most of a text with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_models import ARRAY, I32, STRING, byte_letters, model
from tests.support.foreign_files import Key, write_gguf
from trit.base.places import ENGINE_DIR
from trit.gguf import vocabulary
from trit.gguf.header import read_raw_header
from trit.gguf.validate import unsound
from trit.gguf.vocabulary import missing_bytes

GGML = "tokenizer.ggml."
LETTERS = byte_letters()


def said(path: Path, architecture: str = "llama", **changes: Any) -> str | None:
    """What is said of a model whose vocabulary is changed, before anything about its tensors."""
    keys, tensors = model(architecture)
    kinds = {"tokens": STRING, "token_type": I32, "merges": STRING}
    rest = [row for row in keys if row[0].removeprefix(GGML) not in changes]
    new: list[Key] = [(f"{GGML}{name}", ARRAY, kinds[name], value) for name, value in changes.items()]
    reason = unsound(read_raw_header(write_gguf(path / "m.gguf", [*rest, *new], tensors)))
    return None if reason and "token_embd.weight has the shape" in reason else reason


def test_letters_stand_for_bytes_as_in_the_engine() -> None:
    assert vocabulary.byte_letters() == LETTERS and len(set(LETTERS)) == 256
    assert LETTERS[ord("a")] == "a" and LETTERS[ord(" ")] == "\u0120" and LETTERS[255] == "\u00ff"


def test_most_letters_of_a_text_are_needed(tmp_path: Path) -> None:
    """48 of the 96 that English is written with."""
    text = [LETTERS[10], *(LETTERS[byte] for byte in range(32, 127))]
    assert said(tmp_path, tokens=text[:48], token_type=[1] * 48, merges=[]) is None
    reason = said(tmp_path, tokens=[*text[:47], "\u00e9"], token_type=[1] * 48, merges=[])
    assert "has 47 of the 96 letters that English is written with" in str(reason)


@pytest.mark.parametrize(("kind", "fine"), [(1, True), (2, False), (3, False), (4, True), (5, False)])
def test_letters_are_text(kind: int, fine: bool, tmp_path: Path) -> None:
    types = [1] * 258 + [3]
    types[ord("q")] = kind
    assert LETTERS[ord("q")] == "q"
    reason = said(tmp_path, token_type=types)
    assert reason is None if fine else f"says that the letter 'q' is of type {kind}" in str(reason)


def test_a_vocabulary_of_letters_has_no_bytes(tmp_path: Path) -> None:
    types = [1] * 256 + [6, 1, 3]
    assert "says that the token 'th' is a byte, which a gpt2 vocabulary has not" in str(
        said(tmp_path, token_type=types)
    )


def test_merges_are_needed_for_what_is_longer_than_a_letter(tmp_path: Path) -> None:
    assert "merges is empty, without which no text becomes the token 'th'" in str(said(tmp_path, merges=[]))
    # Control tokens and those that are in a text as they are need none.
    assert said(tmp_path, merges=[], token_type=[1] * 256 + [4, 4, 3]) is None
    assert said(tmp_path, merges=["t h"]) is None


def test_a_vocabulary_may_leave_out_types(tmp_path: Path) -> None:
    """Then all tokens are text."""
    keys, tensors = model("llama")
    for tokens, merges, passes in (
        ([*LETTERS, "th"], ["t h"], True),
        (LETTERS, [], True),
        ([*LETTERS, "th"], [], False),
    ):
        rest = [row for row in keys if row[0].removeprefix(GGML) not in ("tokens", "token_type", "merges")]
        rest += [(f"{GGML}tokens", ARRAY, STRING, tokens), (f"{GGML}merges", ARRAY, STRING, merges)]
        reason = unsound(read_raw_header(write_gguf(tmp_path / "m.gguf", rest, tensors)))
        assert ("token_embd.weight has the shape" in str(reason)) == passes
        assert passes or "no text becomes the token 'th'" in str(reason)


def test_bytes_of_a_sentencepiece_vocabulary_are_said_to_be_some(tmp_path: Path) -> None:
    """Else the engine prints <0x0A>, letter for letter."""
    types = [2, 3, 3] + [6] * 256 + [1] * 5
    assert said(tmp_path, "gemma3", token_type=types) is None
    types[3 + 0x0A] = 1
    assert "does not say that <0x0A> is a byte (type 6)" in str(said(tmp_path, "gemma3", token_type=types))


def test_bytes_that_are_left_out_are_counted(tmp_path: Path) -> None:
    keys, tensors = model("llama")
    for gone, missing in (("~", [126]), (LETTERS[0xC0], []), (LETTERS[1], []), (LETTERS[0xE2], [0xE2])):
        tokens = [token if token != gone else "other" for token in LETTERS]
        changed = [row if row[0] != f"{GGML}tokens" else (*row[:3], tokens) for row in keys]
        assert missing_bytes(read_raw_header(write_gguf(tmp_path / "m.gguf", changed, tensors))) == missing
    assert missing_bytes(read_raw_header(write_gguf(tmp_path / "m.gguf", *model("gemma3")))) == []


def test_bytes_of_text_are_those_of_utf_8(tmp_path: Path) -> None:
    """All that some character has in UTF-8, but control characters: without any of them text is lost."""
    wanted = {byte for code in range(0xA0, 0x110000, 61) if not 0xD800 <= code < 0xE000 for byte in chr(code).encode()}
    wanted |= {byte for code in (0xC0, 0xFF, 0x10FFFF) for byte in chr(code).encode()} | {*b"\t\n", *range(32, 127)}
    keys, tensors = model("llama")
    rest = [row for row in keys if row[0] not in (f"{GGML}tokens", f"{GGML}token_type")]
    path = write_gguf(tmp_path / "m.gguf", [*rest, (f"{GGML}tokens", ARRAY, STRING, ["none"])], tensors)
    assert missing_bytes(read_raw_header(path)) == sorted(wanted)


def test_published_vocabularies_pass(engine_bin: Path) -> None:
    """Those of the engine's tree; one lacks control characters, another has 26 bytes as text."""
    assert engine_bin.is_dir()
    found = list((ENGINE_DIR / "models").glob("ggml-vocab-*.gguf"))
    assert len(found) > 3
    for path in found:
        assert unsound(read_raw_header(path)) == "it has no weights: only a vocabulary", path
