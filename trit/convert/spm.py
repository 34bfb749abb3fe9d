# SPDX-License-Identifier: MIT
"""SentencePiece-style BPE vocabularies: scores, token types and the space in front, from tokenizer.json or .model.

Such a tokenizer replaces spaces by U+2581, then merges over the whole text; what is no token becomes byte tokens. The
engine (``tokenizer.ggml.model`` "llama") joins the neighbours whose text is the token with the highest score. A
tokenizer.json has a list of merges instead. Both are the same function if every way to split a token into two tokens
is a merge, and the merges that make one token stand together: then a token's score is minus its place in the list.
That is how tokenizer.json is made from SentencePiece's files; a list without that property is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType

from trit.base.errors import UserError
from trit.convert.pretokenizers import steps

SPACE = "\u2581"
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
REPLACE_SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND = {"type": "Prepend", "prepend": SPACE}
FIRST_NOTE = (
    "the engine puts a space in front of text after every special token, tokenizer.json only at the start and not "
    "where a space is already"
)
# Field numbers of SentencePiece's model file (sentencepiece_model.proto), and the number of its BPE type.
PIECES, TRAINER, NORMALIZER = 1, 2, 3
PIECE_TEXT, PIECE_SCORE, PIECE_TYPE = 1, 2, 3
MODEL_TYPE, BPE = 3, 2
CHARS_MAP, DUMMY_PREFIX, EXTRA_SPACES = 2, 3, 4


@dataclass(frozen=True)
class Pieces:
    """A vocabulary: text, score and type of every token by id; whether text gets a space in front; what to know.

    Ids without a token have an empty text.
    """

    tokens: list[str]
    scores: list[float]
    types: list[TokenType]
    space_prefix: bool
    notes: list[str]


def is_sentencepiece(description: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json has BPE over characters with byte tokens, not over bytes."""
    model = description.get("model") or {}
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def from_json(path: Path, description: Mapping[str, Any], vocab: Mapping[str, int], added: set[int]) -> Pieces:
    """The vocabulary of a tokenizer.json that :func:`is_sentencepiece`.

    Args:
        path: Of the file, for messages.
        description: Its content.
        vocab: Text -> id, with added tokens.
        added: Ids of the added tokens, whose types the caller knows.

    Raises:
        UserError: it splits or normalises text otherwise, lacks byte tokens, or its merges are no order of tokens.
    """
    space_prefix, notes = _space_prefix(path, description)
    model = description["model"]
    if model.get("ignore_merges"):
        raise UserError(f"{path}: ignores merges for whole words, which the engine does not")
    missing = [token for token in BYTE_TOKENS if token not in vocab]
    if missing:
        raise UserError(f"{path}: has byte_fallback but no token {missing[0]}")
    ranks = _ranks(path, model, {text for text, i in vocab.items() if i not in added})
    by_id = {i: text for text, i in vocab.items()}
    lowest = -float(len(ranks) + 1)
    unknown, kinds = model.get("unk_token"), dict.fromkeys(BYTE_TOKENS, TokenType.BYTE)
    tokens = [by_id.get(i, "") for i in range(max(by_id) + 1)]
    scores = [-float(ranks[text]) if text in ranks else lowest for text in tokens]
    types = [kinds.get(text, TokenType.NORMAL) if i in by_id else TokenType.UNUSED for i, text in enumerate(tokens)]
    if unknown in vocab:
        types[vocab[unknown]] = TokenType.UNKNOWN
    return Pieces(tokens, scores, types, space_prefix, notes)


