# SPDX-License-Identifier: MIT
"""Log-probabilities of the engine against the reference's, over a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trit.verify import engine, noise
from trit.verify.reference import MORE_RUNS, Reference
from trit.verify.report import PASSED, Check, judged, left_out
from trit.verify.weights import GgufFile

Floats = npt.NDArray[np.float64]

# The engine may be this many times as far from the nearest run as runs are from each other.
NOISE_FACTOR = 4.0
# Differences to the largest log-probability that llama-perplexity's file can hold, in 16 bits.
_LOWEST = 16.0
_STEP = _LOWEST / (2**16 - 1)
# Errors e of log p are a divergence of half their variance, a uniform step's is its square by 12.
_FLOOR = NOISE_FACTOR * _STEP**2 / 24
# Share of positions whose best two candidates may be too close to call.
_TIES = 0.02


@dataclass(frozen=True)
class Comparison:
    """Log-probabilities of the reference, its runs and, last, the engine (n in all), at the positions of a text.

    Attributes:
        divergence: Kullback-Leibler divergence from each to each [n, n, positions], in nats.
        likeliest: The token that is the likeliest to each [n, positions].
        text: log p of each token of the text [n, positions].
        plain: Divergence of the reference without rounding to int8 from the reference [positions].
        more: The engine's smallest divergence from further runs [positions], infinite where there were none.
    """

    divergence: Floats
    likeliest: npt.NDArray[np.int64]
    text: Floats
    plain: Floats
    more: Floats

    @classmethod
    def of(cls, states: Sequence[Floats], plain: Floats, following: npt.NDArray[np.int64]) -> Comparison:
        """Compare log-probabilities, each [positions, vocabulary]; ``following`` [positions]: the next tokens."""
        stored = [_as_stored(state) for state in states]
        return cls(
            divergences(stored),
            np.stack([state.argmax(axis=-1) for state in stored]),
            np.stack([np.take_along_axis(state, following[:, None], axis=-1)[:, 0] for state in stored]),
            divergences([stored[0], _as_stored(plain)])[0, 1],
            np.full(len(following), np.inf),
        )

    @classmethod
    def joined(cls, parts: Sequence[Comparison]) -> Comparison:
        """The comparison over the positions of all parts."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names))

    def agreement(self, number: int) -> float:
        """Share of positions where one of the n finds the same token likeliest as the reference."""
        return float((self.likeliest[number] == self.likeliest[0]).mean())

    def perplexity(self, number: int) -> float:
        """Of the text, by one of the n."""
        return float(np.exp(-self.text[number].mean()))


def _as_stored(state: Floats) -> Floats:
    """With nothing further below the largest than llama-perplexity's file can say: neither side counts there."""
    return np.asarray(np.maximum(state, state.max(axis=-1, keepdims=True) - _LOWEST))


def divergences(states: Sequence[Floats]) -> Floats:
    """Kullback-Leibler divergence [n, n, positions] from each to each of n [positions, vocabulary], in nats.

    It is sum p log(p / q) - p + q, which is 0 or more though sums of p and q be not quite 1, as those of 16 bits are.
    """
    found = []
    for place in range(len(states[0])):
        logs = np.stack([state[place] for state in states])
        shares = np.exp(logs)
        own = (shares * logs).sum(axis=-1) - shares.sum(axis=-1)
        found.append(own[:, None] - shares @ logs.T + shares.sum(axis=-1))
    return np.stack(found, axis=-1)


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

    def logprobs(number: int) -> Floats:
        return np.asarray(reference.logprobs(inputs[number : number + 1], places)[0])

    # One chunk at a time: the runs of all would need gigabytes.
    def compared(number: int) -> Comparison:
        runs = [logprobs(number), *reference.runs(lambda: logprobs(number))]
        with reference.without_rounding():
            plain = logprobs(number)
        return Comparison.of([*runs, saved.logprobs[number]], plain, tokens[number, context // 2 + 1 :])

    def compared_with_more(number: int) -> Floats:
        found = _as_stored(saved.logprobs[number])
        more = reference.runs(lambda: divergences([_as_stored(logprobs(number)), found])[0, 1], MORE_RUNS)
        return np.asarray(np.min(more, axis=0))

    found = Comparison.joined([compared(number) for number in range(len(tokens))])
    checks = judge(found, saved.logprobs.shape[-1])
    if checks[0].status == PASSED:
        return checks
    more = np.concatenate([compared_with_more(number) for number in range(len(tokens))])
    return judge(replace(found, more=more), saved.logprobs.shape[-1])


def judge(found: Comparison, vocabulary: int) -> list[Check]:
    """The checks of a comparison."""
    runs, last = slice(1, -1), len(found.text) - 1
    straight, float32 = found.divergence[0, -1], found.divergence[0, runs]
    error, others = noise.nearest(found.divergence)
    near = noise.judge(np.minimum(error, found.more), others, found.plain, NOISE_FACTOR, _FLOOR)
    agreement, worst = found.agreement(last), min(found.agreement(number) for number in range(1, last))
    agreement_bound = 1 - NOISE_FACTOR * (1 - worst) - _TIES
    drift = abs(float((found.text[-1] - found.text[0]).mean()))
    drift_bound = NOISE_FACTOR * float(np.abs(found.text[runs] - found.text[0]).mean()) + 1e-3
    perplexity = f"engine {found.perplexity(last):.4f}, reference {found.perplexity(0):.4f}"
    # As for the bundled model, which has learned to predict answers, not the stories in front of them.
    if found.perplexity(0) > vocabulary:
        perplexity = (
            f"logarithms {drift:.1e} apart; no number, because the model does not predict this text: by chance among "
            f"its {vocabulary:,} tokens it would be likelier"
        )
    return [
        judged(
            "KL divergence",
            near.passed,
            f"{straight.size} positions, from the nearest run: {near.measured}; mean from the reference "
            f"{straight.mean():.1e}, leaving out the rounding to int8 it would be {found.plain.mean():.1e}",
            near.bounds,
            mean=float(straight.mean()), median=float(np.median(straight)), largest=float(straight.max()),
            nearest=near.shares, nearest_largest=near.largest, float32_mean=float(float32.mean()),
            without_rounding_mean=float(found.plain.mean()), **near.values(),
        ),
        judged(
            "top token",
            agreement >= agreement_bound,
            f"the same at {agreement:.1%} of the positions",
            f"at least {agreement_bound:.1%}",
            agreement=agreement, bound=agreement_bound, float32=worst,
        ),
        judged(
            "perplexity",
            bool(drift <= drift_bound),
            perplexity,
            f"logarithms at most {drift_bound:.1e} apart",
            engine=found.perplexity(last), reference=found.perplexity(0), apart=drift, bound=float(drift_bound),
        ),
    ]  # fmt: skip
