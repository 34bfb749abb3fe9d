# SPDX-License-Identifier: MIT
"""Each field of a request for an answer is taken, told in "warnings", or refused by name: none is lost in silence."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trit.base.places import ENGINE_DIR, ROOT
from trit.engine.server import Refused, Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the engine is started there alone")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}Answer:"
CHAT, TEXT, PLAIN, RESPONSES = "/v1/chat/completions", "/v1/completions", "/completion", "/v1/responses"
NUMBER = {"type": "integer", "minimum": 30, "maximum": 33}


@pytest.fixture(scope="module")
def server(engine_bin: Path, story_gguf: Path) -> Iterator[Server]:
    with Server(story_gguf, 1, ["--jinja", "--chat-template", TEMPLATE], slots=2) as running:
        yield running


def ask(server: Server, path: str, **more: Any) -> dict[str, Any]:
    question: dict[str, Any] = {"prompt": "Mary"}
    if path == CHAT:
        question = {"messages": [{"role": "user", "content": "Mary"}]}
    elif path == RESPONSES:
        question = {"input": "Mary"}
    limit = "max_output_tokens" if path == RESPONSES else "max_tokens"
    return dict(server.post(path, {**question, limit: 2, "temperature": 0, **more}))


def refusal(server: Server, path: str, **more: Any) -> str:
    with pytest.raises(Refused) as error:
        ask(server, path, **more)
    told = json.loads(str(error.value).partition(": ")[2])["error"]
    assert told["code"] == 400 and "\n" not in told["message"], told
    return str(told["message"])


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["content"] if "content" in answer else answer["choices"][0]["text"])


@pytest.mark.parametrize("path", [TEXT, PLAIN])
@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"name": "x", "schema": NUMBER}},
        {"type": "json_object", "schema": NUMBER},
    ],
)
def test_a_prompt_s_answer_keeps_a_form(server: Server, path: str, form: dict[str, Any]) -> None:
    answer = ask(server, path, response_format=form, max_tokens=60)
    assert 30 <= json.loads(text_of(answer)) <= 33 and "warnings" not in answer
    # A grammar that is none does not stand in its way.
    for nothing in ("", None):
        assert 30 <= json.loads(text_of(ask(server, path, json_schema=NUMBER, grammar=nothing, max_tokens=60))) <= 33


@pytest.mark.parametrize("path", [TEXT, PLAIN])
def test_a_prompt_s_answer_is_an_object_or_text(server: Server, path: str) -> None:
    assert text_of(ask(server, path, response_format={"type": "json_object"})).startswith("{")
    assert text_of(ask(server, path, response_format={"type": "text"})) == text_of(ask(server, path))


@pytest.mark.parametrize("path", [CHAT, TEXT, PLAIN])
def test_a_form_that_cannot_be_is_refused(server: Server, path: str) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    form = {"type": "json_schema", "json_schema": {"schema": schema, "strict": True}}
    assert "uniqueItems" in refusal(server, path, response_format=form)
    form["json_schema"].pop("strict")  # type: ignore[attr-defined]
    assert "uniqueItems at #" in ask(server, path, response_format=form)["warnings"][0]
    assert '"xml"' in refusal(server, path, response_format={"type": "xml"})
    assert "grammar" in refusal(server, path, response_format=form, grammar='root ::= "a"')


@pytest.mark.parametrize(
    ("path", "field", "value", "advice"),
    [
        (CHAT, "functions", [{"name": "find"}], "tools"),
        (CHAT, "function_call", {"name": "find"}, "tool_choice"),
        (CHAT, "modalities", ["text", "audio"], "text"),
        (CHAT, "audio", {"voice": "ash", "format": "wav"}, "text"),
        (CHAT, "web_search_options", {}, "search"),
        (RESPONSES, "background", True, "wait"),
        (RESPONSES, "conversation", "conv_1", "messages"),
        (TEXT, "echo", True, "prompt"),
        (PLAIN, "echo", True, "prompt"),
        (TEXT, "best_of", 3, "n answers"),
        (TEXT, "suffix", " home", "/infill"),
        (PLAIN, "tools", [{"type": "function", "function": {"name": "f"}}], CHAT),
        (TEXT, "chat_parser", "x", "own"),
        (CHAT, "message_delimiters", [], "own"),
        *((path, "logit_bias", {"5": "much"}, "number") for path in (CHAT, TEXT, PLAIN)),
        (CHAT, "logit_bias", [[5, True]], "number"),
        (TEXT, "logit_bias", [[5]], "[token, bias]"),
        (PLAIN, "logit_bias", 4, "token"),
        *((path, "stop", ["a", 4], "text") for path in (CHAT, TEXT)),
        (TEXT, "stop", 7, "text"),
        *((path, "samplers", ["top_k", "heat"], '"heat"') for path in (CHAT, TEXT)),
        (PLAIN, "samplers", "k?", '"?"'),
        (TEXT, "n", 99, "between"),
    ],
)
def test_what_is_not_done_is_refused_by_name(server: Server, path: str, field: str, value: Any, advice: str) -> None:
    message = refusal(server, path, **{field: value})
    assert f"'{field}'" in message and advice in message


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"functions": [], "function_call": "none", "modalities": ["text"], "store": False}),
        (CHAT, {"user": "u", "service_tier": "auto", "metadata": {"a": "b"}, "prediction": {"type": "content"}}),
        (CHAT, {"model": "x", "seed": 7, "logit_bias": None, "parallel_tool_calls": False, "reasoning_effort": "low"}),
        (CHAT, {"n": 2, "stream_options": {"include_usage": True}, "logit_bias": {"5": -100, "6": False}}),
        (TEXT, {"echo": False, "best_of": 1, "suffix": "", "user": "u", "logprobs": 2, "n": 2, "seed": 1}),
        (PLAIN, {"cache_prompt": False, "logit_bias": [["Mary", -1.5], [3, False]], "id_slot": 0, "tools": []}),
        (RESPONSES, {"truncation": "disabled", "include": [], "text": {"format": {"type": "text"}}}),
    ],
)
def test_what_asks_for_nothing_more_is_not_told(server: Server, path: str, fields: dict[str, Any]) -> None:
    assert "warnings" not in ask(server, path, **fields)


@pytest.mark.parametrize("path", [CHAT, TEXT, PLAIN, RESPONSES])
def test_what_nothing_comes_of_is_told(server: Server, path: str) -> None:
    told = ask(server, path, guided_regex="a+", repetition_penalty=1.1, nothing=None)["warnings"]
    assert [re.findall("'(.*?)'", line) for line in told] == [["guided_regex"], ["repetition_penalty"]]
    many = ask(server, path, **{f"field_{number}\n": 1 for number in range(99)})["warnings"]
    assert 1 < len(many) < 20 and not any("\n" in line for line in many)


def test_chats_tell_what_is_not_kept(server: Server) -> None:
    told = ask(server, CHAT, store=True, verbosity="low")["warnings"]
    assert len(told) == 2 and "store" in told[0] and "verbosity" in told[1]
    assert "truncation" in ask(server, RESPONSES, truncation="auto")["warnings"][0]


def test_a_stream_of_a_prompt_tells_too(server: Server) -> None:
    body = json.dumps({"prompt": "Mary", "max_tokens": 2, "stream": True, "guided_json": {}}).encode()
    request = urllib.request.Request(server.url + TEXT, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert "guided_json" in response.read().decode()


def test_no_others_still_gives_the_token_s_probability(server: Server) -> None:
    choice = ask(server, CHAT, logprobs=True, top_logprobs=0)["choices"][0]
    assert all("logprob" in token for token in choice["logprobs"]["content"])


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_a_function_alone_is_a_tool(server: Server, path: str) -> None:
    flat = {"type": "function", "name": "find", "parameters": {"type": "object", "properties": {}}, "description": None}
    for tool in (flat, {key: value for key, value in flat.items() if key != "type" or path == RESPONSES}):
        answer = ask(server, path, tools=[tool], tool_choice="required", max_tokens=300, max_output_tokens=300)
        assert '"name": "find"' in json.dumps(answer)


@pytest.mark.parametrize(
    "tool", [{"type": "web_search"}, {"function": "find"}, {"name": "f", "description": 4}, "find"]
)
@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_tool_that_is_none_is_a_sentence(server: Server, tool: Any, choice: str) -> None:
    assert "tool" in refusal(server, CHAT, tools=[tool], tool_choice=choice)


def test_responses_warn_of_what_a_tool_s_grammar_cannot_hold(server: Server) -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "array", "uniqueItems": True}}}
    tool = {"type": "function", "name": "find", "parameters": parameters}
    assert any("uniqueItems" in line for line in ask(server, RESPONSES, tools=[tool])["warnings"])
    assert "uniqueItems" in refusal(server, RESPONSES, tools=[{**tool, "strict": True}])


def test_the_table_has_all_fields_of_the_engine() -> None:
    schema = (ENGINE_DIR / "tools" / "server" / "server-schema.cpp").read_text(encoding="utf-8")
    schema = re.sub(r"//.*", "", schema)
    engine = set(re.findall(r'add_alias\("(\w+)"\)', schema)) | set(
        re.findall(r'new field_(?!nested)\w+\("(\w+)"', schema)
    )
    engine -= {"include_usage", *re.findall(r'"speculative\.(\w+)"', schema)}
    table = set(re.findall(r'^    \{"(\w+)", k', (ROOT / "src" / "schema" / "fields.cpp").read_text(), re.MULTILINE))
    assert len(engine) > 60 and engine <= table, engine - table
