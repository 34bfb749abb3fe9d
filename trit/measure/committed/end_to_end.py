# SPDX-License-Identifier: MIT
"""Tokens per second of whole models: our kernels and llama.cpp's own TQ2_0, in the same binary, in turns.

Example: trit committed end-to-end --shape bitnet-2b-4t --threads 1,2

The weights are random (trit.convert.from_random), the same in every file; only speed is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trit.base.flags import MEGABYTES, THREAD_COUNTS, ArgumentParser, a_path, whole, whole_numbers
from trit.base.host import physical_cores
from trit.base.progress import until_now
from trit.base.statistics import LEAST_ROUNDS
from trit.convert.from_random import HEADS
from trit.engine import cost
from trit.engine.llama_bench import Case
from trit.engine.roofline import thread_counts
from trit.measure import report
from trit.measure.model_store import random_model
from trit.measure.rounds import Limits, Results, Rounds, SoFar, measure
from trit.measure.variants import Variant
from trit.models.shapes import SHAPES

RIVAL = Variant("tq2_0", packed=False)
TYPES = ("i2_s", "tq2_0", "tq1_0", "q2_0")
CACHE = Path("~/.cache/trit.cpp/benchmarks")


def heading(variant: Variant) -> str:
    """Of a column."""
    if variant.type == "i2_s":
        return "i2_s" if variant.packed else "i2_s in place"
    return f"{variant.type} packed" if variant.packed else f"{variant.type} (llama.cpp)"


def table(results: Results) -> str:
    """One row for each test; cells: median, ratio to the rival, share of the limit."""
    variants = list(dict.fromkeys(variant for variant, _ in results))
    rows = [["test", "threads", *map(heading, variants)]]
    for case in sorted({case for _, case in results}, key=lambda case: (case.n_gen, case.n_prompt, case.threads)):
        row = [case.name, str(case.threads)]
        for variant in variants:
            result = results[variant, case]
            ratio = result.speed / results[RIVAL, case].speed
            row.append(f"{result.speed:.1f} ({ratio:.2f}x, {100 * result.share:.0f}%)")
        rows.append(row)
    return report.markdown(rows)


def text(results: Results, rounds: int, model: str) -> str:
    """The Markdown behind the heading."""
    return (
        f"Random weights in the shape of {model}. Tokens/s, medians of {rounds} rounds in turns; in brackets: ratio\n"
        f"to {heading(RIVAL)}, and share of the limit (pp: int8 arithmetic; tg: reading the weights), which is\n"
        f"measured before each run.\n\n{table(results)}\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="trit committed end-to-end", description="Measure whole models.")
    add = parser.add_argument
    add("--shape", choices=list(SHAPES), default="bitnet-2b-4t", help="(default: %(default)s)")
    add("--head", choices=HEADS, default="q6_k", help="embedding and head (default: %(default)s)")
    add("--types", choices=TYPES, nargs="+", default=["i2_s", "tq2_0"], help="(default: i2_s tq2_0)")
    add("--prompt", "-p", type=whole_numbers, default=[128, 512], help="(default: 128,512)")
    add("--generate", "-n", type=whole_numbers, default=[128], help="(default: 128)")
    add("--threads", "-t", type=THREAD_COUNTS, default=thread_counts(physical_cores()), help="such as 1,2")
    add("--rounds", type=whole(1), default=LEAST_ROUNDS, help="(default: %(default)s)")
    add("--tier", help="force a tier (TRIT_TIER)")
    add("--workdir", type=a_path, default=CACHE, help="where the models are kept (default: %(default)s)")
    add("--megabytes", type=MEGABYTES, help="memory that is read for the limit (default: 4 times the caches)")
    report.add_shared_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, make the models, measure, write the results."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    report.check_out(args.out, "end-to-end")
    types = list(dict.fromkeys([*args.types, RIVAL.type]))
    made = {name: random_model(args.workdir, args.shape, args.head, name) for name in types}
    files = {Variant(name, packed): path for name, path in made.items() for packed in (True, False)}
    env: dict[str, str | None] = {"TRIT_TIER": args.tier} if args.tier else {}
    tests = [(size, 0) for size in args.prompt] + [(0, size) for size in args.generate]
    cases = [Case(prompt, text, threads=threads) for threads in args.threads for prompt, text in tests]
    models = {variant: cost.ModelFile.read(path) for variant, path in files.items()}
    limits = Limits(models, args.threads, megabytes=args.megabytes, bin_dir=args.bin_dir, env=env)
    so_far = SoFar()
    with until_now(so_far.table, report.show):
        told = [Rounds(args.rounds), limits, so_far]
        found = measure(files, cases, args.rounds, told, bin_dir=args.bin_dir, env=env)
    assert limits.roofline is not None  # there is at least one round
    about = report.about("trit committed end-to-end", given, limits.roofline.compiler)
    about["tier"] = next(iter(limits.roofline.packings))
    results = [
        {
            **vars(one.case),
            "type": one.variant.type,
            "packed": one.variant.packed,
            "tokens_per_second": one.speeds,
            "limit_tokens_per_second": one.limits,
        }
        for one in found.values()
    ]
    data = {"shape": args.shape, "head": args.head, "tests": results}
    content = text(found, args.rounds, f"{args.shape}, head {args.head}, tier {about['tier']}")
    report.keep_and_show(args.out, "end-to-end", about, content, data, table(found))
    return 0
