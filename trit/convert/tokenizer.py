# SPDX-License-Identifier: MIT
"""A checkpoint's tokenizer -> the ``tokenizer.*`` keys of a GGUF file: byte-level and SentencePiece-style BPE.

What the engine would not do in the same way is refused (``pretokenizers``, ``spm``), or told where it is a corner case.
``vocabulary_check`` compares what the engine then makes of texts with what the tokenizers package does.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import TokenType
from tokenizers import Tokenizer

from trit.base.errors import UserError
from trit.convert import spm
from trit.convert.pretokenizers import NFC_NOTE, pre_tokenizer
from trit.convert.special_tokens import chat_templates, special_ids, stop_ids
from trit.gguf.types import GGUFWriter
from trit.models.json_files import parse_json, read_json_if_there, read_text

# Stop tokens beside the first: llama.cpp has two more keys for them, our engine a list of all.
SECOND_STOPS = ("add_eot_token_id", "add_eom_token_id")
STOPS_KEY = "tokenizer.ggml.eog_token_ids"
TEMPLATE_KEY = "tokenizer.chat_template"
# Added tokens that take the spaces beside them. Our engine reads these lists (3rdparty/patches/0012).
STRIPS = {"lstrip": "tokenizer.ggml.lstrip_token_ids", "rstrip": "tokenizer.ggml.rstrip_token_ids"}


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary as the engine wants it.

    Attributes:
        pre: Name of the pre-tokenizer; "default" for SentencePiece-style vocabularies.
        tokens: Text of every token, by id, padded to the model's vocabulary size.
        types: TokenType of every token.
        pieces: Scores and space prefix of a SentencePiece-style vocabulary; None for byte-level BPE.
        merges: Of byte-level BPE, the parts of each with a space between them.
        special: Name of a special token -> its id.
        adds: Whether tokenizing adds the token: "bos" and "eos" -> bool.
        stops: Ids that end a generation, the tokenizer's eos first.
        templates: Name -> chat template; chats take the one called "default".
        notes: What the engine does otherwise than the checkpoint's tokenizer, a sentence each.
        strips: Ids of added tokens that take the spaces on a side: a key of ``STRIPS`` -> ids.
        reading: The trainer's tokenizer without what the notes tell, padding and truncation; None where only
            tokenizer.model is there.
    """

    pre: str
    tokens: list[str]
    types: list[TokenType]
    pieces: spm.Pieces | None
    merges: list[str]
    special: dict[str, int]
    adds: dict[str, bool]
    stops: list[int]
    templates: dict[str, str]
    notes: list[str]
    strips: dict[str, list[int]] = field(default_factory=dict)
    reading: Tokenizer | None = None

    @property
    def front(self) -> list[int]:
        """What the engine is to put in front of a prompt."""
        return [self.special["bos"]] if self.adds["bos"] else []

    @property
    def back(self) -> list[int]:
        """What the engine is to put behind a text."""
        return self.stops[:1] if self.adds["eos"] else []

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
            writer.add_token_merges(self.merges)
        for name in ("bos", "unk", "pad"):
            if name in self.special:
                getattr(writer, f"add_{name}_token_id")(self.special[name])
        writer.add_eos_token_id(self.stops[0])
        for add_key, stop in zip(SECOND_STOPS, self.stops[1:], strict=False):
            getattr(writer, add_key)(stop)
        if len(self.stops) > len(SECOND_STOPS) + 1:
            writer.add_array(STOPS_KEY, self.stops)
        for side, ids in self.strips.items():
            if ids:
                writer.add_array(STRIPS[side], ids)
        writer.add_add_bos_token(self.adds["bos"])
        writer.add_add_eos_token(self.adds["eos"])
        for name, template in self.templates.items():
            writer.add_string(TEMPLATE_KEY if name == "default" else f"{TEMPLATE_KEY}.{name}", template)
        if others := [name for name in self.templates if name != "default"]:
            writer.add_array(f"{TEMPLATE_KEY}s", others)


