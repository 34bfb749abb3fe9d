# SPDX-License-Identifier: MIT
"""What a server says: lines for people, or one JSON object a line. Standard library only."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

# The router says which model is on which port, and puts the port before what that model says.
_SPAWNED = re.compile(r"spawning server instance with name=(\S+) on port (\d+)")
_OF_MODEL = re.compile(r"\[ *(\d+)\] (.*)", re.DOTALL)
_ENDED_BY = re.compile(r"error: (.*)", re.DOTALL)


class Log:
    """Lines for people: ours on standard error beside the engine's own."""

    # What the engine has to be told.
    flags: tuple[str, ...] = ()
    # Whether what it says goes through :meth:`engine_line`.
    reads_engine = False

    def say(self, level: str, message: str, **facts: Any) -> None:
        """Say something; ``facts`` are for programs."""
        print(f"{'note' if level == 'info' else level}: {message}", file=sys.stderr, flush=True)

    def announce(self, lines: Sequence[str], event: str, **facts: Any) -> None:
        """Say on standard output what people look for."""
        for line in lines:
            print(line, flush=True)

    def engine_line(self, line: str) -> None:
        """A line that the engine said."""
        raise NotImplementedError


class JsonLog(Log):
    """One object a line, on standard error: ``time``, ``level``, and ``message`` or ``event`` with its facts."""

    flags = ("--log-jsonl",)
    reads_engine = True

    def __init__(self) -> None:
        self._models: dict[str, str] = {}

    def say(self, level: str, message: str, **facts: Any) -> None:
        """Write an object."""
        self._write(level, message=message, **facts)

    def announce(self, lines: Sequence[str], event: str, **facts: Any) -> None:
        """Write an object."""
        self._write("info", event=event, **facts)

    def engine_line(self, line: str) -> None:
        """Write what the engine said, in its JSON or not; of requests only those that a client made."""
        said = _object(line)
        message = str(said.get("msg", line) if said else line).strip()
        model = {}
        if match := _OF_MODEL.fullmatch(message):
            inner = _object(match[2])
            if inner is None and match[2].startswith("{"):
                return
            model = {"model": self._models.get(match[1], match[1])}
            said, message = inner, str(inner.get("msg", "") if inner else match[2]).strip()
        if match := _SPAWNED.search(message):
            self._models[match[2]] = match[1]
        kind = said.get("type", "log") if said else "log"
        if said and kind != "log":
            if kind == "request" and not model:
                self._write("info", event="request", **said.get("data", {}))
        elif message:
            told = _ENDED_BY.fullmatch(message)
            level = "error" if told else str(said.get("level", "info")) if said else "info"
            self._write({"warn": "warning", "cont": "info", "none": "info"}.get(level, level), message=message, **model)

    def _write(self, level: str, **facts: Any) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # One call, so that threads' lines do not mix.
        sys.stderr.write(json.dumps({"time": now, "level": level, **facts}, ensure_ascii=True) + "\n")
        sys.stderr.flush()


def _object(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
