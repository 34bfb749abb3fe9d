# SPDX-License-Identifier: MIT
"""What guessing tokens from what was said before (``--draft ngram``) saves, over three kinds of text.

Example: trit drafts -m MODEL.gguf --rounds 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from trit.base import by_name
from trit.base.errors import TritError
from trit.base.flags import THREADS, ArgumentParser, a_path, whole
from trit.base.host import cpu_name, physical_cores
from trit.engine.inference import DRAFTS, check_model
from trit.engine.server import Server
from trit.measure.report import as_json, markdown, write

_CONTEXT = 1024
# Kind of text -> what a user says.
TEXTS = {
    "code": "Write a Python class with four methods, add, subtract, multiply and divide. Each prints its name, its two "
    "arguments and its result.",
    "chat that repeats its input": "Repeat this text with Maria in the place of Anna: Anna went to the market on "
    "Monday. At the market Anna bought three apples and a loaf of bread. On Tuesday Anna went to the river, where she "
    "met her brother. Anna gave her brother an apple and told him about the market.",
    "prose": "Write a short story about a lighthouse keeper who finds a letter.",
}


@dataclass
class Saved:
    """Of one kind of text.

    Attributes:
        kind: Of the text.
        tokens: Generated in a round.
        drafted: Tokens that were guessed in a round.
        accepted: Those that the model would have said.
        ratios: Tokens per second with drafts over those without, of each round.
    """

    kind: str
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    ratios: list[float] = field(default_factory=list)

    def row(self) -> list[str]:
        """The cells of a table."""
        share = f"{self.accepted / self.drafted:.0%}" if self.drafted else "-"
        steps = max(1, self.tokens - self.accepted)
        cells = [self.kind, str(self.tokens), str(self.drafted), share, f"{self.tokens / steps:.2f}"]
        return [*cells, f"{median(self.ratios):.2f} ({min(self.ratios):.2f} to {max(self.ratios):.2f})"]


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="trit drafts", description="Measure what --draft ngram saves in chats and the server.")
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    text = "GGUF file, or a name for `trit run`, of a model that answers"
    what.add_argument("-m", "--model", type=a_path, help=text)
    what.add_argument("name", type=a_path, nargs="?", metavar="NAME", help="the same without a flag")
    add("-t", "--threads", type=THREADS, default=physical_cores(), help="threads (default: %(default)s)")
    add("-n", "--n-predict", type=whole(1), default=120, metavar="N", help="tokens of an answer (default: %(default)s)")
    add("--rounds", type=whole(1), default=3, help="each text with and without drafts in turns (default: %(default)s)")
    add("--json", type=a_path, metavar="FILE", help="also write everything here")
    return parser


def answer(server: Server, text: str, most: int) -> dict[str, Any]:
    """The greedy answer to a chat of one message: the engine's object, with token ids and timings."""
    prompt = server.post("/apply-template", {"messages": [{"role": "user", "content": text}]})["prompt"]
    body = {"prompt": prompt, "n_predict": most, "temperature": 0, "cache_prompt": False, "return_tokens": True}
    found: dict[str, Any] = server.post("/completion", body)
    return found


def measure(model: Path, threads: int, most: int, rounds: int) -> list[Saved]:
    """Answer each text with and without drafts, in turns.

    Raises:
        TritError: the server failed, or the answers differ.
    """
    results = [Saved(kind) for kind in TEXTS]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server(model, threads, flags, slots=1, context=_CONTEXT))
            for flags in (DRAFTS["none"], DRAFTS["ngram"])
        ]
        for number in range(rounds):
            for saved in results:
                turns = servers if number % 2 == 0 else servers[::-1]
                found = [answer(server, TEXTS[saved.kind], most) for server in turns]
                plain, drafted = found if number % 2 == 0 else found[::-1]
                if plain["tokens"] != drafted["tokens"]:
                    raise TritError(f"{model}: the answer to {saved.kind} is another one with drafts; please report it")
                timings = drafted["timings"]
                saved.tokens = timings["predicted_n"]
                saved.drafted, saved.accepted = timings.get("draft_n", 0), timings.get("draft_n_accepted", 0)
                saved.ratios.append(timings["predicted_per_second"] / plain["timings"]["predicted_per_second"])
                print(f"round {number + 1} of {rounds}: {saved.kind}", file=sys.stderr)
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, measure, print."""
    args = _parser().parse_args(argv)
    args.model = by_name.model_file(args.model or args.name)
    check_model(args.model)
    results = measure(args.model, args.threads, args.n_predict, args.rounds)
    head = ["text", "tokens", "guessed", "right", "tokens a step", "tokens/s, with over without"]
    print(f"{cpu_name()}, {args.threads} threads, {args.model.name}, greedy; median (least to most) of {args.rounds}")
    print(markdown([head, *(saved.row() for saved in results)]))
    if args.json:
        write(args.json, as_json({"cpu": cpu_name(), "threads": args.threads, "texts": [asdict(r) for r in results]}))
    return 0
