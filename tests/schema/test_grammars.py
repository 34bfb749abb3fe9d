# SPDX-License-Identifier: MIT
"""The grammar of a JSON schema accepts what the schema allows, refuses the rest, and leads nowhere without an end."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.fuzz.requests import large_schema
from tests.fuzz.requests import schema as random_schema
from tests.support.grammar_driver import ask, build_driver
from tests.support.schema_reference import FORMATS, allows


@pytest.fixture(scope="module")
def driver(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(engine_bin, tmp_path_factory.mktemp("grammar") / "grammar_driver")


def parsed(text: str) -> Any:
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def written(value: Any) -> str:
    """JSON text as the grammars write it, with numbers digit by digit."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(key)}: {written(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def check(driver: Path, schemas: list[Any], values: list[list[Any]], samples: int = 12) -> None:
    """Each value is accepted as the reference says; what the grammar makes is allowed; nothing is left out."""
    requests = [
        {"schema": schema, "texts": [written(value) for value in some], "samples": samples, "seed": number}
        for number, (schema, some) in enumerate(zip(schemas, values, strict=True))
    ]
    for request, some, answer in zip(requests, values, ask(driver, requests), strict=True):
        schema = request["schema"]
        assert "failed" not in answer, (schema, answer)
        wanted = [allows(schema, value) for value in some]
        if "error" in answer:
            assert not any(wanted), (schema, answer)
            continue
        assert answer["warnings"] == [], schema
        assert answer["accepted"] == wanted, (schema, [(t, w) for t, w in zip(request["texts"], wanted, strict=True)])
        for text in answer["made"]:
            assert text is None or allows(schema, parsed(text)), (schema, text)


def test_bounds_of_numbers(driver: Path) -> None:
    random = Random(1)
    schemas, values = [], []
    for _ in range(120):
        digits = random.randint(0, 3)
        type_ = random.choice(["integer", "number"])
        low, high = sorted(Decimal(random.randint(-(10**4), 10**4)).scaleb(-digits) for _ in range(2))
        low, high = (low + random.choice([0, 10**14]), high + 10**14 + 1) if random.random() < 0.1 else (low, high)
        schema: dict[str, Any] = {"type": type_}
        if random.random() < 0.8:
            schema[random.choice(["minimum", "exclusiveMinimum"])] = low
        if random.random() < 0.8 or len(schema) == 1:
            schema[random.choice(["maximum", "exclusiveMaximum"])] = high
        # Integers are written without a point, so the values have none, either.
        steps = [Decimal(0), Decimal(1), Decimal(10) ** -digits, Decimal(10) ** -(digits + 1), Decimal(97)]
        some = {bound + sign * step for bound in (low, high, Decimal(0)) for step in steps for sign in (1, -1)}
        some = {value for value in some if type_ == "number" or value == value.to_integral_value()}
        values.append([value.quantize(Decimal(1)) if value == value.to_integral_value() else value for value in some])
        schemas.append({key: one if isinstance(one, str) else as_json(one) for key, one in schema.items()})
    check(driver, schemas, values)


def as_json(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def test_bounds_of_draft_4_and_beyond_64_bits(driver: Path) -> None:
    schemas: list[Any] = [
        {"type": "integer", "minimum": 3, "exclusiveMinimum": True},
        {"type": "number", "maximum": 2.5, "exclusiveMaximum": True, "minimum": -1, "exclusiveMinimum": False},
        {"type": "integer", "minimum": 1e25},
        {"type": "integer", "maximum": -(2**63), "minimum": -(2**64)},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1e-7},
        {"type": ["integer", "null"], "exclusiveMaximum": 0.5, "minimum": -0.5},
    ]
    some = [Decimal(text) for text in ("3", "4", "2.4", "2.5", "-1", "0", "0.0000001", "0.00000011", "1")]
    large = [Decimal(10) ** 25, Decimal(10) ** 25 - 1, Decimal(-(2**63)), Decimal(-(2**63) + 1), Decimal(-(2**64))]
    whole = [value for value in some if value == value.to_integral_value()]
    # Without a bound there a number has at most 16 digits.
    check(driver, schemas, [whole, some, [*whole, *large], [*whole, *large], some, [*whole, None]])


