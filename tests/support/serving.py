# SPDX-License-Identifier: MIT
"""Servers as users start them: processes of their own, what they started, and questions to them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trit.base.places import ROOT
from trit.run.running import began

_START_S = 90.0


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and what they started; the nearest first."""
    found = [pid]
    for one in found:
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                words = path.read_text(errors="replace").rpartition(")")[2].split()
                if int(words[1]) == one and words[0] not in "ZX":
                    found.append(int(path.parent.name))
    return found[1:]


def wait_for_end(pids: list[int], seconds: float = 15.0) -> list[int]:
    """Those of the processes that still run when the time is over."""
    last = time.monotonic() + seconds
    while (left := [pid for pid in pids if began(pid)]) and time.monotonic() < last:
        time.sleep(0.05)
    return left


@dataclass
class Serving:
    """A server that was started.

    Attributes:
        process: the supervising one.
        port: that it listens on.
        out: file with its standard output.
        err: file with its standard error, the engine's included.
    """

    process: subprocess.Popen[bytes]
    port: int
    out: Path
    err: Path

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status of an answer, and its JSON; None where it has none."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as client:
            client.request(method, path, None if body is None else json.dumps(body), headers or {})
            response = client.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text.startswith((b"{", b"[")) else None

    def stream(self, body: dict[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """An answer that comes in parts; close the connection."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        client.request("POST", "/completion", json.dumps({"stream": True, **body}))
        response = client.getresponse()
        assert response.status == 200
        return client, response

    def healthy(self) -> bool:
        """Whether it answers."""
        with suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/health")[0] == 200
        return False

    def wait_until_healthy(self) -> None:
        """Fails, with what it said, where it does not come up."""
        last = time.monotonic() + _START_S
        while not self.healthy():
            assert self.process.poll() is None and time.monotonic() < last, self.err.read_text()
            time.sleep(0.05)

    @property
    def engine(self) -> int:
        """The engine's process."""
        return descendants(self.process.pid)[0]


@contextmanager
def serving(
    folder: Path,
    *words: str | Path,
    env: dict[str, str] | None = None,
    start: tuple[str | Path, ...] = (ROOT / "run_inference_server.py",),
) -> Iterator[Serving]:
    """Start run_inference_server.py and wait until it answers; its files go into ``folder``."""
    port = free_port()
    command = [sys.executable, *start, "--port", str(port), *words]
    out, err = folder / "server.out", folder / "server.err"
    # What it makes for itself goes with the test, though it is killed.
    variables = {**os.environ, "TRIT_HOME": str(folder / "home"), "TMPDIR": str(folder), **(env or {})}
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=variables)
    server = Serving(process, port, out, err)
    try:
        server.wait_until_healthy()
        yield server
    finally:
        started = descendants(process.pid)
        process.kill()
        process.wait()
        for pid in wait_for_end(started):
            os.kill(pid, signal.SIGKILL)
