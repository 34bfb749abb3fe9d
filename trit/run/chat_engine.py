# SPDX-License-Identifier: MIT
"""The engine of a chat: a llama-server that only we reach, and that never outlives us. Standard library only."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from trit.base.errors import TritError, UserError
from trit.base.processes import dies_with_us
from trit.base.sandbox import Sandbox
from trit.engine import inference
from trit.run.engine_log import EngineLog

_LONGEST_SOCKET = 100  # letters of its path; the least that a system allows is 104
_POLL_S = 0.02
_DONE = b"[DONE]"
_GRACE_S = 1
# An answer waits as long as its reader does: a terminal can be halted.
_PATIENCE_S = 365 * 86400
# The engine ends when its standard input does if this is set; elsewhere than on Linux, that is how it learns of us.
_TIED_BY_SIGNAL = sys.platform.startswith("linux")
_TIED = "LLAMA_SERVER_ROUTER_PORT"


class Ended(TritError):
    """The engine has ended while it was needed."""


class Refused(UserError):
    """The engine does not answer this request.

    Attributes:
        kind: the engine's word for the reason, such as exceed_context_size_error.
        facts: what else it says of it.
    """

    def __init__(self, error: Mapping[str, Any]):
        super().__init__(f"the engine refuses this: {error.get('message', 'without a word')}")
        self.kind = str(error.get("type"))
        self.facts = error


class ChatEngine:
    """A llama-server of ours; use it in a ``with`` statement, which ends it.

    It listens on a socket in a folder that nobody else may enter; where there are none, on a free port of this
    machine. Either way it wants a key that is made anew for each start.
    """

    def __init__(self, command: Sequence[str], model: Path, *, show: bool) -> None:
        """Nothing is started yet.

        Args:
            command: llama-server and its flags, but for where it listens.
            model: that it loads, for sentences.
            show: its log goes to standard error.
        """
        self._model, self._show = model, show
        self._folder = tempfile.TemporaryDirectory(prefix="trit-chat-")
        self._socket = Path(self._folder.name) / "engine.sock"
        self._port = 0
        if hasattr(socket, "AF_UNIX") and len(os.fsencode(self._socket)) <= _LONGEST_SOCKET:
            place = ["--host", str(self._socket)]
        else:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._port = probe.getsockname()[1]
            place = ["--host", "127.0.0.1", "--port", str(self._port)]
        self.command = [*command, *place, "--timeout", str(_PATIENCE_S), "--grace", str(_GRACE_S)]
        self._key = secrets.token_urlsafe()
        self._sandbox: Sandbox | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, sandbox: Sandbox | None) -> None:
        """Start it, without waiting for it.

        Raises:
            TritError: it does not start.
        """
        self._sandbox = sandbox
        enter = sandbox.enter if sandbox else None
        tie = dies_with_us() if _TIED_BY_SIGNAL else None
        env = {**os.environ, "GGML_NO_BACKTRACE": "1", "LLAMA_API_KEY": self._key}
        if not tie:
            env[_TIED] = "0"
        self._socket.unlink(missing_ok=True)
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL if tie else subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=env,
                # Ctrl-C is for us: it stops an answer and not the engine.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                preexec_fn=_both(tie, enter) if tie or enter else None,
            )
        except subprocess.SubprocessError as error:
            raise TritError("the kernel refuses to confine the engine; leave --sandbox away") from error
        except OSError as error:
            raise TritError(
                f"the engine {self.command[0]} does not start ({error.strerror}); build it again"
            ) from error
        assert self._process.stderr is not None
        self._log = EngineLog(self._process.stderr, self._show)

    def wait(self) -> None:
        """Wait until it has loaded the model.

        Raises:
            Ended: it ended instead.
        """
        while True:
            try:
                if self._request("GET", "/health", None).status == http.client.OK:
                    return
            except (OSError, http.client.HTTPException):
                self.check()
            time.sleep(_POLL_S)

    def start_again(self) -> None:
        """Start it once more after it has ended, and wait for it.

        Raises:
            TritError: it does not start.
        """
        self.start(self._sandbox)
        self.wait()

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> tuple[int, str] | None:
        """Exit code, as subprocess gives it, and log of an engine that has ended; None while it runs."""
        assert self._process is not None
        code = self._process.poll()
        return None if code is None else (code, self._log.read())

    def check(self) -> None:
        """Raise Ended if it has ended."""
        if self.ended:
            code, log = self.ended
            raise Ended(inference.explain_exit(code, log))

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a request, parsed; without a body it is a GET.

        Raises:
            Refused: it does not answer this.
            Ended: it has ended.
        """
        with self._send(path, body) as response:
            return self._parsed(response.read())

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """The events of a streamed answer, parsed; who leaves early stops the answer.

        Raises:
            Refused: it does not answer this, or ends the answer with an error.
            Ended: it has ended.
        """
        with self._send(path, body) as response:
            try:
                for line in response:
                    data = line.strip().removeprefix(b"data: ")
                    if data == line.strip():
                        continue
                    if data == _DONE:
                        return
                    event = self._parsed(data)
                    if "error" in event:
                        raise Refused(event["error"])
                    yield event
                    if event.get("stop"):
                        return
            except (OSError, http.client.HTTPException) as error:
                raise self._lost(error) from error
        raise self._lost("its answer broke off")

    def _send(self, path: str, body: Mapping[str, Any] | None) -> closing[http.client.HTTPResponse]:
        try:
            data = None if body is None else json.dumps(body).encode()
            response = self._request("GET" if body is None else "POST", path, data)
            if response.status != http.client.OK:
                raise Refused(self._parsed(response.read()).get("error", {}))
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        return closing(response)

    def _lost(self, error: Exception | str) -> TritError:
        """What a connection that broke means: mostly, that the engine is about to be gone."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_GRACE_S)
            self.check()
        return Ended(f"the engine does not answer ({error})")

    @staticmethod
    def _parsed(data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise TritError(f"the engine answered what is no JSON: {data[:80]!r}") from error

    def _request(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        """Each request has its own connection: closing it is how an answer is stopped."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port or 80)
        if not self._port:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self._socket))
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", "Connection": "close"}
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def __enter__(self) -> ChatEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def stop(self) -> None:
        """End it; nothing is lost with it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_GRACE_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()


def _both(*steps: Callable[[], object] | None) -> Callable[[], None]:
    """What is done between fork and exec."""

    def run() -> None:
        for step in steps:
            if step:
                step()

    return run
