# SPDX-License-Identifier: MIT
"""Pooled and normalised vectors of an embedding model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from trit.base.errors import UserError
from trit.engine.llama_perplexity import PRECISE
from trit.engine.server import Server
from trit.verify.reference import Reference
from trit.verify.report import Check, judged, left_out
from trit.verify.weights import GgufFile

Floats = npt.NDArray[np.float64]

SENTENCES = (
    "Where is the red bicycle?",
    "The bicycle is in the garden, behind the house.",
    "A ternary weight is minus one, zero or plus one.",
    "Wie spaet ist es?",
    "garden",
    "red bicycle",
    "Where is Mary?",
    "Mary is in the kitchen.",
    "She sells 5 pears.",
    "def f(x): return x",
    "Quelle heure est-il ?",
    "1, 2, 3",
)
# A relative error of 1e-5, as in layers.py, is a distance of half its square.
NOISE_FACTOR, FLOOR = 4.0, 1e-10
# Key of sentence-transformers' Pooling module -> name of the pooling, and what it makes of the tokens' vectors.
POOLINGS: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
    "pooling_mode_lasttoken": ("last", lambda rows: rows[-1]),
    "pooling_mode_mean_tokens": ("mean", lambda rows: rows.mean(axis=0)),
    "pooling_mode_cls_token": ("cls", lambda rows: rows[0]),
}


def pooling_of(directory: Path) -> str:
    """Name of the pooling, by sentence-transformers' ``1_Pooling/config.json``; ``last`` where there is none."""
    path = directory / "1_Pooling" / "config.json"
    if not path.is_file():
        return "last"
    modes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key, (name, _) in POOLINGS.items():
        if modes.get(key):
            return name
    raise UserError(f"{path}: names none of the poolings that the converter takes: {', '.join(POOLINGS)}")


def _vectors(states: list[Floats], pooling: str) -> Floats:
    pool = dict(POOLINGS.values())[pooling]
    pooled = np.stack([pool(rows) for rows in states])
    return np.asarray(pooled / np.linalg.norm(pooled, axis=-1, keepdims=True))


def check_embeddings(
    reference: Reference, tokenizer: Tokenizer, directory: Path, file: GgufFile, threads: int
) -> Check:
    """1 - cosine of the engine's vectors (``/v1/embeddings``) with the reference's."""
    if not file.field(f"{file.architecture}.pooling_type"):
        return left_out("embeddings", "not an embedding model")
    pooling = pooling_of(directory)
    ids = [tokenizer.encode(sentence).ids for sentence in SENTENCES]

    def vectors() -> Floats:
        return _vectors([reference.hidden([row])[-1][0] for row in ids], pooling)

    wanted = vectors()
    with reference.in_float32():
        noise = _distances(vectors(), wanted)
    with reference.without_rounding():
        plain = _distances(vectors(), wanted)
    with Server(file.path, threads, ("--embedding", *PRECISE), slots=1) as server:
        answer = server.post("/v1/embeddings", {"input": list(SENTENCES)})
    found = np.array([row["embedding"] for row in answer["data"]], dtype=np.float64)
    length = float(np.abs(np.linalg.norm(found, axis=-1) - 1).max())
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    return _judge(_distances(found, wanted), noise, plain, length, pooling)


def _distances(found: Floats, wanted: Floats) -> Floats:
    """1 - cosine of each pair of vectors of length 1."""
    return np.asarray(1 - (found * wanted).sum(axis=-1))


def _judge(error: Floats, noise: Floats, plain: Floats, length: float, pooling: str) -> Check:
    middle, most = float(np.median(error)), float(error.max())
    bound = FLOOR + NOISE_FACTOR * float(np.quantile(noise, 0.75))
    # Behind many layers every text may have a rounding that falls otherwise: not further than without any rounding.
    most_bound = FLOOR + max(NOISE_FACTOR * float(noise.max()), float(plain.max()))
    return judged(
        "embeddings",
        middle <= bound and most <= most_bound and length < 1e-4,
        f"{error.size} texts, {pooling} pooling: 1 - cosine {middle:.1e} in the median, at most {most:.1e}, lengths "
        f"within {length:.0e} of 1; leaving out the rounding to int8 would be {float(np.median(plain)):.1e}",
        f"median at most {bound:.1e}, each at most {most_bound:.1e}",
        median=middle, largest=most, bound=bound, largest_bound=most_bound, pooling=pooling,
    )  # fmt: skip
