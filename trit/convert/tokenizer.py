# SPDX-License-Identifier: MIT
"""A checkpoint's tokenizer -> the ``tokenizer.*`` keys of a GGUF file: byte-level and SentencePiece-style BPE.

What the engine would not do in the same way is refused (``pretokenizers``, ``spm``), or told where it is a corner case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import SpecialVocab, TokenType
from tokenizers import Tokenizer

from trit.base.errors import UserError
from trit.convert import spm
from trit.convert.pretokenizers import pre_tokenizer
from trit.gguf.types import GGUFWriter
from trit.models.checkpoint import read_json

# Stop tokens beside the first: the engine has two more keys for them.
SECOND_STOPS = ("add_eot_token_id", "add_eom_token_id")


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary as the engine wants it.

    Attributes:
        pre: Name of the pre-tokenizer; "default" for SentencePiece-style vocabularies.
        tokens: Text of every token, by id, padded to the model's vocabulary size.
        types: TokenType of every token.
        pieces: Scores and space prefix of a SentencePiece-style vocabulary; None for byte-level BPE.
        special: gguf-py's view of the folder: merges, special token ids.
        adds: Whether tokenizing adds the token: "bos" and "eos" -> bool.
        stops: Ids that end a generation, the tokenizer's eos first.
        chat_template: Jinja text, or a list of named templates, or None.
        notes: What the engine does otherwise than the checkpoint's tokenizer, a sentence each.
    """

    pre: str
    tokens: list[str]
    types: list[TokenType]
    pieces: spm.Pieces | None
    special: SpecialVocab
    adds: dict[str, bool]
    stops: list[int]
    chat_template: Any
    notes: list[str]

    def write(self, writer: GGUFWriter) -> None:
        """Add all ``tokenizer.*`` keys."""
        writer.add_tokenizer_model("llama" if self.pieces else "gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list([text.encode("utf-8") for text in self.tokens])
        writer.add_token_types(self.types)
        if self.pieces:
            padding = [0.0] * (len(self.tokens) - len(self.pieces.scores))
            writer.add_token_scores(self.pieces.scores + padding)
            writer.add_add_space_prefix(self.pieces.space_prefix)
        else:
            writer.add_token_merges(self.special.merges)
        for name in ("bos", "unk", "pad"):
            if name in self.special.special_token_ids:
                getattr(writer, f"add_{name}_token_id")(self.special.special_token_ids[name])
        writer.add_eos_token_id(self.stops[0])
        for add_key, stop in zip(SECOND_STOPS, self.stops[1:], strict=False):
            getattr(writer, add_key)(stop)
        writer.add_add_bos_token(self.adds["bos"])
        writer.add_add_eos_token(self.adds["eos"])
        if self.chat_template:
            writer.add_chat_template(self.chat_template)


def load_tokenizer(directory: Path, config: Mapping[str, Any], vocab_size: int) -> Vocabulary:
    """Read the tokenizer of a checkpoint folder: tokenizer.json, or tokenizer.model where only that is there.

    Args:
        directory: The checkpoint.
        config: Its config.json.
        vocab_size: Rows of the model's embedding; unused rows get padding tokens.

    Raises:
        UserError: no tokenizer, one that the engine cannot run as it is, too many tokens, no end token.
    """
    special = SpecialVocab(directory, load_merges=True, n_vocab=vocab_size)
    stops = _stop_ids(directory, config, special.special_token_ids.get("eos"), vocab_size)
    template = _chat_template(directory, special)
    path = directory / "tokenizer.json"
    if not path.is_file() and (directory / "tokenizer.model").is_file():
        model = _with_added(directory, spm.from_model(directory / "tokenizer.model"))
        tokens, types = _padded(directory / "tokenizer.model", model.tokens, model.types, vocab_size)
        adds = _adds(directory, {"bos": True, "eos": False})
        return Vocabulary("default", tokens, types, model, special, adds, stops, template, model.notes)
    description = read_json(path)
    if (description.get("model") or {}).get("type") != "BPE":
        raise UserError(f"{path}: is a {(description.get('model') or {}).get('type')} tokenizer; only BPE is supported")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if affix := description["model"].get(key):
            raise UserError(f"{path}: {key} is {str(affix)[:40]!r}, which the engine's BPE has not")
    sentencepiece = spm.is_sentencepiece(description)
    pre, notes = ("default", []) if sentencepiece else pre_tokenizer(path, description)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers package raises bare Exception for everything
        raise UserError(f"{path}: cannot be read ({error}); download the file again") from None
    vocab, added = tokenizer.get_vocab(with_added_tokens=True), tokenizer.get_added_tokens_decoder()
    _check_count(path, max(vocab.values(), default=-1) + 1, vocab_size)
    pieces = spm.from_json(path, description, vocab, set(added)) if sentencepiece else None
    if pieces is None and not special.merges:
        raise UserError(f"{path}: has no merges, so it is not a BPE tokenizer that the engine can run")
    by_id = {i: text for text, i in vocab.items()}
    tokens = pieces.tokens if pieces else [by_id.get(i, f"[PAD{i}]") for i in range(max(by_id) + 1)]
    types = (
        pieces.types if pieces else [TokenType.NORMAL if i in by_id else TokenType.UNUSED for i in range(len(tokens))]
    )
    for i, token in added.items():
        if types[i] != TokenType.UNKNOWN:
            types[i] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
        if pieces and token.normalized and not token.special:
            # It is matched where spaces are replaced already, by the engine before they are.
            tokens[i] = token.content.replace(spm.SPACE, " ")
    tokens, types = _padded(path, tokens, types, vocab_size)
    ids, plain = tokenizer.encode("a").ids, tokenizer.encode("a", add_special_tokens=False).ids
    if ids[-1] != plain[-1]:
        # The engine appends its eos and nothing else. Qwen3's embedding models append <|endoftext|>, their eos is
        # <|im_end|>.
        stops = list(dict.fromkeys([ids[-1], *stops]))
    bos = special.special_token_ids.get("bos")
    adds = _adds(directory, {"bos": ids[0] == bos, "eos": ids[-1] == stops[0]})
    notes += pieces.notes if pieces else []
    return Vocabulary(pre, tokens, types, pieces, special, adds, stops, template, notes)


def _padded(
    path: Path, tokens: list[str], types: list[TokenType], vocab_size: int
) -> tuple[list[str], list[TokenType]]:
    """Texts and types with padding tokens up to the model's vocabulary; raises UserError if there are too many."""
    _check_count(path, len(tokens), vocab_size)
    padding = range(len(tokens), vocab_size)
    return tokens + [f"[PAD{i}]" for i in padding], types + [TokenType.UNUSED] * len(padding)


def _check_count(path: Path, count: int, vocab_size: int) -> None:
    """Raise UserError for more tokens than the model has rows, before a list is made of them."""
    if count > vocab_size:
        raise UserError(f"{path}: has token {count - 1}, but config.json says vocab_size {vocab_size}")


def _with_added(directory: Path, pieces: spm.Pieces) -> spm.Pieces:
    """A SentencePiece vocabulary with the tokens that added_tokens.json and tokenizer_config.json add to it.

    Raises:
        UserError: an id leaves a gap, or is that of another token.
    """
    path, config = directory / "added_tokens.json", directory / "tokenizer_config.json"
    added = dict(read_json(path)) if path.is_file() else {}
    decoder = (read_json(config) if config.is_file() else {}).get("added_tokens_decoder") or {}
    special = {entry["content"]: bool(entry.get("special")) for entry in decoder.values()}
    added |= {entry["content"]: int(i) for i, entry in decoder.items()}
    for text, i in sorted(added.items(), key=lambda item: item[1]):
        if i < len(pieces.tokens) and pieces.tokens[i] == text:
            continue
        if i != len(pieces.tokens):
            raise UserError(f"{directory}: added token {text!r} has id {i}, expected {len(pieces.tokens)}")
        pieces.tokens.append(text)
        pieces.scores.append(0.0)
        pieces.types.append(TokenType.CONTROL if special.get(text) else TokenType.USER_DEFINED)
    return pieces


def _stop_ids(directory: Path, config: Mapping[str, Any], eos: int | None, vocab_size: int) -> list[int]:
    """Ids that end a generation: the tokenizer's eos, then those of generation_config.json and config.json.

    Raises:
        UserError: there is none; the engine would silently take token 11.
    """
    generation = directory / "generation_config.json"
    sources = [
        eos,
        read_json(generation).get("eos_token_id") if generation.is_file() else None,
        config.get("eos_token_id"),
    ]
    ids: list[int] = []
    for source in sources:
        for token_id in source if isinstance(source, list) else [source]:
            if isinstance(token_id, int) and 0 <= token_id < vocab_size and token_id not in ids:
                ids.append(token_id)
    if not ids:
        raise UserError(f"{directory}: no file names an eos_token_id; add it to config.json")
    return ids


def _adds(directory: Path, does: dict[str, bool]) -> dict[str, bool]:
    """Whether tokenizing puts bos in front and eos at the end: what tokenizer_config.json says, else what it does."""
    path = directory / "tokenizer_config.json"
    says = read_json(path) if path.is_file() else {}
    flags = {name: says.get(f"add_{name}_token") for name in does}
    return {name: flag if isinstance(flag, bool) else does[name] for name, flag in flags.items()}


def _chat_template(directory: Path, special: SpecialVocab) -> Any:
    """chat_template.jinja, which transformers prefers since 4.51, else what tokenizer_config.json has."""
    jinja = directory / "chat_template.jinja"
    return jinja.read_text(encoding="utf-8") if jinja.is_file() else special.chat_template
