# SPDX-License-Identifier: MIT
"""Clients beside openai's against the real server with a real chat model: anthropic, LangChain, LiteLLM, curl, and what
Open WebUI sends."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.clients import CITY, CONTEXT, NAME, PERSON, QUESTION, WEATHER, Servers, package

ASKED: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
TOOL: dict[str, Any] = {"name": "get_weather", "description": "The weather", "input_schema": CITY}


@pytest.fixture
def claude(chat_servers: Servers) -> Iterator[Any]:
    anthropic = package("anthropic")
    with anthropic.Anthropic(base_url=chat_servers.chat.url, api_key="none", max_retries=0, timeout=60) as made:
        yield made


def test_anthropic_messages(claude: Any) -> None:
    fields: dict[str, Any] = {"model": NAME, "max_tokens": 60, "messages": ASKED, "system": "Answer in a sentence."}
    answer = claude.messages.create(**fields, extra_body={"temperature": 0})
    assert (answer.role, answer.stop_reason, answer.content[0].type) == ("assistant", "end_turn", "text")
    assert "Paris" in answer.content[0].text
    with claude.messages.stream(**fields, extra_body={"temperature": 0}) as stream:
        assert "".join(stream.text_stream) == answer.content[0].text
        assert stream.get_final_message().usage.output_tokens == answer.usage.output_tokens
    assert claude.messages.create(**{**fields, "max_tokens": 2}).stop_reason == "max_tokens"
    stopped = claude.messages.create(**fields, stop_sequences=["Paris"], extra_body={"temperature": 0})
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Paris")
    assert claude.models.retrieve(NAME).id == NAME


def test_anthropic_counts_tokens(claude: Any) -> None:
    counted = claude.messages.count_tokens(model=NAME, messages=ASKED).input_tokens
    usage = claude.messages.create(model=NAME, messages=ASKED, max_tokens=1).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_anthropic_tools(claude: Any) -> None:
    asked: list[dict[str, Any]] = [{"role": "user", "content": WEATHER}]
    fields: dict[str, Any] = {"model": NAME, "max_tokens": 100, "tools": [TOOL], "extra_body": {"temperature": 0}}
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        answer = claude.messages.create(**fields, messages=asked, tool_choice=choice)
        (call,) = [block for block in answer.content if block.type == "tool_use"]
        assert answer.stop_reason == "tool_use" and call.name == "get_weather"
        assert call.input["city"] in CITY["properties"]["city"]["enum"]  # type: ignore[index]
    with claude.messages.stream(**fields, messages=asked, tool_choice={"type": "any"}) as stream:
        (streamed,) = [block for block in stream.get_final_message().content if block.type == "tool_use"]
    assert streamed.input == call.input
    turns = [
        *asked,
        {"role": "assistant", "content": [call.model_dump()]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]},
    ]
    assert claude.messages.create(**{**fields, "max_tokens": 5}, messages=turns).content


def test_langchain(chat_servers: Servers) -> None:
    langchain = package("langchain_openai")
    tools = package("langchain_core.tools")
    reached = {"base_url": f"{chat_servers.chat.url}/v1", "api_key": "none", "max_retries": 0}
    model = langchain.ChatOpenAI(**reached, model=NAME, temperature=0, max_tokens=100)
    answer = model.invoke([("system", "Answer in a sentence."), ("user", QUESTION)])
    assert "Paris" in answer.content and answer.usage_metadata["output_tokens"] > 1
    parts = list(model.stream([("system", "Answer in a sentence."), ("user", QUESTION)], stream_usage=True))
    assert "".join(part.content for part in parts) == answer.content
    assert sum(bool(part.usage_metadata) for part in parts) == 1
    form = {"title": "Person", "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    form |= {"required": ["name", "age"], "additionalProperties": False}
    for method in ("json_schema", "function_calling"):
        found = model.with_structured_output(form, method=method).invoke(PERSON)
        assert isinstance(found["name"], str) and isinstance(found["age"], int)
    tool = tools.StructuredTool.from_function(
        lambda city: "sunny", name="get_weather", description="x", args_schema=CITY
    )
    (call,) = model.bind_tools([tool], tool_choice="any").invoke(WEATHER).tool_calls
    assert call["name"] == "get_weather" and set(call["args"]) == {"city"}
    responses = langchain.ChatOpenAI(**reached, model=NAME, use_responses_api=True, max_tokens=4)
    streamed = list(responses.stream(QUESTION))
    assert sum(len(part.text) > 0 for part in streamed) > 1
    vectors = langchain.OpenAIEmbeddings(
        **{**reached, "base_url": f"{chat_servers.vectors.url}/v1"}, model=NAME, check_embedding_ctx_length=False
    )
    assert len(vectors.embed_documents(["one", "two"])) == 2


def test_litellm(chat_servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import asks the network
    litellm = package("litellm")
    litellm.suppress_debug_info = True
    url = chat_servers.chat.url
    fields: dict[str, Any] = {"api_key": "none", "messages": ASKED, "max_tokens": 5, "num_retries": 0}
    for name, base in ((f"openai/{NAME}", f"{url}/v1"), (f"anthropic/{NAME}", url)):
        answer = litellm.completion(model=name, api_base=base, **fields)
        assert answer.choices[0].message.content and answer.usage.completion_tokens == 5
        parts = list(litellm.completion(model=name, api_base=base, **fields, stream=True))
        assert "".join(part.choices[0].delta.content or "" for part in parts)
    fields["messages"] = [{"role": "user", "content": "word " * 2 * CONTEXT}]
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(model=f"openai/{NAME}", api_base=f"{url}/v1", **fields)


def test_curl(chat_servers: Servers) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    url = f"{chat_servers.chat.url}/v1/chat/completions"
    body: dict[str, Any] = {"messages": ASKED, "max_tokens": 5, "temperature": 0}

    def ask(fields: dict[str, Any], *flags: str) -> str:
        command = [curl, "-sS", "-m", "60", *flags, url, "-d", json.dumps(fields)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    # -d alone says that it is a form, and that is what people type.
    text = json.loads(ask(body))["choices"][0]["message"]["content"]
    lines = [line for line in ask({**body, "stream": True}, "-N").splitlines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    told = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines[:-1]]
    assert "".join(delta.get("content") or "" for delta in told) == text
    assert "HTTP/1.1 400" in ask({**body, "temperature": "hot"}, "-i")


def test_what_open_webui_sends(chat_servers: Servers) -> None:
    """Models; a chat in a stream, with fields of its own; then title and tags for it, as JSON in a text."""
    url = chat_servers.chat.url

    def send(path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": "Bearer none", "X-OpenWebUI-User-Name": "Ann"}
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=60)

    with send("/v1/models") as response:
        (model,) = json.load(response)["data"]
    chat: dict[str, Any] = {"model": model["id"], "messages": ASKED, "max_tokens": 8}
    own = {"chat_id": "c1", "id": "m1", "session_id": "s1", "features": {"web_search": False}, "params": {}}
    own |= {"background_tasks": {"title_generation": True}, "metadata": {"a": "b"}, "tool_servers": [], "files": []}
    with send(
        "/v1/chat/completions", {**chat, **own, "stream": True, "stream_options": {"include_usage": True}}
    ) as told:
        assert told.headers["Content-Type"].startswith("text/event-stream")
        lines = [line.decode().strip() for line in told if line.strip()]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert lines[-1] == "data: [DONE]" and events[-1]["usage"]["completion_tokens"] > 0
    said = "".join(one["choices"][0]["delta"].get("content") or "" for one in events if one["choices"])
    assert said
    # Its fields are told, not refused.
    assert any("chat_id" in warning for one in events for warning in one.get("warnings", []))
    task = '### Task: Make a title of at most 5 words, as JSON: {"title": "..."}\n### Chat:\n' + QUESTION + said
    asked = [{"role": "user", "content": task}]
    with send("/v1/chat/completions", {**chat, "messages": asked, "stream": False, "max_tokens": 20}) as response:
        assert json.load(response)["choices"][0]["message"]["content"]
