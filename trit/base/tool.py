# SPDX-License-Identifier: MIT
"""Run a function of ours in a Python that has the packages: JSON there, JSON back. Standard library only.

What the function prints shows how far it is; nothing is read out of it. Notes for the user come as lines of JSON while
it runs, the result or the error as one JSON file at its end.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trit.base.errors import CommandError, TritError, UnknownNameError, UserError
from trit.base.progress import StepLine

Run = Callable[[Sequence[str | Path], Callable[[str], None]], object]
"""Runs a program to its end, and gives on each line that it prints; raises CommandError."""

_SHOWN = 100
_KINDS = {kind.__name__: kind for kind in (TritError, UserError, UnknownNameError)}


def call_tool(
    run: Run,
    python: Path,
    line: StepLine,
    function: str,
    arguments: Mapping[str, Any],
    flags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Call ``function`` with ``arguments`` in another Python; its result.

    Args:
        run: runs the program.
        python: of the environment with the packages.
        line: shows notes, and what the function prints.
        function: ``MODULE:FUNCTION``; takes the arguments and ``tell``, which passes a note on.
        arguments: by name; JSON's types.
        flags: what its sentences shall call a flag of the tool: name there -> name that the user knows.

    Raises:
        UserError: the function raised one; the same sentence, kind and flags.
        TritError: likewise.
        CommandError: it ended in another way.
    """

    def show(text: str) -> None:
        if note := _note(text):
            line.note(note)
        else:
            line.update(text.strip()[:_SHOWN])

    request = json.dumps({"function": function, "arguments": arguments, "flags": flags or {}})
    with tempfile.TemporaryDirectory(prefix="trit-tool-") as folder:
        answer_file = Path(folder) / "answer.json"
        try:
            run([python, "-m", "trit.base.child", request, answer_file], show)
        except CommandError as error:
            answer = _read(answer_file)
            if "error" not in answer:
                raise
            usual = UserError if error.returncode == UserError.exit_code else TritError
            raise _KINDS.get(answer["kind"], usual)(answer["error"], flags=answer["flags"]) from error
        result: dict[str, Any] = _read(answer_file)["result"]
        return result


def _note(text: str) -> str | None:
    if not text.startswith('{"note"'):
        return None
    note: str = json.loads(text)["note"]
    return note


def _read(path: Path) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return answer