def load_tokenizer(directory: Path, config: Mapping[str, Any], vocab_size: int, embeds: bool = False) -> Vocabulary:
    """Read the tokenizer of a checkpoint folder: tokenizer.json, or tokenizer.model where only that is there.

    Args:
        directory: The checkpoint.
        config: Its config.json.
        vocab_size: Rows of the model's embedding; unused rows get padding tokens.
        embeds: Whether the model makes a vector of a text, whose end token it has to read then.

    Raises:
        UserError: no tokenizer, one that the engine cannot run as it is, too many tokens, no end token.
    """
    templates, template_notes = chat_templates(directory)
    path = directory / "tokenizer.json"
    if not path.is_file() and (directory / "tokenizer.model").is_file():
        path = directory / "tokenizer.model"
        model = _with_added(directory, spm.from_model(path))
        tokens, types = _padded(path, model.tokens, model.types, vocab_size)
        special, stops, notes = _ends(directory, config, {text: i for i, text in enumerate(tokens)}, vocab_size)
        front = [special.get("bos", 1)]  # as SentencePiece numbers its tokens
        adds, more = _surroundings(directory, tokens, special, stops, front, [], embeds)
        notes = model.notes + more + notes + template_notes
        return Vocabulary("default", tokens, types, model, [], special, adds, stops, templates, notes)
    content = read_text(path)
    description = parse_json(path, content)
    kind = description["model"].get("type")
    if kind != "BPE":
        raise UserError(f"{path}: is a {kind} tokenizer; only BPE is supported")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if affix := description["model"].get(key):
            raise UserError(f"{path}: marks pieces of words ({key} {str(affix)[:40]!a}), the engine does not")
    tokenizer = _package_s(path, content)
    sentencepiece = spm.is_sentencepiece(description)
    pre, notes = ("default", []) if sentencepiece else pre_tokenizer(path, description)
    # Left by a trainer that saved while it used them: padding and truncation transformers ignores, too, unless asked.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if tokenizer.model.dropout:
        notes.append("tokenizer.json's dropout, random merges for training, is left out")
        tokenizer.model.dropout = None
    vocab, added = tokenizer.get_vocab(with_added_tokens=True), tokenizer.get_added_tokens_decoder()
    by_id = _by_id(path, vocab, vocab_size)
    pieces = spm.from_json(path, description, vocab, set(added)) if sentencepiece else None
    merges = [] if pieces else _merges(description["model"])
    if pieces is None and not merges:
        raise UserError(f"{path}: has no merges, so it is not a BPE tokenizer that the engine can run")
    tokens = pieces.tokens if pieces else [by_id.get(i, "") for i in range(max(by_id) + 1)]
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
    special, stops, left_out = _ends(directory, config, vocab, vocab_size)
    front, back = _added_around(tokenizer)
    adds, more = _surroundings(directory, tokens, special, stops, front, back, embeds)
    notes += (pieces.notes if pieces else []) + more + left_out + template_notes
    if NFC_NOTE in notes:
        tokenizer.normalizer = None  # the note says it: nothing more is to be found there
    strips = {side: sorted(i for i, token in added.items() if getattr(token, side)) for side in STRIPS}
    return Vocabulary(pre, tokens, types, pieces, merges, special, adds, stops, templates, notes, strips, tokenizer)


