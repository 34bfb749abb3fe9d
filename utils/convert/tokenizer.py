# SPDX-License-Identifier: MIT
"""tokenizer.json -> the ``tokenizer.*`` keys of a GGUF file, for byte-level BPE.

The engine splits text with the regular expressions that it knows by name (``tokenizer.ggml.pre``), so the split in
tokenizer.json has to be one of ``PRE_TOKENIZERS``: an unknown one is refused, since a guess would change tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import SpecialVocab, TokenType
from tokenizers import Tokenizer

from utils.cli import UserError
from utils.convert.checkpoint import read_json
from utils.gguf_types import GGUFWriter

BYTE_LEVEL = "ByteLevel with its own expression"
# The split of tokenizer.json -> the engine's name for it (llama-vocab.cpp). ByteLevel's own expression is GPT-2's.
PRE_TOKENIZERS = {
    BYTE_LEVEL: "gpt-2",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
}
NFC_NOTE = (
    "the checkpoint's tokenizer brings text into Unicode's form NFC, the engine does not: combining marks that have not "
    "been composed get other tokens"
)
# Stop tokens beside the first: the engine has two more keys for them.
SECOND_STOPS = ("add_eot_token_id", "add_eom_token_id")


@dataclass(frozen=True)
class BpeVocabulary:
    """A byte-level BPE vocabulary as the engine wants it.

    Attributes:
        pre: Name of the pre-tokenizer.
        tokens: Text of every token, by id, padded to the model's vocabulary size.
        types: TokenType of every token.
        special: gguf-py's view of the folder: merges, special token ids.
        adds: Whether tokenizing adds the token: "bos" and "eos" -> bool.
        stops: Ids that end a generation, the tokenizer's eos first.
        chat_template: Jinja text, or a list of named templates, or None.
        notes: What the engine does otherwise than the checkpoint's tokenizer, a sentence each.
    """

    pre: str
    tokens: list[str]
    types: list[TokenType]
    special: SpecialVocab
    adds: dict[str, bool]
    stops: list[int]
    chat_template: Any
    notes: list[str] = field(default_factory=list)

    def write(self, writer: GGUFWriter) -> None:
        """Add all ``tokenizer.*`` keys."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list([text.encode("utf-8") for text in self.tokens])
        writer.add_token_types(self.types)
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


def load_tokenizer(directory: Path, config: Mapping[str, Any], vocab_size: int) -> BpeVocabulary:
    """Read the tokenizer of a checkpoint folder.

    Args:
        directory: The checkpoint.
        config: Its config.json.
        vocab_size: Rows of the model's embedding; unused rows get padding tokens.

    Raises:
        UserError: no tokenizer.json, not byte-level BPE, an unknown pre-tokenizer, too many tokens, no end token.
    """
    path = directory / "tokenizer.json"
    description = read_json(path)
    pre = _pre_tokenizer(path, description)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers package raises bare Exception for everything
        raise UserError(f"{path}: cannot be read ({error}); download the file again") from None
    tokens, types = _tokens(path, tokenizer, vocab_size)
    special = SpecialVocab(directory, load_merges=True, n_vocab=vocab_size)
    if not special.merges:
        raise UserError(f"{path}: has no merges, so it is not a BPE tokenizer that the engine can run")
    stops = _stop_ids(directory, config, [_appended(tokenizer), special.special_token_ids.get("eos")], vocab_size)
    return BpeVocabulary(
        pre,
        tokens,
        types,
        special,
        _added_by_default(directory, tokenizer, special.special_token_ids.get("bos"), stops[0]),
        stops,
        _chat_template(directory, special),
        [NFC_NOTE] if description.get("normalizer") else [],
    )


def _pre_tokenizer(path: Path, description: Mapping[str, Any]) -> str:
    """The engine's name for the way in which tokenizer.json splits text.

    Raises:
        UserError: not byte-level BPE, or a split that is not in the table; says what was found.
    """
    model = description.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise UserError(f"{path}: is a {model.get('type')} tokenizer; only byte-level BPE is supported")
    if (description.get("normalizer") or {"type": "NFC"}).get("type") != "NFC":
        raise UserError(
            f"{path}: has a {description['normalizer'].get('type')} normalizer, which the engine does not run"
        )
    outer = description.get("pre_tokenizer") or {}
    parts = outer.get("pretokenizers", [outer])
    if not parts or parts[-1].get("type") != "ByteLevel" or parts[-1].get("add_prefix_space"):
        raise UserError(f"{path}: its pre_tokenizer is not byte-level without a prefix space: {outer}")
    # The engine keeps each match as a piece, which is what "Isolated" means.
    splits = [
        str(part)
        if part.get("behavior") != "Isolated" or part.get("invert")
        else part.get("pattern", {}).get("Regex", str(part))
        for part in parts[:-1]
    ]
    if parts[-1].get("use_regex", True):
        splits.append(BYTE_LEVEL)
    if len(splits) != 1 or splits[0] not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS.values())
        raise UserError(f"{path}: its pre_tokenizer is none that is known here ({known}); it splits by {splits}")
    return PRE_TOKENIZERS[splits[0]]


def _tokens(path: Path, tokenizer: Tokenizer, vocab_size: int) -> tuple[list[str], list[TokenType]]:
    """Text and type of every token id; added tokens are control tokens if special, else user-defined."""
    by_id = {token_id: text for text, token_id in tokenizer.get_vocab(with_added_tokens=True).items()}
    if max(by_id) >= vocab_size:
        raise UserError(f"{path}: has token {max(by_id)}, but config.json says vocab_size {vocab_size}")
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(vocab_size)]
    types = [TokenType.NORMAL if i in by_id else TokenType.UNUSED for i in range(vocab_size)]
    for i, added in tokenizer.get_added_tokens_decoder().items():
        types[i] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    return tokens, types


def _appended(tokenizer: Tokenizer) -> int | None:
    """The special token that the tokenizer puts after a text, if it does. The engine appends its eos and nothing else.

    Qwen3's embedding models append <|endoftext|>, though their eos is <|im_end|>.
    """
    plain, whole = tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.encode("a").ids
    return whole[-1] if whole[-1:] != plain[-1:] else None


def _stop_ids(directory: Path, config: Mapping[str, Any], first: list[int | None], vocab_size: int) -> list[int]:
    """Ids that end a generation: ``first`` (the tokenizer's), those of generation_config.json, that of config.json.

    Raises:
        UserError: there is none; the engine would silently take token 11.
    """
    generation = directory / "generation_config.json"
    sources = [
        *first,
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


def _added_by_default(directory: Path, tokenizer: Tokenizer, bos: int | None, eos: int) -> dict[str, bool]:
    """Whether tokenizing puts bos in front and eos at the end: what tokenizer_config.json says, else what it does."""
    path = directory / "tokenizer_config.json"
    says = read_json(path) if path.is_file() else {}
    ids = tokenizer.encode("a").ids
    does = {"bos": ids[0] == bos, "eos": ids[-1] == eos}
    flags = {name: says.get(f"add_{name}_token") for name in does}
    return {name: flag if isinstance(flag, bool) else does[name] for name, flag in flags.items()}


def _chat_template(directory: Path, special: SpecialVocab) -> Any:
    """chat_template.jinja, which transformers prefers since 4.51, else what tokenizer_config.json has."""
    jinja = directory / "chat_template.jinja"
    return jinja.read_text(encoding="utf-8") if jinja.is_file() else special.chat_template