@pytest.mark.parametrize("divisor", ["2", "7", "10", "1500", "0.01", "0.25", "2.5", "0.003", "1000000", "360"])
def test_multiples(driver: Path, divisor: str) -> None:
    random = Random(int(Decimal(divisor) * 1000))
    step = Decimal(divisor)
    values = [step * random.randint(-50, 500) for _ in range(20)]
    values += [value + random.choice([Decimal(1), Decimal("0.001"), step / 4]) for value in values]
    values = [value.normalize() for value in values]
    whole = [value for value in values if value == value.to_integral_value()]
    one = as_json(step)
    schemas: list[Any] = [
        {"type": "number", "multipleOf": one},
        {"type": "integer", "multipleOf": one, "minimum": -20},
    ]
    check(driver, schemas, [values, whole], samples=6)


PATTERNS = [
    "^[a-c]{2,4}$",
    "b",
    "a.c|^ab",
    "^(?:ab|c)*$",
    "c$",
    "^(?=.*b)(?!.*cc).{2,5}$",
    "^(a|b{2}|)c?$",
    "^[^ab\\d]\\w?$",
    "^\\s\\S\\D$",
    '^["\\\\/\\n]+$',
    "^(a$|b)",
    "(^a|b$)",
    "^\\u00e9.?$",
    "^(?P<x>a)(?<y>b)$",
    "a{2}b*?c",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_with_lengths(driver: Path, pattern: str) -> None:
    random = Random(len(pattern))
    letters = 'aabbcc12 _"\\/\n\té\U0001f600'
    texts: list[Any] = ["".join(random.choices(letters, k=random.randint(0, 6))) for _ in range(150)]
    texts += ["ab", "b", "cc", "aab", "c", "", "é", "ab\n", '"', "\n\\", "d1", " ab"]
    python = pattern.replace("(?<y>", "(?P<y>")
    for limits in ({}, {"minLength": 2}, {"maxLength": 3, "minLength": 1}):
        schema = {"type": "string", "pattern": pattern, **limits}
        wanted = [allows({**schema, "pattern": python}, text) for text in texts]
        answer = ask(driver, [{"schema": schema, "texts": [written(text) for text in texts], "samples": 10}])[0]
        if "error" in answer:
            assert not any(wanted), answer
            continue
        assert answer["warnings"] == []
        assert [text for text, good in zip(texts, answer["accepted"], strict=True) if good] == [
            text for text, good in zip(texts, wanted, strict=True) if good
        ]
        for text in answer["made"]:
            assert text is None or allows({**schema, "pattern": python}, json.loads(text)), text


def test_a_match_begins_soon_unless_the_length_is_bounded(driver: Path) -> None:
    """Else a weak model writes until its limit of tokens before the match."""
    at_end = {"type": "string", "pattern": "\\.pdf$"}
    late = {"type": "string", "allOf": [{"pattern": "[0-9]"}, {"pattern": "^[a-z]{90}"}]}
    schemas = [
        {"type": "string", "pattern": "[0-9]"},
        at_end,
        {**at_end, "maxLength": 500},
        late,
        {**at_end, "minLength": 200},
    ]
    texts = [["x" * 64 + "1" + "y" * 300, "x" * 65 + "1"], ["x" * 64 + ".pdf", "x" * 65 + ".pdf"]]
    texts += [["x" * 496 + ".pdf", "x" * 497 + ".pdf"], ["x" * 90 + "1", "x" * 90], ["x" * 196 + ".pdf", "x.pdf"]]
    requests = [{"schema": one, "texts": list(map(written, some))} for one, some in zip(schemas, texts, strict=True)]
    for answer in ask(driver, requests):
        assert answer["accepted"] == [True, False] and answer["warnings"] == []
    # More of them than a grammar has room for are held, but not bounded.
    many = {f"p{number}": {"type": "string", "pattern": f"\\.pdf{number}$"} for number in range(150)}
    answer = ask(driver, [{"schema": {"type": "object", "properties": many}, "texts": ["{}"]}])[0]
    assert answer["accepted"] == [True] and answer["warnings"] == []


def _splits(data: bytes) -> list[list[str]]:
    """All ways to cut bytes into tokens, in hexadecimal."""
    ways = []
    for cuts in range(1 << (len(data) - 1)):
        way, begin = [], 0
        for place in range(1, len(data) + 1):
            if place == len(data) or cuts >> (place - 1) & 1:
                way.append(data[begin:place].hex())
                begin = place
        ways.append(way)
    return ways


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_bytes_that_are_no_text_are_refused_however_tokens_cut_them(driver: Path) -> None:
    second = (0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    sequences = [bytes([lead]) for lead in range(1, 256)]
    sequences += [bytes([lead, one]) for lead in range(0xC0, 0x100) for one in second]
    sequences += [bytes([lead, one, 0x80]) for lead in range(0xE0, 0xF8) for one in second]
    sequences += [bytes([lead, one, 0x80, 0xBF]) for lead in range(0xF0, 0xF8) for one in second]
    tokens, wanted = [], []
    for data in sequences:
        for tail, rests in (
            (b"", (b"", b"\x80", b"\xbf", b"\x80\x80", b"\xbf\xbf", b"\x80" * 3, b"\xbf" * 3)),
            (b"a", (b"",)),
        ):
            # Without a tail the last character may still be completed.
            good = 0 not in data and any(_is_text(data + tail + rest) for rest in rests)
            ways = _splits(data + tail)
            tokens += ways
            wanted += [good] * len(ways)
    answer = ask(driver, [{"grammar": "root ::= [^\\u0378]*", "tokens": tokens}])[0]
    wrong = [pair for pair in zip(tokens, answer["taken"], wanted, strict=True) if pair[1] != pair[2]]
    assert wrong == [] and any(wanted)


@pytest.mark.parametrize("format_", sorted(FORMATS))
def test_formats(driver: Path, format_: str) -> None:
    texts = {
        "date": (["2024-02-29", "1999-12-31"], ["2023-02-29", "2024-13-01", "2024-04-31"]),
        "time": (["23:59:59Z", "00:00:00.5+02:00"], ["24:00:00Z", "12:00"]),
        "date-time": (["2000-02-29T01:02:03Z"], ["1900-02-29T01:02:03Z", "2024-01-01"]),
        "ipv4": (["192.168.0.1", "0.0.0.0"], ["256.1.1.1", "1.2.3"]),
        "ipv6": (["::1", "fe80::1:2", "1:2:3:4:5:6:7:8"], ["1::2::3", "12345::"]),
        "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000x"]),
        "email": (["ann.b@mail.example.org"], ["ann", "ann@", "a b@c.org"]),
        "hostname": (["a.example.org", "x1"], ["-a.org", "a..b"]),
        "uri": (["https://a.example/x?y=1#z", "mailto:a@b.org"], ["no scheme", "://x"]),
        "duration": (["P1Y2M", "PT5M", "P3W", "P1DT2H"], ["P", "PT", "1D", "P1H"]),
    }[format_]
    schema = {"type": "string", "format": format_}
    request = {"schema": schema, "texts": [written(text) for text in (*texts[0], *texts[1])], "samples": 30}
    answer = ask(driver, [request])[0]
    assert answer["warnings"] == []
    assert answer["accepted"] == [True] * len(texts[0]) + [False] * len(texts[1])
    for text in answer["made"]:
        assert text is None or FORMATS[format_](json.loads(text)), text


