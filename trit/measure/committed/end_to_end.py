# SPDX-License-Identifier: MIT
"""Tokens per second of whole models: our kernels and llama.cpp's own TQ2_0, in the same binary, in turns.

Example: trit committed end-to-end --shape bitnet-2b-4t --threads 1,2

The weights are random (trit.convert.from_random), the same in every file; only speed is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from trit.base.errors import UserError
from trit.base.flags import at_least, whole_numbers
from trit.base.host import last_level_cache_bytes, physical_cores
from trit.base.statistics import LEAST_ROUNDS, in_turns
from trit.convert.from_random import HEADS, generate
from trit.engine import cost, llama_bench
from trit.engine.llama_bench import Case
from trit.engine.roofline import BESIDE_SECONDS, Roofline, measure, memory_megabytes, thread_counts
from trit.gguf.encodings import ENCODINGS
from trit.measure import results
from trit.measure.speed.output import markdown_table
from trit.models.shapes import SHAPES

RIVAL = ("tq2_0", False)
TYPES = ("i2_s", "tq2_0", "tq1_0", "q2_0")
CACHE = Path("~/.cache/trit.cpp/benchmarks")


@dataclass(frozen=True)
class Way:
    """A file's type, and whether its weights are packed when it is loaded (``--repack 1``)."""

    type: str
    packed: bool

    @property
    def name(self) -> str:
        """For the heading of a column."""
        if self.type == "i2_s":
            return "i2_s" if self.packed else "i2_s in place"
        return f"{self.type} packed" if self.packed else f"{self.type} (llama.cpp)"


@dataclass
class Samples:
    """Everything that was measured; one entry of each list per round.

    Attributes:
        speeds: Tokens per second.
        limits: Tokens per second that the machine's limit allows.
    """

    speeds: dict[tuple[Case, Way], list[float]] = field(default_factory=dict)
    limits: dict[tuple[Case, Way], list[float]] = field(default_factory=dict)


def table(samples: Samples, ways: Sequence[Way]) -> str:
    """One row for each test; cells: median, ratio to the rival, share of the limit."""
    rival = Way(*RIVAL)
    rows = [["test", "threads", *(way.name for way in ways)]]
    for test in sorted({test for test, _ in samples.speeds}, key=lambda t: (t.n_gen, t.n_prompt, t.threads)):
        row = [test.name, str(test.threads)]
        for way in ways:
            speed = median(samples.speeds[test, way])
            ratio = speed / median(samples.speeds[test, rival])
            share = speed / median(samples.limits[test, way])
            row.append(f"{speed:.1f} ({ratio:.2f}x, {100 * share:.0f}%)")
        rows.append(row)
    return markdown_table(rows)


def text(samples: Samples, ways: Sequence[Way], model: str) -> str:
    """The Markdown behind the heading."""
    rounds = len(next(iter(samples.speeds.values())))
    return (
        f"Random weights in the shape of {model}. Tokens/s, medians of {rounds} rounds in turns; in brackets: ratio\n"
        f"to {Way(*RIVAL).name}, and share of the limit (pp: int8 arithmetic; tg: reading the weights), which is\n"
        f"measured before each run.\n\n{table(samples, ways)}\n"
    )


def make_model(args: argparse.Namespace, encoding: str) -> Path:
    """The random model in this encoding; made once."""
    folder: Path = args.workdir.expanduser()
    path = folder / f"random-{args.shape}-head-{args.head}-{encoding}.gguf"
    if not path.is_file():
        print(f"making {path}", file=sys.stderr)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir {folder}: cannot be made ({error.strerror})") from error
        generate(f"random {args.shape}", SHAPES[args.shape], ENCODINGS[encoding], args.head, path)
    return path