def _space_prefix(path: Path, description: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """(whether text gets a space in front, notes), from the normalizer and pre_tokenizer of a tokenizer.json."""
    normalizer, splitter = description.get("normalizer"), description.get("pre_tokenizer")
    prepares, splits = steps(normalizer, "normalizers"), steps(splitter, "pretokenizers")
    only = splits[0] if len(splits) == 1 else {}
    # Nothing is left to split for one that splits at spaces (Gemma's), since all have been replaced.
    at_spaces = only.get("type") == "Split" and only.get("pattern") == {"String": " "}
    if not splits or (at_spaces and only.get("behavior") == "MergedWithPrevious"):
        if prepares == [REPLACE_SPACES]:
            return False, []
        if prepares == [PREPEND, REPLACE_SPACES]:
            return True, []
    elif only.get("type") == "Metaspace" and only.get("replacement") == SPACE and not prepares:
        scheme = only.get("prepend_scheme", "always" if only.get("add_prefix_space", True) else "never")
        if not only.get("split", True):
            return scheme != "never", [FIRST_NOTE] * (scheme != "never")
    raise UserError(
        f"{path}: prepares text in a way that the engine does not: normalizer {normalizer}, pre_tokenizer {splitter}"
    )


def _ranks(path: Path, model: Mapping[str, Any], normal: set[str]) -> dict[str, int]:
    """Token -> its place among the tokens that merges make, the first one where its merges are apart.

    They may be apart for added tokens, which are found before any merge, and for runs of one character (Gemma's
    spaces), which grow from the left by one in whatever order the lengths stand.

    Raises:
        UserError: the merges are no order of tokens; names one that is missing or out of place.
    """
    merges = {tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model.get("merges") or []}
    ranks: dict[str, int] = {}
    last = ""
    for merge in model.get("merges") or []:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        if left + right != last:
            last = left + right
            if last not in ranks:
                ranks[last] = len(ranks)
            elif last in normal and len(set(last)) > 1:
                raise UserError(f"{path}: the merges that make {last!r} are apart, which the engine cannot follow")
    for token in normal:
        for i in range(1, len(token)):
            left, right = token[:i], token[i:]
            reachable = all(part in normal or len(part) == 1 for part in (left, right))
            if reachable and (left, right) not in merges:
                raise UserError(
                    f"{path}: no merge makes {token!r} of {left!r} and {right!r}, which the engine would join; only "
                    "merges made from a SentencePiece vocabulary are supported"
                )
    return ranks


def from_model(path: Path) -> Pieces:
    """The vocabulary of SentencePiece's own file; its messages are read here, so that no package is needed for it.

    Raises:
        UserError: the file is broken, not BPE, or normalises text; says which.
    """
    try:
        pieces: list[dict[int, Any]] = []
        trainer: dict[int, Any] = {}
        normalizer: dict[int, Any] = {}
        for number, value in _fields(path.read_bytes()):
            if number == PIECES:
                pieces.append(dict(_fields(value)))
            elif number == TRAINER:
                trainer = dict(_fields(value))
            elif number == NORMALIZER:
                normalizer = dict(_fields(value))
        tokens = [piece[PIECE_TEXT].decode("utf-8") for piece in pieces]
        scores = [struct.unpack("<f", piece.get(PIECE_SCORE, bytes(4)))[0] for piece in pieces]
        types = [TokenType(piece.get(PIECE_TYPE, TokenType.NORMAL)) for piece in pieces]
    except (OSError, ValueError, AttributeError, KeyError, TypeError, struct.error) as error:
        raise UserError(f"{path}: not a whole SentencePiece model ({error}); download it again") from None
    if not pieces or trainer.get(MODEL_TYPE, 1) != BPE:
        raise UserError(f"{path}: is no BPE model; only SentencePiece's BPE is supported")
    if normalizer.get(CHARS_MAP):
        raise UserError(f"{path}: normalises text, which the engine does not")
    if normalizer.get(EXTRA_SPACES, 1):
        raise UserError(f"{path}: removes repeated spaces, which the engine does not")
    return Pieces(tokens, scores, types, bool(normalizer.get(DUMMY_PREFIX, 1)), [])


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a protobuf message: numbers as int, everything else as bytes.

    Raises:
        ValueError: it ends in the middle of a field, or a field is of a kind that does not exist.
    """
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            if position >= len(data) or shift > 63:
                raise ValueError("a number runs past the end")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind not in {1, 2, 5}:
            raise ValueError(f"field kind {kind}")
        length = {1: 8, 5: 4}.get(kind) or varint()
        value = data[position : position + length]
        if len(value) != length:
            raise ValueError("a field runs past the end")
        position += length
        yield key >> 3, value
