# SPDX-License-Identifier: MIT
"""Requests beside each other: a common beginning is computed once, and a long prompt does not stop an answer."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from trit.engine.inference import DRAFTS
from trit.engine.server import Server
from trit.measure.clients import Answer, ask, load

STORY = "Mary went to the kitchen. John went to the garden. Sandra moved to the office. Daniel left for the hall. " * 3
LONG = "John went back to the bedroom. Mary is in the garden. Daniel travelled to the bathroom. " * 24
CONTEXT = 1024
STEP = 16


@pytest.fixture(scope="module")
def server(engine_bin: Path, story_gguf: Path) -> Iterator[Server]:
    flags = ["--no-kv-unified", "--cache-ram", "0", "--metrics"]
    with Server(story_gguf, 1, flags, slots=3, context=CONTEXT, env={"TRIT_STEP": str(STEP)}) as running:
        yield running


def ask_slot(server: Server, slot: int, question: str, **more: Any) -> dict[str, Any]:
    body = {"prompt": STORY + question, "n_predict": 8, "temperature": 0, "id_slot": slot, "return_tokens": True}
    answer: dict[str, Any] = server.post("/completion", {**body, **more})
    return answer


def test_another_slot_takes_the_beginning_that_one_has_computed(server: Server) -> None:
    alone = ask_slot(server, 0, "Where is John?\nAnswer:", cache_prompt=False)
    whole = alone["tokens_evaluated"]
    assert alone["timings"]["prompt_n"] == whole > 60
    ask_slot(server, 0, "Where is Mary?\nAnswer:")
    before = cached(server)
    found = ask_slot(server, 1, "Where is John?\nAnswer:")
    computed = found["timings"]["prompt_n"]
    assert computed < 12, "only the question"
    assert cached(server) - before == whole - computed, "/metrics counts what was not computed"
    assert found["tokens"] == alone["tokens"]


def test_less_than_copying_is_worth_is_computed(server: Server) -> None:
    start = "Sandra moved to the kitchen. "
    for slot in (0, 1):
        body = {"prompt": start, "n_predict": 1, "id_slot": slot}
        answer = server.post("/completion", body)
        assert answer["tokens_evaluated"] < CONTEXT // 32
        assert answer["timings"]["prompt_n"] == answer["tokens_evaluated"] - 1, "all begin with the same token"


async def begun(session: httpx.AsyncClient, first: asyncio.Task[Answer]) -> None:
    """Wait for the first tokens of a request that stands alone."""
    while not first.done():
        slots = (await session.get("/slots")).json()
        if any(slot["is_processing"] and slot["next_token"][0]["n_decoded"] > 0 for slot in slots):
            return


def test_a_slot_that_answers_lends_its_beginning_and_is_not_disturbed(server: Server) -> None:
    async def both() -> tuple[Answer, Answer]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300, trust_env=False) as session:
            first = asyncio.create_task(ask(session, STORY + "Mary moved to the office. ", 900))
            await begun(session, first)
            second = await ask(session, STORY + "Where is Mary?\nAnswer:", 8)
            return await first, second

    first, second = asyncio.run(both())
    body = {"prompt": STORY + "Mary moved to the office. ", "n_predict": 900, "temperature": 0, "ignore_eos": True}
    again = server.post("/completion", {**body, "cache_prompt": False})
    assert first.text == again["content"]
    assert second.prompt - second.cached < 12
    assert second.arrivals[-1] < first.arrivals[-1], "both were answered at the same time"


def test_a_long_prompt_does_not_stop_an_answer(server: Server) -> None:
    async def both() -> tuple[Answer, Answer]:
        async with httpx.AsyncClient(base_url=server.url, timeout=300, trust_env=False) as session:
            first = asyncio.create_task(ask(session, "John went to the", 900))
            await begun(session, first)
            return await ask(session, LONG, 1), await first

    long, short = asyncio.run(both())
    steps = (long.prompt - long.cached) / STEP
    assert steps > 25
    meanwhile = sum(long.asked < at < long.arrivals[0] for at in short.arrivals)
    # In steps of -b there would be one or two.
    assert meanwhile > 0.6 * steps


def test_guesses_of_several_slots_change_no_answer(server: Server, story_gguf: Path) -> None:
    prompts = [STORY * 2 + f"Where is {name}?\nAnswer:" for name in ("Mary", "John", "Sandra", "Daniel")]
    plain = load(server.url, prompts, 1, range(len(prompts)), 60)
    flags = [*DRAFTS["ngram"], "--no-kv-unified", "-b", "128", "-ub", "128", "--metrics"]
    with Server(story_gguf, 1, flags, slots=4, context=CONTEXT, env={"TRIT_STEP": str(STEP)}) as guessing:
        found = load(guessing.url, prompts, 4, range(3 * len(prompts)), 60)
        assert counted(guessing, "spec_decode_num_accepted_tokens_total") > 60, "else nothing was guessed"
    assert found.errors == plain.errors == []
    assert all(answer.text == plain.answers[number % 4].text for number, answer in found.answers.items())


def cached(server: Server) -> int:
    """Prompts' tokens that were not computed, as /metrics has it."""
    return counted(server, "prompt_tokens_cached_total")


def counted(server: Server, name: str) -> int:
    """A number of /metrics."""
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith(f"llamacpp:{name}"))
