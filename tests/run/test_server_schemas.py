# SPDX-License-Identifier: MIT
"""The real server under schemas and tools: the answer keeps them, or says what it does not keep."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trit.engine.server import Refused, Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the engine is started there alone")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}Answer:"
CHAT = "/v1/chat/completions"
MARY = [{"role": "user", "content": "Mary"}]
UNIQUE = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "maxItems": 3}


@pytest.fixture(scope="module")
def server(engine_bin: Path, story_gguf: Path) -> Iterator[Server]:
    with Server(story_gguf, 1, ["--jinja", "--chat-template", TEMPLATE], slots=1) as running:
        yield running


def chat(server: Server, **more: Any) -> dict[str, Any]:
    body = {"messages": MARY, "max_tokens": 200, "temperature": 0, **more}
    return dict(server.post(CHAT, body))


def refusal(server: Server, path: str = CHAT, **more: Any) -> str:
    """The sentence of a 400."""
    with pytest.raises(Refused) as error:
        server.post(path, {"messages": MARY, "prompt": "Mary", "max_tokens": 2, **more})
    told = json.loads(str(error.value).partition(": ")[2])["error"]
    assert told["code"] == 400, told
    return str(told["message"])


def form(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


def tool(name: str = "find", **parameters: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters, "required": list(parameters), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def of_parameters(schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "find", "parameters": schema}}


def answer_of(server: Server, schema: dict[str, Any], path: str) -> str:
    """What the model says under a schema."""
    if path == CHAT:
        return str(chat(server, response_format=form(schema))["choices"][0]["message"]["content"])
    body = {"prompt": "Mary", "n_predict": 200, "temperature": 0, "json_schema": schema}
    return str(server.post(path, body)["content"])


@pytest.mark.parametrize(
    "pattern",
    ["^\\d{3}-\\w{2}$", "^[^a]{4}$", "^(x|y\\.){1,2}?z$", '^"\\\\\\n$', "^é{3}\\u00e8$", "^(?=.*b)[ab]{2}$"],
)
def test_a_pattern_is_kept(server: Server, pattern: str) -> None:
    for path in ("/completion", CHAT):
        text = answer_of(server, {"type": "string", "pattern": pattern}, path)
        assert re.search(pattern, json.loads(text)), text


def test_bounds_are_kept(server: Server) -> None:
    schema = {
        "type": "object",
        "properties": {
            "price": {"type": "number", "exclusiveMinimum": 2.5, "maximum": 2.75},
            "even": {"type": "integer", "multipleOf": 2, "minimum": 3, "maximum": 5},
        },
        "required": ["price", "even"],
    }
    for path in ("/completion", CHAT):
        made = json.loads(answer_of(server, schema, path))
        assert 2.5 < made["price"] <= 2.75 and made["even"] == 4


def test_what_is_left_to_the_model_is_told_in_one_place(server: Server) -> None:
    told = "uniqueItems at #"
    assert told in server.post("/completion", {"prompt": "Mary", "n_predict": 2, "json_schema": UNIQUE})["warnings"][0]
    for more in (
        {"response_format": form(UNIQUE)},
        {"response_format": form(UNIQUE, strict=False)},
        {"response_format": {"type": "json_object", "schema": UNIQUE}},
        {"json_schema": UNIQUE},
    ):
        answer = chat(server, **more)
        assert told in answer["warnings"][0] and answer["choices"]
    assert "warnings" not in chat(server, response_format=form({"type": "integer"}))
    answer = chat(server, tools=[tool(x=UNIQUE)])
    assert any("tool find" in line and "uniqueItems at #/properties/x" in line for line in answer["warnings"])


def test_a_stream_tells_in_its_last_part(server: Server) -> None:
    body = {"messages": MARY, "max_tokens": 2, "stream": True, "response_format": form(UNIQUE)}
    request = urllib.request.Request(server.url + CHAT, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        lines = response.read().decode().splitlines()
    parts = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert [at for at, part in enumerate(parts) if "warnings" in part] == [len(parts) - 1]


@pytest.mark.parametrize("strict", [{"strict": True}, {"strict": "yes"}])
def test_strict_refuses_what_is_left_to_the_model(server: Server, strict: dict[str, Any]) -> None:
    word = "uniqueItems" if strict["strict"] is True else "strict"
    assert word in refusal(server, response_format=form(UNIQUE, **strict))
    described = tool(x=UNIQUE)
    described["function"] |= strict
    message = refusal(server, tools=[described])
    assert word in message and "find" in message
    assert chat(server, response_format=form({"type": "integer"}, strict=True))["choices"]


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 7, "maximum": 2}, ["minimum", "maximum"]),
        ({"type": "object", "properties": {"a": {"enum": []}}}, ["enum", "#/properties/a"]),
        ({"type": "string", "pattern": "^a**$"}, ["^a**$"]),
        ({"type": "object", "properties": {f"p{i}": {} for i in range(400)}}, ["256"]),
        ("text", ["object"]),
    ],
)
def test_no_schema_is_named_everywhere(server: Server, schema: Any, words: list[str]) -> None:
    messages = [refusal(server, response_format=form(schema))]
    if isinstance(schema, dict):
        messages.append(refusal(server, "/completion", json_schema=schema))
        broken = tool()
        broken["function"]["parameters"] = schema
        messages.append(refusal(server, tools=[broken]))
    for message in messages:
        assert all(word in message for word in words), message


def test_a_form_that_is_no_form_is_refused(server: Server) -> None:
    assert "response_format" in refusal(server, response_format="json")
    assert "json_schema" in refusal(server, response_format={"type": "json_schema", "schema": {}})
    assert "tools" in refusal(server, tools={"name": "f"})
    assert "parallel_tool_calls" in refusal(server, tools=[tool()], parallel_tool_calls="no")


@pytest.mark.parametrize(
    "choice",
    ["required", {"type": "function", "function": {"name": "count"}}, {"type": "function", "name": "count"}],
)
def test_a_call_is_forced_where_the_template_knows_no_tools(server: Server, choice: Any) -> None:
    number = {"type": "integer", "minimum": 40, "maximum": 42}
    tools = [tool("find", place={"enum": ["garden"]}), tool("count", number=number)]
    answer = chat(server, tools=tools, tool_choice=choice, max_tokens=900)
    message = answer["choices"][0]["message"]
    call = message["tool_calls"][0]["function"]
    made = json.loads(call["arguments"])
    assert made == {"place": "garden"} if call["name"] == "find" else 40 <= made["number"] <= 42
    assert call["name"] == "count" or choice == "required"
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert "template" in answer["warnings"][0]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {}},
        {"type": ["object", "array"], "properties": {}},
        {"anyOf": [{"type": "array"}, {"type": "object", "properties": {}}]},
    ],
)
def test_a_tool_without_arguments_is_called_with_an_empty_object(server: Server, schema: Any) -> None:
    answer = chat(server, tools=[of_parameters(schema)], tool_choice="required", max_tokens=300)
    assert json.loads(answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]) == {}


def test_a_schema_that_allows_all_gives_json(server: Server) -> None:
    form_of_all = form(True)
    answer = chat(server, response_format=form_of_all, max_tokens=40)
    assert re.match(r"[\s]*[\[{\"0-9tfn-]", answer["choices"][0]["message"]["content"])
    assert "allows no value" in refusal(server, response_format=form(False))


def test_an_enum_of_thousands_is_kept(server: Server) -> None:
    values = [f"Mary {number} went" for number in range(5000)]
    text = answer_of(server, {"enum": values}, CHAT)
    assert json.loads(text) in values


def test_a_grammar_with_too_many_alternatives_is_a_sentence(server: Server) -> None:
    grammar = "root ::= " + " | ".join(f'"{number}"' for number in range(5000))
    with pytest.raises(Refused, match="too many alternatives"):
        server.post("/completion", {"prompt": "Mary", "n_predict": 2, "grammar": grammar})
    many = {"anyOf": [{"const": number} for number in range(4500)]}
    assert "4096" in refusal(server, response_format=form(many))


def test_tools_that_the_template_leaves_out_are_told(server: Server) -> None:
    assert "does not see them" in chat(server, tools=[tool()])["warnings"][0]
    assert "warnings" not in chat(server, tools=[tool()], tool_choice="none")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "fly"}}}, ["fly", "find"]),
        ({"tool_choice": "always"}, ["tool_choice", "always"]),
        ({"tool_choice": 3}, ["tool_choice", "3"]),
        ({"tool_choice": {"type": "any"}}, ["tool_choice", '"required"', "name", "any"]),
        ({"tool_choice": {}}, ["tool_choice", '"required"', "name", "{}"]),
        ({"tools": [of_parameters({"type": "array"})]}, ["find", "object", "array"]),
        ({"tools": [of_parameters({"type": ["string", "null"]})]}, ["find", "object", "string"]),
        ({"tools": [of_parameters({"anyOf": [{"type": "array"}, {"type": "null"}]})]}, ["find", "types"]),
        ({"tool_choice": "required", "tools": []}, ["tool_choice", "tools"]),
        ({"tool_choice": "required", "response_format": form({"type": "integer"})}, ["tool_choice", "response_format"]),
    ],
)
def test_a_choice_that_cannot_be_is_refused(server: Server, more: dict[str, Any], words: list[str]) -> None:
    message = refusal(server, **{"tools": [tool()], **more})
    assert all(word in message for word in words), message


def test_other_interfaces_keep_the_form_too(server: Server) -> None:
    number = {"type": "integer", "minimum": 7, "maximum": 8}
    text = {"format": {"type": "json_schema", "name": "x", "schema": number}}
    answer = server.post("/v1/responses", {"input": "Mary", "text": text, "max_output_tokens": 40, "temperature": 0})
    said = [part["text"] for item in answer["output"] for part in item.get("content", [])]
    assert json.loads(said[0]) in (7, 8)
    body = {
        "messages": MARY,
        "max_tokens": 100,
        "tools": [
            {"name": "find", "input_schema": {"type": "object"}},
            {"name": "count", "input_schema": {"type": "object"}},
        ],
        "tool_choice": {"type": "tool", "name": "count"},
    }
    blocks = server.post("/v1/messages", body)["content"]
    assert [block["name"] for block in blocks if block["type"] == "tool_use"] == ["count"]
