# SPDX-License-Identifier: MIT
"""What the compiled engine says about a file: tokens, log-probabilities, hidden states, chat prompts."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utils.cli import TritError, telling_lines
from utils.engine_server import Server
from utils.host import ENGINE_BIN, engine_binary

Floats = npt.NDArray[np.float64]
# Keys and values of attention in float32, no flash attention: what is measured is the linear layers' arithmetic.
PRECISE = ("-ctk", "f32", "-ctv", "f32", "-fa", "off")
_MINUTES = 60
_HEADER_BYTES = 20


@dataclass(frozen=True)
class SavedLogprobs:
    """What llama-perplexity saved.

    Attributes:
        tokens: int32 [chunks, context].
        logprobs: float64 [chunks, positions, vocabulary]; the positions are context / 2 ... context - 2 of each chunk.
    """

    tokens: npt.NDArray[np.int32]
    logprobs: Floats


def read_logprobs(path: Path) -> SavedLogprobs:
    """Parse the file of ``--save-all-logits`` (perplexity.cpp): per position float32 scale and minimum, then uint16."""
    raw = path.read_bytes()
    if raw[:8] != b"_logits_":
        raise TritError(f"{path}: is no file of llama-perplexity's --save-all-logits; a bug here or another engine")
    context, vocab, chunks = (int(number) for number in np.frombuffer(raw, "<i4", 3, 8))
    tokens = np.frombuffer(raw, "<i4", chunks * context, _HEADER_BYTES).reshape(chunks, context)
    row = 2 * ((vocab + 1) // 2) + 4
    words = np.frombuffer(raw, "<u2", offset=_HEADER_BYTES + 4 * tokens.size).reshape(chunks, -1, row)
    scale, minimum = (np.ascontiguousarray(words[..., i : i + 2]).view("<f4") for i in (0, 2))
    return SavedLogprobs(tokens, scale.astype(np.float64) * words[..., 4 : 4 + vocab] + minimum)


def logprobs(
    gguf: Path,
    text: Path,
    folder: Path,
    context: int,
    chunks: int,
    *,
    flags: Sequence[str] = (),
    bin_dir: Path = ENGINE_BIN,
) -> SavedLogprobs:
    """Run llama-perplexity, with more flags if there are, over the first ``chunks`` pieces of ``context`` tokens.

    Raises:
        TritError: it failed; says its last words.
    """
    saved = folder / "logprobs.bin"
    command = [engine_binary("llama-perplexity", bin_dir), "-m", gguf, "-f", text, "--save-all-logits", saved, *PRECISE]
    command += ["-c", context, "-b", context, "--chunks", chunks, *flags]
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=60 * _MINUTES, check=False)
    # Of a text that is too short it writes no more than the beginning of a file, and calls that success.
    if done.returncode != 0 or not saved.is_file() or saved.stat().st_size <= _HEADER_BYTES:
        lines = telling_lines(done.stderr.decode("utf-8", "replace").splitlines(), 3)
        raise TritError(f"llama-perplexity failed on {gguf}: {' | '.join(lines)}")
    try:
        return read_logprobs(saved)
    finally:
        saved.unlink()


def hidden_server(gguf: Path, threads: int, context: int) -> Server:
    """A server that answers with hidden states, tokens and chat prompts."""
    flags = (
        "--embedding",
        "--pooling",
        "none",
        "--no-prefill-assistant",
        "-b",
        str(context),
        "-ub",
        str(context),
        *PRECISE,
    )
    return Server(gguf, threads, flags, slots=1, context=context)


def hidden(server: Server, sequences: Sequence[Sequence[int]]) -> list[Floats]:
    """Last hidden states of each sequence of tokens, after the last norm: [length, hidden]."""
    answers = [server.post("/embedding", {"content": [int(token) for token in row]}) for row in sequences]
    return [np.array(answer[0]["embedding"], dtype=np.float64) for answer in answers]


def tokenize(server: Server, text: str, special: bool) -> list[int]:
    """Tokens of a text; control tokens that are spelled out in it count as such, as in the tokenizers package."""
    answer: dict[str, Any] = server.post("/tokenize", {"content": text, "add_special": special, "parse_special": True})
    return [int(token) for token in answer["tokens"]]
