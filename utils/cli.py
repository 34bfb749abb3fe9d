# SPDX-License-Identifier: MIT
"""What every command shares: error types, exit codes, atomic output files, running other programs.

Standard library only: ``setup_env.py`` and ``run_inference.py`` import it before any package is installed.
"""

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
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class TritError(Exception):
    """A failure on our side: one sentence that names the place and what to do (exit code 1)."""

    exit_code = EXIT_FAILED

    def __str__(self) -> str:
        """The sentence on one line: names that come out of broken files may hold line breaks and terminal codes."""
        return "".join(letter if letter.isprintable() else "?" for letter in super().__str__())


class UserError(TritError):
    """A mistake in what the user gave: a file, a flag, a checkpoint (exit code 2)."""

    exit_code = EXIT_USAGE


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and turn its exceptions into one line on stderr and an exit code.

    Returns:
        What ``main`` returned; 1 or 2 for a :class:`TritError`; 130 after Ctrl-C.
    """
    try:
        return main(argv)
    except TritError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`... | head`): not an error of ours, but nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


@contextmanager
def atomic_outputs(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a temporary path beside each path; fsync and rename them all on success, delete them on any failure.

    A reader therefore sees the old file or the whole new one, never a part of it. The first path gets its file last:
    where it is, the others are.
    """
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    partials = [path.with_name(f".{path.name}.{os.getpid()}.partial") for path in paths]
    try:
        yield partials
        for partial in partials:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        for partial, path in reversed(list(zip(partials, paths, strict=True))):
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """:func:`atomic_outputs` for one file."""
    with atomic_outputs([path]) as (partial,):
        yield partial


# Lines of a log that say what went wrong, in the words of compilers, linkers, CMake, ninja, pip, git and Python.
_TELLING = re.compile(
    r"\b(error|fatal|failed|killed|undefined reference|no space left|could not|cannot)\b", re.IGNORECASE
)
_TAIL_LINES = 20
_LINE_WIDTH = 240


class CommandError(TritError):
    """A program that we started ended with an error; ``tail`` holds the lines of its output that matter most."""

    def __init__(self, message: str, tail: Sequence[str], returncode: int):
        super().__init__(message)
        self.tail = list(tail)
        self.returncode = returncode


def telling_lines(lines: Sequence[str], limit: int = _TAIL_LINES) -> list[str]:
    """The last ``limit`` lines that speak of an error, or just the last ones if none does; long lines are cut."""
    marked = [line for line in lines if _TELLING.search(line)]
    return [line[:_LINE_WIDTH] for line in (marked or lines)[-limit:]]


def end_group(process: subprocess.Popen[Any]) -> None:
    """End a program that leads a process group, and what it started: ask first, then insist."""
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:
                process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
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

    Returns:
        The last 2000 lines of output.

    Raises:
        CommandError: the program ended with another code than 0, or could not be started.
    """
    lines: deque[str] = deque(maxlen=2000)
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    variables = {key: value for key, value in {**os.environ, **(env or {})}.items() if value is not None}
    with log.open("a", encoding="utf-8") as file:
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
            )
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


def capture(command: Sequence[str | Path], timeout_s: float = 60) -> tuple[int, str]:
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


def become(command: Sequence[str | Path]) -> int:
    """Let a program take our place: terminal, signals and exit code are its own from here on.

    Returns:
        Only on Windows, which cannot do this: the exit code of the program.
    """
    words = [str(word) for word in command]
    if sys.platform == "win32":
        return call(words, Path.cwd())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(words[0], words)
