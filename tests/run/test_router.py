# SPDX-License-Identifier: MIT
"""Several models behind one address: names, keys, threads, memory, and that nothing is left when they end."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import Serving, descendants, serving, wait_for_end
from trit.base.sandbox import landlock_version
from trit.run.running import running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
KEY = {"Authorization": 'Bearer sesame, "open"'}
PROMPT = "John moved to the office. Mary went to the garden. Where is Mary?\nAnswer:"
ANSWER = " Mary is in the garden."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, story_gguf: Path) -> Path:
    """Two models, and a file with a key."""
    folder = tmp_path_factory.mktemp("router")
    shutil.copy(story_gguf, folder / "first.gguf")
    shutil.copy(story_gguf, folder / "second.gguf")
    (folder / "keys").write_text('# mine\nsesame, "open"\n')
    return folder


@pytest.fixture(scope="module")
def router(folder: Path, engine_bin: Path) -> Iterator[Serving]:
    assert engine_bin.is_dir()
    words = [f"story={folder / 'first.gguf'}", folder / "second.gguf", "--api-key-file", folder / "keys", "--log-json"]
    with serving(folder, *words, "-t", "2", "-c", "512", "--parallel", "2", "--temperature", "0") as server:
        yield server


def complete(server: Serving, model: str, **fields: Any) -> tuple[int, Any]:
    return server.ask("POST", "/v1/completions", {"model": model, "prompt": PROMPT, "max_tokens": 20, **fields}, KEY)


def states(server: Serving) -> dict[str, str]:
    return {one["id"]: one["status"]["value"] for one in server.ask("GET", "/v1/models", None, KEY)[1]["data"]}


def test_models_are_loaded_when_they_are_asked_for(router: Serving) -> None:
    assert states(router) == {"story": "unloaded", "second": "unloaded"}
    for name in ("story", "first"):  # its file's name is its alias
        status, told = complete(router, name)
        assert (status, told["choices"][0]["text"], told["model"]) == (200, ANSWER, "story"), name
    assert states(router) == {"story": "loaded", "second": "unloaded"}
    status, told = complete(router, "third")
    assert status == 400 and "third" in told["error"]["message"]


def test_without_the_key_only_health_answers(router: Serving) -> None:
    assert router.ask("GET", "/health")[0] == 200
    for path in ("/v1/models", "/metrics", "/slots", "/props"):
        assert router.ask("GET", path)[0] == 401, path
    assert router.ask("POST", "/v1/completions", {"model": "story", "prompt": "x"})[0] == 401
    # Nor do the models themselves, whose ports anybody on this machine can find.
    assert complete(router, "story")[0] == 200
    child = descendants(router.engine)[0]
    words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
    alone = Serving(router.process, int(words[words.index("--port") + 1]), router.out, router.err)
    assert alone.ask("GET", "/health")[0] == 200 and alone.ask("GET", "/v1/models")[0] == 401
    for pid in (router.process.pid, router.engine, child):
        assert "sesame" not in Path(f"/proc/{pid}/cmdline").read_text()


def test_downloads_are_refused_and_no_path_is_told(router: Serving, folder: Path) -> None:
    status, told = router.ask("POST", "/models", {"model": "org/name"}, KEY)
    assert (status, told["error"]["type"]) == (403, "feature_disabled")
    assert str(folder) not in json.dumps(router.ask("GET", "/v1/models", None, KEY)[1])


def test_a_page_of_the_server_is_answered_under_any_name(router: Serving) -> None:
    """The router has looked at the Origin; its models would take it for another site's."""
    page = {"Host": "192.168.1.4:80", "Origin": "http://192.168.1.4:80", **KEY}
    assert router.ask("POST", "/v1/completions", {"model": "story", "prompt": "x", "max_tokens": 1}, page)[0] == 200
    assert router.ask("GET", "/v1/models", None, {**page, "Origin": "https://shop.example"})[0] == 403


def test_threads_and_slots_are_shared_out_and_models_confined(router: Serving) -> None:
    assert complete(router, "second")[0] == complete(router, "story")[0] == 200
    children = descendants(router.engine)
    assert len(children) == 2
    for pid in children:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        values = [words[words.index(flag) + 1] for flag in ("--threads", "--parallel", "--ctx-size")]
        assert values == ["1", "2", "1024"]
        if not landlock_version():
            continue
        assert "NoNewPrivs:\t1" in Path(f"/proc/{pid}/status").read_text()
        assert "Max data size             unlimited" not in Path(f"/proc/{pid}/limits").read_text()


def test_a_killed_model_comes_back_and_the_other_goes_on(router: Serving) -> None:
    assert complete(router, "second")[0] == complete(router, "story")[0] == 200
    before = descendants(router.engine)
    os.kill(before[0], signal.SIGKILL)
    last = time.monotonic() + 30
    while time.monotonic() < last and any(complete(router, name)[0] != 200 for name in ("story", "second")):
        time.sleep(0.1)
    after = descendants(router.engine)
    assert len(after) == 2 and before[1] in after and before[0] not in after


