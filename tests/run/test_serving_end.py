# SPDX-License-Identifier: MIT
"""How a server of one model ends, and how it goes on when its engine dies."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.support.serving import Serving, descendants, serving, wait_for_end

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
# Some seconds of work for any CPU: each token comes with many others that it could have been.
LONG = {"prompt": "John", "n_predict": 1000, "ignore_eos": True, "n_probs": 100}


def refuses(server: Serving) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", server.port)) != 0


def test_running_answers_are_finished_and_no_new_ones_begun(engine_bin: Path, tmp_path: Path) -> None:
    assert engine_bin.is_dir()
    with serving(tmp_path, "-t", "1", "--grace", "100") as server:
        told = server.out.read_text().splitlines()
        assert told[0] == f"Starting server on 127.0.0.1:{server.port}"
        client, response = server.stream(LONG)
        response.readline()
        engine = server.engine
        server.process.send_signal(signal.SIGTERM)
        last = time.monotonic() + 10
        while not refuses(server):
            assert time.monotonic() < last
            time.sleep(0.01)
        assert server.process.poll() is None, "it ended before the answer did"
        lines = [line for line in response.read().split(b"\n") if line]
        client.close()
        final = json.loads(lines[-1].removeprefix(b"data: "))
        assert final["stop"] and final["tokens_predicted"] == LONG["n_predict"]
        assert server.process.wait(timeout=60) == 0
        assert wait_for_end([engine]) == []


def test_asked_twice_it_ends_at_once(engine_bin: Path, tmp_path: Path) -> None:
    assert engine_bin.is_dir()
    with serving(tmp_path, "-t", "1", "--grace", "100") as server:
        client, response = server.stream(LONG)
        response.readline()
        started = descendants(server.process.pid)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        assert server.process.wait(timeout=30) == 130
        assert time.monotonic() - begun < 10 and wait_for_end(started) == []
        assert "Traceback" not in server.err.read_text()
        client.close()


def test_a_killed_engine_is_started_again(engine_bin: Path, tmp_path: Path) -> None:
    assert engine_bin.is_dir()
    with serving(tmp_path, "-t", "1") as server:
        client, response = server.stream(LONG)
        response.readline()
        killed = server.engine
        os.kill(killed, signal.SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
        client.close()
        server.wait_until_healthy()
        assert server.engine != killed
        assert server.ask("POST", "/completion", {"prompt": "Mary", "n_predict": 1})[0] == 200
        assert server.out.read_text().count("listening on") == 1
        engine = server.engine
        os.kill(server.process.pid, signal.SIGKILL)
        assert wait_for_end([engine]) == [], "it outlived the one that looks after it"
