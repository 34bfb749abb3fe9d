# SPDX-License-Identifier: MIT
"""The kinds of values that flags have, and what is said of a wrong one."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import UserError
from trit.base.flags import ArgumentParser, a_path, numbers_from, real, some_text, whole
from trit.base.places import ROOT

FEW = whole(2, 5, also=(-1,))
SHARE = real(0, 1)
FACTOR = real(0, 10, above=True)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (FEW, "2", 2),
        (FEW, "+5", 5),
        (FEW, " 3 ", 3),
        (FEW, "-1", -1),
        (SHARE, "0", 0),
        (SHARE, "1", 1),
        (SHARE, "1e-3", 0.001),
        (FACTOR, "10", 10),
        (numbers_from(0, 9), "9,0,9", [0, 9]),
        (a_path, "a b", Path("a b")),
        (some_text, " x", " x"),
    ],
)
def test_values(kind: Callable[[str], Any], text: str, value: Any) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "texts", "expected"),
    [
        (FEW, ["1", "6", "-2"], "2 to 5, or -1"),
        (FEW, ["", "x", "3.0", "0x3", "1_0", "\u0663"], "a whole number, 2 to 5, or -1"),
        (whole(3), ["2", "-9"], "3 or more"),
        (whole(3), ["2147483648", "9" * 40], "3 to 2147483647"),
        (SHARE, ["-0.1", "1.0001", "nan", "-inf", "inf"], "0 to 1"),
        (SHARE, ["", "half", "0_1", "\u0661"], "a number, 0 to 1"),
        (FACTOR, ["0", "-0.0", "nan", "10.5"], "more than 0, up to 10"),
        (numbers_from(1, 9), ["0,1", "1,10", "1;2", "1,,2", ""], "whole numbers from 1 to 9, separated by commas"),
        (a_path, ["", "a\0b"], "a path"),
        (some_text, ["", " \n"], "a text that is not empty"),
    ],
)
def test_values_that_are_refused(kind: Callable[[str], Any], texts: list[str], expected: str) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError) as error:
            kind(text)
        assert str(error.value).endswith(f": expected {expected}"), text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--few", "9", "f"], "--few 9: expected 2 to 5, or -1"),
        (["-x", "", "f"], "--few '': expected a whole number, 2 to 5, or -1"),
        (["--few", "a: b", "f"], "--few 'a: b': expected a whole number, 2 to 5, or -1"),
        (["--few"], "--few: expected one argument"),
        (["--kind", "c", "f"], "--kind: invalid choice: 'c' (choose from"),
        ([""], "file '': expected a path"),
        (["f", "--fe", "3"], "unrecognized arguments: --fe 3; what can be given: tool --help"),
        ([], "the following arguments are required: file; what can be given: tool --help"),
        (["f", "g\nh"], "unrecognized arguments: g?h; what can be given: tool --help"),
    ],
)
def test_a_wrong_flag_is_one_sentence(words: list[str], said: str) -> None:
    parser = ArgumentParser(prog="tool")
    parser.add_argument("--few", "-x", type=FEW)
    parser.add_argument("--kind", choices=("a", "b"))
    parser.add_argument("file", type=a_path)
    with pytest.raises(UserError) as error:
        parser.parse_args(words)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("words", [["-nq"], ["-ngl", "0"], ["-no-cnv"], ["-nb=2"], ["-tem", "3"]])
def test_words_of_letters_are_not_taken_apart(words: list[str]) -> None:
    parser = ArgumentParser(prog="tool")
    parser.add_argument("-n", type=FEW)
    parser.add_argument("-temp", type=FEW)
    assert parser.parse_known_args(words) == (argparse.Namespace(n=None, temp=None), words)
    with pytest.raises(UserError) as error:
        parser.parse_args(words)
    assert str(error.value).startswith(f"unrecognized arguments: {words[0]}")


def test_digits_may_follow_a_letter() -> None:
    parser = ArgumentParser(prog="tool")
    parser.add_argument("-n", type=FEW)
    parser.add_argument("-m", type=a_path)
    for word, value in (("-n5", 5), ("-n-1", -1), ("-n=3", 3)):
        assert parser.parse_args([word, "-m./f"]) == argparse.Namespace(n=value, m=Path("f"))
    for value in ("-5G", "-.5"):
        with pytest.raises(UserError, match=f"^-n {value}: expected a whole number, 2 to 5, or -1$"):
            parser.parse_args(["-n", value])


def test_every_number_has_a_range_and_every_path_a_name() -> None:
    """No parser takes any number, or the empty path, which is the folder we are in."""
    kinds = 0
    for path in [*(ROOT / "trit").rglob("*.py"), *(ROOT / "utils").glob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not any(word.arg == "help" for word in node.keywords):
                continue
            for word in node.keywords:
                if word.arg == "type":
                    kinds += 1
                    assert ast.unparse(word.value) not in {"int", "float", "Path"}, f"{path}:{node.lineno}"
    assert kinds > 80
