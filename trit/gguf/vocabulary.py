# SPDX-License-Identifier: MIT
"""Would the engine take a text apart, and put one together, with the vocabulary of a file? Standard library only.

Its own ranges are in ``llama-vocab.cpp``. Beyond them: a vocabulary that it loads and then drops most of every text
with is refused too, because nobody would see why the answers are nonsense.
"""

from __future__ import annotations

import math
import re

from trit.gguf.engine_keys import F32, I32, KINDS, U32, Keys, Unsound
from trit.gguf.engine_names import PRE_TOKENIZERS
from trit.gguf.header import ARRAY, STRING, RawHeader

TOKENS, TOKEN_TYPES, SCORES, MERGES = (
    f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "scores", "merges")
)
# Long arrays of which not only the length is looked at.
LOOKED_AT = (TOKENS, TOKEN_TYPES, SCORES)

_NORMAL, _USER_DEFINED, _BYTE = 1, 4, 6
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# Tokenizers of the engine -> its special tokens bos and eos where a file has none, and whether it puts bos in front.
_TOKENIZERS: dict[str, tuple[int | None, int | None, bool]] = {
    "llama": (1, 2, True),
    "bert": (101, None, True),
    "gpt2": (11, 11, False),
    "hybriddna": (11, 11, False),
    "whitespace": (11, 11, False),
    "gemma4": (None, None, True),
    "t5": (None, 1, False),
    "rwkv": (None, None, False),
    "plamo2": (1, 2, False),
    "test": (None, None, False),
}
# Tokens that the engine looks up, and has to find, in the vocabulary of a model whose name is one of these.
_LOOKED_UP = {("phi-3", "phi3"): ("</s>", "<unk>", "<s>", "<|endoftext|>")}
_MERGED = ("gpt2", "hybriddna", "whitespace", "gemma4")
_SCORED = ("llama", "t5", "plamo2")
# The bytes of English text. Real vocabularies lack some of the others, control characters and what UTF-8 has not.
_TEXT_BYTES = (10, *range(32, 127))


def check_vocabulary(header: RawHeader, keys: Keys) -> None:
    """Compare the tokenizer's keys; raises Unsound.

    Args:
        header: Read with ``LOOKED_AT``.
        keys: Of the same header.
    """
    name = keys.typed("tokenizer.ggml.model", STRING)
    if name in (None, "none", "no_vocab"):
        raise Unsound("it has no tokenizer (tokenizer.ggml.model), so that no text can be put into it")
    if name not in _TOKENIZERS:
        raise Unsound(f"tokenizer.ggml.model is {name[:40]!a}, which the engine does not know")
    pre = keys.typed("tokenizer.ggml.pre", STRING)
    if name in _MERGED and pre and pre not in PRE_TOKENIZERS:
        raise Unsound(f"tokenizer.ggml.pre is {pre[:40]!a}, which the engine does not know")
    tokens = _tokens(header)
    for key, kinds in ((SCORES, (F32, I32)), (TOKEN_TYPES, (I32,))):
        if key not in header.types:
            continue
        if header.types[key] not in {(ARRAY, kind) for kind in kinds}:
            raise Unsound(f"{key} is no array of {' or '.join(KINDS[kind].split()[1] for kind in kinds)} numbers")
        if header.counts[key] < len(tokens):
            raise Unsound(f"{key} has {header.counts[key]} elements for {len(tokens)} tokens")
    types = header.metadata.get(TOKEN_TYPES)
    if name in _SCORED and SCORES not in header.types:
        raise Unsound(f"{SCORES} is missing, without which the tokenizer {name!r} does not work")
    if types and not 1 <= min(types) <= max(types) <= _BYTE:
        raise Unsound(f"{TOKEN_TYPES} holds a number that is no type of a token, 1 to {_BYTE}")
    if header.metadata.get(SCORES) and math.isnan(sum(header.metadata[SCORES])):
        raise Unsound(f"{SCORES} holds a number that is not finite")
    if name in _MERGED:
        _check_merges(header)
    _check_bytes(name, tokens, types)
    if name == "gpt2":
        _check_letters(header, tokens, types)
    _check_special(keys, name, len(tokens))
    model = str(keys.typed("general.name", STRING) or "").lower()
    for names, wanted in _LOOKED_UP.items():
        if any(part in model for part in names) and (missing := set(wanted).difference(tokens)):
            raise Unsound(f"{TOKENS} lacks {min(missing)}, which the engine looks for in a model named {names[0]}")
    suppressed = "tokenizer.ggml.suppress_tokens"
    if header.types.get(suppressed, (ARRAY, I32)) != (ARRAY, I32):
        raise Unsound(f"{suppressed} is no array of int32 numbers")


def _tokens(header: RawHeader) -> list[str]:
    """The tokens as the engine keeps them, no two of which may be the same; raises Unsound."""
    if header.types.get(TOKENS) != (ARRAY, STRING):
        raise Unsound(f"{TOKENS} is missing or no array of strings")
    tokens: list[str] = header.metadata[TOKENS]
    if not tokens:
        raise Unsound(f"{TOKENS} is empty")
    if "\0" in "".join(tokens):
        tokens = [token.partition("\0")[0] for token in tokens]
    known = set(tokens)
    if "" in known:
        tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
        known = set(tokens)
    if len(known) < len(tokens):
        seen: dict[str, int] = {}
        twice, number = next((token, i) for i, token in enumerate(tokens) if seen.setdefault(token, i) != i)
        raise Unsound(f"{TOKENS} has the token {twice[:40]!a} twice, as {seen[twice]} and {number}")
    return tokens