def _package_s(path: Path, content: str) -> Tokenizer:
    """The tokenizers package's reading of a tokenizer.json; raises UserError with its reason."""
    try:
        return Tokenizer.from_str(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the package raises bare Exception for everything, its panics even less
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read ({reason}); download the file again") from None


def _merges(model: Mapping[str, Any]) -> list[str]:
    """Merges as GGUF has them. Byte-level text holds no spaces, so one with a space inside of a part is never used."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or [])
    return [" ".join(pair) for pair in pairs if not any(" " in part for part in pair)]


def _ends(
    directory: Path, config: Mapping[str, Any], vocab: Mapping[str, int], vocab_size: int
) -> tuple[dict[str, int], list[int], list[str]]:
    """Special tokens, stops, what is left out."""
    special, notes = special_ids(directory, config, vocab, vocab_size)
    stops, more = stop_ids(directory, config, special.get("eos"), vocab_size)
    return special, stops, notes + more


def _by_id(path: Path, vocab: Mapping[str, int], vocab_size: int) -> dict[int, str]:
    """Token id -> text; raises UserError if an id is too large for the model or has two texts."""
    by_id: dict[int, str] = {}
    for text, i in vocab.items():
        if i >= vocab_size:
            raise UserError(f"{path}: has token {i} ({text!a}), but config.json says vocab_size {vocab_size}")
        if i in by_id:
            raise UserError(f"{path}: token {i} is both {by_id[i]!a} and {text!a}, a GGUF file holds one text for it")
        by_id[i] = text
    if not by_id:
        raise UserError(f"{path}: has no tokens; download the file again")
    return by_id


def _padded(
    path: Path, tokens: list[str], types: list[TokenType], vocab_size: int
) -> tuple[list[str], list[TokenType]]:
    """Texts and types up to the model's vocabulary; rows without a token get names that no token has.

    Raises:
        UserError: there are too many tokens, or two have the same text.
    """
    if len(tokens) > vocab_size:
        raise UserError(f"{path}: has token {len(tokens) - 1}, but config.json says vocab_size {vocab_size}")
    missing = vocab_size - len(tokens)
    tokens, types = [*tokens, *[""] * missing], [*types, *[TokenType.UNUSED] * missing]
    ids: dict[str, int] = {}
    for i, text in enumerate(tokens):
        if text and ids.setdefault(text, i) != i:
            raise UserError(
                f"{path}: tokens {ids[text]} and {i} both have the text {text!a}, which the engine does not load; "
                "rename the one that is not used"
            )
    for i, text in enumerate(tokens):
        if not text:
            tokens[i] = padding_name(i, ids)
    return tokens, types


def padding_name(i: int, taken: Container[str]) -> str:
    """A text for a row without a token, which no token has."""
    name = f"[PAD{i}]"
    while name in taken:
        name = f"[{name}]"
    return name


def _added_around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Ids that the trainer's tokenizer puts in front of and behind every text."""
    encoding = tokenizer.encode("a")
    own = [i for i, added in enumerate(encoding.special_tokens_mask) if not added]
    first, last = (own[0], own[-1] + 1) if own else (len(encoding.ids), len(encoding.ids))
    return encoding.ids[:first], encoding.ids[last:]


def _surroundings(
    directory: Path,
    tokens: Sequence[str],
    special: dict[str, int],
    stops: list[int],
    front: list[int],
    back: list[int],
    embeds: bool,
) -> tuple[dict[str, bool], list[str]]:
    """Whether the engine adds bos and eos, and what to know: what tokenizer_config.json says and tokenizer.json does.

    An explicit flag of tokenizer_config.json wins. The ids that the engine adds are put in place: bos is the first
    token in front, whatever else is called so, and the end of an embedding model's texts is the first of ``stops``.

    Raises:
        UserError: a token is to be added, and no file says which, or the model has it not.
    """
    path = directory / "tokenizer_config.json"
    says = read_json_if_there(path)
    wants = {name: says.get(f"add_{name}_token") for name in ("bos", "eos")}
    notes: list[str] = []
    if beyond := [i for i in [*front, *back] if i >= len(tokens)]:
        raise UserError(f"{directory}: token {beyond[0]} is to be added to texts, the model has {len(tokens)} tokens")

    def called(ids: Sequence[int]) -> str:
        return " ".join(tokens[i] for i in ids)

    if wants["bos"] is False and front:
        notes.append(f"prompts get no {called(front)} in front: tokenizer_config.json's add_bos_token is false")
        front = []
    if wants["bos"] is True and not front:
        if "bos" not in special:
            raise UserError(
                f"{path}: add_bos_token is true, but no file names a bos_token; add it or set the flag to false"
            )
        front = [special["bos"]]
    if front:
        if special.get("bos", front[0]) != front[0]:
            notes.append(f"the file's bos is {called(front[:1])}, which tokenizer.json puts in front, not bos_token")
        special["bos"] = front[0]
    if len(front) > 1:
        notes.append(
            f"the engine puts {called(front[:1])} in front of a prompt, tokenizer.json {called(front)}: "
            f"begin prompts with {called(front[1:])}"
        )
    if not embeds:
        if back or wants["eos"] is True:
            ends = called(back or stops[:1])
            notes.append(f"prompts get no {ends} behind them, though the tokenizer adds it: nothing would follow it")
        return {"bos": bool(front), "eos": False}, notes
    if back:
        # The engine appends its eos and nothing else. Qwen3's embedding models append <|endoftext|>, their eos is
        # <|im_end|>.
        stops[:] = list(dict.fromkeys([back[-1], *stops]))
        if len(back) > 1:
            notes.append(f"the engine puts {called(back[-1:])} behind a text, tokenizer.json {called(back)}")
    return {"bos": bool(front), "eos": wants["eos"] if isinstance(wants["eos"], bool) else bool(back)}, notes


def _with_added(directory: Path, pieces: spm.Pieces) -> spm.Pieces:
    """A SentencePiece vocabulary with the tokens that added_tokens.json and tokenizer_config.json add to it.

    Raises:
        UserError: an id leaves a gap, or is that of another token.
    """
    added = read_json_if_there(directory / "added_tokens.json")
    decoder = read_json_if_there(directory / "tokenizer_config.json").get("added_tokens_decoder") or {}
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
