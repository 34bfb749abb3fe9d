# SPDX-License-Identifier: MIT
"""Statistics over the parts of a text that a model was made to predict: what follows a mark, to the end of its line.

Marks are found in the bytes that the tokens of the file's vocabulary stand for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trit.base.errors import TritError, UserError
from trit.engine.logprobs import LogprobsFile, counted_positions, same_likeliest
from trit.engine.perplexity_output import Measured
from trit.gguf.types import GgufHeader

Floats = npt.NDArray[np.float64]
# Values of tokenizer.ggml.token_type (llama.h); the others are ordinary words.
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6
_SPM_SPACE = "\u2581"
_SPM_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# llama-perplexity leaves less likely tokens out of the divergence, since its file ends there.
_LOWEST = -16.0


@dataclass(frozen=True)
class Passages:
    """What was counted behind the marks.

    Attributes:
        counted: Tokens.
        perplexity: Of the model.
        right: Share of tokens, 0 to 1, that are the model's likeliest.
        log_ratio: ln(perplexity / the reference's); None without one.
        kl: Mean Kullback-Leibler divergence from the reference; None without one.
        same_top: Share of tokens, 0 to 1, at which both find the same token the likeliest; None without a reference.
    """

    counted: int
    perplexity: Measured
    right: Measured
    log_ratio: Measured | None
    kl: Measured | None
    same_top: Measured | None


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones of Latin-1 stand for themselves, the others for 256, 257, ..."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def token_bytes(header: GgufHeader, path: Path) -> list[bytes]:
    """What each token adds to a text; control tokens add nothing.

    Raises:
        UserError: the vocabulary is of a kind whose tokens are not known here.
    """
    kind = header.metadata.get("tokenizer.ggml.model")
    tokens: list[str] = header.metadata["tokenizer.ggml.tokens"]
    types: Sequence[int] = header.metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    if kind not in ("gpt2", "llama"):
        raise UserError(
            f"{path}: has a vocabulary of kind {kind}, whose tokens cannot be found in a text; leave --after"
        )
    letters = _byte_letters()
    made = []
    for token, type_ in zip(tokens, types, strict=True):
        if type_ == _CONTROL:
            made.append(b"")
        elif kind == "gpt2":
            plain = type_ == _USER_DEFINED or any(letter not in letters for letter in token)
            made.append(token.encode() if plain else bytes(letters[letter] for letter in token))
        elif type_ == _BYTE and (byte := _SPM_BYTE.fullmatch(token)):
            made.append(bytes([int(byte[1], 16)]))
        else:
            made.append(token.replace(_SPM_SPACE, " ").encode())
    return made


def behind_mark(tokens: Sequence[int], pieces: Sequence[bytes], mark: bytes) -> npt.NDArray[np.bool_]:
    """For each token of a piece of text, whether all of it lies between a mark and the end of the mark's line."""
    ends = np.cumsum([len(pieces[token]) for token in tokens])
    starts = np.concatenate([[0], ends[:-1]])
    text = b"".join(pieces[token] for token in tokens)
    inside = np.zeros(len(tokens), dtype=bool)
    place = text.find(mark)
    while place >= 0:
        start = place + len(mark)
        stop = text.find(b"\n", start)
        stop = len(text) if stop < 0 else stop
        # A control token has no bytes and is no part of the text.
        inside |= (starts >= start) & (ends <= stop) & (ends > starts)
        place = text.find(mark, start)
    return inside


def measure(found: LogprobsFile, reference: LogprobsFile | None, pieces: Sequence[bytes], mark: str) -> Passages:
    """Perplexity and agreement behind the marks.

    Raises:
        UserError: no or a single counted token is behind a mark.
        TritError: the two files are of different texts.
    """
    if reference and not np.array_equal(found.tokens, reference.tokens):
        raise TritError(f"{found.path} and {reference.path}: hold different tokens; a bug here")
    first = found.context - counted_positions(found.context)  # of the tokens that are predicted
    losses, rights, ratios, divergences, agreements = [], [], [], [], []
    for number, tokens in enumerate(found.tokens):
        places = np.flatnonzero(behind_mark(tokens, pieces, mark.encode())[first:])
        if not places.size:
            continue
        ours, wanted = found.chunk(number, places), tokens[first + places]
        rows = np.arange(len(places))
        losses.append(-ours[rows, wanted])
        rights.append(ours.argmax(axis=-1) == wanted)
        if reference:
            theirs = reference.chunk(number, places)
            ratios.append(theirs[rows, wanted] - ours[rows, wanted])
            divergences.append(_divergence(theirs, ours))
            agreements.append(same_likeliest(theirs, ours))
    counted = sum(map(len, losses))
    if counted < 2:
        raise UserError(
            f"--after {mark!r}: {counted} of the counted tokens follow it; name another mark or a longer text"
        )
    loss = _mean(losses)
    value = float(np.exp(loss.value))
    return Passages(
        counted,
        Measured(value, value * loss.error),
        _mean(rights),
        _mean(ratios) if reference else None,
        _mean(divergences) if reference else None,
        _mean(agreements) if reference else None,
    )


def _divergence(reference: Floats, found: Floats) -> Floats:
    """Per position, over the tokens that llama-perplexity counts."""
    terms = np.exp(reference) * (reference - found)
    return np.asarray(np.where(reference > _LOWEST, terms, 0.0).sum(axis=-1))


def _mean(parts: Sequence[npt.NDArray[np.generic]]) -> Measured:
    values = np.concatenate(parts).astype(np.float64)
    return Measured(float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size)))
