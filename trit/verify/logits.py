# SPDX-License-Identifier: MIT
"""Log-probabilities of the engine against the reference's, over a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trit.engine.logprobs import divergences, same_likeliest
from trit.verify import engine
from trit.verify.reference import Reference
from trit.verify.report import Check, judged, left_out
from trit.verify.weights import GgufFile

Floats = npt.NDArray[np.float64]

# The engine may be this many times as far from the float64 reference as the reference in float32 is.
NOISE_FACTOR = 4.0
# llama-perplexity's file holds log-probabilities in 16 bits, steps of up to 2.4e-4.
_FLOOR = 2e-6
# Differences to the largest log-probability that llama-perplexity's file can hold.
_LOWEST = 16.0
# Share of positions whose best two candidates may be too close to call.
_TIES = 0.02


@dataclass(frozen=True)
class Distance:
    """How far log-probabilities are from the reference's.

    Attributes:
        divergence: Kullback-Leibler divergence at each position.
        agreement: Share of positions with the same likeliest token.
        text: log p of each token of the text.
    """

    divergence: Floats
    agreement: float
    text: Floats

    @property
    def perplexity(self) -> float:
        """Of the text."""
        return float(np.exp(-self.text.mean()))


def distance(wanted: Floats, found: Floats, following: npt.NDArray[np.int64]) -> Distance:
    """Compare log-probabilities [chunks, positions, vocabulary]; ``following`` [chunks, positions]: the next tokens."""
    divergence, agreement = divergences(wanted, found), float(same_likeliest(wanted, found).mean())
    text = np.take_along_axis(found, following[..., None], axis=-1)[..., 0]
    # llama-perplexity stores no log-probability further below the largest, so neither counts here.
    text = np.maximum(text, found.max(axis=-1) - _LOWEST)
    return Distance(divergence, agreement, text)


def check_logits(
    reference: Reference, file: GgufFile, text: Path, folder: Path, context: int, chunks: int
) -> list[Check]:
    """KL divergence, agreement on the likeliest token, and perplexity over the first chunks of a text."""
    if not reference.has_head:
        return [left_out("logits", "an embedding model has no head")]
    saved = engine.logprobs(file.path, text, folder, context, chunks)
    tokens = saved.tokens.astype(np.int64)
    inputs = tokens.copy()
    if file.adds_bos():
        inputs[:, 0] = file.field("tokenizer.ggml.bos_token_id")  # as llama-perplexity does to every chunk
    places = slice(context // 2, -1)
    following = tokens[:, context // 2 + 1 :]
    wanted = reference.logprobs(inputs, places)
    own = distance(wanted, wanted, following)
    got = distance(wanted, saved.logprobs, following)
    with reference.in_float32():
        noise = distance(wanted, reference.logprobs(inputs, places), following)
    with reference.without_rounding():
        plain = distance(wanted, reference.logprobs(inputs, places), following)
    return _judge(own, got, noise, plain, wanted.shape[-1])


def _judge(own: Distance, got: Distance, noise: Distance, plain: Distance, vocabulary: int) -> list[Check]:
    mean, most = float(got.divergence.mean()), float(got.divergence.max())
    middle = float(np.median(got.divergence))
    mean_bound = _FLOOR + NOISE_FACTOR * float(noise.divergence.mean())
    middle_bound = _FLOOR + NOISE_FACTOR * float(np.quantile(noise.divergence, 0.75))
    agreement_bound = 1 - NOISE_FACTOR * (1 - noise.agreement) - _TIES
    drift = abs(float((got.text - own.text).mean()))
    drift_bound = NOISE_FACTOR * float(np.abs(noise.text - own.text).mean()) + 1e-3
    perplexity = f"engine {got.perplexity:.4f}, reference {own.perplexity:.4f}"
    # As for the bundled model, which has learned to predict answers, not the stories in front of them.
    if own.perplexity > vocabulary:
        perplexity = (
            f"logarithms {drift:.1e} apart; no number, because the model does not predict this text: by chance among "
            f"its {vocabulary:,} tokens it would be likelier"
        )
    return [
        judged(
            "KL divergence",
            bool(mean <= mean_bound and middle <= middle_bound),
            f"mean {mean:.1e}, median {middle:.1e}, largest {most:.1e} over {got.divergence.size} positions; leaving "
            f"out the rounding to int8 would be {plain.divergence.mean():.1e}",
            f"mean at most {mean_bound:.1e}, median {middle_bound:.1e}",
            mean=mean, median=middle, largest=most, mean_bound=mean_bound, median_bound=middle_bound,
            float32_mean=float(noise.divergence.mean()), without_rounding_mean=float(plain.divergence.mean()),
        ),
        judged(
            "top token",
            got.agreement >= agreement_bound,
            f"the same at {got.agreement:.1%} of the positions",
            f"at least {agreement_bound:.1%}",
            agreement=got.agreement, bound=agreement_bound, float32=noise.agreement,
        ),
        judged(
            "perplexity",
            bool(drift <= drift_bound),
            perplexity,
            f"logarithms at most {drift_bound:.1e} apart",
            engine=got.perplexity, reference=own.perplexity, apart=drift, bound=float(drift_bound),
        ),
    ]  # fmt: skip