def a_value(random: Random, depth: int = 0) -> Any:
    """A small value of any type."""
    kind = random.randrange(5 if depth > 1 else 7)
    if kind < 2:
        return Decimal(random.randint(-3, 9))
    if kind < 5:
        return random.choice([None, True, False, "a", "b", "k1", ""])
    if kind == 5:
        return [a_value(random, depth + 1) for _ in range(random.randint(0, 3))]
    return {name: a_value(random, depth + 1) for name in "abc" if random.random() < 0.5}


SMALL = [
    {"type": "integer"},
    {"type": "string"},
    {"enum": ["a", "b"]},
    {"type": "boolean"},
    {"minimum": 3, "type": "number"},
]


def test_arrays(driver: Path) -> None:
    random = Random(3)
    schemas, values = [], []
    for _ in range(80):
        schema: dict[str, Any] = {"type": "array", "items": random.choice([*SMALL, False])}
        low, high = sorted(random.randint(0, 4) for _ in range(2))
        schema |= {"minItems": low} | ({"maxItems": high} if random.random() < 0.7 else {})
        if random.random() < 0.5:
            schema["prefixItems"] = random.sample(SMALL, random.randint(1, 3))
        elif random.random() < 0.4:
            schema |= {"items": random.choice([{"enum": ["a", 1, None]}, {"type": "boolean"}]), "uniqueItems": True}
        schemas.append(schema)
        values.append([[a_value(random, 2) for _ in range(random.randint(0, 4))] for _ in range(60)])
    check(driver, schemas, values)


