# SPDX-License-Identifier: MIT
"""The story generator: right answers, a clean split, and words that are single tokens."""

from __future__ import annotations

import re
from itertools import islice
from random import Random

import pytest
from tokenizers import Tokenizer

from trit.base.places import DEMO_PROMPT
from trit.train.batches import IGNORED, BatchMaker
from trit.train.story import Story, ask, held_out_questions, is_held_out, make_story, training_stories
from trit.train.tokenizer import BOS, EOS, story_words, train_tokenizer
from trit.train.words import BABI_MOVES, MOVES, NAMES, PLACES

BABI_1 = {"Daniel", "Mary", "Sandra", "John", "bathroom", "bedroom", "garden", "hallway", "kitchen", "office"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


def follow(text: str) -> dict[str, str]:
    """Where everybody is, by reading the text alone: the first word of a sentence goes to what follows "the"."""
    places = {}
    for sentence in re.split(r"\.\s*", text):
        words = re.sub(r"\b(\w+)( \1\b)+", r"\1", sentence.strip()).split(" the ")
        if len(words) > 1:
            places[words[0].split()[0]] = words[-1]
    return places


def stories(count: int, seed: int) -> list[Story]:
    rng = Random(seed)
    return [make_story(rng, 1 + i % 14) for i in range(count)]


def test_answers_are_right() -> None:
    rng = Random(1)
    for story in stories(700, seed=0):
        assert follow(story.text) == story.places
        for person, place in story.places.items():
            question = ask(rng, story, person)
            assert re.search(r"[Ww]here is (\w+)", question.prompt).group(1) == person  # type: ignore[union-attr]
            assert question.answer.lstrip() == f"{person} is in the {place}."
            assert (question.prompt + question.answer).count("  ") == 0


def test_stories_have_the_length_and_the_variety_they_claim() -> None:
    made = stories(1400, seed=2)
    assert [len(re.findall(r"\.", story.text)) for story in made] == [1 + i % 14 for i in range(1400)]
    assert {len(story.places) for story in made} == {1, 2, 3, 4, 5, 6}
    assert sum(len(story.places) == 1 for story in made if len(story.sentences) > 1) < 0.1 * len(made)
    text = "\n".join(story.text for story in made)
    assert all(move in text for move in MOVES) and all(place in text for place in PLACES)
    assert all(name in text for name in NAMES) and " the the " in text
    assert MOVES[:BABI_MOVES] == ("went to", "went back to", "travelled to", "journeyed to", "moved to")


def test_same_seed_same_stories() -> None:
    assert stories(50, seed=3) == stories(50, seed=3) != stories(50, seed=4)


def test_held_out_stories_never_appear_in_training() -> None:
    training = [story.text for n in (1, 2, 5) for story in islice(training_stories(Random(5), n), 400)]
    assert not any(is_held_out(text) for text in training)
    held_out = held_out_questions(Random(5), 200, range(1, 6))
    assert all(is_held_out(story.text) for story, _ in held_out)
    assert len({story.text for story, _ in held_out}) == 200
    assert [len(story.sentences) for story, _ in held_out[:6]] == [1, 2, 3, 4, 5, 1]


def test_words_of_stories_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert len(set(NAMES)) == len(NAMES) and len({place.split()[0] for place in PLACES}) == len(PLACES)
    assert {*NAMES, *PLACES} >= BABI_1
    for word in story_words():
        assert len(tokenizer.encode(word, add_special_tokens=False).ids) == 1, word


def test_demo_answer_has_six_tokens(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(" Mary is in the garden.", add_special_tokens=False).ids) == 6


def test_bos_is_added_and_any_text_survives(tokenizer: Tokenizer) -> None:
    for text in (DEMO_PROMPT, "Zo\u00eb's 12 caf\u00e9s:\t\u6771\u4eac \U0001f642\r\n", ""):
        encoding = tokenizer.encode(text)
        assert encoding.tokens[:1] == [BOS] and BOS not in encoding.tokens[1:]
        assert tokenizer.decode(encoding.ids) == text


def test_vocabulary_is_made_the_same_way_each_time(tokenizer: Tokenizer) -> None:
    assert train_tokenizer().to_str() == tokenizer.to_str()


def test_batches_label_what_they_say(tokenizer: Tokenizer) -> None:
    maker = BatchMaker(tokenizer, Random(6), 8)
    names = [name.strip() for name in tokenizer.decode_batch([[i] for i in maker.name_ids.tolist()])]
    places = [place.strip() for place in tokenizer.decode_batch([[i] for i in maker.place_ids.tolist()])]
    batch = maker.make(5)
    eos = tokenizer.token_to_id(EOS)
    for ids, answers, subjects, destinations in zip(*(rows.tolist() for rows in vars(batch).values()), strict=True):
        # A label is the token that follows; every answer is asked for, to its eos, and nothing else is.
        assert all(label in (IGNORED, token) for label, token in zip(answers, ids[1:], strict=False))
        parts = tokenizer.decode(ids, skip_special_tokens=False).removeprefix(BOS).split(EOS)
        truth = follow(re.split(r"(Question:|Q:)?\s*[Ww]here is", parts[0])[0])
        spoken = [re.search(r"(\w+) is in the ([\w ]+)\.$", part) for part in parts if part]
        assert all(found is not None and truth[found.group(1)] == found.group(2) for found in spoken)
        assert answers.count(eos) == len(spoken) == min(4, len(truth))
        asked = tokenizer.decode([label for label in answers if label not in (IGNORED, eos)])
        assert [found.group() for found in spoken if found] == [f"{part.strip()}." for part in asked.split(".") if part]
        # At the end of each sentence the labels say who is where now.
        told = [(names[s], places[d]) for s, d in zip(subjects, destinations, strict=True) if d != IGNORED]
        assert len(told) == 5
        assert dict(told) == {person: place.split()[0] for person, place in truth.items()}


def test_prompts_are_tokenized_as_at_inference(tokenizer: Tokenizer) -> None:
    maker = BatchMaker(tokenizer, Random(8), 4)
    for sentences in range(1, 8):
        batch = maker.make(sentences)
        for ids, answers in zip(batch.ids.tolist(), batch.answers.tolist(), strict=True):
            # The prompt ends where the labels up to the first eos begin.
            eos = answers.index(tokenizer.token_to_id(EOS))
            first = next(i for i in range(eos, 0, -1) if answers[i - 1] == IGNORED)
            prompt = tokenizer.decode(ids[1 : first + 1])
            assert tokenizer.encode(prompt).ids == ids[: first + 1]
