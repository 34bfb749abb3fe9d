# SPDX-License-Identifier: MIT
"""bAbI-like stories about people who move between places, and the question where one of them is.

Everything comes from a ``random.Random``: there is no data file. Stories whose text's CRC-32 is a multiple of 16 are
held out: the training generator throws them away, the scoring generator returns only those.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from trit.train.words import BABI_MOVES, MOVES, NAMES, PLACES

MAX_SENTENCES = 14
_HELD_OUT_MODULUS = 16
_MAX_PEOPLE = 6
_MAX_PLACES = 8


@dataclass(frozen=True)
class Sentence:
    """Who went where, in which words; ``text`` starts with the person and ends with the place and a full stop."""

    person: str
    place: str
    text: str


@dataclass(frozen=True)
class Story:
    """Sentences and the separator between them."""

    sentences: tuple[Sentence, ...]
    separator: str

    @property
    def text(self) -> str:
        """The whole story."""
        return self.separator.join(sentence.text for sentence in self.sentences)

    @property
    def places(self) -> dict[str, str]:
        """The last place of each person, in order of first appearance."""
        return {sentence.person: sentence.place for sentence in self.sentences}


@dataclass(frozen=True)
class Question:
    """What is asked after a story and what the model should say.

    Attributes:
        person: Whose place is asked for.
        head: From the end of the story to the person's name.
        tail: From there to the start of the answer.
        answer: The expected continuation, to its full stop.
        style: Name of the prompt's form, for reports.
    """

    person: str
    head: str
    tail: str
    answer: str
    style: str

    @property
    def prompt(self) -> str:
        """All that follows the story before the answer."""
        return self.head + self.tail


# (weight, name, text between question mark and answer); a typed backslash-n is what reaches a model when nothing in
# between treats it as a newline.
_STYLES = (
    (50, "newline", "\nAnswer:"),
    (20, "backslash-n", "\\nAnswer:"),
    (12, "same line", " Answer:"),
    (4, "empty line", "\n\nAnswer:"),
    (4, "A:", "\nA:"),
    (4, "space after colon", "\nAnswer: "),
    (6, "none", ""),
)
_SEPARATORS = ((82, " "), (12, "\n"), (3, "  "), (3, "\n\n"))
_LEADS = ((88, ""), (6, "Question: "), (6, "Q: "))


def is_held_out(text: str) -> bool:
    """Whether a story's text belongs to the stories that no training run may see."""
    return zlib.crc32(text.encode()) % _HELD_OUT_MODULUS == 0


def make_story(rng: Random, sentences: int) -> Story:
    """Invent a story.

    A word may be repeated, as in "to the the the garden", in half of the stories: a model has to bear such text.
    Stories of one person are rare, since they teach to answer with the last place mentioned.
    """
    alone = sentences == 1 or rng.random() < 0.05
    people = rng.sample(NAMES, 1 if alone else rng.randint(2, min(_MAX_PEOPLE, sentences)))
    if rng.random() < 0.06:
        people = [name.lower() for name in people]
    choices = rng.sample(PLACES, rng.randint(2, _MAX_PLACES))
    moves = MOVES[:BABI_MOVES] if rng.random() < 0.4 else MOVES
    stutter = rng.choice((0.0, 0.0, 0.1, 0.4))
    may_stay = rng.random() < 0.1
    # Everybody appears: a story about two people in which only one moves would be a story of one person.
    turns = people + rng.choices(people, k=sentences - len(people))
    rng.shuffle(turns)
    places: dict[str, str] = {}
    made = []
    for person in turns:
        options = choices if may_stay else [place for place in choices if place != places.get(person)]
        places[person] = rng.choice(options)
        text = _sentence(rng, person, rng.choice(moves), places[person], stutter)
        made.append(Sentence(person, places[person], text))
    return Story(tuple(made), _pick(rng, _SEPARATORS))


def ask(rng: Random, story: Story, person: str) -> Question:
    """Ask where a person of the story is, in one of many ways."""
    capitals = person[0].isupper()
    style = rng.choices(_STYLES, [weight for weight, _, _ in _STYLES])[0]
    separator = "\n" if rng.random() < 0.2 else " "
    head = f"{separator}{_pick(rng, _LEADS)}{'Where' if capitals else 'where'} is {person}"
    tail = (" now?" if rng.random() < 0.06 else "?") + (style[2] if capitals else style[2].replace("A", "a"))
    space = "" if tail.endswith(" ") else " "
    return Question(person, head, tail, f"{space}{person} is in the {story.places[person]}.", style[1])


def training_stories(rng: Random, sentences: int) -> Iterator[Story]:
    """Endless stories of one length, none of them held out."""
    while True:
        story = make_story(rng, sentences)
        if not is_held_out(story.text):
            yield story


def held_out_questions(rng: Random, count: int, lengths: range) -> list[tuple[Story, Question]]:
    """``count`` different held-out stories, as many of each length, each with one question."""
    found: dict[str, tuple[Story, Question]] = {}
    while len(found) < count:
        story = make_story(rng, lengths[len(found) % len(lengths)])
        if is_held_out(story.text):
            found.setdefault(story.text, (story, ask(rng, story, rng.choice(list(story.places)))))
    return list(found.values())


def held_out_text(rng: Random, count: int, lengths: range) -> str:
    """``count`` held-out stories with a question and its answer each, one after the other, for perplexity."""
    asked = held_out_questions(rng, count, lengths)
    return "\n".join(story.text + question.prompt + question.answer for story, question in asked) + "\n"


def _sentence(rng: Random, person: str, move: str, place: str, stutter: float) -> str:
    words = [person, *move.split(), "the", *place.split()]
    if rng.random() < stutter:
        repeated = len(words) - 1 - len(place.split()) if rng.random() < 0.7 else rng.randrange(len(words))
        words[repeated : repeated + 1] = [words[repeated]] * rng.randint(2, 4)
    return " ".join(words) + "."


def _pick(rng: Random, weighted: tuple[tuple[int, str], ...]) -> str:
    return rng.choices([text for _, text in weighted], [weight for weight, _ in weighted])[0]
