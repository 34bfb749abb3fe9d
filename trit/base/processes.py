# SPDX-License-Identifier: MIT
"""Running other programs: to a log, for their output, in our place. Standard library only."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from trit.base.errors import CommandError, TritError
from trit.base.files import names_file
from trit.base.places import ROOT
from trit.base.sandbox import Sandbox

# Lines of a log that say what went wrong, in the words of compilers, linkers, CMake, ninja, pip, git and Python.
_TELLING = re.compile(
    r"\b(error|fatal|failed|killed|undefined reference|no space left|could not|cannot)\b", re.IGNORECASE
)
_TAIL_LINES = 20
_LINE_WIDTH = 240
_GRACE_S = 5.0  # for a program that was asked to end


def telling_lines(lines: Sequence[str], limit: int = _TAIL_LINES) -> list[str]:
    """The last ``limit`` lines that speak of an error, or just the last ones if none does; long lines are cut."""
    marked = [line for line in lines if _TELLING.search(line)]
    return [line[:_LINE_WIDTH] for line in (marked or lines)[-limit:]]


@contextmanager
def signals_end_us() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us by way of every ``finally``, so that started programs end, too."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


_DIE_WITH_PARENT, _ADOPT = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER


def dies_with_us() -> Callable[[], None]:
    """For subprocess's preexec_fn on Linux: the program is killed when this process ends, however that comes about.

    To be called in the main thread: the end of the thread that starts a program counts as our end.
    """
    prctl, ours = _prctl(), os.getpid()

    def tie() -> None:
        if prctl(_DIE_WITH_PARENT, signal.SIGKILL):
            raise OSError("the program cannot be tied to us")
        if os.getppid() != ours:
            os._exit(127)  # we have ended meanwhile

    return tie


def adopt_orphans() -> None:
    """Let children of our children become ours when their parent ends, so that we can end them (Linux)."""
    if sys.platform.startswith("linux"):
        _prctl()(_ADOPT, 1)


def _prctl() -> Callable[[int, int], int]:
    import ctypes  # before the fork

    call, zero = ctypes.CDLL(None).prctl, ctypes.c_ulong(0)
    return lambda option, value: int(call(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def end_group(process: subprocess.Popen[Any]) -> None:
    """End a program that leads a process group, and what it started: ask first, then insist."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:
                process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_S)
            return


def run(
    command: Sequence[str | Path],
    what: str,
    log: Path,
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str | None] | None = None,
    on_line: Callable[[str], None] | None = None,
    keep_open: Sequence[int] = (),
    sandbox: Sandbox | None = None,
) -> list[str]:
    """Run a program to its end: every line of its output goes to ``log`` (appended) and to ``on_line``.

    The program gets a process group of its own, which ends with us: on Ctrl-C, on SIGTERM and on any failure here.

    Args:
        command: program and arguments; no shell.
        what: the deed in words, for the error message: "compiling the engine".
        log: file that output is appended to, after the command itself.
        cwd: working directory of the program.
        env: variables to set on top of ours; None takes one away.
        on_line: called with each line as it comes, without its newline.
        keep_open: file descriptors that the program inherits.
        sandbox: what confines the program.

    Returns:
        The last 2000 lines of output.

    Raises:
        CommandError: the program ended with another code than 0, or could not be started.
    """
    lines: deque[str] = deque(maxlen=2000)
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    variables = {key: value for key, value in {**os.environ, **(env or {})}.items() if value is not None}
    with names_file(log), log.open("a", encoding="utf-8", errors="backslashreplace") as file:
        print(f"$ {shlex.join(words)}", file=file, flush=True)
        try:
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
                pass_fds=tuple(keep_open),
                preexec_fn=sandbox.enter if sandbox else None,
            )
        except subprocess.SubprocessError as error:
            raise CommandError(f"{what} failed: the kernel refuses to confine {words[0]}", [], 127) from error
        except OSError as error:
            raise CommandError(f"{what} failed: {words[0]} does not start ({error.strerror})", [], 127) from error
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                lines.append(line.rstrip())
                if on_line:
                    on_line(line.rstrip())
            code = process.wait()
        finally:
            if process.poll() is None:
                end_group(process)
    if code != 0:
        message = f"{what} failed (exit code {code}); its whole log is {log}"
        raise CommandError(message, telling_lines(list(lines)), code)
    return list(lines)


def capture(command: Sequence[str | Path], timeout_s: float = 60, cwd: Path | None = None) -> tuple[int, str]:
    """Exit code and output (stdout and stderr) of a short program; code 127 if it does not start or does not end."""
    try:
        result = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
            cwd=cwd,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return result.returncode, result.stdout


def call(command: Sequence[str | Path], cwd: Path = ROOT) -> int:
    """Exit code of a program that has our own terminal; it ends when we do."""
    process = subprocess.Popen([str(word) for word in command], cwd=cwd)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def become(command: Sequence[str | Path], sandbox: Sandbox | None = None) -> int:
    """Let a program take our place, confined if wanted: terminal, signals and exit code are its own from here on.

    Returns:
        Only on Windows, which cannot do this: the exit code of the program.

    Raises:
        TritError: the sandbox cannot be entered.
    """
    words = [str(word) for word in command]
    if sys.platform == "win32":
        return call(words, Path.cwd())
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        if sandbox:
            sandbox.enter()
    except OSError as error:
        raise TritError(f"the kernel refuses to confine {words[0]} ({error.strerror}); give --no-sandbox") from error
    os.execv(words[0], words)
