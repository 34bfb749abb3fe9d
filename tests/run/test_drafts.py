# SPDX-License-Identifier: MIT
"""Tokens that are guessed from what was said before: the flag, and that no greedy answer changes by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_gguf import tiny_model
from tests.support.told_engine import FakeEngine
from trit.base.errors import run_main
from trit.engine.inference import DRAFTS
from trit.engine.server import Server
from trit.measure import drafts
from trit.run import completion, serve

# The bundled model goes on with what it read, so three words are found again soon.
STORY = "Mary went to the kitchen. John went to the garden. Mary went to the office. "
TOKENS = 90


def drafted(command: list[str]) -> bool:
    return " ".join(DRAFTS["ngram"]) in " ".join(command)


@pytest.mark.parametrize(("flags", "wanted"), [((), False), (("--draft", "none"), False), (("--draft", "ngram"), True)])
def test_the_server_gets_the_engine_s_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], wanted: bool
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(serve, "engine_binary", lambda name: Path("/engine") / name)
    monkeypatch.setattr(serve, "check_port", lambda host, port: None)
    monkeypatch.setattr(serve, "supervise", lambda supervisor, ready: started.append(supervisor.command) or 0)
    model = tiny_model(tmp_path / "model.gguf", tokenizer__chat_template="{{ messages[0]['content'] }}")
    assert run_main(serve.main, ("-m", str(model), *flags)) == 0
    assert [drafted(command) for command in started] == [wanted]


def test_one_prompt_has_no_drafts(engine: FakeEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(tmp_path / "model.gguf")
    assert run_main(completion.main, ("-m", str(model), "-p", "x", "--draft", "ngram")) == 2
    sentence = "error: --draft ngram is for chats and the server; add -cnv, or leave --draft away\n"
    assert capfd.readouterr().err == sentence


def test_a_model_without_such_a_layer_cannot_guess_by_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(tmp_path / "model.gguf")
    assert run_main(serve.main, ("-m", str(model), "--draft", "mtp")) == 2
    assert "has no layer that predicts further tokens" in capfd.readouterr().err


def test_greedy_answers_are_the_same_token_for_token(engine_bin: Path, story_gguf: Path) -> None:
    prompts = [STORY * 2 + "Where is Mary?\nAnswer:", STORY + STORY[:30], "John moved to the"]
    body = {"n_predict": TOKENS, "temperature": 0, "ignore_eos": True, "return_tokens": True, "n_probs": 1}
    answers = {}
    accepted = 0
    for kind in ("none", "ngram"):
        with Server(story_gguf, 1, DRAFTS[kind], slots=1) as server:
            answers[kind] = [server.post("/completion", {"prompt": prompt, **body}) for prompt in prompts]
        accepted += sum(answer["timings"].get("draft_n_accepted", 0) for answer in answers[kind])
    # Else nothing is compared.
    assert accepted > TOKENS // 4
    for plain, guessed in zip(answers["none"], answers["ngram"], strict=True):
        assert len(plain["tokens"]) == TOKENS
        assert plain["tokens"] == guessed["tokens"]
        # Arithmetic is the same for any number of tokens, so a token behind those that were accepted has the same
        # bits; of the accepted ones the server tells none.
        told = [(one, other) for one, other in zip(worth(plain), worth(guessed), strict=True) if other != 0.0]
        assert len(told) > 5
        assert all(one == other for one, other in told)


def worth(answer: dict[str, Any]) -> list[float]:
    """Each token's logarithm of its probability."""
    return [float(token["logprob"]) for token in answer["completion_probabilities"]]


def test_the_row_of_a_table() -> None:
    saved = drafts.Saved("code", tokens=100, drafted=50, accepted=20, ratios=[1.5, 0.9, 1.25])
    assert saved.row() == ["code", "100", "50", "40%", "1.25", "1.25 (0.90 to 1.50)"]
    assert drafts.Saved("prose", tokens=10, ratios=[1.0]).row()[2:5] == ["0", "-", "1.00"]
