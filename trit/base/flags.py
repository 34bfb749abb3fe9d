# SPDX-License-Identifier: MIT
"""Flags: the parser of every command, the ranges and kinds of values, what a sentence calls a flag."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from trit.base.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are one sentence.

    ``--temp`` is not ``--temperature``, and a new flag changes no old command.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})
        self._negative_number_matcher = re.compile(r"-\.?\d")  # a value, wrong or not: -5G is no flag

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        """What an unknown word may be: ``-n5`` is -n and 5, but ``-ngl`` is another program's flag, not -n and gl."""
        return [] if _LETTERS.match(option_string) else super()._get_option_tuples(option_string)

    def print_help(self, file: Any = None) -> None:
        """Print the help; argparse's own is silent where that cannot be done."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        """Raise UserError: the first name of the flag, and what is wrong with its value."""
        flag = _OF_FLAG.match(message)
        if not flag:
            raise UserError(f"{message}; what can be given: {self.prog} --help")
        rest = message[flag.end() :]
        # The kinds of values below begin with the value.
        raise UserError(f"{flag[1]}{' ' if _VALUE.match(rest) else ': '}{rest}")


_LETTERS = re.compile(r"-[A-Za-z]{2}")
# How argparse begins, and how a kind of values does.
_OF_FLAG = re.compile(r"argument ([^:/ ]+)[^: ]*: ")
_VALUE = re.compile(r"(?:[\w.,+-]+|'.*'|\".*\"): expected ", re.DOTALL)
MOST_WHOLE = (1 << 31) - 1
MOST_THREADS = 512  # GGML_MAX_N_THREADS


def _refusal(value: str, expected: str) -> argparse.ArgumentTypeError:
    shown = value if re.fullmatch(r"[\w.,+-]+", value) else repr(value)
    return argparse.ArgumentTypeError(f"{shown}: expected {expected}")


def _plain(text: str) -> str:
    """The text, for int and float: they also take other alphabets' digits, and 1_000."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return text


def whole(least: int, most: int = MOST_WHOLE, also: Sequence[int] = ()) -> Callable[[str], int]:
    """For argparse: a whole number of a range; also: numbers with a meaning of their own."""
    others = "".join(f", or {number}" for number in also)

    def parse(text: str) -> int:
        kind = ""
        try:
            value = int(_plain(text))
        except ValueError:  # no number, or one of thousands of digits
            value, kind = least - 1, "a whole number, "
        if not kind and (least <= value <= most or value in also):
            return value
        is_open = most == MOST_WHOLE and value < least
        raise _refusal(text, f"{kind}{least} {'or more' if is_open else f'to {most}'}{others}")

    return parse


def real(least: float, most: float, *, above: bool = False) -> Callable[[str], float]:
    """For argparse: a number of a range, which NaN is never in; above: ``least`` is not in it, either."""

    def parse(text: str) -> float:
        kind = ""
        try:
            value = float(_plain(text))
        except ValueError:
            value, kind = math.nan, "a number, "
        if not least <= value <= most or (above and value == least):
            raise _refusal(text, f"{kind}{'more than ' if above else ''}{least:g}{', up' if above else ''} to {most:g}")
        return value

    return parse


def a_path(text: str) -> Path:
    """For argparse: a path. None is empty: that would be the folder we are in."""
    if not text or "\0" in text:
        raise _refusal(text, "a path")
    return Path(text)


def some_text(text: str) -> str:
    """For argparse: a text that says something."""
    if not text.strip():
        raise _refusal(text, "a text that is not empty")
    return text


def numbers_from(least: int, most: int = MOST_WHOLE) -> Callable[[str], list[int]]:
    """For argparse: a list such as ``1,2`` of numbers of a range, sorted and without repetitions."""

    def parse(text: str) -> list[int]:
        try:
            numbers = sorted({int(_plain(word)) for word in text.split(",")})
        except ValueError:
            numbers = []
        if not numbers or numbers[0] < least or numbers[-1] > most:
            span = f"of {least} or more" if most == MOST_WHOLE else f"from {least} to {most}"
            raise _refusal(text, f"whole numbers {span}, separated by commas")
        return numbers

    return parse


whole_numbers = numbers_from(1)
THREADS, THREAD_COUNTS = whole(1, MOST_THREADS), numbers_from(1, MOST_THREADS)
SEEDS = whole(0, (1 << 32) - 1)
MEGABYTES = whole(1, 1 << 20)


def joined(numbers: Sequence[int]) -> str:
    """The list as a flag's value."""
    return ",".join(map(str, numbers))


# https://HOST/ORG/NAME, and what the Hub's pages and files have behind it; a Path has lost one of the slashes.
_HUB_URL = re.compile(r"https?:/+[^/]+/([\w.-]+/[\w.-]+?)(?:/(?:tree|resolve|blob|raw)/([^/?#]+)[^?#]*)?/?(?:[?#].*)?")


def hub_name(text: str) -> str:
    """``ORG/NAME`` or ``ORG/NAME@REVISION`` for the address of a model on the Hub; any other text as it is."""
    match = _HUB_URL.fullmatch(text)
    if not match:
        return text
    return match[1] if match[2] in (None, "main") else f"{match[1]}@{match[2]}"


_names: dict[str, str] = {}


def call_flags(names: Mapping[str, str]) -> None:
    """From here on, sentences use these names for flags: a tool may run for a command that has names of its own."""
    _names.clear()
    _names.update(names)


def called(flag: str) -> str:
    """What the user who reads a sentence calls a flag."""
    return _names.get(flag, flag)