def test_objects(driver: Path) -> None:
    random = Random(4)
    schemas, values = [], []
    for _ in range(120):
        names = [name for name in "abc" if random.random() < 0.7]
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: random.choice(SMALL) for name in names},
            "required": [name for name in "abc" if random.random() < 0.3],
            "additionalProperties": random.choice([False, False, {"type": "integer"}, True]),
        }
        if random.random() < 0.4:
            schema["patternProperties"] = {random.choice(["^k", "1$"]): random.choice(SMALL)}
        if random.random() < 0.3:
            schema["propertyNames"] = random.choice(
                [{"pattern": "^[abk]"}, {"maxLength": 1}, {"enum": ["a", "b", "k1"]}]
            )
        if random.random() < 0.4:
            schema["maxProperties"] = random.randint(1, 3)
        if random.random() < 0.4:
            schema["minProperties"] = 1
        schemas.append(schema)
        some = []
        for _ in range(60):
            # Members stand in the order of the schema, others behind them.
            order = [*names, *(name for name in "abc" if name not in names), "k1", "x1", "zz"]
            some.append({name: a_value(random, 2) for name in order if random.random() < 0.4})
        values.append(some)
    check(driver, schemas, values)


def test_parts_that_are_put_together(driver: Path) -> None:
    integer, text = {"type": "integer"}, {"type": "string"}
    one = {"type": "object", "properties": {"a": integer}, "required": ["a"], "additionalProperties": False}
    other = {"type": "object", "properties": {"b": text}, "required": ["b"], "additionalProperties": False}
    schemas: list[Any] = [
        {"allOf": [{"minimum": 2, "type": "number"}, {"maximum": 5}], "multipleOf": 1},
        {"allOf": [{"type": "object", "properties": {"a": integer}}, {"properties": {"b": text}}], "required": ["b"]},
        {"allOf": [{"properties": {"a": {"minimum": 1}}}, {"properties": {"a": integer}}], "type": "object"},
        {"anyOf": [one, other]},
        {"oneOf": [one, other, {"type": "null"}]},
        {
            "type": "object",
            "properties": {"a": integer, "b": text},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        {"$ref": "#/$defs/x", "minimum": 2, "$defs": {"x": {"type": "integer", "maximum": 4}}},
        {"type": ["string", "null", "array"], "minLength": 2, "maxItems": 1},
        {"enum": [1, 5, "a", "abc", None, [1], {"a": 1}], "minimum": 4, "minLength": 2, "maxItems": 0},
        {"const": 5, "not": {"type": "string"}},
        {"type": "string", "not": {"enum": ["a", "b"]}, "maxLength": 2},
        {"not": {"type": ["object", "string", "array"]}, "type": ["string", "boolean", "null"]},
        {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}, "maxItems": 2}}, "$ref": "#/$defs/t"},
        {"allOf": [{"enum": [1, 2, 3]}, {"enum": [2, 3, "a"]}], "not": {"const": 3}},
    ]
    random = Random(5)
    five = Decimal(5)
    likely = [{"a": five}, {"b": "x"}, {"a": five, "b": "x"}, five, Decimal(3), "abc", "aa", [[], [[]]], [None], None]
    # An object with properties has no others unless it says so.
    values = [
        [value for value in (*likely, *(a_value(random) for _ in range(150))) if names_of(value) <= names_in(schema)]
        for schema in schemas
    ]
    assert all(any(allows(schema, value) for value in some) for schema, some in zip(schemas, values, strict=True))
    check(driver, schemas, values)


