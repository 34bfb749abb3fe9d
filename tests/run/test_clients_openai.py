# SPDX-License-Identifier: MIT
"""The openai package against the real server with a real chat model: what its documents show works."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.clients import CITY, CONTEXT, NAME, PERSON, QUESTION, WEATHER, Servers, package

openai = package("openai")
pydantic = package("pydantic")
ASKED: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
TOOL: dict[str, Any] = {"name": "get_weather", "description": "The weather", "parameters": CITY, "strict": True}
CHAT_TOOL = {"type": "function", "function": TOOL}


class Person(pydantic.BaseModel):  # type: ignore[misc, name-defined]
    name: str
    age: int


@pytest.fixture
def client(chat_servers: Servers) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{chat_servers.chat.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def test_models_are_listed_and_found_by_name(client: Any) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object) == (NAME, "model")
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError, match=f"no model is called 'org/other'.*{NAME}"):
        client.models.retrieve("org/other")


def test_chat(client: Any) -> None:
    answer = client.chat.completions.create(model=NAME, messages=ASKED, max_tokens=5, temperature=0, logprobs=True)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content and choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 5 and len(choice.logprobs.content) == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5
    again = client.chat.completions.create(model=NAME, messages=ASKED, max_tokens=5, temperature=0)
    assert again.choices[0].message.content == choice.message.content
    stopped = client.chat.completions.create(
        model=NAME, messages=ASKED, max_tokens=5, temperature=0, stop=[choice.message.content[2:4]]
    )
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == choice.message.content[:2]


def test_a_stream_is_the_same_text_and_ends_with_usage(client: Any) -> None:
    fields = {"model": NAME, "messages": ASKED, "max_tokens": 5, "temperature": 0}
    whole = client.chat.completions.create(**fields)
    parts = list(client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert [part.usage is not None for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].choices == [] and parts[-1].usage.completion_tokens == 5
    assert [part.choices[0].finish_reason for part in parts[:-1]][-1] == "length"
    assert len({part.id for part in parts}) == 1
    plain = list(client.chat.completions.create(**fields, stream=True))
    assert all(part.usage is None for part in plain)


def test_a_class_is_filled(client: Any) -> None:
    asked = [{"role": "user", "content": PERSON}]
    fields = {"model": NAME, "messages": asked, "max_tokens": 60, "temperature": 0}
    parsed = client.chat.completions.parse(**fields, response_format=Person).choices[0].message.parsed
    assert isinstance(parsed, Person)
    with client.chat.completions.stream(**fields, response_format=Person) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.parsed == parsed
    assert {"content.delta", "content.done"} <= kinds
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": Person.model_json_schema(), "strict": False}}
    plain = client.chat.completions.create(**fields, response_format=form)
    assert Person.model_validate_json(plain.choices[0].message.content) == parsed


def test_a_tool_is_called_and_its_result_is_answered(client: Any) -> None:
    asked: list[dict[str, Any]] = [{"role": "user", "content": WEATHER}]
    fields = {"model": NAME, "tools": [CHAT_TOOL], "temperature": 0, "max_tokens": 100}
    choice = client.chat.completions.create(**fields, messages=asked, tool_choice="required").choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls" and call.function.name == "get_weather"
    assert call.function.arguments.replace(" ", "").replace("\n", "") in ('{"city":"Paris"}', '{"city":"Rome"}')
    named = {"type": "function", "function": {"name": "get_weather"}}
    parts = list(client.chat.completions.create(**fields, messages=asked, tool_choice=named, stream=True))
    streamed = [one for part in parts if part.choices for one in part.choices[0].delta.tool_calls or ()]
    assert [one.function.name for one in streamed if one.function.name] == ["get_weather"]
    assert len({one.id for one in streamed if one.id}) == 1
    assert "".join(one.function.arguments or "" for one in streamed) == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}
    turn = choice.message.model_dump(exclude_none=True)
    answer = client.chat.completions.create(**{**fields, "max_tokens": 5}, messages=[*asked, turn, result])
    assert answer.choices[0].message.content


def test_completions(client: Any) -> None:
    answer = client.completions.create(model=NAME, prompt="The capital of France is", max_tokens=1, temperature=0)
    assert answer.choices[0].text == " Paris" and answer.usage.completion_tokens == 1


def test_responses(client: Any) -> None:
    answer = client.responses.create(
        model=NAME, input=QUESTION, instructions="Answer in a sentence.", max_output_tokens=60, temperature=0
    )
    assert "Paris" in answer.output_text and answer.status == "completed" and answer.error is None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    history = [*ASKED, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Italy?"}]
    cut = client.responses.create(model=NAME, input=history, max_output_tokens=1)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert cut.output[-1].status == "incomplete"
    parsed = client.responses.parse(
        model=NAME, input=PERSON, text_format=Person, max_output_tokens=60, temperature=0
    ).output_parsed
    assert isinstance(parsed, Person)
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model=NAME, input="And?", previous_response_id=answer.id)


def test_a_stream_of_responses_is_numbered(client: Any) -> None:
    asked = {"model": NAME, "input": QUESTION, "instructions": "Answer in a sentence.", "temperature": 0}
    with client.responses.stream(**asked, max_output_tokens=60) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in deltas) == final.output_text != ""
    assert {(event.output_index, event.content_index) for event in deltas} == {(0, 0)}
    assert len({event.response.id for event in events if hasattr(event, "response")}) == 1
    cut = list(client.responses.create(**asked, max_output_tokens=2, stream=True))
    assert cut[-1].type == "response.incomplete" and cut[-1].response.status == "incomplete"


def test_a_stream_of_responses_calls_a_tool(client: Any) -> None:
    tool = {"type": "function", **TOOL}
    fields = {"model": NAME, "input": WEATHER, "tools": [tool], "tool_choice": "required", "temperature": 0}
    with client.responses.stream(**fields, max_output_tokens=100) as stream:
        events = list(stream)
        (call,) = stream.get_final_response().output
    assert (call.type, call.name) == ("function_call", "get_weather")
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert "".join(deltas) == done.arguments == call.arguments
    turns = [
        {"role": "user", "content": WEATHER},
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    assert client.responses.create(model=NAME, input=turns, tools=[tool], max_output_tokens=5).output_text


def test_vectors_are_the_same_in_both_forms(chat_servers: Servers) -> None:
    texts = ["The cat sat down.", "A cat sits.", "Shares fell."]
    with openai.OpenAI(base_url=f"{chat_servers.vectors.url}/v1", api_key="none", max_retries=0) as client:
        floats = client.embeddings.create(model=NAME, input=texts, encoding_format="float")
        coded = client.embeddings.create(model=NAME, input=texts, encoding_format="base64")
        usual = client.embeddings.create(model=NAME, input=texts)  # the package asks for base64 by itself
    assert [one.index for one in floats.data] == [0, 1, 2] and floats.usage.prompt_tokens > 9
    for plain, other, third in zip(floats.data, coded.data, usual.data, strict=True):
        assert isinstance(other.embedding, str) and third.embedding == pytest.approx(plain.embedding, abs=1e-5)
        assert math.hypot(*plain.embedding) == pytest.approx(1, abs=1e-3)
    one, two, three = (np.array(item.embedding) for item in floats.data)
    assert one @ two > one @ three


def test_mistakes_are_told_by_their_kind(client: Any, chat_servers: Servers) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "word " * 2 * CONTEXT}])
    assert str(CONTEXT) in str(error.value) and error.value.body["n_prompt_tokens"] > 2 * CONTEXT
    with pytest.raises(openai.BadRequestError, match="message"):
        client.chat.completions.create(model=NAME, messages=[])
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.chat.completions.create(model=NAME, messages=ASKED, max_tokens=-7)
    with pytest.raises(openai.APIStatusError, match="--embeddings"):
        client.embeddings.create(model=NAME, input="x")
