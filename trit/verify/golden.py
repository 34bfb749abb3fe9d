# SPDX-License-Identifier: MIT
"""Greedy transcripts of the bundled model: what the reference forward answers, token by token, recorded in a file.

``trit golden`` records them anew from the checkpoint (needs torch; the engine takes no part in it).
An engine that gives other tokens is wrong; one that gives these has a model that knows no better.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from trit.base.errors import EXIT_OK
from trit.base.files import atomic_output
from trit.base.flags import ArgumentParser
from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT
from trit.engine.server import Server
from trit.gguf.made import default_model
from trit.train.story import held_out_questions, held_out_text
from trit.train.tokenizer import EOS, special_id
from trit.verify.report import Check, judged

TRANSCRIPTS = Path(__file__).resolve().parent / "data" / "golden.json"
MOST_TOKENS = 16
_STORIES, _SENTENCES, _SEED = 22, 11, 1958
# Outside of what it learned: the answers are no good, but they are these.
_STRANGE = ("The capital of France is", "Daniel gave the ball to Mary. Who has the ball?\nAnswer:")


def story_text() -> str:
    """A text of the kind that the bundled model knows, for perplexity."""
    return held_out_text(Random(_SEED + 1), 24, range(1, _SENTENCES + 1))


def check_transcripts(server: Server) -> Check:
    """The engine's greedy answers, as tokens, against the recorded ones."""
    recorded: list[dict[str, Any]] = json.loads(TRANSCRIPTS.read_text(encoding="utf-8"))
    wrong = ""
    count = 0
    for entry in recorded:
        body = {"prompt": entry["prompt"], "n_predict": MOST_TOKENS, "temperature": 0, "return_tokens": True}
        answer = server.post("/completion", body)
        count += len(entry["tokens"])
        if answer["tokens"][: len(entry["tokens"])] != entry["tokens"] or answer["content"] != entry["answer"]:
            wrong = wrong or f"{entry['prompt'][-40:]!a}: {answer['content']!a}, expected {entry['answer']!a}"
    measured = f"{len(recorded)} greedy answers, {count} tokens: {wrong or 'equal'}"
    return judged("transcripts", not wrong, measured, "equal", answers=len(recorded), first=wrong)


def _record() -> list[dict[str, Any]]:
    from trit.verify.reference import build
    from trit.verify.stored import TorchCheckpoint
    from trit.verify.texts import load_tokenizer
    from trit.verify.weights import GgufFile

    reference = build(TorchCheckpoint(BUNDLED_MODEL), GgufFile(default_model()))
    tokenizer = load_tokenizer(BUNDLED_MODEL)
    asked = held_out_questions(Random(_SEED), _STORIES, range(1, _SENTENCES + 1))
    prompts = [DEMO_PROMPT.replace("\\n", "\n"), *_STRANGE]
    prompts += [story.text + question.prompt for story, question in asked]
    recorded = []
    stop = special_id(tokenizer, EOS)
    for prompt in prompts:
        tokens = reference.greedy(tokenizer.encode(prompt).ids, MOST_TOKENS, {stop})
        recorded.append({"prompt": prompt, "tokens": tokens, "answer": tokenizer.decode(tokens)})
    return recorded


def main(argv: Sequence[str] | None = None) -> int:
    """Record the transcripts."""
    ArgumentParser(prog="trit golden", description=(__doc__ or "").split("\n")[0]).parse_args(argv)
    recorded = _record()
    with atomic_output(TRANSCRIPTS) as partial:
        partial.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    print(f"{TRANSCRIPTS}: {len(recorded)} answers")
    return EXIT_OK
