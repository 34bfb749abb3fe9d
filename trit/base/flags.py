# SPDX-License-Identifier: MIT
"""Flags: the parser of every command, what a sentence calls them, and numbers of what measures."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trit.base.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """argparse without abbreviations: ``--temp`` is not ``--temperature``, and a new flag changes no old command."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})


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