@contextmanager
def asked(router: Serving, *, stream: bool) -> Iterator[tuple[http.client.HTTPConnection, int]]:
    """A long answer of a model that is loaded, and the model's process."""
    assert complete(router, "story")[0] == 200
    (child,) = [pid for pid in descendants(router.engine) if b"first.gguf" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    body = {"model": "story", "prompt": "x", "max_tokens": 500, "ignore_eos": True, "stream": stream}
    with closing(http.client.HTTPConnection("127.0.0.1", router.port, timeout=60)) as connection:
        if not stream:
            os.kill(child, signal.SIGSTOP)  # no answer is ready before it dies
        connection.request("POST", "/v1/completions", json.dumps(body), KEY)
        yield connection, child
    # What is asked before the router has noticed the death is told of it, too.
    last = time.monotonic() + 30
    while states(router)["story"] == "loaded":
        assert time.monotonic() < last, "the router has not noticed that its model died"
        time.sleep(0.02)


def test_a_request_is_told_that_its_model_died(router: Serving) -> None:
    with asked(router, stream=False) as (connection, child):
        time.sleep(0.5)  # the router has handed it on
        os.kill(child, signal.SIGKILL)
        answer = connection.getresponse()
        assert answer.status == 500 and answer.headers["Content-Type"].startswith("application/json")
        error = json.loads(answer.read())["error"]
    assert error["type"] == "server_error" and error["message"].startswith("the model's process ended: ")


def test_a_stream_is_told_that_its_model_died(router: Serving) -> None:
    text = "[DONE]"
    for _ in range(20):  # until one dies before its answer is whole
        with asked(router, stream=True) as (connection, child):
            answer = connection.getresponse()
            assert answer.status == 200 and answer.readline().startswith(b"data: ")
            os.kill(child, signal.SIGKILL)
            if "[DONE]" not in (text := answer.read().decode()):
                break
    name, _, data = text.strip("\n").rpartition("\n\n")[2].partition("\n")
    assert name == "event: error", text
    assert json.loads(data.removeprefix("data: "))["error"]["message"].startswith("the model's process ended: ")


def test_the_log_is_json_and_has_each_request_without_its_text(router: Serving) -> None:
    assert complete(router, "story")[0] == 200
    time.sleep(0.2)
    told = [json.loads(line) for line in router.err.read_text().splitlines()]
    assert router.out.read_text() == "" and all({"time", "level"} <= one.keys() for one in told)
    asked = [one for one in told if one.get("event") == "request" and one["path"] == "/v1/completions"]
    assert {"method": "POST", "client": "127.0.0.1", "status": 200}.items() <= asked[-1].items() and asked[-1][
        "ms"
    ] >= 0
    assert any(one.get("model") == "story" for one in told), "a line of a model has its name"
    (ready,) = [one for one in told if one.get("event") == "ready"]
    assert [model["name"] for model in ready["models"]] == ["story", "second"] and ready["threads"] == 1
    assert "garden" not in router.err.read_text()


def test_it_is_shown_with_all_models_and_their_memory(router: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complete(router, "story")[0] == 200
    monkeypatch.setenv("TRIT_HOME", str(router.out.parent / "home"))
    (one,) = running()
    assert [Path(path).name for path in one.models] == ["first.gguf", "second.gguf"]
    pages = int(Path(f"/proc/{router.process.pid}/statm").read_text().split()[1])
    assert one.memory is not None and one.memory > pages * os.sysconf("SC_PAGE_SIZE")


def test_nothing_is_left_when_all_is_killed(router: Serving) -> None:
    """The last test of this server."""
    assert complete(router, "story")[0] == 200
    started = descendants(router.process.pid)
    assert len(started) >= 2
    os.kill(router.process.pid, signal.SIGKILL)
    assert wait_for_end(started) == []


def test_idle_models_give_their_memory_back(folder: Path, engine_bin: Path, tmp_path: Path) -> None:
    """And a router that is killed is started again, its models gone with it."""
    assert engine_bin.is_dir()
    models = [folder / "first.gguf", folder / "second.gguf"]
    with serving(tmp_path, *models, "-t", "1", "-c", "256", "--models-max", "1", "--unload-after", "1") as server:
        assert complete(server, "first")[0] == 200
        last = time.monotonic() + 30
        while time.monotonic() < last and states(server)["first"] != "sleeping":
            time.sleep(0.1)
        assert states(server) == {"first": "sleeping", "second": "unloaded"}
        assert complete(server, "first")[0] == complete(server, "second")[0] == 200
        assert states(server)["first"] == "unloaded", "only one has room"
        killed = server.engine
        children = descendants(killed)
        os.kill(killed, signal.SIGKILL)
        assert wait_for_end([killed, *children]) == []
        server.wait_until_healthy()
        assert complete(server, "second")[0] == 200
        client, response = server.stream(
            {"model": "second", "prompt": PROMPT, "n_predict": 250, "ignore_eos": True, "n_probs": 200}
        )
        response.readline()
        server.process.send_signal(signal.SIGTERM)
        last_line = [line for line in response.read().split(b"\n") if line][-1]
        client.close()
        assert json.loads(last_line.removeprefix(b"data: "))["tokens_predicted"] > 200, "it was cut off"
        assert server.process.wait(timeout=60) == 0
        assert "ended by SIGKILL" in server.err.read_text() and "starting it again in 1 s" in server.err.read_text()
