# SPDX-License-Identifier: MIT
"""The real server under requests of other sites, of too much, and of what cannot be: it answers and stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.requests import megabytes
from trit.base.places import ROOT
from trit.engine.server import Refused, Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}Answer:"


@pytest.fixture(scope="module")
def server(engine_bin: Path, story_gguf: Path) -> Iterator[Server]:
    flags = [
        "--jinja",
        "--chat-template",
        TEMPLATE,
        "--allowed-hosts",
        "llm.example",
        "--timeout",
        "5",
        "--cors-origins",
    ]
    with Server(story_gguf, 1, [*flags, "localhost,https://chat.example"], slots=2) as running:
        yield running


def refused(server: Server, body: dict[str, Any], path: str = "/completion") -> str:
    """The sentence of a 400; the server answers others afterwards."""
    with pytest.raises(Refused) as error:
        server.post(path, {"prompt": "Mary", "n_predict": 2, **body})
    told = json.loads(str(error.value).partition(": ")[2])["error"]
    assert told["code"] == 400, told
    assert server.post("/completion", {"prompt": "Mary", "n_predict": 1})["content"]
    return str(told["message"])


def status(server: Server, headers: dict[str, str], path: str = "/v1/models") -> tuple[int, str | None, str]:
    """Status, allowed origin and text of an answer."""
    request = urllib.request.Request(server.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers["Access-Control-Allow-Origin"], response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Access-Control-Allow-Origin"], error.read().decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Origin", "https://shop.example"),
        ("Origin", "null"),
        ("Origin", "http://localhost.shop.example"),
        ("Origin", "http://127.0.0.1.shop.example:80"),
        ("Origin", "https://chat.example.shop"),
        ("Host", "shop.example"),
        ("Host", "shop.example:80"),
        ("Host", "localhost.shop.example"),
        ("Host", "127.0.0.1.shop.example"),
    ],
)
def test_other_sites_get_no_answer(server: Server, name: str, value: str) -> None:
    code, allowed, text = status(server, {name: value})
    assert (code, allowed) == (403, None) and value in json.loads(text)["error"]["message"]


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5", "https://chat.example"]
)
def test_allowed_pages_may_read(server: Server, origin: str) -> None:
    assert status(server, {"Origin": origin})[:2] == (200, origin)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:9", "192.168.1.4:80", "llm.example:8080"]
)
def test_names_of_this_machine_are_answered(server: Server, host: str) -> None:
    assert status(server, {"Host": host})[0] == 200


def test_a_page_of_the_server_itself_is_answered(server: Server) -> None:
    assert status(server, {"Host": "192.168.1.4:80", "Origin": "http://192.168.1.4:80"})[0] == 200


def test_props_tell_no_path(server: Server, story_gguf: Path) -> None:
    text = status(server, {}, "/props")[2]
    assert story_gguf.name in text and str(story_gguf.parent) not in text


@pytest.mark.parametrize(
    "field",
    ["repeat_last_n", "dry_penalty_last_n", "n_keep", "n_discard", "top_k", "min_keep", "max_tokens", "n_indent"],
)
def test_a_number_of_all_tokens_takes_no_memory(server: Server, field: str) -> None:
    before = megabytes(server.pid, "VmHWM")
    body = {"prompt": "Mary", "n_predict": 2, "repeat_penalty": 1.2, "dry_multiplier": 0.5, field: 2**31 - 2}
    server.post("/completion", body)
    assert megabytes(server.pid, "VmHWM") - before < 100


def test_probabilities_are_bounded(server: Server) -> None:
    answer = server.post("/completion", {"prompt": "Mary", "n_predict": 1, "n_probs": 2**30})
    assert len(answer["completion_probabilities"][0]["top_logprobs"]) > 100
    assert "n_probs" in refused(server, {"n_predict": 500, "n_probs": 2**30})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"grammar": 'root ::= "b" | ' + "(" * 5000 + '"c"' + ")" * 5000}, "grammar"),
        (
            {"grammar": "root ::= q1\n" + "".join(f"q{i} ::= q{i + 1}\n" for i in range(1, 9000)) + 'q9000 ::= "c"'},
            "chain",
        ),
        ({"grammar": "root ::= " + '("b"{1000}){2} ' * 1200}, "grammar"),
        ({"grammar": "root ::= [b]{5,4}"}, "grammar"),
        ({"grammar": "root ::= " + " | ".join(f'"{i}"' for i in range(9000))}, "alternatives"),
        ({"grammar": "%llguidance {}\nstart: x"}, "grammar"),
        ({"chat_parser": '{"root": 0, "rules": {}, "parsers": [{"type": "not", "child": 0}]}'}, "chat_parser"),
        ({"grammar_triggers": [{"type": 7, "value": "x"}]}, "type"),
        ({"grammar_triggers": [{"type": 2, "value": "(x*)*y"}]}, "patterns"),
        ({"stop": ["x"] * 1000}, "stop"),
        ({"samplers": ["top_k"] * 1000}, "samplers"),
        ({"dry_sequence_breakers": ["x" * 20000]}, "dry_sequence_breakers"),
        ({"prompt": ["x"] * 5000}, "prompts"),
        ({"prompt": ["x"] * 1000, "grammar": 'root ::= "' + "c" * 100000 + '"'}, "prompts"),
        ({"n": "many"}, "n"),
    ],
)
def test_too_much_is_refused(server: Server, body: dict[str, Any], words: str) -> None:
    assert words in refused(server, body)


def test_deep_json_is_refused_wherever_it_stands(server: Server) -> None:
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    assert "256 levels" in refused(server, {"response_fields": deep})
    chat = [{"role": "user", "content": "Mary"}]
    assert "256 levels" in refused(server, {"messages": chat, "tools": deep}, "/v1/chat/completions")
    text = json.dumps(deep)
    calls = [{"type": "function", "function": {"name": "f", "arguments": text}}]
    turn = {"role": "assistant", "content": "", "tool_calls": calls}
    with pytest.raises(Refused):  # only a template that wants objects parses them
        server.post("/v1/chat/completions", {"messages": [turn], "tools": [{"type": "x", "function": text}]})
    server.post("/tokenize", {"content": text})


@pytest.mark.parametrize("body", [b"{", b'{"prompt": "a",}', b"[]", b'"a"', b"\xff", b""])
def test_broken_json_is_the_request_s_fault(server: Server, body: bytes) -> None:
    for path in ("/completion", "/v1/chat/completions", "/tokenize"):
        if path == "/tokenize" and body in (b"[]", b'"a"'):
            continue
        request = urllib.request.Request(server.url + path, body, {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=60)
        assert error.value.code == 400, path


def test_half_sent_requests_stop_nobody(server: Server) -> None:
    place = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    half = (b"GET /health HT", b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{", b"\r")
    with ExitStack() as stack:
        for number in range(150):
            client = stack.enter_context(socket.create_connection(place))
            client.sendall(half[number % len(half)])
        start = time.monotonic()
        assert status(server, {}, "/health")[0] == 200
        assert time.monotonic() - start < 10
        client.settimeout(30)
        while client.recv(4096):  # the last one is told, or just ended, when its time is over
            pass


def test_a_client_that_does_not_read_delays_no_end(engine_bin: Path, story_gguf: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        str(ROOT / "run_inference_server.py"),
        "-m",
        str(story_gguf),
        "-t",
        "1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen([*command, "--grace", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        fields = {"prompt": "John", "n_predict": 1500, "ignore_eos": True, "stream": True, "n_probs": 60}
        body = json.dumps(fields).encode()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.connect(("127.0.0.1", port))
            client.sendall(
                b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            time.sleep(2)
            os.kill(process.pid, signal.SIGTERM)
            start = time.monotonic()
            process.wait(timeout=30)
            assert time.monotonic() - start < 8
    finally:
        process.kill()
        process.wait()
