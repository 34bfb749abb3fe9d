# SPDX-License-Identifier: MIT
"""Training batches: stories with questions and answers as token ids, and what the model should predict where."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from utils.train.story import Question, Story, ask, training_stories
from utils.train.tokenizer import BOS, EOS, special_id

IGNORED = -100
_MAX_QUESTIONS = 4


@dataclass(frozen=True)
class Batch:
    """Token ids and labels, int64 [documents, length] each; a label of ``IGNORED`` asks for nothing.

    Attributes:
        ids: Documents, padded on the right.
        answers: At each position the next token, where it belongs to an answer.
        subjects: From the end of a name to the end of its sentence, or of the answer, the last token of that name.
        destinations: At each full stop of the story the first token of the place before it.
    """

    ids: Tensor
    answers: Tensor
    subjects: Tensor
    destinations: Tensor


class _Document:
    """Grows piece by piece; a piece ends where the tokenizer splits anyway, so the ids are those of the whole text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._eos = special_id(tokenizer, EOS)
        self.ids = [special_id(tokenizer, BOS)]
        self.answers = [IGNORED]
        self.subjects = [IGNORED]
        self.destinations = [IGNORED]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _append(self, ids: list[int], subject: int, *, is_answer: bool = False) -> None:
        self.ids += ids
        self.answers += ids if is_answer else [IGNORED] * len(ids)
        self.subjects += [subject] * len(ids)
        self.destinations += [IGNORED] * len(ids)

    def _append_named(self, before: str, person: str, after: str) -> int:
        """Append ``before + person + after``, with the subject from the end of the name on; return the subject."""
        name = self._encode(before + person)
        subject = self._encode(f" {person}")[-1]
        self._append(name, IGNORED)
        self.subjects[-1] = subject
        self._append(self._encode(after), subject)
        return subject

    def add_story(self, story: Story) -> None:
        for number, sentence in enumerate(story.sentences):
            before = story.separator if number else ""
            self._append_named(before, sentence.person, sentence.text.removeprefix(sentence.person))
            self.destinations[-1] = self._encode(f" {sentence.place}")[0]

    def add_question(self, question: Question, *, first: bool) -> None:
        # A following question starts on a new line, whatever its own separator is.
        head = question.head if first else "\n" + question.head[1:]
        subject = self._append_named(head.removesuffix(question.person), question.person, question.tail)
        self._append([*self._encode(question.answer), self._eos], subject, is_answer=True)

    def rows(self) -> tuple[list[int], ...]:
        # The label of a position is the token that follows it.
        return self.ids, [*self.answers[1:], IGNORED], self.subjects, self.destinations


def make_batch(tokenizer: Tokenizer, rng: Random, sentences: int, size: int, *, strange: bool = False) -> Batch:
    """A batch of stories of one length, each with up to four questions about different people.

    Args:
        tokenizer: The vocabulary of the model.
        rng: Source of all stories and questions.
        sentences: Length of the stories.
        size: Documents per batch for stories of middling length; short ones make larger batches.
        strange: Stories with made-up words.
    """
    questions = min(_MAX_QUESTIONS, sentences)
    count = round(min(256, max(32, size * 100 / (8 + 7 * sentences + 14 * questions))))
    documents = []
    for story in islice(training_stories(rng, sentences, strange=strange), count):
        document = _Document(tokenizer)
        document.add_story(story)
        people = rng.sample(list(story.places), min(_MAX_QUESTIONS, len(story.places)))
        for number, person in enumerate(people):
            document.add_question(ask(rng, story, person), first=number == 0)
        documents.append(document.rows())
    longest = max(len(rows[0]) for rows in documents)
    columns = zip(*documents, strict=True)
    paddings = (special_id(tokenizer, EOS), IGNORED, IGNORED, IGNORED)
    return Batch(
        *(
            torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
            for rows, padding in zip(columns, paddings, strict=True)
        )
    )
