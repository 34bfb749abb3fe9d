# SPDX-License-Identifier: MIT
"""The file of llama-perplexity's ``--save-all-logits``: log-probabilities in 16 bits, read piece by piece.

Layout (perplexity.cpp): "_logits_", int32 context, vocabulary and chunks, int32 tokens [chunks, context], then for each
counted position float32 scale and minimum and a uint16 per token of the vocabulary, padded to an even number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trit.base.errors import UserError
from trit.base.files import check_input

Floats = npt.NDArray[np.float64]
MAGIC = b"_logits_"
_HEADER_BYTES = 20


def counted_positions(context: int) -> int:
    """Tokens of a chunk that count: those behind its middle, each with at least half a context before it."""
    return context - 1 - context // 2


def row_bytes(vocabulary: int) -> int:
    """Bytes of one position in the file."""
    return 2 * (2 * ((vocabulary + 1) // 2) + 4)


@dataclass(frozen=True)
class LogprobsFile:
    """A saved file, mapped.

    Attributes:
        path: Of the file.
        tokens: int32 [chunks, context].
        vocabulary: How many tokens have a log-probability.
    """

    path: Path
    tokens: npt.NDArray[np.int32]
    vocabulary: int
    _words: npt.NDArray[np.uint16]

    @classmethod
    def open(cls, path: Path) -> LogprobsFile:
        """Read header and tokens.

        Raises:
            UserError: not such a file, or not a whole one.
        """
        check_input(path)
        with path.open("rb") as file:
            head = file.read(_HEADER_BYTES)
        if head[:8] != MAGIC or len(head) < _HEADER_BYTES:
            raise UserError(f"{path}: is no file of llama-perplexity's --save-all-logits; make one with --save-logits")
        context, vocabulary, chunks = (int(number) for number in np.frombuffer(head, "<i4", 3, 8))
        start = _HEADER_BYTES + 4 * chunks * context
        positions = counted_positions(context)
        wanted = start + chunks * positions * row_bytes(vocabulary)
        size = path.stat().st_size
        if min(context, vocabulary, chunks) < 1 or size != wanted:
            raise UserError(f"{path}: has {size} bytes, its header asks for {wanted}; make it again with --save-logits")
        tokens = np.fromfile(path, "<i4", chunks * context, offset=_HEADER_BYTES).reshape(chunks, context)
        shape = (chunks, positions, row_bytes(vocabulary) // 2)
        return cls(path, tokens, vocabulary, np.memmap(path, "<u2", "r", start, shape))

    @property
    def chunks(self) -> int:
        """Pieces of the text."""
        return len(self.tokens)

    @property
    def context(self) -> int:
        """Tokens of each piece."""
        return int(self.tokens.shape[1])

    @property
    def counted(self) -> int:
        """Tokens that have a log-probability here."""
        return self.chunks * counted_positions(self.context)

    def chunk(self, number: int, places: npt.NDArray[np.intp] | None = None) -> Floats:
        """Log-probabilities [positions, vocabulary] of one piece, at all positions or at some.

        Position i predicts token context // 2 + 1 + i.
        """
        words = self._words[number] if places is None else self._words[number, places]
        scale, minimum = (np.ascontiguousarray(words[:, i : i + 2]).view("<f4") for i in (0, 2))
        return np.asarray(scale.astype(np.float64) * words[:, 4 : 4 + self.vocabulary] + minimum)

    def clipped(self) -> float:
        """Share of the counted tokens that are less likely than the file can say (e^-16 of the likeliest)."""
        first = self.context - counted_positions(self.context)
        codes = np.take_along_axis(self._words, 4 + self.tokens[:, first:, None].astype(np.int64), axis=-1)
        return float((codes == 0).mean())


def divergences(reference: Floats, found: Floats) -> Floats:
    """Kullback-Leibler divergence from the reference of log-probabilities [..., vocabulary], in nats, [...]."""
    return np.asarray((np.exp(reference) * (reference - found)).sum(axis=-1))


def same_likeliest(reference: Floats, found: Floats) -> npt.NDArray[np.bool_]:
    """Where both find the same token the likeliest, [...]."""
    return np.asarray(reference.argmax(axis=-1) == found.argmax(axis=-1))


@dataclass(frozen=True)
class SavedLogprobs:
    """A whole file in memory.

    Attributes:
        tokens: int32 [chunks, context].
        logprobs: float64 [chunks, positions, vocabulary]; the positions are context / 2 ... context - 2 of each chunk.
    """

    tokens: npt.NDArray[np.int32]
    logprobs: Floats


def read_logprobs(path: Path) -> SavedLogprobs:
    """All of a file."""
    file = LogprobsFile.open(path)
    return SavedLogprobs(file.tokens, np.stack([file.chunk(number) for number in range(file.chunks)]))
