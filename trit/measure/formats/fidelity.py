# SPDX-License-Identifier: MIT
"""How far the answers of a file are from those of the f16 file, over one sequence of tokens."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt

from trit.base.errors import UserError
from trit.base.places import ENGINE_BIN, engine_binary
from trit.engine.llama_perplexity import PRECISE, Engine, TooShort
from trit.engine.logprobs import divergences, read_logprobs, same_likeliest
from trit.engine.program import LOG
from trit.measure.variants import REFERENCE, Variant

Floats = npt.NDArray[np.float64]

_LONGER = "name a longer one with --text"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Error:
    """Distance to the reference.

    Attributes:
        divergence: mean Kullback-Leibler divergence of the distributions of the next token, nats.
        agreement: share of positions with the same likeliest token.
        logits: root mean square of the differences of logits, divided by that of the reference's logits, both without
            their mean at each position (a constant that is added to all logits means nothing).
        positions: that these are means over.
        digest: of the log-probabilities themselves: two files with the same one answer the same, bit for bit.
    """

    divergence: float
    agreement: float
    logits: float
    positions: int
    digest: str


def random_text(words: int, seed: int = 0) -> str:
    """Words of random letters, the same every time: what a model of random weights makes of it is as good as any."""
    random = Random(seed)
    return " ".join("".join(random.choices(_LETTERS, k=random.randint(2, 8))) for _ in range(words))


def _centred(values: Floats) -> Floats:
    return np.asarray(values - values.mean(axis=-1, keepdims=True))


def compare(wanted: Floats, found: Floats) -> Error:
    """Log-probabilities [chunks, positions, vocabulary] against the reference's."""
    divergence, agreement = divergences(wanted, found), float(same_likeliest(wanted, found).mean())
    centred = _centred(wanted)
    off = np.sqrt(np.square(_centred(found) - centred).mean() / np.square(centred).mean())
    digest = hashlib.sha256(found.data).hexdigest()[:16]
    return Error(float(divergence.mean()), agreement, float(off), divergence.size, digest)


def measure(
    files: Mapping[Variant, Path], text: Path, context: int, chunks: int, threads: int, bin_dir: Path = ENGINE_BIN
) -> dict[Variant, Error]:
    """Run every file over the first ``chunks`` pieces of a text, ``context`` tokens each; their second halves count.

    Raises:
        UserError: the text is too short.
        TritError: the engine failed.
    """
    wanted: Floats | None = None
    errors: dict[Variant, Error] = {}
    # The reference first; only two sets of log-probabilities (1 MB a position for 128,256 tokens) are held at once.
    for variant in sorted(files, key=lambda variant: variant != Variant(REFERENCE)):
        print(f"error against {REFERENCE}: {variant.name}", file=sys.stderr)
        flags = (*PRECISE, *(() if variant.packed else ("--no-repack",)))
        engine = Engine(threads, LOG, engine_binary("llama-perplexity", bin_dir), flags)
        with tempfile.TemporaryDirectory(prefix="trit-compare-") as folder:
            saved = Path(folder) / "logprobs.bin"
            try:
                engine.perplexity(files[variant], text, context, chunks, saved)
            except TooShort as error:
                raise UserError(
                    f"the text has {error.tokens} tokens, two pieces of --context {context} need more; {_LONGER}"
                ) from error
            found = read_logprobs(saved).logprobs
        if len(found) < chunks:
            raise UserError(f"the text has {len(found)} pieces of {context} tokens, not --chunks {chunks}; {_LONGER}")
        if wanted is None:
            wanted = found
        errors[variant] = compare(wanted, found)
    return errors