def names_of(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()


def names_in(schema: Any) -> set[str]:
    return {name for name in "abc" if f'"{name}":' in json.dumps(schema)}


PYDANTIC = {
    "$defs": {
        "Kind": {"enum": ["new", "used"], "title": "Kind", "type": "string"},
        "Part": {
            "properties": {
                "name": {
                    "maxLength": 40,
                    "minLength": 1,
                    "pattern": "^[A-Z][a-z]+$",
                    "title": "Name",
                    "type": "string",
                },
                "price": {"exclusiveMinimum": 0.0, "maximum": 9999.99, "multipleOf": 0.01, "type": "number"},
                "count": {"default": 1, "maximum": 12, "minimum": 1, "title": "Count", "type": "integer"},
                "kind": {"$ref": "#/$defs/Kind", "description": "of what", "default": "new"},
                "due": {"anyOf": [{"format": "date", "type": "string"}, {"type": "null"}], "default": None},
                "place": {
                    "maxItems": 2,
                    "minItems": 2,
                    "prefixItems": [{"type": "number", "minimum": -90, "maximum": 90}, {"type": "number"}],
                    "type": "array",
                },
                "tags": {"items": {"$ref": "#/$defs/Kind"}, "type": "array", "uniqueItems": True},
            },
            "required": ["name", "price", "place"],
            "title": "Part",
            "type": "object",
        },
        "Cat": {"properties": {"pet": {"const": "cat", "type": "string"}}, "required": ["pet"], "type": "object"},
        "Dog": {"properties": {"pet": {"const": "dog", "type": "string"}}, "required": ["pet"], "type": "object"},
    },
    "additionalProperties": False,
    "properties": {
        "part": {"allOf": [{"$ref": "#/$defs/Part"}], "default": {}},
        "scores": {"additionalProperties": {"maximum": 1, "minimum": 0, "type": "number"}, "type": "object"},
        "animal": {
            "discriminator": {"mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}, "propertyName": "pet"},
            "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        },
    },
    "required": ["part", "animal"],
    "title": "Order",
    "type": "object",
    "examples": [{}],
    "$schema": "https://json-schema.org/draft/2020-12/schema",
}


def test_models_of_pydantic_are_held_whole(driver: Path) -> None:
    answer = ask(driver, [{"schema": PYDANTIC, "samples": 60}])[0]
    assert answer["warnings"] == []
    made = [text for text in answer["made"] if text is not None]
    assert len(made) > 30
    for text in made:
        assert allows(PYDANTIC, parsed(text)), text


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 8, "maximum": 3}, ["minimum 8", "maximum 3"]),
        (
            {"properties": {"a": {"minimum": 0.3, "maximum": 0.9, "type": "integer"}}},
            ["minimum", "maximum", "properties/a"],
        ),
        ({"type": "array", "minItems": 3, "maxItems": 1}, ["minItems", "maxItems"]),
        ({"type": "string", "minLength": 9, "maxLength": 8}, ["minLength", "maxLength"]),
        ({"type": "object", "minProperties": 3, "maxProperties": 2}, ["minProperties", "maxProperties"]),
        ({"type": "object", "required": "a"}, ["required"]),
        ({"type": "object", "properties": ["a"]}, ["properties"]),
        ({"items": {"type": "array", "minItems": "1"}}, ["minItems", "#/items"]),
        ({"type": "number", "multipleOf": 0}, ["multipleOf"]),
        ({"type": "text"}, ["type", "text"]),
        ({"enum": []}, ["enum"]),
        ({"enum": [1, 2], "minimum": 3}, ["enum"]),
        ({"type": "string", "pattern": "^(x"}, ["pattern", "^(x"]),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, ["pattern", "minLength"]),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, ["required", '"a"']),
        ({"$ref": "#/$defs/a"}, ["#/$defs/a", "nowhere"]),
        ({"$ref": "https://shop.example/x"}, ["https://shop.example/x"]),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {}]}}, "$ref": "#/$defs/a"}, ["itself"]),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, ["types"]),
        ({"not": {}}, ["no value"]),
    ],
)
def test_what_allows_nothing_or_is_no_schema_is_named(driver: Path, schema: Any, words: list[str]) -> None:
    error = ask(driver, [{"schema": schema}])[0]["error"]
    assert all(word in error for word in words), error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("schema", "warning"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems at #"),
        ({"type": "string", "format": "color"}, 'format "color" at #'),
        ({"type": "string", "contentEncoding": "base64"}, "contentEncoding at #"),
        ({"type": "string", "contentMediaType": "text/html"}, "contentMediaType at #"),
        ({"type": "string", "pattern": "^(a|b)\\1$"}, "pattern ^(a|b)\\1$ at #"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}}, "if at #"),
        ({"type": "number", "multipleOf": 0.12345}, "multipleOf at #"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired at #"),
        ({"type": "object", "minProperties": 3, "additionalProperties": True}, "minProperties at #"),
        ({"type": "array", "contains": {"type": "string"}}, "contains at #"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf at #"),
        ({"type": "object", "properties": {"x": {"not": {"pattern": "a"}, "type": "string"}}}, "not at #/properties/x"),
    ],
)
def test_what_a_grammar_cannot_hold_is_told(driver: Path, schema: Any, warning: str) -> None:
    answer = ask(driver, [{"schema": schema, "samples": 2}])[0]
    assert len(answer["warnings"]) == 1 and answer["warnings"][0].startswith(warning), answer["warnings"]


