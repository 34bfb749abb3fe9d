# SPDX-License-Identifier: MIT
"""The engine's server as a child that is started again when it dies, and the connections that ask it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from trit.base.errors import TritError
from trit.engine.inference import explain_exit
from trit.engine.server import Server

Job = TypeVar("Job")
Found = TypeVar("Found")

# An engine that says nothing for so long hangs.
_SILENCE_S = 3600.0
_POLL_S = 0.2
_MOST_LOST = 5  # rows, one after the other
_END_S = 5.0


class EngineDied(Exception):
    """The engine gave no answer, and runs no more."""


class Client:
    """A connection to a running engine, and one of its slots; each thread has its own."""

    def __init__(self, server: Server, slot: int) -> None:
        self.slot = slot
        self._server = server
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=_SILENCE_S)

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any]:
        """Status of an answer, and its JSON.

        Raises:
            EngineDied: there is none, because the engine has ended or hangs.
        """
        text = json.dumps(body).encode()
        # The server closes idle connections; then the next one has the answer.
        for last in (False, True):
            try:
                self._connection.request("POST", path, text, {"Content-Type": "application/json"})
                response = self._connection.getresponse()
                return response.status, json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._connection.close()
                if last or isinstance(error, TimeoutError):
                    raise EngineDied(str(error) or type(error).__name__) from error
        raise AssertionError

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Engine:
    """Answers jobs, so many at a time; use it in a ``with`` statement, which ends the server. It starts when asked."""

    def __init__(self, make: Callable[[], Server], slots: int, note: Callable[[str], None]) -> None:
        """Prepare; nothing starts yet.

        Args:
            make: a server that has not been started.
            slots: what it answers at a time.
            note: is told when it is started again.
        """
        self._make, self._slots, self._note = make, slots, note
        self._server: Server | None = None
        self._stop = threading.Event()
        self._lost = 0
        self._ended = ""
        self._ran = False

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def is_stopping(self) -> bool:
        """Whether it was asked to take no more jobs."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Take no more jobs, and finish those that run."""
        self._stop.set()

    def kill(self) -> None:
        """End what runs at once."""
        self._stop.set()
        if self._server:
            self._server.kill()

    def answer(
        self,
        jobs: Sequence[Job],
        ask: Callable[[Client, Job], Found],
        done: Callable[[Job, Found], None],
        lost: Callable[[Job, str], None],
        each: int = 1,
    ) -> None:
        """Answer jobs in about their order, until they are done or :meth:`stop` is called.

        Args:
            jobs: what ``ask`` takes.
            ask: asks for one, in any thread.
            done: gets each result, one at a time.
            lost: gets a job over which the engine died twice, the second time alone, and how it ended.
            each: jobs that are asked for at a time, for each slot: with one more than it answers, none of them waits
                for the next question.

        Raises:
            TritError: the engine does not start, or dies over one job after the other.
        """
        waiting = deque(jobs)
        while waiting and not self.is_stopping():
            suspects = self._share_out(waiting, ask, done, each * self._slots)
            # Alone, so that only the one that ends the engine is at fault.
            for job in suspects:
                if self.is_stopping():
                    return
                if not self._share_out(deque([job]), ask, done, 1):
                    self._lost = 0
                elif not self.is_stopping():
                    self._lose(job, lost)

    def _lose(self, job: Job, lost: Callable[[Job, str], None]) -> None:
        self._lost += 1
        why = self._ended
        if self._lost >= _MOST_LOST:
            raise TritError(f"{why}, over {self._lost} rows one after the other; mend that and run this again")
        lost(job, f"{why}, twice over this row")

    def _share_out(
        self, waiting: deque[Job], ask: Callable[[Client, Job], Found], done: Callable[[Job, Found], None], clients: int
    ) -> list[Job]:
        """Answer until nothing waits; the jobs that ran when the engine died, if it did."""
        server = self._started()
        suspects: list[Job] = []
        failures: list[BaseException] = []
        over, lock = threading.Event(), threading.Lock()

        def work(number: int) -> None:
            client = Client(server, number % self._slots)
            try:
                while not over.is_set() and not self.is_stopping():
                    try:
                        job = waiting.popleft()
                    except IndexError:
                        return
                    try:
                        found = ask(client, job)
                    except EngineDied:
                        suspects.append(job)
                        over.set()
                        return
                    with lock:
                        done(job, found)
            except BaseException as error:  # a full disk, or a fault of ours
                failures.append(error)
                over.set()
            finally:
                client.close()

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():  # signals are heard between two waits
                thread.join(_POLL_S)
        if failures:
            raise failures[0]
        if suspects and not self.is_stopping():
            self._ended = _end_of(server)
        return suspects

    def _started(self) -> Server:
        """The server, started (again) if it does not run."""
        if self._server:
            if not self._ended and self._server.ended is None:
                return self._server
            self._note(f"{self._ended or _end_of(self._server)}; starting it again")
            self._end()
        self._ended = ""
        # One that ran before may lack memory for a while; one that never did lacks something else.
        waits = [1, 2, 4, 8] if self._ran else []
        while True:
            server = self._make()
            try:
                self._server = server.__enter__()
                self._ran = True
                return server
            except TritError:
                if not waits or self.is_stopping():
                    raise
                time.sleep(waits.pop(0))

    def _end(self) -> None:
        if self._server:
            server, self._server = self._server, None
            server.__exit__(None, None, None)


def _end_of(server: Server) -> str:
    """How a server that gave no answer ended; one that hangs is ended here."""
    last = time.monotonic() + _END_S
    while server.ended is None and time.monotonic() < last:
        time.sleep(_POLL_S / 10)
    if server.ended is None:
        server.kill()
        return "the engine gave no answer"
    return explain_exit(server.ended, "") if server.ended < 0 else f"the engine ended with exit code {server.ended}"
