# SPDX-License-Identifier: MIT
"""The bundled model's vocabulary: byte-level BPE with GPT-2's split, which the engine knows as ``gpt-2``."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from trit.base.errors import UserError
from trit.train.words import MOVES, NAMES, PLACES

BOS = "<|bos|>"
EOS = "<|eos|>"
_VOCABULARY_LIMIT = 2048
# Each is one word for GPT-2's split; the last two are the halves of a typed backslash-n between "?" and "Answer".
_FRAME = (
    "Where", " Where", "where", " where", " now", "Question", " Question", "Q", " Q", "Answer", " Answer", "answer",
    " answer", "A", "a", " A", " is", " in", " the", "?\\", "nAnswer", "nanswer",
)  # fmt: skip


def story_words() -> list[str]:
    """Every word that should be one token, with its leading space where it has one."""
    words = {f" {word}" for phrase in (*PLACES, *MOVES) for word in phrase.split()}
    for name in NAMES:
        words |= {name, f" {name}", name.lower(), f" {name.lower()}"}
    return sorted(words | set(_FRAME))


def special_id(tokenizer: Tokenizer, text: str) -> int:
    """Id of ``BOS`` or ``EOS``.

    Raises:
        UserError: the vocabulary is another one.
    """
    token: int | None = tokenizer.token_to_id(text)
    if token is None:
        raise UserError(f"tokenizer.json: has no token {text}; give a folder that trit.train.train_story wrote")
    return token


def train_tokenizer() -> Tokenizer:
    """Merge until every word of the stories is one token; bos is put in front of any text.

    Other text falls into pieces of these words and, at worst, into bytes: nothing is unknown.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_LIMIT,
        min_frequency=1,
        special_tokens=[AddedToken(BOS, special=True), AddedToken(EOS, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(story_words(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer
