# SPDX-License-Identifier: MIT
"""Measure this machine's limits and print them as a table.

Example: trit roofline --threads 2 --json limits.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from statistics import median
from typing import Any

from trit.base.errors import TritError
from trit.base.files import atomic_output, check_output
from trit.base.flags import MEGABYTES, THREADS, ArgumentParser, a_path, real
from trit.base.host import cpu_name, physical_cores
from trit.base.places import CACHE_DIR, ENGINE_BIN, engine_binary
from trit.base.progress import until_now
from trit.engine.roofline import PROGRAM, Limit, Roofline, measure, parse, thread_counts
from trit.measure.report import as_json, plain, write

CACHE = CACHE_DIR / "limits.json"
_DAY_S = 86400


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit roofline",
        description="Measure int8 arithmetic and memory reading, per tier and threads.",
    )
    add = parser.add_argument
    add("--threads", type=THREADS, default=physical_cores(), help="most threads (default: %(default)s)")
    add("--tier", default="chosen", help='name of a tier, "chosen" or "all" (default: the one that is chosen here)')
    add("--again", action="store_true", help="measure even if that was done in the last 24 hours")
    add("--seconds", type=real(0, 3600, above=True), default=0.5, help="for each limit (default: %(default)s)")
    add("--megabytes", type=MEGABYTES, help="memory that is read, twice (default: 4 times the caches)")
    add("--json", type=a_path, metavar="FILE", help="also write everything here, every repetition")
    add("--bin-dir", type=a_path, default=ENGINE_BIN, help="compiled programs (default: the engine's)")
    return parser


class Kept:
    """What was measured with the same flags, program and CPU in the last 24 hours."""

    def __init__(self, args: argparse.Namespace) -> None:
        program = engine_binary(PROGRAM, args.bin_dir)
        self._key = [cpu_name(), str(program), program.stat().st_mtime_ns]
        self._key += [args.threads, args.tier, args.seconds, args.megabytes]

    def read(self) -> Roofline | None:
        """The measurement, if there is one."""
        try:
            content = json.loads(CACHE.read_text(encoding="utf-8"))
            fresh = 0 <= time.time() - content["time"] < _DAY_S
            return parse(content["objects"]) if fresh and content["key"] == self._key else None
        except (OSError, ValueError, KeyError, TypeError, TritError):
            return None

    def write(self, objects: list[dict[str, Any]]) -> None:
        """Keep it, where that is possible."""
        with suppress(OSError), atomic_output(CACHE) as partial:
            content = {"key": self._key, "time": time.time(), "objects": objects}
            partial.write_text(json.dumps(content), encoding="utf-8")


def _row(limit: Limit) -> list[str]:
    read = limit.read
    numbers = [max(limit.int8_gmacs), median(limit.int8_gmacs), max(read.gbs), median(read.gbs)]
    pattern = f"{read.pages}, {read.ahead} ahead" if read.ahead else f"{read.pages}, no prefetch"
    return [limit.tier, str(limit.threads), *(f"{number:.1f}" for number in numbers), pattern]


def table(roofline: Roofline) -> str:
    """Lines for people: best and median of both limits, and the pattern that read fastest."""
    rows = [["tier", "threads", "int8 GMAC/s", "median", "read GB/s", "median", "fastest pattern"]]
    rows += [_row(limit) for limit in roofline.limits if limit.reads]
    return plain(rows, left=(0, len(rows[0]) - 1))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, measure, print."""
    args = _parser().parse_args(argv)

    check_output("--json", args.json)
    objects: list[dict[str, Any]] = []

    def show(found: dict[str, Any]) -> None:
        objects.append(found)
        if found["kind"] == "int8":
            print(f"measured {found['tier']} on {found['threads']} threads", file=sys.stderr)

    kept = Kept(args)
    roofline = None if args.again else kept.read()
    if roofline:
        print("measured in the last 24 hours; --again measures anew", file=sys.stderr)
    else:
        with until_now(lambda: table(parse(objects)) if any(one["kind"] == "read" for one in objects) else ""):
            roofline = measure(
                thread_counts(args.threads),
                tier=args.tier,
                seconds=args.seconds,
                megabytes=args.megabytes,
                bin_dir=args.bin_dir,
                on_object=show,
            )
        kept.write(objects)
    print(f"{cpu_name()}, {physical_cores()} cores, {roofline.compiler}, {roofline.megabytes} MB read")
    print(table(roofline))
    if args.json:
        everything = {"cpu": cpu_name(), "cores": physical_cores(), **asdict(roofline)}
        write(args.json, as_json(everything))
    return 0
