# SPDX-License-Identifier: MIT
"""What a server gives to many clients: tokens per second, waiting, memory; and that all get what one would get.

Example: trit committed load --model SmolLM2=MODEL.gguf --other llama.cpp=build-stock/bin

Clients are on this machine and share its cores with the server. Each sends its next question when the last one is
answered. All questions have the same beginning, as those of one application have.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from trit.base.errors import TritError, UserError
from trit.base.flags import THREADS, ArgumentParser, a_path, numbers_from, some_text, whole
from trit.base.host import physical_cores
from trit.base.places import engine_binary
from trit.base.progress import until_now
from trit.base.statistics import in_turns
from trit.convert.from_random import HEADS, OUTTYPES, generate
from trit.engine import batching
from trit.engine.roofline import measure
from trit.engine.server import Server
from trit.gguf.made import default_model
from trit.measure import report
from trit.measure.clients import PERCENTILES, Load, load
from trit.measure.committed.end_to_end import CACHE
from trit.measure.model_store import kept, random_model
from trit.models.shapes import SHAPES
from trit.run.serving.budget import MOST_SLOTS
from trit.train.story import ask, make_story

OURS = "this build"
_BUNDLED = "bundled"
_RIVAL_TYPE = "tq2_0"
STOCK_ARCHITECTURES = ("llama", "bitnet")
_CONTEXT = 512
_QUESTIONS = 16  # different ones
_BEGINNING, _OWN = 8, 3  # sentences
_LEAST = 16  # requests of a measurement
_SETTLED = 500  # requests after which a server's memory is compared with what it takes at last
_MOST_GROWTH = 0.05
_SOAK_CLIENTS = 16


@dataclass
class Found:
    """Of one model on one server.

    Attributes:
        loads: By number of clients, round by round.
        settled: Requests of the long run after which memory is looked at first.
        resident: Bytes then, and after the last.
        requests: All.
        errors: What came in the place of answers.
        different: Answers that are not those of a single client.
    """

    loads: dict[int, list[Load]] = field(default_factory=dict)
    settled: int = _SETTLED
    resident: tuple[int | None, int | None] = (None, None)
    requests: int = 0
    errors: list[str] = field(default_factory=list)
    different: int = 0

    def add(self, done: Load, alone: Mapping[int, str]) -> None:
        """Count a measurement; alone: what a single client is told, by question."""
        self.requests += len(done.answers) + len(done.errors)
        self.errors += done.errors
        self.different += sum(answer.text != alone[number % len(alone)] for number, answer in done.answers.items())

    @property
    def growth(self) -> float | None:
        """Of the memory, as a share; None where the system does not tell."""
        early, late = self.resident
        return late / early - 1 if early and late else None


def _stock_model(workdir: Path, shape: str, head: str) -> Path:
    """Random weights that llama.cpp loads without our patches: its ``bitnet`` has another activation, nothing else.

    Raises:
        UserError: the file cannot be made.
    """
    ours = SHAPES[shape]
    if ours.architecture in STOCK_ARCHITECTURES:
        return random_model(workdir, shape, head, _RIVAL_TYPE)
    theirs = replace(ours, architecture="bitnet")
    path = workdir.expanduser() / f"random-{shape}-as-bitnet-head-{head}-{_RIVAL_TYPE}.gguf"
    return kept(path, lambda path: generate(f"random {shape}", theirs, OUTTYPES[_RIVAL_TYPE], head, path))


def questions(seed: int = 1) -> list[str]:
    """Stories with one beginning, and a question after each."""
    rng = Random(seed)
    beginning = make_story(rng, _BEGINNING).text
    made = []
    for _ in range(_QUESTIONS):
        story = make_story(rng, _OWN)
        made.append(f"{beginning} {story.text}{ask(rng, story, next(iter(story.places))).prompt}")
    return made


def measure_all(
    servers: Mapping[str, Server], clients: Sequence[int], most: int, rounds: int, results: Mapping[str, Found]
) -> dict[str, dict[int, str]]:
    """Add every number of clients on every server, in turns; returns what a single client was told on each."""
    prompts = questions()
    alone: dict[str, dict[int, str]] = {}
    for name, server in servers.items():
        done = load(server.url, prompts, 1, range(len(prompts)), most)
        alone[name] = {number: answer.text for number, answer in done.answers.items()}
        results[name].add(done, alone[name])
        if done.errors:
            raise TritError(f"{name}: {done.errors[0]}")
    for number, (name, count) in in_turns([(name, count) for count in clients for name in servers], rounds):
        print(f"round {number + 1} of {rounds}: {name}, {count} clients", file=sys.stderr)
        done = load(servers[name].url, prompts, count, range(max(count, _LEAST)), most)
        results[name].loads.setdefault(count, []).append(done)
        results[name].add(done, alone[name])
    return alone


def soak(server: Server, requests: int, minutes: int, most: int, found: Found, alone: Mapping[int, str]) -> None:
    """Add many requests, and what memory the server takes early and late; fewer if they take too long."""
    print(f"{requests} requests of {_SOAK_CLIENTS} clients", file=sys.stderr)
    end = time.monotonic() + 60 * minutes
    piece = max(1, min(_SETTLED, requests // 2))
    memory: list[int | None] = []
    for first in range(0, requests, piece):
        if len(memory) > 1 and time.monotonic() > end:
            break
        numbers = range(first, min(first + piece, requests))
        found.add(load(server.url, questions(), _SOAK_CLIENTS, numbers, most), alone)
        memory.append(server.resident)
    found.settled, found.resident = piece, (memory[0], memory[-1])


def faults(name: str, found: Found) -> list[str]:
    """What must not be: sentences."""
    said = (
        [f"{name}: {len(found.errors)} of {found.requests} requests failed: {found.errors[0]}"] if found.errors else []
    )
    if found.different:
        said.append(f"{name}: {found.different} of {found.requests} answers are not those of a single client")
    if found.growth is not None and found.growth > _MOST_GROWTH:
        early, late = (f"{(value or 0) / 1e6:.0f} MB" for value in found.resident)
        said.append(f"{name}: memory grew from {early} after {found.settled} requests to {late} after all")
    return said


def _row(name: str, count: int, loads: Sequence[Load], one: Sequence[Load] | None) -> list[str]:
    speed = median(done.tokens_per_second for done in loads)
    ratio = f"{speed / median(done.tokens_per_second for done in one):.2f}" if one else ""

    def middle(waits: Sequence[Sequence[float]]) -> str:
        return " / ".join(f"{median(values):.0f}" for values in zip(*waits, strict=True))

    waits = [middle([done.first for done in loads]), middle([done.between for done in loads])]
    return [name, str(count), f"{speed:.3g}", ratio, *waits, f"{100 * median(done.cached for done in loads):.0f} %"]


def as_table(results: Mapping[str, Found]) -> list[list[str]]:
    """A row for each server and number of clients: medians of the rounds."""
    at = "/".join(f"p{one}" for one in PERCENTILES)
    rows = [["server", "clients", "tokens/s", "of one", f"first token, ms ({at})", f"between, ms ({at})", "reused"]]
    for name, found in results.items():
        rows += [_row(name, count, loads, found.loads.get(1)) for count, loads in sorted(found.loads.items())]
    return rows


def _memory(found: Found) -> str:
    early, late = found.resident
    if not early or not late:
        return ""
    return f"; memory {early / 1e6:.0f} MB after the first {found.settled}, {late / 1e6:.0f} MB after all"


def _text(model: str, results: Mapping[str, Found]) -> str:
    """The Markdown of one model."""
    lines = [f"## {model}", "", report.markdown(as_table(results)), ""]
    for name, found in results.items():
        same = "all answers as of a single client" if not found.different else f"{found.different} answers differ"
        lines.append(f"- {name}: {found.requests:,} requests, {len(found.errors)} errors, {same}{_memory(found)}.")
    return "\n".join([*lines, ""])


def _kept(model: str, results: Mapping[str, Found]) -> dict[str, Any]:
    servers = {}
    for name, found in results.items():
        tests = [
            {
                "clients": count,
                "tokens_per_second": done.tokens_per_second,
                "first_ms": done.first,
                "between_ms": done.between,
                "reused": done.cached,
            }
            for count, loads in sorted(found.loads.items())
            for done in loads
        ]
        servers[name] = {
            "requests": found.requests,
            "errors": len(found.errors),
            "different": found.different,
            "settled": found.settled,
            "resident_bytes": found.resident,
            "tests": tests,
        }
    return {"model": model, "servers": servers}


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="trit committed load", description=__doc__.splitlines()[0])
    add = parser.add_argument
    text = f"a model's file; without one the bundled model, called {_BUNDLED}, and the random shape"
    add("--model", "-m", type=some_text, action="append", default=[], metavar="NAME=FILE", help=text)
    add("--shape", choices=list(SHAPES), help="also random weights in this shape, i2_s (default without --model: "
        "bitnet-2b-4t)")  # fmt: skip
    add("--head", choices=HEADS, default="q6_k", help="its embedding and head (default: %(default)s)")
    text = f"another engine's programs, whose server gets the shape's {_RIVAL_TYPE} file"
    add("--other", type=some_text, action="append", default=[], metavar="NAME=DIR", help=text)
    add("--clients", type=numbers_from(1), default=[1, 4, 8, 16, 64], help="such as 1,8 (default: 1,4,8,16,64)")
    add("--tokens", "-n", type=whole(2), default=24, help="of an answer (default: %(default)s)")
    add(
        "--requests",
        type=whole(2, also=(0,)),
        default=10000,
        help="of the long run on files; 0: none (default: %(default)s)",
    )
    add("--minutes", type=whole(1), default=5, help="of it at most, on each file (default: %(default)s)")
    add("--threads", "-t", type=THREADS, default=physical_cores(), help="(default: %(default)s)")
    add("--rounds", type=whole(1), default=3, help="(default: %(default)s)")
    add("--workdir", type=a_path, default=CACHE, help="where random models are kept (default: %(default)s)")
    report.add_shared_flags(parser)
    return parser


def _pairs(flag: str, words: Sequence[str]) -> dict[str, Path]:
    pairs: dict[str, Path] = {}
    for text in words:
        name, _, path = text.partition("=")
        if not name or not path or name in (OURS, *pairs):
            raise UserError(f"{flag} {text}: expected NAME=PATH with a name of its own")
        pairs[name] = Path(path)
    return pairs


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, make the models, measure, write the results."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    others = _pairs("--other", args.other)
    for folder in (args.bin_dir, *others.values()):
        engine_binary("llama-server", folder)
    report.check_out(args.out, "load")
    files = _pairs("--model", args.model)
    shape = args.shape
    if not files and not shape:
        files, shape = {_BUNDLED: default_model()}, "bitnet-2b-4t"
    runs = {name: {OURS: (path, args.bin_dir)} for name, path in files.items()}
    if shape:
        ours = random_model(args.workdir, shape, args.head, "i2_s")
        rival = _stock_model(args.workdir, shape, args.head) if others else ours
        runs[f"random {shape}"] = {OURS: (ours, args.bin_dir)} | {name: (rival, to) for name, to in others.items()}
    about = report.about("trit committed load", given, measure([1], tier="chosen", seconds=0.01).compiler)
    rate = batching.multiply_rate(args.threads, args.bin_dir)
    parts: list[str] = []
    kept: list[dict[str, Any]] = []
    wrong: list[str] = []
    with until_now(lambda: "\n".join(parts), report.show):
        for model, servers in runs.items():
            chosen = batching.choose(servers[OURS][0], MOST_SLOTS, rate)
            results = {name: Found() for name in servers}
            with ExitStack() as stack:
                running = {}
                for name, (path, folder) in servers.items():
                    flags, env = (chosen.flags, chosen.environment) if name == OURS else ([], {})
                    server = Server(path, args.threads, flags, MOST_SLOTS, _CONTEXT, folder, env)
                    running[name] = stack.enter_context(server)
                alone = measure_all(running, args.clients, args.tokens, args.rounds, results)
                if model in files and args.requests:
                    soak(running[OURS], args.requests, args.minutes, args.tokens, results[OURS], alone[OURS])
            parts.append(_text(model, results))
            kept.append({**_kept(model, results), "slots": MOST_SLOTS, "step": chosen.step, "batch": chosen.batch})
            wrong += faults(f"{model}, {OURS}", results[OURS])
    if wrong:
        raise TritError("; ".join(wrong))
    text = (
        f"Clients on this machine, {args.tokens} greedy tokens a request, {args.threads} threads, medians of "
        f"{args.rounds} rounds in turns. {MOST_SLOTS} requests are answered at a time, others wait.\n\n"
    )
    data = {"threads": args.threads, "tokens": args.tokens, "models": kept}
    report.keep_and_show(args.out, "load", about, text + "\n".join(parts), data, "\n".join(parts))
    return 0
