# SPDX-License-Identifier: MIT
"""A llama-server of our own on a free local port: greedy completions, and any other question to it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from trit.base.errors import TritError, UserError
from trit.base.places import ENGINE_BIN, engine_binary, python_command
from trit.base.processes import dies_with_us, telling_lines
from trit.engine import confinement
from trit.engine.loading import read_memory

_SLOTS = 4
_TOKENS_PER_SLOT = 512
_START_SECONDS = 60
_ANSWER_SECONDS = 600


class Refused(TritError):
    """The server runs, but does not answer this request."""


class Server:
    """A running llama-server; use it in a ``with`` statement, which ends it.

    Attributes:
        url: where it listens, without a slash at the end.
    """

    def __init__(
        self,
        gguf: Path,
        threads: int,
        flags: Sequence[str] = (),
        slots: int = _SLOTS,
        context: int = _TOKENS_PER_SLOT,
        bin_dir: Path = ENGINE_BIN,
        env: Mapping[str, str | None] | None = None,
    ) -> None:
        """Check that file and engine are there; the server starts with the ``with`` statement.

        Args:
            gguf: The model.
            threads: Threads to compute with.
            flags: More flags of llama-server.
            slots: Questions that it answers at the same time.
            context: Most tokens of one question and its answer.
            bin_dir: Folder of the compiled programs.
            env: Variables to set; None takes one away.

        Raises:
            UserError: the GGUF file or the compiled engine is missing; names the command that makes it.
        """
        if not gguf.is_file():
            raise UserError(f"{gguf}: is not there; make it with: {python_command('setup_env.py -md')} {gguf.parent}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [str(engine_binary("llama-server", bin_dir)), "-m", str(gguf), "-ngl", "0"]
        self._command += ["--host", "127.0.0.1", "--port", str(port)]
        self._command += ["-t", str(threads), "-np", str(slots), "-c", str(slots * context), *flags]
        self._slots = slots
        self._env = {key: value for key, value in {**os.environ, **(env or {})}.items() if value is not None}

    def __enter__(self) -> Server:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        sandbox = confinement.of_tool(self._command)
        tie = dies_with_us() if sys.platform.startswith("linux") else None

        def enter() -> None:
            if tie:
                tie()
            if sandbox:
                sandbox.enter()

        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=self._env,
            # Ctrl-C is for us: what is answered may be wanted still.
            start_new_session=True,
            preexec_fn=None if sys.platform == "win32" else enter,
        )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def complete(self, prompts: Sequence[str], max_new: int) -> list[str]:
        """The greedy continuation of each prompt, to the end of text or ``max_new`` tokens.

        Raises:
            TritError: the server ended or answered with an error.
        """
        with ThreadPoolExecutor(self._slots) as pool:
            return list(pool.map(lambda prompt: self._complete_one(prompt, max_new), prompts))

    def _complete_one(self, prompt: str, max_new: int) -> str:
        body = {"prompt": prompt, "n_predict": max_new, "temperature": 0, "cache_prompt": True}
        return str(self.post("/completion", body)["content"])

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The server's answer to a request, parsed.

        Raises:
            Refused: it answered that the request is wrong.
            TritError: it ended or answered otherwise with an error.
        """
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise Refused(f"llama-server refuses {path}: {error.read().decode('utf-8', 'replace')}") from error
        except (OSError, ValueError) as error:
            raise TritError(f"llama-server gave no answer ({error}); its last words: {self._last_words()}") from error

    @property
    def ended(self) -> int | None:
        """The exit code of the process, negative for a signal; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it at once; the ``with`` statement still has to be left."""
        self._process.kill()

    @property
    def resident(self) -> int | None:
        """Bytes of memory that the process takes now; None where the system does not tell."""
        try:
            memory = read_memory(Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8"), 0)
        except OSError:
            return None
        return memory.resident if memory else None

    @property
    def pid(self) -> int:
        """Of the process, while it runs."""
        return self._process.pid

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise TritError(f"llama-server did not start; its last words: {self._last_words()}")

    def _last_words(self) -> str:
        self._log.seek(0)
        return " | ".join(telling_lines(self._log.read().splitlines(), 5))
