# SPDX-License-Identifier: MIT
"""Real tokenizers from the vocabularies that come with the engine's source, whole or cut down to their first tokens.

A byte-level BPE vocabulary is ordered by its merges: the first n tokens and the merges that make them are a vocabulary
of their own. The control tokens move down behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from trit.base.errors import UserError
from trit.base.places import ROOT
from trit.gguf.types import read_header

VOCABULARIES = ROOT / "3rdparty" / "llama.cpp" / "models"
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Bpe:
    """A byte-level BPE vocabulary: token -> id, merges in order, and the added control tokens in the order of ids."""

    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    control: list[str]

    @property
    def size(self) -> int:
        """Tokens in all."""
        return len(self.vocab) + len(self.control)


@cache
def vocabulary_metadata(name: str) -> dict[str, Any]:
    """The metadata of ``ggml-vocab-<name>.gguf``.

    Raises:
        UserError: the engine's source is not there.
    """
    path = VOCABULARIES / f"ggml-vocab-{name}.gguf"
    if not path.is_file():
        raise UserError(f"{path}: is missing; it comes with the engine's source, which setup_env.py fetches")
    return read_header(path).metadata


@cache
def read_bpe(name: str, normal_tokens: int | None = None) -> Bpe:
    """A byte-level BPE vocabulary of the engine's source.

    Args:
        name: Such as ``llama-bpe`` or ``qwen2``.
        normal_tokens: Keep only this many of the normal tokens; None keeps all.
    """
    metadata = vocabulary_metadata(name)
    kinds = metadata["tokenizer.ggml.token_type"]
    pairs = list(zip(metadata["tokenizer.ggml.tokens"], kinds, strict=True))
    normal = [text for text, kind in pairs if kind == TokenType.NORMAL][:normal_tokens]
    vocab = {text: i for i, text in enumerate(normal)}
    merges = []
    for merge in metadata["tokenizer.ggml.merges"]:
        left, right = merge.split(" ")
        if left in vocab and right in vocab and left + right in vocab:
            merges.append((left, right))
    return Bpe(vocab, merges, [text for text, kind in pairs if kind == TokenType.CONTROL])


def llama3_tokenizer(normal_tokens: int | None = None) -> Tokenizer:
    """LLaMA 3's tokenizer, which BitNet-b1.58-2B-4T, Llama3-8B-1.58 and others use; puts <|begin_of_text|> in front."""
    bpe = read_bpe("llama-bpe", normal_tokens)
    # ignore_merges: a word that is a token is that token, whatever the merges say.
    tokenizer = Tokenizer(models.BPE(bpe.vocab, bpe.merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in bpe.control])
    bos = "<|begin_of_text|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write ``tokenizer.json``."""
    tokenizer.save(str(directory / "tokenizer.json"))
