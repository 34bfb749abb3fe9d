# SPDX-License-Identifier: MIT
"""Numbers on the command line of what measures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from trit.base.errors import UserError


def numbers_from(least: int) -> Callable[[str], list[int]]:
    """For argparse: a list such as ``1,2`` of numbers that are not smaller, sorted and without repetitions."""

    def parse(text: str) -> list[int]:
        try:
            numbers = sorted({int(word) for word in text.split(",")})
        except ValueError:
            numbers = []
        if not numbers or numbers[0] < least:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected whole numbers of {least} or more, separated by commas"
            )
        return numbers

    return parse


whole_numbers = numbers_from(1)


def joined(numbers: Sequence[int]) -> str:
    """The list as a flag's value."""
    return ",".join(map(str, numbers))


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a flag's value that is too small."""
    if value < least:
        raise UserError(f"{name} {value}: expected {least} or more")