def test_long_texts_and_lists_are_counted(driver: Path) -> None:
    text = {"type": "string", "minLength": 700, "maxLength": 12345}
    numbers = {"type": "array", "items": {"type": "integer"}, "maxItems": 1200}
    lengths = (699, 700, 5000, 12345, 12346)
    counts = (0, 1, 1200, 1201)
    answers = ask(
        driver,
        [
            {"schema": text, "texts": ['"' + "x" * length + '"' for length in lengths]},
            {"schema": numbers, "texts": [json.dumps([1] * count) for count in counts]},
        ],
    )
    assert answers[0]["accepted"] == [False, True, True, True, False]
    assert answers[1]["accepted"] == [True, True, True, False]


def test_lists_of_thousands_of_values_are_held(driver: Path) -> None:
    """Whatever they begin with alike: also whole values, half a character's bytes and what JSON escapes."""
    random = Random(5)
    letters = ["a", "b", "\u00e9", "\u00e8", "\U0001f600", "\U0001f601", "\n", "\t", '"', "\\"]
    texts = sorted({"".join(random.choices(letters, k=random.randint(0, 7))) for _ in range(6000)})
    some, others = texts[::2], texts[1::2]
    mixed = [1, 10, 100, "1", None, True, ["a"], ["a", "b"], {"a": 1}]
    check(driver, [{"enum": mixed}], [[Decimal(1), Decimal(10), Decimal(11), "1", "10", None, True, False]], samples=0)
    numbered = {"enum": [f"product {number}" for number in range(9000)]}
    requests: list[dict[str, Any]] = [
        {"schema": {"enum": some}, "texts": list(map(written, some + others)), "samples": 50},
        {"schema": numbered, "texts": ['"product 8999"', '"product 9000"', '"product "']},
    ]
    answers = ask(driver, requests)
    assert answers[0]["accepted"] == [True] * len(some) + [False] * len(others)
    assert {json.loads(text) for text in answers[0]["made"]} <= set(some)
    assert answers[1]["accepted"] == [True, False, False]


def test_an_empty_list_of_properties_allows_no_others(driver: Path) -> None:
    closed = {"type": "object", "properties": {}}
    schemas: list[dict[str, Any]] = [
        closed,
        {"allOf": [closed, {"type": "object"}]},
        {**closed, "additionalProperties": {"type": "null"}},
    ]
    texts = ["{}", '{"a": null}', '{"a": 1}']
    answers = ask(driver, [{"schema": schema, "texts": texts, "samples": 3} for schema in schemas])
    assert [answer["accepted"] for answer in answers] == [[True, False, False]] * 2 + [[True, True, False]]


def test_random_schemas_are_answered_soon(driver: Path) -> None:
    schemas = [random_schema(Random(number)) for number in range(5000)]
    schemas += [large_schema(Random(number)) for number in range(60)]
    answers = ask(driver, [{"schema": schema, "samples": 1, "seed": number} for number, schema in enumerate(schemas)])
    assert len(answers) == len(schemas)
    for schema, answer in zip(schemas, answers, strict=True):
        assert "failed" not in answer, (schema, answer)
        assert answer.get("seconds", 0) < 1 and "\n" not in answer.get("error", ""), (schema, answer)
    held = [answer for answer in answers if "error" not in answer]
    assert len(held) > 500