def _check_merges(header: RawHeader) -> None:
    if header.types.get(MERGES) == (ARRAY, STRING):
        return
    if MERGES not in header.types and header.metadata.get("tokenizer.ggml.pre") == "kimi-k2":
        return
    raise Unsound(f"{MERGES} is missing or no array of strings")


def _check_bytes(name: str, tokens: list[str], types: list[int] | None) -> None:
    """Text that is no token becomes tokens of its bytes: there have to be all of them; raises Unsound."""
    if name in _SCORED and types and _BYTE in types:
        for token, kind in zip(tokens, types, strict=False):
            if kind == _BYTE and not _BYTE_TOKEN.fullmatch(token):
                raise Unsound(f"{TOKEN_TYPES} says that the token {token[:40]!a} is a byte, which is written <0xNN>")
    if name in ("llama", "plamo2"):
        places = {token: i for i, token in enumerate(tokens) if len(token) in (1, 6)}
        for byte in range(256):
            place = places.get(token := f"<0x{byte:02X}>")
            if place is None and (name == "plamo2" or byte > 127 or chr(byte) not in places):
                raise Unsound(f"{TOKENS} lacks {token}; the tokenizer {name!r} needs all bytes")
            # The engine would print the six letters.
            if place is not None and (types or [_NORMAL] * len(tokens))[place] != _BYTE:
                raise Unsound(f"{TOKEN_TYPES} does not say that {token} is a byte (type {_BYTE})")
    if name == "rwkv":
        short = {_unescaped(token) for token in tokens if len(token) <= 4}
        if (missing := next((byte for byte in range(256) if bytes([byte]) not in short), None)) is not None:
            raise Unsound(f"{TOKENS} lacks the byte {missing}; the tokenizer 'rwkv' needs all bytes")


def byte_letters() -> list[str]:
    """Byte -> the letter that stands for it in tokens of the tokenizer "gpt2"."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _check_letters(header: RawHeader, tokens: list[str], types: list[int] | None) -> None:
    """A tokenizer that merges letters of bytes has them, as text, and merges; raises Unsound.

    The engine leaves out of a text what no token stands for, and out of an answer what is no text.
    """
    if types and _BYTE in types:
        token = tokens[place] if (place := types.index(_BYTE)) < len(tokens) else ""
        raise Unsound(f"{TOKEN_TYPES} says that the token {token[:40]!a} is a byte, which a gpt2 vocabulary has not")
    places = {token: i for i, token in enumerate(tokens) if len(token) == 1}
    letters = byte_letters()
    found = [letters[byte] for byte in _TEXT_BYTES if letters[byte] in places]
    if 2 * len(found) < len(_TEXT_BYTES):
        raise Unsound(
            f"{TOKENS} has {len(found)} of the {len(_TEXT_BYTES)} letters that English is written with; the engine "
            "would drop the others from every text"
        )
    if types:
        silent = next((token for token in found if types[places[token]] not in (_NORMAL, _USER_DEFINED)), None)
        if silent:
            raise Unsound(f"{TOKEN_TYPES} says that the letter {silent!a} is of type {types[places[silent]]}, no text")
    if header.counts.get(MERGES) == 0:
        kinds = zip(tokens, types or [_NORMAL] * len(tokens), strict=False)
        if token := next((token for token, kind in kinds if kind == _NORMAL and len(token) > 1), ""):
            raise Unsound(f"{MERGES} is empty, without which no text becomes the token {token[:40]!a}")


def missing_bytes(header: RawHeader) -> list[int]:
    """Bytes of text that no token of a "gpt2" vocabulary stands for, so that the engine drops them."""
    if header.metadata.get("tokenizer.ggml.model") != "gpt2":
        return []
    known, letters = set(header.metadata.get(TOKENS) or ()), byte_letters()
    usual = (9, 10, *range(32, 127), *range(128, 192), *range(194, 245))
    return [byte for byte in usual if letters[byte] not in known]


def _unescaped(token: str) -> bytes:
    """The bytes that an RWKV token stands for; b"" for what is no single character."""
    if match := re.fullmatch(r"\\x([0-9a-f]{2})", token):
        return bytes.fromhex(match[1])
    named = {"\\t": b"\t", "\\n": b"\n", "\\r": b"\r", "\\\\": b"\\", "\\'": b"'", '\\"': b'"'}
    return named.get(token, token.encode("utf-8", "surrogateescape") if len(token) == 1 else b"")


def _check_special(keys: Keys, name: str, tokens: int) -> None:
    """A token that is put in front of or behind every text has to be one; raises Unsound."""
    bos, eos, add_bos = _TOKENIZERS[name]
    for key, default, adds in (("bos", bos, add_bos), ("eos", eos, False)):
        wanted = keys.values.get(f"tokenizer.ggml.add_{key}_token")
        token = keys.typed(f"tokenizer.ggml.{key}_token_id", U32)
        if token is None or token >= tokens:
            token = default if default is not None and default < tokens else None
        if token is None and (adds if wanted is None else wanted):
            raise Unsound(f"tokenizer.ggml.{key}_token_id is missing or no token, but one is to be added to every text")
