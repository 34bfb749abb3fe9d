# SPDX-License-Identifier: MIT
"""The words of llama-perplexity, read strictly: a number that is not there exactly once is an error, never a guess."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trit.base.errors import TritError

_NUMBER = r"\s*(-?(?:\d+(?:\.\d+)?|nan|inf))"
# perplexity.cpp writes UTF-8; \u00b1 is plus-minus, \u0394 a capital delta.
_WITH_ERROR = _NUMBER + r"\s*(?:\u00b1|\+/-)" + _NUMBER
_ESTIMATE = re.compile(rf"Final estimate: PPL ={_WITH_ERROR}\s*$", re.MULTILINE)
_TOKENS = re.compile(r"the data file you provided tokenizes to only (\d+) tokens")
_PIECES = re.compile(r"over (\d+) chunks, n_ctx=(\d+)")
_UNEXPECTED = "Unexpected negative standard deviation"


@dataclass(frozen=True)
class Measured:
    """A number and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Divergence:
    """How far predictions are from a reference's, over the counted tokens.

    Attributes:
        perplexity: Of the model.
        reference_perplexity: Of the reference, from its saved log-probabilities.
        log_ratio: ln(perplexity / reference_perplexity); its error is 0 where the engine cannot tell it from 0.
        kl: Mean Kullback-Leibler divergence from the reference.
        kl_median: Half of the tokens have less.
        kl_99: 99 of 100 tokens have less.
        kl_max: The largest.
        same_top: Share of tokens, 0 to 1, at which both find the same token the likeliest.
    """

    perplexity: Measured
    reference_perplexity: Measured
    log_ratio: Measured
    kl: Measured
    kl_median: float
    kl_99: float
    kl_max: float
    same_top: Measured


def too_short(lines: Sequence[str]) -> int | None:
    """How many tokens a text has that is too short for the context; None if that is not what went wrong."""
    found = _TOKENS.search("\n".join(lines))
    return int(found[1]) if found else None


def pieces(lines: Sequence[str]) -> tuple[int, int]:
    """(pieces of the text, tokens of each) that the engine counted over."""
    count, context = _only(_PIECES, lines, "the number of pieces").groups()
    return int(count), int(context)


def estimate(lines: Sequence[str]) -> Measured:
    """The perplexity of a plain run.

    Raises:
        TritError: it is not there once, or is no number.
    """
    if any(_UNEXPECTED in line for line in lines):
        raise TritError(
            "llama-perplexity finds no spread among the tokens' log-probabilities; the text repeats itself or the "
            "model is broken, measure another text"
        )
    return _measured(_only(_ESTIMATE, lines, "the perplexity"), "the perplexity")


def divergence(lines: Sequence[str]) -> Divergence:
    """What a run with --kl-divergence says at its end.

    Raises:
        TritError: a number is not there once, or is none.
    """
    ratio = _only(_line("Mean ln(PPL(Q)/PPL(base))", errors=True), lines, "ln(PPL(Q)/PPL(base))")
    # The root of a variance that rounding has made negative: both sides are the same to the last digits.
    error = 0.0 if "nan" in ratio[2] else float(ratio[2])
    top = _with_error("Same top p", lines, unit=" %")
    return Divergence(
        _with_error("Mean PPL(Q)", lines),
        _with_error("Mean PPL(base)", lines),
        Measured(_finite(ratio[1], "ln(PPL(Q)/PPL(base))"), error),
        _with_error("Mean KLD", lines),
        _plain("Median KLD", lines),
        _plain("99.0% KLD", lines),
        _plain("Maximum KLD", lines),
        Measured(top.value / 100, top.error / 100),
    )


def _line(name: str, *, errors: bool, unit: str = "") -> re.Pattern[str]:
    """The line that begins with a name; one space stands for any number of them."""
    label, end = (re.escape(text).replace(r"\ ", r"\s+") for text in (name, unit))
    return re.compile(rf"^\s*{label}\s*:{_WITH_ERROR if errors else _NUMBER}{end}\s*$", re.MULTILINE)


def _with_error(name: str, lines: Sequence[str], unit: str = "") -> Measured:
    return _measured(_only(_line(name, errors=True, unit=unit), lines, name), name)


def _plain(name: str, lines: Sequence[str]) -> float:
    return _finite(_only(_line(name, errors=False), lines, name)[1], name)


def _measured(match: re.Match[str], name: str) -> Measured:
    return Measured(_finite(match[1], name), _finite(match[2], name))


def _finite(text: str, name: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise TritError(f"llama-perplexity says {text} for {name}; the model is broken or overflows")
    return number


def _only(pattern: re.Pattern[str], lines: Sequence[str], name: str) -> re.Match[str]:
    found = list(pattern.finditer("\n".join(lines)))
    if len(found) != 1:
        raise TritError(
            f"llama-perplexity's output has {name} {len(found)} times instead of once; is it another version of it?"
        )
    return found[0]
