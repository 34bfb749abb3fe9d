# SPDX-License-Identifier: MIT
"""LLaMA 2's SentencePiece-style vocabulary from the engine's source, as tokenizer.json and as tokenizer.model.

Its tokens are ordered by their scores, so the first ones and all single characters are a vocabulary of their own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from gguf import TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from tests.support.tiny_checkpoints.vocabularies import vocabulary_metadata

SPACE = "\u2581"


@dataclass(frozen=True)
class Spm:
    """Text, score and type of every token, by id."""

    tokens: list[str]
    scores: list[float]
    types: list[int]

    def merges(self) -> list[tuple[str, str]]:
        """Every pair of tokens that together are a token, best score first, then by length: as transformers lists."""
        known, found = set(self.tokens), []
        for text, score, kind in zip(self.tokens, self.scores, self.types, strict=True):
            if kind in {TokenType.NORMAL, TokenType.USER_DEFINED}:
                pairs = ((text[:cut], text[cut:]) for cut in range(1, len(text)))
                found += [(-score, -len(a), -len(b), a, b) for a, b in pairs if a in known and b in known]
        return [pair[3:] for pair in sorted(found, key=lambda pair: pair[:3])]


@cache
def read_spm(normal_tokens: int | None = None) -> Spm:
    """LLaMA 2's vocabulary; with ``normal_tokens`` only that many tokens of more than one character."""
    metadata = vocabulary_metadata("llama-spm")
    rows = zip(*(metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type")), strict=True)
    kept: list[tuple[str, float, int]] = []
    long = 0
    for text, score, kind in rows:
        if kind == TokenType.NORMAL and len(text) > 1:
            long += 1
            if normal_tokens is not None and long > normal_tokens:
                continue
        kept.append((text, score, kind))
    return Spm([row[0] for row in kept], [row[1] for row in kept], [row[2] for row in kept])


def llama2_tokenizer(spm: Spm, added: Sequence[str] = ()) -> Tokenizer:
    """LLaMA 2's tokenizer as transformers saves it: a space in front, byte tokens, <s> in front."""
    vocab = {text: i for i, text in enumerate(spm.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab, spm.merges(), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def model_file(spm: Spm) -> bytes:
    """The same vocabulary as SentencePiece's own file (sentencepiece_model.proto)."""

    def field(number: int, data: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(data)) + data

    def number(field_number: int, value: int) -> bytes:
        return _varint(field_number << 3) + _varint(value)

    out = bytearray()
    for text, score, kind in zip(spm.tokens, spm.scores, spm.types, strict=True):
        piece = field(1, text.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score)
        out += field(1, piece + (b"" if kind == TokenType.NORMAL else number(3, kind)))
    # BPE; a space in front, repeated spaces stay.
    return bytes(out) + field(2, number(3, 2) + number(4, len(spm.tokens))) + field(3, number(3, 1) + number(4, 0))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])
