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
from trit.verify import noise
from trit.verify.reference import MORE_RUNS, Reference
from trit.verify.report import PASSED, Check, judged, left_out
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

    runs = [vectors(), *reference.runs(vectors)]
    with reference.without_rounding():
        plain = _distances(vectors(), runs[0])
    with Server(file.path, threads, ("--embedding", *PRECISE), slots=1) as server:
        answer = server.post("/v1/embeddings", {"input": list(SENTENCES)})
    found = np.array([row["embedding"] for row in answer["data"]], dtype=np.float64)
    length = float(np.abs(np.linalg.norm(found, axis=-1) - 1).max())
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    error, others = noise.nearest(noise.all_distances([*runs, found], _distances))
    check = _judge(error, others, plain, length, pooling)
    if check.status == PASSED:
        return check
    more = reference.runs(lambda: _distances(found, vectors()), MORE_RUNS)
    return _judge(np.min([error, *more], axis=0), others, plain, length, pooling)


def _distances(found: Floats, wanted: Floats) -> Floats:
    """1 - cosine of each pair of vectors of length 1."""
    return np.asarray(1 - (found * wanted).sum(axis=-1))


def _judge(error: Floats, others: Floats, plain: Floats, length: float, pooling: str) -> Check:
    found = noise.judge(error, others, plain, NOISE_FACTOR, FLOOR)
    return judged(
        "embeddings",
        found.passed and length < 1e-4,
        f"{error.size} texts, {pooling} pooling: 1 - cosine {found.measured}, lengths within {length:.0e} of 1; "
        f"leaving out the rounding to int8 would be {float(np.median(plain)):.1e}",
        found.bounds,
        median=found.shares[-1], largest=found.largest, pooling=pooling, **found.values(),
    )  # fmt: skip
