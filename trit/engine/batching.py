# SPDX-License-Identifier: MIT
"""How many tokens a step of a server has. Standard library only.

A step computes the next token of every slot that answers, and a piece of a prompt that waits. The larger the step, the
longer everybody's next token takes; so its size follows from how fast this machine computes prompts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from trit.base.errors import TritError
from trit.base.places import ENGINE_BIN, engine_binary
from trit.engine.program import json_lines
from trit.gguf.encoding_table import BY_NUMBER
from trit.gguf.header import RawHeader
from trit.gguf.parts import read_parts
from trit.gguf.validate import embeds

# Of a step with a piece of a prompt; people see 200 ms, and attention to long contexts is not in the estimate, nor are
# the heads of those that answer.
STEP_SECONDS = 0.12
# Of a prompt's time that its ternary products take; stock types are so much slower.
_PRODUCTS, _STOCK = 0.8, 5
_BY_EIGHTS = 8
_UNKNOWN_STEP = 16  # where nothing was measured
# A step without answers: about a second. Fewer tokens are slower on some CPUs, more are no faster on any.
_ALONE, _LEAST_BATCH, _MOST_BATCH = 8, 128, 512
_GUESSES = 8  # of --draft ngram: the engine fails on guesses that are not in one step
# Of the product that is measured; the rate hardly depends on its shape.
_TOKENS, _SIDE, _MEGABYTES = 32, 2560, 2
_PROGRAM = "trit-bench"

_LAYOUT_FLAGS = {"-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified", "--kv-unified-per-slot"}
# With these a whole text, or a whole image, has to fit into one step.
_WHOLE_FLAGS = {"--embedding", "--embeddings", "--rerank", "--reranking", "--pooling", "-mm", "--mmproj"}
_BATCH_FLAGS = {"-b", "--batch-size", "-ub", "--ubatch-size"}
_STEP_VARIABLE = "TRIT_STEP"
_BATCH_VARIABLES = {"LLAMA_ARG_BATCH", "LLAMA_ARG_UBATCH"}


@dataclass(frozen=True)
class Batching:
    """What a server is started with.

    Attributes:
        step: Tokens of a step in which others are answered: what answers need, and a piece of a prompt.
        batch: Tokens of a step in which nobody is; None: as the engine has it.
        unified: All slots share one cache, because a flag of the engine says so.
    """

    step: int
    batch: int | None
    unified: bool = False

    @property
    def flags(self) -> list[str]:
        """The engine's."""
        # A cache for each slot: what it holds stays in the order of the text, so that sums have the same bits
        # whoever else is answered; and nobody takes another one's room.
        words = [] if self.unified else ["--no-kv-unified"]
        return words if self.batch is None else [*words, "-b", str(self.batch), "-ub", str(self.batch)]

    @property
    def environment(self) -> dict[str, str]:
        """The engine's variables, which win over nothing that is set already."""
        return {_STEP_VARIABLE: os.environ.get(_STEP_VARIABLE) or str(self.step)}


def choose(
    model: Path, slots: int, rate: float | None, *, guesses: bool = False, engine_flags: Sequence[str] = ()
) -> Batching:
    """The batching of a model.

    Args:
        model: GGUF file, or the first of several.
        slots: requests that are answered at a time.
        rate: of :func:`multiply_rate`.
        guesses: tokens are guessed (``--draft ngram``).
        engine_flags: what goes to the engine besides; it wins.

    Raises:
        UserError: the file is damaged.
    """
    headers = [header for _, header in read_parts(model, arrays=False)]
    flags = {word.partition("=")[0] for word in engine_flags}
    step = _step(token_seconds(headers, rate))
    batch = None
    if not (flags & (_BATCH_FLAGS | _WHOLE_FLAGS) or _BATCH_VARIABLES & os.environ.keys() or embeds(headers[0])):
        # Who comes while a prompt is computed waits for one of these.
        batch = max(
            min(_ALONE * step, _MOST_BATCH), _LEAST_BATCH, slots * (1 + _GUESSES if guesses else 1) + _BY_EIGHTS
        )
    return Batching(step, batch, bool(flags & _LAYOUT_FLAGS))


def _step(token_seconds: float | None) -> int:
    """Tokens of ``STEP_SECONDS``, by eights: kernels are made for so many."""
    if token_seconds is None:
        return _UNKNOWN_STEP
    return max(_BY_EIGHTS, min(_MOST_BATCH, _BY_EIGHTS * round(STEP_SECONDS / _BY_EIGHTS / max(token_seconds, 1e-9))))


def token_seconds(headers: Sequence[RawHeader], rate: float | None) -> float | None:
    """About what a token of a prompt takes.

    Args:
        headers: of a model's files.
        rate: ternary multiply-accumulates per second; None: unknown, and so is the time.
    """
    if rate is None:
        return None
    architecture = headers[0].metadata.get("general.architecture")
    experts, used = (headers[0].metadata.get(f"{architecture}.{key}") for key in ("expert_count", "expert_used_count"))
    work = 0.0
    for tensor in (tensor for header in headers for tensor in header.tensors.values()):
        if not tensor.name.startswith("blk.") or len(tensor.shape) < 2:
            continue  # the embedding is looked up, and the head has one token of a prompt
        share = used / experts if experts and used and len(tensor.shape) == 3 else 1
        work += share * math.prod(tensor.shape) * (1 if tensor.ggml_type in BY_NUMBER else _STOCK)
    return work / rate / _PRODUCTS


def multiply_rate(threads: int, bin_dir: Path = ENGINE_BIN) -> float | None:
    """Multiply-accumulates per second of a ternary product with some tokens, now; takes about 0.1 s.

    None where the program is missing, or the machine is too busy to say.
    """
    try:
        command: list[str | Path] = [
            engine_binary(_PROGRAM, bin_dir),
            "--shapes",
            f"{_SIDE}x{_SIDE}",
            "--m",
            str(_TOKENS),
        ]
        command += ["--threads", str(threads), "--packings", "2_bits", "--repetitions", "3", "--milliseconds", "4"]
        command += ["--megabytes", str(_MEGABYTES), "--limit-seconds", "0.001"]
        lines = json_lines(command, "measuring how fast prompts are computed")
        times = [time for line in lines if line["kind"] == "product" for time in line["seconds"]]
        return _TOKENS * _SIDE * _SIDE / median(times) if times else None
    except TritError:
        return None  # a server starts without it, too
