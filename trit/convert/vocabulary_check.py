# SPDX-License-Identifier: MIT
"""The engine's reading of a vocabulary that is to be written, against the trainer's: whole encodings, ends, templates.

The metadata go into a file without weights, which the engine itself loads: what converts also loads.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from trit.base.errors import TritError, UserError
from trit.base.places import ENGINE_BIN, engine_program
from trit.convert.read_back import tokenizer_keys
from trit.convert.spm import FIRST_NOTE
from trit.convert.tokenizer import Vocabulary
from trit.engine import vocabulary as engine
from trit.gguf.types import GGUFWriter

# Scripts, marks, joiners, spaces of all kinds, digits, contractions, code, what looks like special and byte tokens.
# Letters that two added tokens may share in a text that is tried: more would cost memory by their square.
SHARED = 32
TEXTS = (
    "Once upon a time, there was a little dog. He said: \"I'LL go; don'T you?\" and WE'VE gone!",
    "   three   spaces   \n\n\n\t\t \r\n \n x\r",
    "1 12 123 1234 12345678901 1,234.56 3.14e-10 \u0661\u0662\u0663 \u00bd \u2167 \u4e09\u5341",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0393\u03b5\u03b9\u03ac",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\u6771\u4eac\u90fd\u3001\u4e2d\u6587 \ud55c\uad6d\uc5b4 \u3072\u3089\u304c\u306a\u30ab\u30bf \u0e2a\u0e27\u0e31",
    "e\u0301a\u0308o\u0302 \u00e9 Z\u0351\u036b \u00c9cole \u00e9COLE",
    "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd\U0001f1eb\U0001f1f7 \u2764\ufe0f",
    "\u00a0\u2003\u3000\u200b\ufeff\u2028x \x01\x7f \ue000\U0010ffff\ufffd",
    "aaaaaaaaaaaaaaaa ------------- ====== .......... ((((())))) {{{}}} \u2581\u2581x <0x0A>",
    "def f(x):\n    return x**2  # comment\n\n\tif a<=b and c!=d: pass\n</div><br/>",
    "https://example.org/a?b=c&d=%20#e user@example.com C:\\dir\\file.txt CamelCase SCREAMING_SNAKE mixed123Numbers",
)
# What an added token may stand in; \0 is its place.
NEIGHBOURHOODS = ("a\0b", "\0", "a \0 b", " \0  \0 ", "a\n\0\n b", "\0\0 1", "\u00e9\0\u00e9", "a\u00a0\0\u3000b")
ALONE = ("a\0",)
# Texts that are tried with what belongs in front and behind.
AROUND = ("", "a", TEXTS[0])
# Many vocabularies hold hundreds of reserved tokens that differ by a number only.
FULLY_TRIED, SAMPLED, SAMPLE_LENGTH = 48, 256, 8
LOOKS_SPECIAL = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
# Conversations that every chat template has to render; a system message it may refuse in words of its own.
QUESTION = ("user", "Where is Mary?")
CONVERSATIONS = {
    "a question": (QUESTION,),
    "a second question": (("user", "Hi"), ("assistant", "Hello"), QUESTION),
    "a system message": (("system", "Be brief."), QUESTION),
}
ITS_OWN_WORDS = "Jinja Exception"  # what the engine calls a template's raise_exception
LONGEST_REASON = 400


@dataclass(frozen=True)
class Checked:
    """What the check found.

    Attributes:
        notes: What the engine does otherwise, a clause each.
        warnings: What does not work, a clause each.
        verified: What was compared, or why nothing was: a clause.
        keys: The ``tokenizer.*`` keys as a file has them, to compare what is written with.
    """

    notes: list[str]
    warnings: list[str]
    verified: str
    keys: dict[str, Any]


def check(
    place: Path,
    vocabulary: Vocabulary | None,
    architecture: str,
    write: Callable[[GGUFWriter], object],
    path: Path,
    bin_dir: Path = ENGINE_BIN,
    timeout_s: float = engine.LONGEST_S,
) -> Checked:
    """Compare what the engine makes of a corpus with what the vocabulary's own tokenizer does; try the chat template.

    Args:
        place: Of the tokenizer, for messages.
        vocabulary: What is to be written; None where it comes from a file, with nothing to compare it with.
        architecture: The file's ``general.architecture``.
        write: Adds all metadata of the file, the vocabulary's among them.
        path: Of the file that the engine is given; it stays.
        bin_dir: Where the engine's programs are; without them nothing is compared.
        timeout_s: The engine's longest time.

    Raises:
        UserError: the engine does not load the vocabulary, or reads most texts otherwise.
    """
    write_metadata(path, architecture, write)
    keys = tokenizer_keys(path)
    if "tokenizer.ggml.model" not in keys:
        return Checked([], [], "the file has no vocabulary", keys)
    if not engine_program(engine.PROGRAM, bin_dir).is_file():
        return Checked([], [], "the vocabulary is not checked against the engine, which is not built here", keys)
    reading = vocabulary.reading if vocabulary else None
    plain, added = _corpus(vocabulary, reading) if vocabulary and reading else ([], [])
    texts, around = [*plain, *(text for _, text in added)], AROUND if vocabulary else ()
    chats = CONVERSATIONS if "tokenizer.chat_template" in keys else {}
    orders: list[Any] = [*texts, *around, *(engine.text(text, special=True) for text in around)]
    orders += [engine.conversation(*messages) for messages in chats.values()]
    try:
        said = engine.ask(path, orders, bin_dir, timeout_s)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    if len(said.values) < len(orders) - len(chats):
        raise TritError(f"{place}: the engine's tokenizer ended ({said.ended}) at {orders[len(said.values)]!a}")
    answers = iter(said.values)
    ids, bare, whole = (list(islice(answers, len(part))) for part in (texts, around, around))
    notes, verified = [], "the engine loads the vocabulary"
    if vocabulary:
        notes += _stops(vocabulary, said.stops)
        for text, inner, got in zip(around, bare, whole, strict=True):
            if got != (expected := vocabulary.front + inner + vocabulary.back):
                raise TritError(f"{place}: the engine makes {got} of {text!a}, expected {expected}")
    if reading:
        wanted = [reading.encode(text, add_special_tokens=False).ids for text in texts]
        notes += _plain_notes(place, plain, ids, wanted)
        notes += _added_notes(added, ids[len(plain) :], wanted[len(plain) :])
        same = sum(a == b for a, b in zip(ids, wanted, strict=True))
        verified = f"{same:,} of {len(texts):,} texts have the tokens of tokenizer.json in the engine"
    return Checked(notes, _template_warnings(list(chats), list(answers), said.ended), verified, keys)


def write_metadata(path: Path, architecture: str, write: Callable[[GGUFWriter], object]) -> None:
    """A GGUF file with metadata and no tensors."""
    writer = GGUFWriter(path, architecture)
    try:
        write(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
    finally:
        writer.close()


def _corpus(vocabulary: Vocabulary, reading: Tokenizer) -> tuple[list[str], list[tuple[str, str]]]:
    """Texts without added tokens, and (added token, text with it)."""
    added = reading.get_added_tokens_decoder()
    own = sorted(i for i in reading.get_vocab(with_added_tokens=True).values() if i not in added)
    draw = random.Random(0)
    samples = [draw.sample(own, min(length, len(own))) for length in (1, SAMPLE_LENGTH) for _ in range(SAMPLED)]
    plain = [*TEXTS, *map(reading.decode, samples)]
    forms: tuple[str, ...] = NEIGHBOURHOODS
    if FIRST_NOTE in vocabulary.notes:
        # The note says it: what follows a special token, and a text that begins with a space, gets one space more.
        plain, forms = [text for text in plain if not text.startswith(" ")], ALONE
    contents = [token.content for token in added.values()]
    plain = [text for text in dict.fromkeys(plain) if text and not any(content in text for content in contents)]
    looks = [text for text in vocabulary.tokens if LOOKS_SPECIAL.fullmatch(text) and text not in set(contents)]
    looks = [text for text in looks if not re.fullmatch("<0x[0-9A-F]{2}>|\\[+PAD[0-9]+\\]+", text)][:FULLY_TRIED]
    near = [(token.content, form.replace("\0", token.content)) for token, form in _tried(added, forms)]
    near += [(text, f"a{text}b") for text in looks]
    near += [("added tokens that share letters", text) for text in _overlaps(contents)]
    return plain, near


def _tried(added: dict[int, AddedToken], forms: tuple[str, ...]) -> Iterator[tuple[AddedToken, str]]:
    """(added token, neighbourhood): all of them for some tokens of each kind, two for the rest."""
    seen: dict[tuple[bool, ...], int] = {}
    for token in added.values():
        if not token.content:
            continue
        kind = (token.special, token.normalized, token.lstrip, token.rstrip, token.single_word)
        seen[kind] = seen.get(kind, 0) + 1
        for form in forms if seen[kind] <= FULLY_TRIED else forms[:2]:
            yield token, form


def _overlaps(contents: list[str]) -> Iterator[str]:
    """Texts of two added tokens, the last letters of one being the first of the other."""
    begins = {content[:length]: content for content in contents for length in range(1, min(len(content), SHARED + 1))}
    found = 0
    for content in contents:
        for start in range(max(1, len(content) - SHARED), len(content)):
            other = begins.get(content[start:])
            if other and other != content and found < FULLY_TRIED:
                found += 1
                yield content[:start] + other


def _stops(vocabulary: Vocabulary, engine_stops: set[int]) -> list[str]:
    """What differs between the ends of the checkpoint and those of the engine."""
    missing = [i for i in vocabulary.stops if i not in engine_stops]
    more = sorted(engine_stops.difference(vocabulary.stops))
    notes = []
    if missing:
        notes.append(f"the engine goes on after {_names(vocabulary, missing)}, which the checkpoint lists as an end")
    if more:
        notes.append(
            f"the engine also ends at {_names(vocabulary, more)}, which the checkpoint does not list as an end"
        )
    return notes


def _names(vocabulary: Vocabulary, ids: list[int]) -> str:
    return _some([f"{vocabulary.tokens[i]} ({i})" for i in ids])


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _plain_notes(place: Path, texts: list[str], got: list[Any], wanted: list[list[int]]) -> list[str]:
    """What is read otherwise without any added token in it; raises UserError if that is most."""
    wrong = [i for i in range(len(texts)) if got[i] != wanted[i]]
    if not wrong:
        return []
    example = f"{texts[wrong[0]]!a} is {got[wrong[0]]} in the engine, {wanted[wrong[0]]} in tokenizer.json"
    if 2 * len(wrong) > len(texts):
        raise UserError(f"{place}: the engine cannot run this tokenizer: {example}, and so on")
    return [f"{len(wrong)} of {len(texts)} texts get other tokens: {example}"]


def _added_notes(texts: list[tuple[str, str]], got: list[Any], wanted: list[list[int]]) -> list[str]:
    """What is read otherwise around added tokens."""
    wrong: dict[str, int] = {}
    for i, (token, _) in enumerate(texts):
        if got[i] != wanted[i]:
            wrong.setdefault(token, i)
    if not wrong:
        return []
    notes = [
        f"{token} beside other text: {texts[i][1]!a} is {got[i]} in the engine, {wanted[i]} in tokenizer.json"
        for token, i in list(wrong.items())[:3]
    ]
    return notes + [f"{len(wrong) - 3} more tokens are read otherwise beside other text"] * (len(wrong) > 3)


def _template_warnings(names: list[str], answers: list[Any], ended: str | None) -> list[str]:
    """The first conversation that the engine cannot make a prompt of, and why."""
    missing = [{"error": ended}] * (len(names) - len(answers))
    for name, answer in zip(names, [*answers, *missing], strict=True):
        reason = answer.get("error")
        if reason is None and QUESTION[1] not in answer["prompt"]:
            reason = "the prompt does not hold the question"
        if reason is None or (name == "a system message" and ITS_OWN_WORDS in reason):
            continue
        # Behind the rule stand the construct and its place.
        words = " ".join(reason.rpartition("------------")[2].split())
        shown = (
            words
            if len(words) <= LONGEST_REASON
            else f"{words[: LONGEST_REASON // 2]} ... {words[-LONGEST_REASON // 2 :]}"
        )
        return [f"the engine cannot run the chat template for {name} ({shown}); a plain prompt does not need it"]
    return []
