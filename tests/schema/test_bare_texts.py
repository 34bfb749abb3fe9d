# SPDX-License-Identifier: MIT
"""Arguments of calls that are written like XML: texts without quotes keep their schema, and end where they should."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.grammar_driver import ask, build_driver

CLOSING = "\n</parameter>\n"
ENUM = ["red", 'a "b"', "two\nlines", "\\n", "caf\u00e9 \U0001f600", "", "re"]


@pytest.fixture(scope="module")
def driver(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_driver(engine_bin, tmp_path_factory.mktemp("grammar") / "grammar_driver")


def accepted(driver: Path, schema: Any, texts: list[str], closing: str = CLOSING, samples: int = 0) -> dict[str, Any]:
    request = {"schema": schema, "texts": [text + closing for text in texts], "samples": samples, "closing": closing}
    (answer,) = ask(driver, [request])
    assert "failed" not in answer and "error" not in answer, answer
    assert all(text is None or text.endswith(closing) for text in answer["made"])
    return answer


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"enum": ENUM}, ENUM, ["blue", '"red"', "red ", "RED", "two\\nlines"]),
        ({"type": "string", "enum": ["x", "yy"], "minLength": 2}, ["yy"], ["x", ""]),
        ({"const": "only this"}, ["only this"], ["only", '"only this"']),
        ({"type": "string", "pattern": "^\\d{3}-[a-f]$"}, ["123-a", "000-f"], ["123-g", '"123-a"', "1234-a", ""]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", 'a"\n'], ["a", "abcd"]),
        ({"type": "string", "format": "date"}, ["2026-11-27"], ["2026-13-01", "today"]),
        ({"type": "string"}, ["", 'any "text"\n{', "</parameter>", "a\n</param"], ["\0"]),
        ({}, ["5", "any"], []),
        ({"type": ["string", "null"], "enum": ["a", None]}, ["a", "null"], ["b", "None", '"a"']),
        ({"anyOf": [{"enum": ["a", "b"]}, {"type": "null"}]}, ["a", "b", "null"], ["c", "nul"]),
        ({"anyOf": [{"type": "string", "pattern": "^a+$"}, {"type": "integer"}]}, ["aa", "-7"], ["ab", "7.5"]),
        ({"$ref": "#/$defs/c", "$defs": {"c": {"enum": ["v", "w"]}}}, ["v", "w"], ["#", "x"]),
        ({"type": "string", "not": {"enum": ["no"]}}, ["yes", "noo"], ["no"]),
    ],
)
def test_a_bare_text_keeps_its_schema(driver: Path, schema: Any, good: list[str], bad: list[str]) -> None:
    answer = accepted(driver, schema, [*good, *bad], samples=20)
    assert answer["accepted"] == [True] * len(good) + [False] * len(bad)
    if "enum" in schema:
        made = [text.removesuffix(CLOSING) for text in answer["made"]]
        assert set(made) <= {"null" if value is None else value for value in schema["enum"]} and len(set(made)) > 0


def test_texts_within_containers_have_quotes(driver: Path) -> None:
    schema: dict[str, Any] = {"$defs": {"c": {"enum": ["a", "b"]}}}
    schema["anyOf"] = [{"$ref": "#/$defs/c"}, {"type": "array", "items": {"$ref": "#/$defs/c"}, "minItems": 1}]
    texts = ["a", '["a", "b"]', '"a"', "[a]", "[]"]
    assert accepted(driver, schema, texts)["accepted"] == [True, True, False, False, False]
    names = {"type": "object", "patternProperties": {"^x+$": {"type": "integer"}}, "additionalProperties": False}
    assert accepted(driver, names, ['{"xx": 1}', "{xx: 1}"])["accepted"] == [True, False]


@pytest.mark.parametrize("closing", [CLOSING, "</atem:parameter>", "]]>", "\n</parameter>", "~"])
def test_nothing_within_a_text_ends_it(driver: Path, closing: str) -> None:
    texts = ["a", f"a{closing}b", closing, closing[0] if len(closing) > 1 else "b"]
    wanted = [True, False, False, True]
    assert accepted(driver, {"type": "string"}, texts, closing)["accepted"] == wanted
    # A value of enum that would end too early is never said.
    answer = accepted(driver, {"enum": ["good", f"b{closing}ad"]}, ["good", f"b{closing}ad"], closing, samples=5)
    assert answer["accepted"] == [True, False]


def test_where_a_match_is_bounded_is_noted(driver: Path) -> None:
    schemas = [
        {"type": "string", "pattern": "[.!?]$"},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "b+"}}},
        {"type": "string", "pattern": "^b+$"},
        {"type": "string", "pattern": "^b"},
        {"type": "string", "pattern": "b+", "maxLength": 500},
        {"type": "string", "format": "email"},
        {"type": "string"},
    ]
    answers = ask(driver, [{"schema": schema, "samples": 9} for schema in schemas])
    notes = [answer["notes"] for answer in answers]
    assert [len(some) for some in notes] == [1, 1, 0, 0, 0, 0, 0], notes
    assert "[.!?]$ at #" in notes[0][0] and "65" in notes[0][0] and "#/properties/a" in notes[1][0]
    # The note says what the grammar does.
    before = [re.search("[.!?]$", json.loads(text)) for text in answers[0]["made"] if text]
    assert before and all(found and found.start() <= 65 for found in before)
