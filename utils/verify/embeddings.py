# SPDX-License-Identifier: MIT
"""Pooled and normalised vectors of an embedding model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from utils.cli import UserError
from utils.engine_server import Server
from utils.verify.reference import Reference
from utils.verify.report import Check, judged, left_out
from utils.verify.weights import GgufFile

Floats = npt.NDArray[np.float64]

SENTENCES = (
    "Where is the red bicycle?",
    "The bicycle is in the garden, behind the house.",
    "A ternary weight is minus one, zero or plus one.",
    "Wie spaet ist es?",
)
NOISE_FACTOR, FLOOR = 4.0, 1e-6


def pooling_of(directory: Path) -> str:
    """``last`` or ``mean``, by sentence-transformers' ``1_Pooling/config.json``; last where there is none."""
    path = directory / "1_Pooling" / "config.json"
    if not path.is_file():
        return "last"
    modes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key, name in (("pooling_mode_lasttoken", "last"), ("pooling_mode_mean_tokens", "mean")):
        if modes.get(key):
            return name
    raise UserError(f"{path}: a pooling other than last token or mean")


def _vectors(states: list[Floats], pooling: str) -> Floats:
    pooled = np.stack([rows[-1] if pooling == "last" else rows.mean(axis=0) for rows in states])
    return np.asarray(pooled / np.linalg.norm(pooled, axis=-1, keepdims=True))


def check_embeddings(
    reference: Reference, tokenizer: Tokenizer, directory: Path, file: GgufFile, threads: int
) -> Check:
    """1 - cosine of the engine's vectors (``/v1/embeddings``) with the reference's."""
    if not file.field(f"{file.architecture}.pooling_type"):
        return left_out("embeddings", "not an embedding model")
    pooling = pooling_of(directory)
    ids = [tokenizer.encode(sentence).ids for sentence in SENTENCES]
    wanted = _vectors([reference.hidden([row])[-1][0] for row in ids], pooling)
    with reference.in_float32():
        rounded = _vectors([reference.hidden([row])[-1][0] for row in ids], pooling)
    with Server(file.path, threads, ("--embedding",), slots=1) as server:
        answer = server.post("/v1/embeddings", {"input": list(SENTENCES)})
    found = np.array([row["embedding"] for row in answer["data"]], dtype=np.float64)
    worst = float((1 - (found * wanted).sum(axis=-1)).max())
    length = float(np.abs(np.linalg.norm(found, axis=-1) - 1).max())
    bound = FLOOR + NOISE_FACTOR * float((1 - (rounded * wanted).sum(axis=-1)).max())
    return judged(
        "embeddings",
        worst <= bound and length < 1e-4,
        f"{len(SENTENCES)} texts, {pooling} pooling: 1 - cosine at most {worst:.1e}, lengths within {length:.0e} of 1",
        f"at most {bound:.1e}",
        worst=worst, bound=bound, pooling=pooling,
    )  # fmt: skip