def run_rounds(args: argparse.Namespace, models: Mapping[str, Path], ways: Sequence[Way]) -> tuple[Samples, Roofline]:
    """Measure; every other round backwards, so that no way is always first."""
    env: dict[str, str | None] = {"TRIT_TIER": args.tier} if args.tier else {}
    tests = [(size, 0) for size in args.prompt] + [(0, size) for size in args.generate]
    cases = [Case(prompt, text, threads=threads) for threads in args.threads for prompt, text in tests]
    megabytes = args.megabytes or memory_megabytes(2)
    files = {name: cost.ModelFile.read(path) for name, path in models.items()}
    samples = Samples()
    for number, way in in_turns(ways, args.rounds):
        print(f"round {number + 1} of {args.rounds}: {way.name}", file=sys.stderr)
        # Every time: on a machine with neighbours the limits drift within seconds.
        roofline = measure(
            args.threads,
            tier="chosen",
            seconds=BESIDE_SECONDS,
            megabytes=megabytes,
            bin_dir=args.bin_dir,
            env=env,
        )
        ((tier, packings),) = roofline.packings.items()
        packing = cost.Packing.of_tier(tier, packings) if way.packed else None
        costs = cost.of_model(files[way.type], packing)
        found = llama_bench.run(models[way.type], cases, repack=way.packed, bin_dir=args.bin_dir, env=env)
        for case, speeds in found.items():
            samples.speeds.setdefault((case, way), []).extend(speeds)
            limit, _ = costs.limit(case, roofline.of(tier, case.threads), last_level_cache_bytes() or 0)
            samples.limits.setdefault((case, way), []).append(limit)
    return samples, roofline


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trit committed end-to-end", description="Measure whole models.")
    parser.add_argument("--shape", choices=list(SHAPES), default="bitnet-2b-4t", help="(default: %(default)s)")
    parser.add_argument("--head", choices=HEADS, default="q6_k", help="embedding and head (default: %(default)s)")
    parser.add_argument("--types", choices=TYPES, nargs="+", default=["i2_s", "tq2_0"], help="(default: i2_s tq2_0)")
    parser.add_argument("--prompt", "-p", type=whole_numbers, default=[128, 512], help="(default: 128,512)")
    parser.add_argument("--generate", "-n", type=whole_numbers, default=[128], help="(default: 128)")
    parser.add_argument(
        "--threads", "-t", type=whole_numbers, default=thread_counts(physical_cores()), help="such as 1,2"
    )
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="(default: %(default)s)")
    parser.add_argument("--tier", help="force a tier (TRIT_TIER)")
    parser.add_argument("--workdir", type=Path, default=CACHE, help="where the models are kept (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, help="memory that is read for the limit (default: 4 times the caches)")
    results.add_shared_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, make the models, measure, write the results."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    at_least("--rounds", args.rounds, 1)
    at_least("--megabytes", args.megabytes or 1, 1)
    types = list(dict.fromkeys([*args.types, RIVAL[0]]))
    for name in types:
        if name not in ENCODINGS:
            raise UserError(f"--types {name}: trit.convert.from_random cannot write it yet; leave it out")
    models = {name: make_model(args, name) for name in types}
    ways = [Way(name, packed) for name in types for packed in (True, False)]
    samples, roofline = run_rounds(args, models, ways)
    about = results.facts("trit committed end-to-end", given, roofline.compiler)
    about["tier"] = next(iter(roofline.packings))
    data = {
        "shape": args.shape,
        "head": args.head,
        "tests": [
            {
                **vars(test),
                "type": way.type,
                "packed": way.packed,
                "tokens_per_second": speeds,
                "limit_tokens_per_second": samples.limits[test, way],
            }
            for (test, way), speeds in samples.speeds.items()
        ],
    }
    content = text(samples, ways, f"{args.shape}, head {args.head}, tier {about['tier']}")
    paths = results.write(args.out, "end-to-end", about, content, data)
    print(table(samples, ways))
    print(f"\nwritten: {paths[0]} and {paths[1].name}")
    return 0
