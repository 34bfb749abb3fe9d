# SPDX-License-Identifier: MIT
"""The bytes that each token of a GGUF file's vocabulary stands for in a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trit.base.errors import UserError
from trit.gguf.types import GgufHeader

# Values of tokenizer.ggml.token_type (llama.h); the others are ordinary words.
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6
_SPM_SPACE = "\u2581"
_SPM_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones of Latin-1 stand for themselves, the others for 256, 257, ..."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def token_bytes(header: GgufHeader, path: Path) -> list[bytes]:
    """What each token adds to a text; control tokens add nothing.

    Raises:
        UserError: the vocabulary is of a kind whose tokens are not known here.
    """
    kind = header.metadata.get("tokenizer.ggml.model")
    tokens: list[str] = header.metadata["tokenizer.ggml.tokens"]
    types: Sequence[int] = header.metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if kind not in ("gpt2", "llama"):
        raise UserError(
            f"{path}: has a vocabulary of kind {kind}, whose tokens cannot be found in a text; leave --after"
        )
    letters = _byte_letters()
    made = []
    for token, type_ in zip(tokens, types, strict=True):
        if type_ == _CONTROL:
            made.append(b"")
        elif kind == "gpt2":
            plain = type_ == _USER_DEFINED or any(letter not in letters for letter in token)
            made.append(token.encode() if plain else bytes(letters[letter] for letter in token))
        elif type_ == _BYTE and (byte := _SPM_BYTE.fullmatch(token)):
            made.append(bytes([int(byte[1], 16)]))
        else:
            made.append(token.replace(_SPM_SPACE, " ").encode())
    return made
