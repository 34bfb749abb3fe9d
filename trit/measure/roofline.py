# SPDX-License-Identifier: MIT
"""Measure this machine's limits and print them as a table.

Example: trit roofline --threads 2 --json limits.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from trit.base.flags import ArgumentParser, at_least
from trit.base.host import cpu_name, physical_cores
from trit.base.places import ENGINE_BIN
from trit.engine.roofline import Limit, Roofline, measure, thread_counts
from trit.measure.report import as_json, plain, write


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit roofline",
        description="Measure int8 arithmetic and memory reading, per tier and threads.",
    )
    add = parser.add_argument
    add("--threads", type=int, default=physical_cores(), help="most threads (default: %(default)s)")
    add("--tier", default="all", help='name of a tier, "chosen" or "all" (default: all)')
    add("--seconds", type=float, default=0.5, help="for each limit (default: %(default)s)")
    add("--megabytes", type=int, help="memory that is read, twice (default: 4 times the caches)")
    add("--json", type=Path, metavar="FILE", help="also write everything here, every repetition")
    add("--bin-dir", type=Path, default=ENGINE_BIN, help="compiled programs (default: build/bin)")
    return parser


def _row(limit: Limit) -> list[str]:
    read = limit.read
    numbers = [max(limit.int8_gmacs), median(limit.int8_gmacs), max(read.gbs), median(read.gbs)]
    pattern = f"{read.pages} pages, prefetch {read.ahead}" if read.ahead else f"{read.pages} pages, no prefetch"
    return [limit.tier, str(limit.threads), *(f"{number:.1f}" for number in numbers), pattern]


def table(roofline: Roofline) -> str:
    """Lines for people: best and median of both limits, and the pattern that read fastest."""
    rows = [["tier", "threads", "int8 GMAC/s", "median", "read GB/s", "median", "fastest pattern"]]
    rows += [_row(limit) for limit in roofline.limits]
    return plain(rows, left=(0, len(rows[0]) - 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, measure, print."""
    args = _parser().parse_args(argv)
    at_least("--threads", args.threads, 1)
    at_least("--megabytes", 1 if args.megabytes is None else args.megabytes, 1)

    def show(found: dict[str, Any]) -> None:
        if found["kind"] == "int8":
            print(f"measured {found['tier']} on {found['threads']} threads", file=sys.stderr)

    roofline = measure(
        thread_counts(args.threads),
        tier=args.tier,
        seconds=args.seconds,
        megabytes=args.megabytes,
        bin_dir=args.bin_dir,
        on_object=show,
    )
    print(f"{cpu_name()}, {physical_cores()} cores, {roofline.compiler}, {roofline.megabytes} MB read")
    print(table(roofline))
    if args.json:
        everything = {"cpu": cpu_name(), "cores": physical_cores(), **asdict(roofline)}
        write(args.json, as_json(everything))
    return 0
