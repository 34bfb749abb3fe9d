# SPDX-License-Identifier: MIT
"""Runs programs that print one JSON object a line."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trit.base.errors import EXIT_USAGE, CommandError, TritError, UserError
from trit.base.places import LOGS
from trit.base.processes import run
from trit.base.sandbox import Sandbox


def _log() -> Path:
    """Where the programs' output is kept: a checkout may be another user's, or on a read-only disk."""
    there = next(path for path in (LOGS, *LOGS.parents) if path.exists())
    usable = os.access(there, os.W_OK)
    return LOGS / "benchmarks.log" if usable else Path(tempfile.gettempdir(), f"trit-benchmarks-{os.getpid()}.log")


LOG = _log()


def json_lines(
    command: Sequence[str | Path],
    what: str,
    *,
    env: Mapping[str, str | None] | None = None,
    on_object: Callable[[dict[str, Any]], None] | None = None,
    on_text: Callable[[str], None] | None = None,
    log: Path = LOG,
    sandbox: Sandbox | None = None,
) -> list[dict[str, Any]]:
    """The objects that a program prints; they also go to ``on_object`` as they come, other lines to ``on_text``.

    Raises:
        UserError: the program ended with exit code 2; with its own sentence.
        TritError: it failed otherwise, or printed half an object.
    """
    objects: list[dict[str, Any]] = []

    def take(line: str) -> None:
        if not line.startswith("{"):
            if on_text:
                on_text(line)
            return
        try:
            found = json.loads(line)
        except ValueError as error:
            raise TritError(f"{what}: {Path(command[0]).name} printed broken JSON ({error}); see {log}") from error
        objects.append(found)
        if on_object:
            on_object(found)

    try:
        run(command, what, log, on_line=take, env=env, sandbox=sandbox)
    except CommandError as error:
        said = error.tail[-1].removeprefix("error: ") if error.tail else ""
        if error.returncode == EXIT_USAGE and said:
            raise UserError(said) from error
        raise TritError(f"{error}; it said: {said}" if said else str(error)) from error
    return objects
