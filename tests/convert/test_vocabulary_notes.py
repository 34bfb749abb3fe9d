# SPDX-License-Identifier: MIT
"""Which texts a vocabulary is tried with, and what is said of answers, without the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from tests.convert.test_vocabulary_check import EOS, load, special, tokenizer
from trit.base.errors import UserError
from trit.convert.spm import FIRST_NOTE
from trit.convert.vocabulary_check import (
    ALONE,
    FULLY_TRIED,
    LONGEST_REASON,
    NEIGHBOURHOODS,
    SAMPLED,
    TEXTS,
    _added_notes,
    _corpus,
    _overlaps,
    _plain_notes,
    _some,
    _stops,
    _template_warnings,
    _tried,
)

FOLDER = Path("folder")
RIGHT = {"prompt": "x Where is Mary? y"}


def test_what_is_tried(tmp_path: Path) -> None:
    made = tokenizer(special("<x>"), AddedToken("user", normalized=True))
    vocabulary = load(tmp_path, made, lambda d: d["model"]["vocab"].update({"<odd>": 300, "[odd]": 301, "<0x41>": 302}))
    assert vocabulary.reading
    plain, near = _corpus(vocabulary, vocabulary.reading)
    # The texts with an added token in them ("user@example.com") are not plain.
    assert [text for text in TEXTS if "user" not in text] == plain[: len(TEXTS) - 1]
    assert len(plain) == len(set(plain)) > len(TEXTS) + SAMPLED and "" not in plain
    assert not any(token in text for text in plain for token in ("<x>", "user", "<bos>", "<fin>"))
    assert {name for name, _ in near} == {"<bos>", "<fin>", "<x>", "user", "<odd>", "[odd]"}
    assert [text for name, text in near if name == "<x>"] == [form.replace("\0", "<x>") for form in NEIGHBOURHOODS]
    assert [text for name, text in near if name.endswith("odd>")] == ["a<odd>b"]
    assert _corpus(vocabulary, vocabulary.reading) == (plain, near)
    vocabulary.notes.append(FIRST_NOTE)
    fewer, alone = _corpus(vocabulary, vocabulary.reading)
    assert fewer == [text for text in plain if text[0] != " "] != plain
    assert [text for name, text in alone if name == "<x>"] == ["a<x>"] == [form.replace("\0", "<x>") for form in ALONE]


def test_of_many_tokens_of_a_kind_the_rest_is_tried_twice() -> None:
    added = {i: special(f"<{i}>") for i in range(FULLY_TRIED + 2)} | {99: AddedToken("word", normalized=True)}
    added[98] = AddedToken("", special=True, normalized=False)
    counts: dict[str, int] = {}
    for token, form in _tried(added, NEIGHBOURHOODS):
        counts[token.content] = counts.get(token.content, 0) + 1
        assert form in NEIGHBOURHOODS
    full = len(NEIGHBOURHOODS)
    assert counts == {f"<{i}>": full if i < FULLY_TRIED else 2 for i in range(FULLY_TRIED + 2)} | {"word": full}


def test_tokens_that_share_letters() -> None:
    assert list(_overlaps(["ab", "bc", "x"])) == ["abc"]
    assert list(_overlaps(["aba"])) == []
    assert sorted(_overlaps(["abc", "bcd", "cde"])) == ["abcd", "abcde", "bcde"]
    many = [f"{i:03d}|" for i in range(FULLY_TRIED + 5)] + ["|z"]
    assert len(list(_overlaps(many))) == FULLY_TRIED


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "0"), (4, "0, 1, 2, 3"), (5, "0, 1, 2 and 2 more"), (6, "0, 1, 2 and 3 more")],
)
def test_some_names(count: int, said: str) -> None:
    assert _some([str(i) for i in range(count)]) == said


def test_ends_that_differ(tmp_path: Path) -> None:
    vocabulary = load(tmp_path, tokenizer(special("<x>")), generation_config={"eos_token_id": [EOS, 0]})
    end = vocabulary.tokens.index("<x>")
    assert _stops(vocabulary, {EOS, 0}) == []
    assert _stops(vocabulary, {EOS}) == [
        "the engine goes on after <bos> (0), which the checkpoint lists as an end"
    ]  # fmt: skip
    assert _stops(vocabulary, {EOS, 0, end}) == [
        f"the engine also ends at <x> ({end}), which the checkpoint does not list as an end"
    ]


def test_plain_texts_that_differ() -> None:
    texts, wanted = ["a", "b", "c", "d"], [[1], [2], [3], [4]]
    assert _plain_notes(FOLDER, texts, wanted, wanted) == []
    example = "'b' is [7] in the engine, [2] in tokenizer.json"
    assert _plain_notes(FOLDER, texts, [[1], [7], [3], [4]], wanted) == [
        f"1 of 4 texts get other tokens: {example}"
    ]  # fmt: skip
    assert _plain_notes(FOLDER, texts, [[1], [7], [3], [8]], wanted)[0].startswith("2 of 4")
    with pytest.raises(UserError, match=r"^folder: the engine cannot run this tokenizer: 'b' is \[7\] .*, and so on$"):
        _plain_notes(FOLDER, texts, [[1], [7], [8], [9]], wanted)


def test_added_tokens_that_differ() -> None:
    texts = [(name, f"{place}{name}") for name in "vwxyz" for place in ("", "a")]
    wanted: list[list[int]] = [[i] for i in range(10)]
    assert _added_notes(texts, wanted, wanted) == []
    got: list[Any] = [[0], [50], *wanted[2:]]
    assert _added_notes(texts, got, wanted) == [
        "v beside other text: 'av' is [50] in the engine, [1] in tokenizer.json"
    ]  # fmt: skip
    three = _added_notes(texts[:6], [[50]] * 6, wanted[:6])
    assert [note[0] for note in three] == ["v", "w", "x"] and "'v' is" in three[0]
    all_five = _added_notes(texts, [[50]] * 10, wanted)
    assert all_five[:3] == three and all_five[3:] == ["2 more tokens are read otherwise beside other text"]


@pytest.mark.parametrize(
    ("names", "answers", "ended", "said"),
    [
        ([], [], None, None),
        (["a question"], [RIGHT], None, None),
        (["a question"], [{"prompt": "Where is John?"}], None, "for a question (the prompt does not hold the "),
        (["a question"], [{"error": "no"}], None, "for a question (no)"),
        (["a question", "b"], [RIGHT], "out of time", "for b (out of time)"),
        (["a question", "b"], [{"error": "x"}], "out of time", "for a question (x)"),
        (["a system message"], [{"error": "Jinja Exception: no system"}], None, None),
        (["a question"], [{"error": "Jinja Exception: no"}], None, "for a question (Jinja Exception: no)"),
        (["a system message"], [{"error": "no\n  such filter"}], None, "for a system message (no such filter)"),
        (["a question"], [{"error": "at line 1\n------------\nno {{ x }}\n  here"}], None, "(no {{ x }} here)"),
        (["a question"], [{"error": "x" * LONGEST_REASON}], None, f"({'x' * LONGEST_REASON})"),
        (
            ["a question"],
            [{"error": "x" * LONGEST_REASON + "y"}],
            None,
            f"({'x' * (LONGEST_REASON // 2)} ... {'x' * (LONGEST_REASON // 2 - 1)}y)",
        ),
    ],
)  # fmt: skip
def test_templates(names: list[str], answers: list[Any], ended: str | None, said: str | None) -> None:
    warnings = _template_warnings(names, answers, ended)
    assert len(warnings) == (said is not None)
    for warning in warnings:
        assert warning.startswith("the engine cannot run the chat template for ") and str(said) in warning
        assert warning.endswith("; a plain prompt does not need it")
