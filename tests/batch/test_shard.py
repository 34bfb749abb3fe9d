# SPDX-License-Identifier: MIT
"""In which order rows are asked, and what a row's seed is."""

from __future__ import annotations

from trit.batch.shard import in_order
from trit.batch.source import Row
from trit.batch.task import fill, seed_of


def test_common_beginnings_go_together_and_the_longest_first() -> None:
    shared = "One system prompt for many questions, which takes most of the tokens. " * 2
    texts = ["short", shared + "a?", "a longer prompt " * 20, shared + "b?", "middle " * 5, shared + "a"]
    found = in_order([(text, Row(number, {})) for number, text in enumerate(texts)])
    assert [row.number for row in found] == [2, 5, 1, 3, 4, 0]
    assert in_order([]) == []


def test_a_row_s_seed_is_its_own_and_follows_from_its_number() -> None:
    seeds = [seed_of(seed, number) for seed in range(3) for number in range(300)]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**32 - 1 for seed in seeds)
    # Batches that were begun go on with these.
    assert (seed_of(0, 0), seed_of(7, 12)) == (0xAC72368A, 224540195)


def test_templates_have_columns_and_braces() -> None:
    row = Row(0, {"a b": "{x}", "n": 3})
    assert fill("{{{a b}}} {n}: {{}}", row) == "{{x}} 3: {}"
