# SPDX-License-Identifier: MIT
"""Clients of a server, so many at a time: what each of them waits for, and what it is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import httpx
import numpy as np

from trit.base.errors import TritError

# A server that says nothing for so long is not coming back; a slow one with 64 clients comes earlier.
_SILENCE_SECONDS = 300
PERCENTILES = (50, 95, 99)
Percentiles = tuple[float, ...]


@dataclass(frozen=True)
class Answer:
    """What one request got.

    Attributes:
        text: All of it.
        tokens: Of the answer.
        asked: When the request went out, in seconds of :func:`time.perf_counter`.
        arrivals: When each piece of text came; a piece is one token, or those that a letter is made of.
        prompt: Tokens of the prompt.
        cached: Those of them that were computed for an earlier request.
    """

    text: str
    tokens: int
    asked: float
    arrivals: tuple[float, ...]
    prompt: int
    cached: int

    @property
    def first(self) -> float:
        """Seconds to the first piece."""
        return self.arrivals[0] - self.asked

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces."""
        return [late - early for early, late in pairwise(self.arrivals)]


@dataclass
class Load:
    """What some requests got, so many at a time.

    Attributes:
        clients: Requests at the same time.
        seconds: From the first request to the last answer.
        answers: By the number of the request.
        errors: What came in the place of the others.
    """

    clients: int
    seconds: float = 0.0
    answers: dict[int, Answer] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        """Of all clients together."""
        return sum(answer.tokens for answer in self.answers.values()) / self.seconds

    @property
    def first(self) -> Percentiles:
        """Milliseconds to the first token, at each of ``PERCENTILES``."""
        return _milliseconds([answer.first for answer in self.answers.values()])

    @property
    def between(self) -> Percentiles:
        """Milliseconds between tokens, at each of ``PERCENTILES``."""
        return _milliseconds([gap for answer in self.answers.values() for gap in answer.gaps])

    @property
    def cached(self) -> float:
        """Share of the prompts' tokens that were computed for an earlier request."""
        answers = self.answers.values()
        return sum(answer.cached for answer in answers) / max(1, sum(answer.prompt for answer in answers))


def _milliseconds(seconds: Sequence[float]) -> Percentiles:
    return tuple(1e3 * float(value) for value in np.percentile(seconds, PERCENTILES)) if seconds else ()


def load(url: str, prompts: Sequence[str], clients: int, numbers: range, most: int) -> Load:
    """Send requests, each client its next one when the last is answered. All are greedy, and of one length.

    Args:
        url: of a llama-server, or of one of its descendants.
        prompts: request N sends prompt N, and begins again behind the last one.
        clients: requests at a time.
        numbers: of the requests.
        most: tokens of an answer; the model does not end it.

    Returns:
        All answers; a request that fails is an error, and does not stop the others.
    """
    return asyncio.run(_load(url, prompts, clients, numbers, most))


async def _load(url: str, prompts: Sequence[str], clients: int, numbers: range, most: int) -> Load:
    done = Load(clients)
    waiting = iter(numbers)

    async def client(session: httpx.AsyncClient) -> None:
        for number in waiting:
            try:
                done.answers[number] = await ask(session, prompts[number % len(prompts)], most)
            except (httpx.HTTPError, ValueError, KeyError, TritError) as error:
                done.errors.append(f"request {number}: {error or type(error).__name__}")

    limits = httpx.Limits(max_connections=clients)
    # Nothing of the user's: a proxy of his would stand between the clients and this machine's server.
    async with httpx.AsyncClient(base_url=url, timeout=_SILENCE_SECONDS, limits=limits, trust_env=False) as session:
        start = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        done.seconds = time.perf_counter() - start
    return done


async def ask(session: httpx.AsyncClient, prompt: str, most: int) -> Answer:
    """Send one request, and take its answer as it comes; prompt, most: as those of :func:`load`.

    Raises:
        TritError: the server answered with an error, or stopped in the middle.
        httpx.HTTPError: it cannot be reached.
    """
    body = {"prompt": prompt, "n_predict": most, "temperature": 0, "ignore_eos": True, "cache_prompt": True}
    asked, pieces, arrivals = time.perf_counter(), [], []
    async with session.stream("POST", "/completion", json={**body, "stream": True}) as answer:
        if answer.status_code != httpx.codes.OK:
            raise TritError(f"{answer.status_code}: {(await answer.aread()).decode('utf-8', 'replace')}")
        async for line in answer.aiter_lines():
            kind, _, told = line.partition(": ")
            if kind == "error":
                raise TritError(told)
            if kind != "data" or told == "[DONE]":
                continue
            event = json.loads(told)
            if "error" in event:
                raise TritError(json.dumps(event["error"]))
            if event["content"]:
                arrivals.append(time.perf_counter())
                pieces.append(event["content"])
            if event["stop"]:
                evaluated, timings = event["tokens_evaluated"], event["timings"]
                cached = evaluated - timings["prompt_n"]
                return Answer("".join(pieces), event["tokens_predicted"], asked, tuple(arrivals), evaluated, cached)
    raise TritError("the answer broke off")
