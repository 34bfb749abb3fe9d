# SPDX-License-Identifier: MIT
"""The real server under clients that go away, stand still or look around: it stays, and tells nobody of others."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.requests import megabytes
from tests.support.clients import package
from trit.base.places import ROOT
from trit.engine.server import Refused, Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}Answer:"
KEY, CONTEXT = "a-key-that-nobody-guesses", 512
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def server(engine_bin: Path, story_gguf: Path) -> Iterator[Server]:
    flags = ["--jinja", "--chat-template", TEMPLATE, "--metrics", "--slots", "--log-file", "/dev/full", "-lv", "4"]
    with Server(story_gguf, 1, flags, slots=2, context=CONTEXT) as running:
        yield running


@pytest.fixture(scope="module")
def locked(engine_bin: Path, story_gguf: Path) -> Iterator[Server]:
    with Server(story_gguf, 1, ["--api-key", KEY, "--metrics", "--slots"], slots=1) as running:
        yield running


def status(server: Server, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    try:
        asked = urllib.request.Request(server.url + path, body, headers or {})
        with urllib.request.urlopen(asked, timeout=60) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        assert json.loads(error.read())["error"]["message"]
        return error.code


def place(server: Server) -> tuple[str, int]:
    return "127.0.0.1", int(server.url.rpartition(":")[2])


def posted(path: str, fields: dict[str, Any]) -> bytes:
    body = json.dumps(fields).encode()
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body


def busy(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/slots", timeout=60) as response:
        return sum(slot["is_processing"] for slot in json.load(response))


def open_files(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def wait_until(true: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_connection_serves_on_behind_a_stream(server: Server, path: str) -> None:
    fields = {"messages": [{"role": "user", "content": "one"}]} if path == CHAT else {"prompt": "one"}
    with closing(http.client.HTTPConnection(*place(server), timeout=60)) as connection:
        for _ in range(2):
            connection.request("POST", path, json.dumps({**fields, "stream": True, "max_tokens": 2}))
            kept = connection.sock
            answer = connection.getresponse()
            assert answer.status == 200 and answer.read().endswith(b"data: [DONE]\n\n")
            time.sleep(0.1)  # what is closed behind an answer is closed by now
            assert connection.sock is kept
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status":"ok"}' and connection.sock is kept


def test_without_the_key_nothing_but_health_answers(locked: Server) -> None:
    source = (ROOT / "3rdparty/llama.cpp/tools/server/server.cpp").read_text(encoding="utf-8")
    routes = set()
    for line in source.splitlines():
        before, found, rest = line.partition("ctx_http.")
        if found and rest[:4] in ("get ", "post", "del ") and '"' in rest and not before.strip():
            routes.add((rest.partition('"')[2].partition('"')[0], rest[:4].strip(" (")))
    assert len(routes) > 40
    for path, method in sorted(routes):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Api-Key": KEY[:-1]}):
            code = status(
                locked, path.replace("(.+)", "x").replace(":", ""), b"{}" if method == "post" else None, headers
            )
            assert code == (200 if path.endswith("/health") else 401), (path, code)
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}):
        assert status(locked, "/v1/models", headers=headers) == status(locked, "/metrics", headers=headers) == 200


def test_clients_that_go_away_leave_nothing_behind(server: Server) -> None:
    ask = posted("/completion", {"prompt": "John", "n_predict": 400, "ignore_eos": True, "stream": True})
    assert status(server, "/health") == 200
    files = open_files(server)
    for number in range(12):
        with socket.create_connection(place(server), timeout=30) as client:
            client.sendall(ask)
            if number % 2:
                assert client.recv(200).startswith(b"HTTP/1.1 200")
            if number % 3 == 0:  # a reset instead of an end
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: busy(server) == 0)
    wait_until(lambda: open_files(server) <= files + 2)


def test_a_client_that_reads_nothing_holds_up_nobody(server: Server) -> None:
    fields = {"prompt": "John", "n_predict": 400, "ignore_eos": True, "stream": True, "n_probs": 20}
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(place(server))
        client.sendall(posted("/completion", fields))
        wait_until(lambda: busy(server) > 0)
        assert server.post("/completion", {"prompt": "Mary", "n_predict": 3})["content"]
    wait_until(lambda: busy(server) == 0)


def test_a_body_of_100_mb_is_refused_and_takes_no_room(server: Server) -> None:
    before = megabytes(server.pid, "VmHWM")
    head = b"POST /completion HTTP/1.1\r\nHost: localhost\r\n"
    for kind in (b"Content-Length: 100000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
        with socket.create_connection(place(server), timeout=30) as client:
            try:
                client.sendall(head + kind)
                for _ in range(100):
                    client.sendall(b"f4240\r\n" + b" " * 1_000_000 + b"\r\n")
            except OSError:
                pass  # it closes before all is sent
            else:
                assert b" 413 " in client.recv(100)
    assert megabytes(server.pid, "VmHWM") - before < 60
    assert status(server, "/health") == 200


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/completion", {"prompt": "Mary " * 2 * CONTEXT}),
        (TEXT, {"prompt": "Mary " * 2 * CONTEXT}),
        (CHAT, {"messages": [{"role": "user", "content": "Mary " * 2 * CONTEXT}]}),
        ("/v1/responses", {"input": "Mary " * 2 * CONTEXT}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Mary " * 2 * CONTEXT}], "max_tokens": 4}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_says_both_numbers(
    server: Server, path: str, fields: dict[str, Any], stream: bool
) -> None:
    with pytest.raises(Refused) as error:
        server.post(path, {**fields, "stream": stream})
    told = json.loads(str(error.value).partition(": ")[2])["error"]
    assert (told["code"], told["type"]) == (400, "exceed_context_size_error")
    assert str(told["n_prompt_tokens"]) in told["message"] and str(told["n_ctx"]) in told["message"]
    assert told["n_prompt_tokens"] > told["n_ctx"] >= CONTEXT


NUMBERS = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "frequency_penalty", "seed")
NUMBERS += ("presence_penalty", "max_tokens", "n", "n_probs", "mirostat_tau", "dynatemp_range", "xtc_threshold")


@pytest.mark.parametrize("value", ["0", "-1", "-1e30", "1e999", "-1e999", "1e-320", "NaN", "9" * 400, "-0.0", '"x"'])
def test_odd_numbers_are_answered_or_refused(server: Server, value: str) -> None:
    """JSON has no NaN, and what is beyond a double is none."""
    outcomes = set()
    for field in NUMBERS:
        limit = "" if field == "max_tokens" else '"max_tokens": 2, '
        body = f'{{"prompt": "Mary", {limit}"{field}": {value}}}'
        outcomes.add(status(server, "/completion", body.encode()))
    assert outcomes <= {200, 400}
    if value in ("NaN", '"x"', "1e999", "-1e999", "9" * 400):
        assert outcomes == {400}


def test_ten_thousand_stop_strings_are_refused(server: Server) -> None:
    for path in ("/completion", TEXT):
        with pytest.raises(Refused, match="stop"):
            server.post(path, {"prompt": "Mary", "n_predict": 1, "stop": [f"word {i}" for i in range(10_000)]})


def test_a_chat_without_messages_is_refused(server: Server) -> None:
    for path in (CHAT, "/v1/messages"):
        for messages in ([], None, "Mary", {}, [[]]):
            with pytest.raises(Refused, match="message"):
                server.post(path, {"messages": messages, "max_tokens": 2})


def test_nobody_sees_another_s_prompt(server: Server) -> None:
    """Neither while it is answered, nor later out of a cache. What it is for others is the time that it takes."""
    secret = "Xylophone-4711"
    question = {"prompt": "Mary went to the garden. Where is Mary?\nAnswer:", "n_predict": 8, "temperature": 0}
    alone = server.post("/completion", question)["content"]
    ask = posted("/completion", {"prompt": f"{secret} ", "n_predict": 300, "ignore_eos": True, "stream": True})
    with socket.create_connection(place(server), timeout=30) as client:
        client.sendall(ask)
        wait_until(lambda: busy(server) > 0)
        looked = []
        for path in ("/slots", "/props", "/metrics", "/v1/models", "/health", "/lora-adapters"):
            with urllib.request.urlopen(server.url + path, timeout=60) as response:
                looked.append(response.read().decode())
        assert server.post("/completion", question)["content"] == alone
    assert all("4711" not in text for text in looked)
    wait_until(lambda: busy(server) == 0)
    for slot in (0, 1):
        answer = server.post("/completion", {**question, "id_slot": slot})
        assert answer["content"] == alone and "4711" not in json.dumps(answer)


def test_prompts_are_in_no_log(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Server(story_gguf, 1, ["--log-file", str(log)], slots=1) as server:
        server.post("/completion", {"prompt": "Xylophone-4711 ", "n_predict": 3})
        assert status(server, "/completion", b'{"prompt": "Xylophone-4711", "n_predict": "x"}') == 400
    text = log.read_text(encoding="utf-8")
    assert "listening" in text and "4711" not in text


def test_what_the_description_promises_is_kept(server: Server, tmp_path: Path) -> None:
    """Schemathesis makes right and wrong requests of docs/openapi.yaml; a 500 is no status that is described."""
    package("schemathesis")
    program = shutil.which("schemathesis", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert program
    # Not negative_data_rejection: false is taken for 0, as by llama.cpp's own clients.
    checks = "status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [program, "run", str(ROOT / "docs" / "openapi.yaml"), "--url", server.url, "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "4", "--generation-deterministic"]
    done = subprocess.run(
        [*command, "--checks", checks], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    assert "11 selected / 11 total" in done.stdout
