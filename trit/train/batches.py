# SPDX-License-Identifier: MIT
"""Training batches: stories with questions and answers as token ids, and what the model should predict where."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from trit.train.story import Story, ask, training_stories
from trit.train.tokenizer import BOS, EOS, special_id
from trit.train.words import NAMES, PLACES

IGNORED = -100
_MAX_QUESTIONS = 4


@dataclass(frozen=True)
class Batch:
    """Token ids and labels, int64 [documents, length] each; a label of ``IGNORED`` asks for nothing.

    Attributes:
        ids: Documents, padded on the right.
        answers: At each position the next token, where it belongs to an answer.
        subjects: At each position the number of the last name before or at it.
        destinations: At each full stop of the story the number of the last place before it.
    """

    ids: Tensor
    answers: Tensor
    subjects: Tensor
    destinations: Tensor


class BatchMaker:
    """Makes batches from a random generator.

    Attributes:
        name_ids: Token ids of all names after a space, int64 [names]; ``subjects`` are numbers in it.
        place_ids: Token ids of all places' first words, int64 [places]; ``destinations`` are numbers in it.
    """

    def __init__(self, tokenizer: Tokenizer, rng: Random, size: int) -> None:
        """Keep what makes batches.

        Args:
            tokenizer: The vocabulary of the model.
            rng: Source of all stories and questions.
            size: Documents per batch for stories of middling length; short ones make larger batches.
        """
        self._tokenizer, self._rng, self._size = tokenizer, rng, size
        self._bos, self._eos = special_id(tokenizer, BOS), special_id(tokenizer, EOS)
        self._stop = self._id(".")
        self._questions = {self._id(word) for word in (" Where", "Where", " where", "where")}
        names = [*NAMES, *(name.lower() for name in NAMES)]
        self._name_of = {self._id(prefix + name): i for i, name in enumerate(names) for prefix in (" ", "")}
        self._place_of = {self._id(f" {place.split()[0]}"): i for i, place in enumerate(PLACES)}
        self.name_ids = torch.tensor([self._id(f" {name}") for name in names])
        self.place_ids = torch.tensor(list(self._place_of))

    def _id(self, word: str) -> int:
        (token,) = self._tokenizer.encode(word, add_special_tokens=False).ids
        return int(token)

    def make(self, sentences: int) -> Batch:
        """A batch of stories of one length, each with up to four questions about different people."""
        questions = min(_MAX_QUESTIONS, sentences)
        count = round(min(256, max(32, self._size * 100 / (8 + 7 * sentences + 14 * questions))))
        documents = []
        for story in islice(training_stories(self._rng, sentences), count):
            ids, answers = self._document(story)
            documents.append((ids, answers, *self._notes(ids)))
        longest = max(len(rows[0]) for rows in documents)
        columns = zip(*documents, strict=True)
        paddings = (self._eos, IGNORED, IGNORED, IGNORED)
        return Batch(
            *(
                torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
                for rows, padding in zip(columns, paddings, strict=True)
            )
        )

    def _document(self, story: Story) -> tuple[list[int], list[int]]:
        """Ids of bos, story, then question, answer and eos for some of its people; and the answers' labels."""
        people = self._rng.sample(list(story.places), min(_MAX_QUESTIONS, len(story.places)))
        asked = [ask(self._rng, story, person) for person in people]
        # A following question starts on a new line, whatever its own separator is.
        prompts = [story.text + asked[0].prompt, *("\n" + question.prompt[1:] for question in asked[1:])]
        texts = [text for prompt, question in zip(prompts, asked, strict=True) for text in (prompt, question.answer)]
        ids, answers = [self._bos], [IGNORED]
        for number, encoding in enumerate(self._tokenizer.encode_batch(texts, add_special_tokens=False)):
            is_answer = number % 2 == 1
            tokens = [*encoding.ids, self._eos] if is_answer else encoding.ids
            ids += tokens
            answers += tokens if is_answer else [IGNORED] * len(tokens)
        # The label of a position is the token that follows it.
        return ids, [*answers[1:], IGNORED]

    def _notes(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """``subjects`` and ``destinations`` of one document."""
        subjects, destinations = [], []
        subject, place, in_story = IGNORED, IGNORED, True
        for token in ids:
            subject = self._name_of.get(token, subject)
            place = self._place_of.get(token, place)
            if token in self._questions:
                # A question has no subject before its name, and an answer's full stop ends no sentence of the story.
                subject, in_story = IGNORED, False
            subjects.append(subject)
            destinations.append(place if in_story and token == self._stop else IGNORED)
        return subjects, destinations
