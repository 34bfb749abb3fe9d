# SPDX-License-Identifier: MIT
"""The engine as a child that is kept alive, ends when it is asked to, and never outlives us. Standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from trit.base.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, TritError
from trit.base.processes import adopt_orphans, dies_with_us
from trit.base.sandbox import Sandbox
from trit.engine.inference import explain_exit
from trit.run.serving.log import Log

_MOST_STARTS = 5  # one after the other that came to nothing
_STEADY_S = 60.0  # an engine that answered for so long was well; its end is counted anew
_LONGEST_DELAY_S = 16.0
_POLL_S = 0.05  # until it answers
_ROOM_S = 3.0  # the engine ends itself when --grace is over; with so much more it is ended
_ORPHANS_S = 2.0
# By whom it was killed may have ended by the next start; all other ends would come again.
_FOR_WANT_OF_MEMORY = -9
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


class Supervisor:
    """Runs one engine.

    Being asked to end (SIGTERM, SIGINT, SIGHUP) is passed on once as SIGTERM: the engine takes no new requests, and
    finishes those that run. Being asked twice ends it at once. The engine leads a process group, so that what it
    started goes with it; and the kernel kills it if we are killed (Linux).

    Attributes:
        command: the engine and its flags.
        env: its variables.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        sandbox: Sandbox | None,
        env: Mapping[str, str | None],
        grace_s: float,
        answers: Callable[[], bool],
        log: Log,
        first_delay_s: float = 1.0,
    ) -> None:
        """Prepare; nothing starts yet.

        Args:
            command: the engine and its flags.
            sandbox: what confines it.
            env: variables on top of ours; None takes one away.
            grace_s: seconds that it has to end once it was asked to.
            answers: whether it is ready for requests.
            log: where notes go, and what the engine says if the log wants it.
            first_delay_s: before it is started again; doubled each time.
        """
        self.command = [*command, *log.flags]
        self._sandbox, self._grace_s, self._answers, self._log = sandbox, grace_s, answers, log
        self.env = {key: value for key, value in {**os.environ, **env}.items() if value is not None}
        self._first_delay_s = first_delay_s
        self._engine: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._asked: int | None = None
        self._at_once = False
        self._end = threading.Event()

    def run(self, ready: Callable[[], None]) -> int:
        """Keep the engine alive until we are asked to end.

        Args:
            ready: called once, when it answers for the first time.

        Returns:
            Our exit code.

        Raises:
            TritError: it does not start, or keeps dying.
        """
        adopt_orphans()
        been_ready, starts = False, 0
        with self._listening():
            while True:
                begun = time.monotonic()
                self._start()
                is_ready = self._wait_until_ready()
                if is_ready and not been_ready:
                    been_ready = True
                    ready()
                code = self._wait()
                self._clean_up()
                if self._is_asked():
                    return self._exit_code(code)
                if code in (EXIT_OK, EXIT_USAGE):
                    return code
                if not been_ready and code != _FOR_WANT_OF_MEMORY:
                    raise TritError(f"{_why(code)} before it answered; it says why above")
                steady = is_ready and time.monotonic() - begun >= _STEADY_S
                starts = 1 if steady else starts + 1
                self._wait_to_start(code, starts)
                if self._is_asked():
                    return self._exit_code(0)

    def _is_asked(self) -> bool:
        """Whether we are to end; a signal may change it at any time."""
        return self._asked is not None

    def _start(self) -> None:
        sandbox = self._sandbox
        tie = dies_with_us() if sys.platform.startswith("linux") else None

        def enter() -> None:
            if tie:
                tie()
            if sandbox:
                sandbox.enter()

        pipe = subprocess.PIPE if self._log.reads_engine else None
        try:
            self._engine = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=subprocess.STDOUT if pipe else None,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
                preexec_fn=None if sys.platform == "win32" else enter,
            )
        except subprocess.SubprocessError as error:
            raise TritError(f"the kernel refuses to confine {self.command[0]}; give --no-sandbox") from error
        except OSError as error:
            raise TritError(f"{self.command[0]} does not start ({error.strerror})") from error
        if pipe:
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        if self._is_asked():  # between two starts
            self._kill()

    def _read(self) -> None:
        assert self._engine is not None and self._engine.stdout is not None
        for line in self._engine.stdout:
            self._log.engine_line(line)

    def _wait_until_ready(self) -> bool:
        while not self._ended():
            if not self._is_asked() and self._answers():
                return True
            time.sleep(_POLL_S)
        return False

    def _ended(self) -> bool:
        """Whether the engine has ended; takes note of other children, too."""
        engine = self._engine
        assert engine is not None
        if sys.platform == "win32":
            return engine.poll() is not None
        return engine.returncode is not None or self._reap(os.WNOHANG)

    def _wait(self) -> int:
        """Wait for the engine's end; its exit code, negative for a signal."""
        engine = self._engine
        assert engine is not None
        if sys.platform == "win32":
            while engine.poll() is None:
                self._end.wait(_POLL_S)  # Ctrl-C is only heard between two waits
        elif engine.returncode is None:
            self._reap(0)
        assert engine.returncode is not None
        return engine.returncode

    def _reap(self, flags: int) -> bool:
        """Take the exit codes of children until it is the engine's turn; False: there is none yet.

        The first process of a container has all orphans as children.
        """
        assert self._engine is not None
        while True:
            pid, status = os.waitpid(-1, flags)
            if pid == self._engine.pid:
                self._engine.returncode = os.waitstatus_to_exitcode(status)
                return True
            if pid == 0:
                return False

    def _clean_up(self) -> None:
        """End what the engine has left behind, and read what it said last."""
        self._kill()
        if sys.platform != "win32":
            last = time.monotonic() + _ORPHANS_S
            with suppress(ChildProcessError):
                while time.monotonic() < last and os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
                while time.monotonic() < last and _group_lives(self._engine):
                    os.waitpid(-1, os.WNOHANG)
                    time.sleep(_POLL_S / 5)
        if self._reader:
            self._reader.join(_ORPHANS_S)

    def _kill(self) -> None:
        if self._engine is None:
            return
        if sys.platform == "win32":
            self._engine.kill()
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._engine.pid, signal.SIGKILL)

    def _wait_to_start(self, code: int, starts: int) -> None:
        why = _why(code)
        if starts > _MOST_STARTS or code == -getattr(signal, "SIGILL", 0):
            raise TritError(f"{why}, {starts} times one after the other" if starts > 1 else why)
        delay = min(self._first_delay_s * 2 ** (starts - 1), _LONGEST_DELAY_S)
        self._log.say(
            "warning",
            f"{why}; starting it again in {delay:g} s ({starts} of {_MOST_STARTS})",
            event="restart",
            exit_code=code,
        )
        self._end.wait(delay)

    def _exit_code(self, code: int) -> int:
        if self._asked == signal.SIGINT:
            return EXIT_INTERRUPTED
        if self._at_once:
            return 128 + (self._asked or 0)
        if code not in (EXIT_OK, -signal.SIGTERM):
            self._log.say("warning", f"answers that ran for longer than --grace {self._grace_s:g} were cut off")
        return EXIT_OK

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Be asked to end by signals; those that are ignored on purpose (nohup) stay so."""
        numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        hangup = getattr(signal, "SIGHUP", None)
        for number in numbers:
            if number != hangup or before[number] is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            self._kill()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_asked():
            self._at_once = True
            self._kill()
            return
        self._asked = number
        self._end.set()
        if self._engine is not None and sys.platform != "win32":
            with suppress(ProcessLookupError):
                os.kill(self._engine.pid, signal.SIGTERM)
        last = threading.Timer(self._grace_s + _ROOM_S, self._kill)
        last.daemon = True
        last.start()


def _why(code: int) -> str:
    return explain_exit(code, "") if code < 0 else f"the engine ended with exit code {code}"


def _group_lives(engine: subprocess.Popen[str] | None) -> bool:
    try:
        os.killpg(engine.pid if engine else 0, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
