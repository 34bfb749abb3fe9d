# SPDX-License-Identifier: MIT
"""What the engine makes of texts and conversations with a file's vocabulary: asked of ``trit-vocabulary``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.base.places import ENGINE_BIN, engine_binary
from trit.base.processes import telling_lines
from trit.engine import confinement

PROGRAM = "trit-vocabulary"
# Loading a vocabulary of 128,256 tokens and 1000 texts take about a second; a chat template may never end.
LONGEST_S = 30.0
# ggml starts a debugger when it aborts, whose words come on standard output.
QUIET = {**os.environ, "GGML_NO_BACKTRACE": "1"}


@dataclass(frozen=True)
class Answers:
    """What the engine says of a vocabulary.

    Attributes:
        tokens: How many tokens there are.
        stops: Ids that end a generation.
        values: An answer to each order, in their order: token ids of a text, {"prompt": ...} or {"error": ...} of a
            conversation; fewer than orders if the program ended before.
        ended: Why it ended before, for people; None if it did not.
    """

    tokens: int
    stops: set[int]
    values: list[Any]
    ended: str | None


def text(words: str, special: bool = False) -> Any:
    """The order for a text's token ids; ``special``: with what the vocabulary puts in front and behind."""
    return [words] if special else words


def conversation(*messages: tuple[str, str]) -> Any:
    """The order for the prompt that the chat template makes of (role, content) pairs."""
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def ask(path: Path, orders: Sequence[Any], bin_dir: Path = ENGINE_BIN, timeout_s: float = LONGEST_S) -> Answers:
    """Load the vocabulary of a GGUF file, which needs no weights, and carry out orders.

    Raises:
        UserError: the engine is not built, or does not load the file; with its reason.
    """
    command = [str(engine_binary(PROGRAM, bin_dir)), str(path)]
    said = "".join(f"{json.dumps(order)}\n" for order in orders).encode("ascii")
    ended = None
    sandbox = confinement.of_tool(command, read=[path])
    enter = sandbox.enter if sandbox else None
    try:
        result = subprocess.run(
            command, input=said, capture_output=True, timeout=timeout_s, check=False, env=QUIET, preexec_fn=enter
        )
        out, err = result.stdout, result.stderr
        if result.returncode:
            lines = telling_lines(err.decode("utf-8", "replace").split("\n"), 1) or [""]
            ended = lines[-1].strip() or _end(result.returncode)
    except subprocess.TimeoutExpired as error:
        out, ended = error.stdout or b"", f"no end within {timeout_s:.0f} s"
    lines_out = out.decode("ascii").split("\n")[:-1]  # the last line is empty, or was cut
    if not lines_out:
        raise UserError(f"the engine does not load this vocabulary ({ended})")
    head, *values = [json.loads(line) for line in lines_out]
    return Answers(head["tokens"], set(head["stops"]), values, ended)


def _end(code: int) -> str:
    """How a program ended that said nothing."""
    return f"it ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
