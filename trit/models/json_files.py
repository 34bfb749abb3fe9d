# SPDX-License-Identifier: MIT
"""The JSON files of a model's folder: one reader, and what each key that any of our readers uses has to be.

A folder comes from anybody. What is read here has the form that ``FORMS`` says, so nothing behind it meets a number
where a text is meant; what has not is refused by file and key. Keys that nobody reads may be anything.

A UTF-8 byte order mark is skipped. transformers refuses it, but it says nothing else than UTF-8.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import reprlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from trit.base.errors import UserError
from trit.base.files import check_input

# Far more than any published file of its kind has (tokenizers: 35 MB), and little enough for parsers that take fifty
# times the bytes of hostile ones.
MAX_JSON_BYTES, MAX_TOKENIZER_BYTES = 1 << 25, 1 << 27
# UTF-32's first: its mark begins with UTF-16's.
_OTHER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
CONFIG = "config.json"


class Misfit(NamedTuple):
    """A value that has not the form it must have: the keys and indices that lead to it, itself, what is expected."""

    keys: tuple[str | int, ...]
    value: Any
    expected: str


Form = Callable[[Any], Misfit | None]


def one(expected: str, fits: Callable[[Any], bool]) -> Form:
    """A value without parts."""
    return lambda value: None if fits(value) else Misfit((), value, expected)


def optional(form: Form) -> Form:
    """The same, or null."""
    return lambda value: None if value is None else form(value)


def items(form: Form) -> Form:
    """A list."""

    def check(value: Any) -> Misfit | None:
        if not isinstance(value, list):
            return Misfit((), value, "a list")
        return _first((i, item, form) for i, item in enumerate(value))

    return check


def table(known: Mapping[str, Form], rest: Form | None = None, needed: tuple[str, ...] = ()) -> Form:
    """An object: forms of keys that may be there, of all others, and the keys that must be there."""

    def check(value: Any) -> Misfit | None:
        if not isinstance(value, dict):
            return Misfit((), value, "an object")
        if missing := [key for key in needed if key not in value]:
            return Misfit((missing[0],), None, "it to be there")
        forms = ((key, item, known.get(key, rest)) for key, item in value.items())
        return _first((key, item, form) for key, item, form in forms if form is not None)

    return check


def either(expected: str, *forms: Form) -> Form:
    """Any of some forms. Of a value that has none the misfit farthest inside is told, as that is what was meant."""

    def check(value: Any) -> Misfit | None:
        found = []
        for form in forms:
            if (misfit := form(value)) is None:
                return None
            found.append(misfit)
        deepest = max(found, key=lambda misfit: len(misfit.keys))
        return deepest if deepest.keys else Misfit((), value, expected)

    return check


def _first(parts: Any) -> Misfit | None:
    """The first misfit of (key, value, form), with its key in front."""
    for key, value, form in parts:
        if misfit := form(value):
            return Misfit((key, *misfit.keys), misfit.value, misfit.expected)
    return None


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it is text that a GGUF file and the engine can hold: C strings of UTF-8."""
    if not isinstance(value, str) or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_integer(value: Any, least: float = -math.inf, most: float = math.inf) -> TypeGuard[int]:
    """Whether it is a whole number of a range; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number that float32 can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 3.4e38


TEXT = one("text without zero characters", is_text)
ANY_TEXT = one("text", lambda value: isinstance(value, str))
TRUTH = one("true or false", lambda value: isinstance(value, bool))
NUMBER = one("a number", is_number)
INTEGER = one("a whole number", lambda value: is_integer(value, -(2**31), 2**31 - 1))
OBJECT = table({})
# -1 stands for none in many older files.
TOKEN_ID = one("a token id, a whole number from 0", lambda value: is_integer(value, -1, 2**32 - 1))
TOKEN_IDS = either("a token id or a list of token ids", TOKEN_ID, items(TOKEN_ID))
TOKEN = either("a token's text, or an object with its content", TEXT, table({"content": TEXT}, needed=("content",)))
TEMPLATE = either(
    "a template's text, or named templates",
    TEXT,
    items(table({"name": TEXT, "template": TEXT}, needed=("name", "template"))),
    table({}, TEXT),
)

_SPECIAL_TOKENS = {f"{name}_token": optional(TOKEN) for name in ("bos", "eos", "unk", "pad", "sep", "cls", "mask")}
_SPECIAL_IDS = {f"{name}_token_id": optional(TOKEN_ID) for name in ("bos", "unk", "pad")}
_SPECIAL_IDS["eos_token_id"] = optional(TOKEN_IDS)
_MOST_DIGITS = 4300  # of a number, as Python reads it
_FLAGS = dict.fromkeys(("special", "lstrip", "rstrip", "single_word", "normalized"), TRUTH)


def _vocabulary(value: Any) -> Misfit | None:
    """Text -> id. A quarter of a million of them: no form for each."""
    if not isinstance(value, dict):
        return Misfit((), value, "an object of tokens and their ids")
    for text, number in value.items():
        if not is_text(text):
            return Misfit((text,), text, "a token's text without zero characters")
        if not is_integer(number, 0, 2**32 - 1):
            return Misfit((text,), number, "a token id, a whole number from 0")
    return None


def _merges(value: Any) -> Misfit | None:
    """Pairs of tokens, as two texts or as one with a space between them."""
    if not isinstance(value, list):
        return Misfit((), value, "a list")
    for i, merge in enumerate(value):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not is_text(pair[0]) or not is_text(pair[1]):
            return Misfit((i,), merge, "two tokens without zero characters")
    return None


def _model(value: Any) -> Misfit | None:
    """A BPE model; of the others the type alone is read."""
    kind = table({"type": optional(ANY_TEXT)})(value)
    if kind is not None or value.get("type") != "BPE":
        return kind
    return table(
        {
            "vocab": _vocabulary,
            "merges": _merges,
            "unk_token": optional(TEXT),
            "byte_fallback": optional(TRUTH),
            "ignore_merges": optional(TRUTH),
            "fuse_unk": optional(TRUTH),
            "dropout": optional(NUMBER),
            "continuing_subword_prefix": optional(ANY_TEXT),
            "end_of_word_suffix": optional(ANY_TEXT),
        },
        needed=("vocab",),
    )(value)


def _step(value: Any) -> Misfit | None:
    """A normalizer, pre-tokenizer or post-processor, and those in it."""
    inner = {key: items(_step) for key in ("normalizers", "pretokenizers", "processors")}
    return table({"type": ANY_TEXT, "pattern": OBJECT, **inner}, needed=("type",))(value)


FORMS: dict[str, Form] = {
    CONFIG: table(
        {
            "architectures": optional(items(ANY_TEXT)),
            "model_type": optional(ANY_TEXT),
            "_name_or_path": optional(TEXT),
            "rope_parameters": optional(OBJECT),
            "rope_scaling": optional(OBJECT),
            "layer_types": optional(items(ANY_TEXT)),
            "quantization_config": optional(
                table(
                    {
                        "modules_to_not_convert": optional(items(ANY_TEXT)),
                        **dict.fromkeys(("quant_method", "linear_class", "quantization_mode"), optional(ANY_TEXT)),
                    }
                )
            ),
            "compression_config": optional(OBJECT),
            **_SPECIAL_IDS,
        }
    ),
    "generation_config.json": table(
        {
            **_SPECIAL_IDS,
            "sequence": optional(TEXT),
            **{key: optional(INTEGER) for key in ("top_k", "penalty_last_n", "mirostat")},
            **{
                key: optional(NUMBER)
                for key in (
                    "top_p",
                    "min_p",
                    "xtc_probability",
                    "xtc_threshold",
                    "temperature",
                    "penalty_repeat",
                    "mirostat_tau",
                    "mirostat_eta",
                )
            },
        }
    ),
    "tokenizer_config.json": table(
        {
            **_SPECIAL_TOKENS,
            "add_bos_token": optional(TRUTH),
            "add_eos_token": optional(TRUTH),
            "added_tokens_decoder": optional(table({}, table({"content": TEXT, **_FLAGS}, needed=("content",)))),
            "chat_template": optional(TEMPLATE),
        }
    ),
    "special_tokens_map.json": table(_SPECIAL_TOKENS),
    "added_tokens.json": table({}, TOKEN_ID),
    "chat_template.json": table({"chat_template": optional(TEMPLATE)}),
    "tokenizer.json": table(
        {
            "model": _model,
            "added_tokens": optional(
                items(table({"id": TOKEN_ID, "content": TEXT, **_FLAGS}, needed=("id", "content")))
            ),
            **{key: optional(_step) for key in ("normalizer", "pre_tokenizer", "post_processor")},
        },
        needed=("model",),
    ),
}


def most_bytes(name: str) -> int:
    """What a file of this name has at most."""
    return MAX_TOKENIZER_BYTES if name.startswith("tokenizer") else MAX_JSON_BYTES


def read_text(path: Path) -> str:
    """A text file of a folder, without a byte order mark.

    Raises:
        UserError: the file is missing, something else in its place, too large, or not UTF-8.
    """
    if not os.path.lexists(path):
        raise UserError(f"{path.parent}: has no {path.name}; expected a Hugging Face checkpoint folder")
    check_input(path, most_bytes(path.name))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    for mark, name in _OTHER_MARKS:
        if data.startswith(mark):
            raise UserError(f"{path}: is {name} text, expected UTF-8; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 text (byte 0x{data[error.start]:02x} at {error.start}); save it as UTF-8, or "
            "download it again"
        ) from None


def parse_json(path: Path, text: str) -> Any:
    """The value of a JSON file's text, in the form that ``FORMS`` has for its name.

    Raises:
        UserError: it is not JSON, or a key's value has not its form; names file and key.
    """
    try:
        value = json.loads(text)
        form = FORMS.get(path.name)
        misfit = form(value) if form else None
    except (ValueError, RecursionError) as error:  # bad JSON, digits or nesting without end
        if not isinstance(error, (json.JSONDecodeError, RecursionError)):
            _refuse_digits(path, text)
            raise UserError(f"{path}: has a number of too many digits; download the file again") from None
        raise UserError(f"{path}: cannot be read as JSON ({error}); download the file again") from None
    if misfit is None:
        return value
    if not misfit.keys:
        raise UserError(f"{path}: is {reprlib.repr(misfit.value)}, expected {misfit.expected}; download it again")
    raise UserError(f"{path}: {_spelled(misfit.keys)} is {reprlib.repr(misfit.value)}, expected {misfit.expected}")


def _refuse_digits(path: Path, text: str) -> None:
    """Raise UserError for a key's number of more digits than Python reads."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        for key, value in pairs:
            if isinstance(value, bytes) and len(value) > _MOST_DIGITS:
                name = reprlib.repr(key)[1:-1]
                raise UserError(f"{path}: {name} is a number of {len(value):,} digits; download the file again")

    with suppress(ValueError, RecursionError):
        json.loads(text, parse_int=str.encode, object_pairs_hook=check)  # bytes: no other value is


def _spelled(keys: tuple[str | int, ...]) -> str:
    """``added_tokens[3].content``."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{reprlib.repr(key)[1:-1]}" for key in keys]
    return "".join(parts).removeprefix(".")


def read_json_value(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: as :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(path, read_text(path))


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        UserError: as :func:`read_json_value`, or it is not an object.
    """
    value = read_json_value(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_json_if_there(path: Path) -> dict[str, Any]:
    """:func:`read_json` of a file that a folder may have; empty without it."""
    return read_json(path) if os.path.lexists(path) else {}
