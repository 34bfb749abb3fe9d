# SPDX-License-Identifier: MIT
"""What the compiled engine says about a file: tokens, log-probabilities, hidden states, chat prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trit.engine.llama_perplexity import PRECISE, Engine
from trit.engine.logprobs import SavedLogprobs, read_logprobs
from trit.engine.server import Server

Floats = npt.NDArray[np.float64]


def logprobs(gguf: Path, text: Path, folder: Path, context: int, chunks: int) -> SavedLogprobs:
    """Log-probabilities over the first ``chunks`` pieces of ``context`` tokens of a text.

    Raises:
        UserError: the text is too short.
        TritError: llama-perplexity failed; says its last words.
    """
    saved = folder / "logprobs.bin"
    Engine(None, folder / "llama-perplexity.log", flags=PRECISE).perplexity(gguf, text, context, chunks, saved)
    try:
        return read_logprobs(saved)
    finally:
        saved.unlink()


def hidden_server(gguf: Path, threads: int, context: int) -> Server:
    """A server that answers with hidden states, tokens and chat prompts."""
    batch = str(context)
    flags = ("--embedding", "--pooling", "none", "--no-prefill-assistant", "-b", batch, "-ub", batch, *PRECISE)
    return Server(gguf, threads, flags, slots=1, context=context)


def hidden(server: Server, sequences: Sequence[Sequence[int]]) -> list[Floats]:
    """Last hidden states of each sequence of tokens, after the last norm: [length, hidden]."""
    answers = [server.post("/embedding", {"content": [int(token) for token in row]}) for row in sequences]
    return [np.array(answer[0]["embedding"], dtype=np.float64) for answer in answers]


def tokenize(server: Server, text: str, special: bool) -> list[int]:
    """Tokens of a text; control tokens that are spelled out in it count as such, as in the tokenizers package."""
    answer: dict[str, Any] = server.post("/tokenize", {"content": text, "add_special": special, "parse_special": True})
    return [int(token) for token in answer["tokens"]]
