# SPDX-License-Identifier: MIT
"""How a byte-level BPE tokenizer.json splits text -> the engine's name for the same splits (``tokenizer.ggml.pre``).

The engine has its splits built in, by name (llama-vocab.cpp). Here are those whose function was compared with the
tokenizers package's on real vocabularies (tests/convert/test_tokenizers.py). A chain that is not here is refused: a
guess would change tokens. Left out on purpose: "gpt-4o" and "tekken", whose expressions the engine only has for ASCII.
It takes "a" + U+00C9 for one piece where tokenizer.json makes two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trit.base.errors import UserError

BYTE_LEVEL = "ByteLevel with its own expression"  # which is GPT-2's
DIGITS = "Digits one by one"
DIGIT_RUNS = "Digits in runs"
PUNCTUATION_RUNS = "Punctuation in runs"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA_3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_3_5 = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Hunyuan's, which is DeepSeek V3's: digits by three, then runs of Chinese and Japanese characters, then the rest.
HUNYUAN = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
)
# Falcon's digit steps run on bytes turned into letters, so they also cut inside letters whose bytes look like digits
# (Cyrillic U+043C). The engine does not, which is the same for a vocabulary trained so: no token crosses a cut.
FALCON = (PUNCTUATION_RUNS, BYTE_LEVEL, DIGIT_RUNS, "[0-9][0-9][0-9]")
# (the chain, whether a word that is a token needs no merges) -> the engine's name.
PRE_TOKENIZERS: dict[tuple[tuple[str, ...], bool], str] = {
    ((BYTE_LEVEL,), False): "gpt-2",
    ((LLAMA_3,), True): "llama-bpe",
    ((LLAMA_3,), False): "dbrx",
    ((QWEN_2,), False): "qwen2",
    ((QWEN_3_5,), False): "qwen35",
    ((DIGITS, BYTE_LEVEL), False): "smollm",
    ((r"\p{N}", BYTE_LEVEL), False): "smollm",
    (FALCON, False): "falcon",
    (HUNYUAN, False): "hunyuan-dense",
}
# Byte-level tokenizers whose normalizer makes no difference to text as editors and keyboards write it.
NFC_NOTE = "the engine does not apply tokenizer.json's NFC: letters written with combining marks get other tokens"


def pre_tokenizer(path: Path, description: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The engine's name for the way in which a byte-level tokenizer.json splits text, and what it does otherwise.

    Raises:
        UserError: not byte-level BPE, or a chain that is not in the table; says what was found.
    """
    notes: list[str] = []
    for normalizer in steps(description.get("normalizer"), "normalizers"):
        if normalizer.get("type") != "NFC":
            raise UserError(f"{path}: has a {normalizer.get('type')} normalizer, which the engine does not run")
        notes = [NFC_NOTE]
    outer = description.get("pre_tokenizer")
    parts = steps(outer, "pretokenizers")
    levels = [part for part in parts if part.get("type") == "ByteLevel"]
    if len(levels) != 1 or levels[0].get("add_prefix_space"):
        raise UserError(f"{path}: its pre_tokenizer is not byte-level without a prefix space: {outer}")
    chain = tuple(step for step in map(_step, parts) if step)
    ignore_merges = bool((description.get("model") or {}).get("ignore_merges"))
    name = PRE_TOKENIZERS.get((chain, ignore_merges))
    if name is None:
        known = ", ".join(dict.fromkeys(PRE_TOKENIZERS.values()))
        found = f"{list(chain)}{', ignoring merges' if ignore_merges else ''}"
        raise UserError(f"{path}: its pre_tokenizer is none that is known here ({known}); it splits by {found}")
    return name, notes


def steps(outer: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre_tokenizer of tokenizer.json, in order: those in its sequences, none for null."""
    if outer is None:
        return []
    if outer.get("type") == "Sequence":
        return [step for part in outer[inner] for step in steps(part, inner)]
    return [outer]


def _step(part: Mapping[str, Any]) -> str:
    """One step of the chain in the words of the table; empty for one that splits nothing; else its JSON."""
    kind = part.get("type")
    if kind == "ByteLevel":
        return BYTE_LEVEL if part.get("use_regex", True) else ""
    if kind == "Digits":
        return DIGITS if part.get("individual_digits") else DIGIT_RUNS
    if kind == "Punctuation" and part.get("behavior") == "Contiguous":
        return PUNCTUATION_RUNS
    # The engine keeps each match as a piece, which is what "Isolated" means.
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        # Ends of lines stand in it as themselves or escaped, which means the same.
        return str(part.get("pattern", {}).get("Regex", part)).replace("\r", r"\r").replace("\n", r"\n")
    return str(part)
