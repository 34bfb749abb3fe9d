# SPDX-License-Identifier: MIT
"""Time of whole ternary matrix products in the shapes of known models, and how near that is to the machine's limits.

Example: trit committed kernels --model bitnet-2b-4t --threads 1,2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tqdm import tqdm

from trit.base.errors import TritError, UserError
from trit.base.flags import MEGABYTES, THREAD_COUNTS, ArgumentParser, joined, real, whole, whole_numbers
from trit.base.host import physical_cores
from trit.base.places import engine_binary
from trit.base.progress import until_now
from trit.engine.program import json_lines
from trit.engine.roofline import memory_megabytes, thread_counts
from trit.measure import report
from trit.models.shapes import SHAPES, matrices

PROGRAM = "trit-bench"
PACKINGS = ("2_bits", "5_trits", "tl1", "tl2", "in_place", "lookup", "2_bits+lookup")
TOKENS = [1, 2, 4, 8, 16, 64, 512]
LEAST_REPETITIONS = 5
# The program takes no more either.
MOST_MEGABYTES = 3 << 10


@dataclass(frozen=True)
class Product:
    """One measured product: m tokens times an [n, k] matrix.

    Attributes:
        seconds: Of each repetition.
        gmacs: The int8 limit before the first repetition and after each.
        gbs: The same for reading.
    """

    tier: str
    packing: str
    n: int
    k: int
    m: int
    threads: int
    weight_bytes: int
    seconds: list[float]
    gmacs: list[float]
    gbs: list[float]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one product."""
        return self.n * self.k * self.m

    def limit_seconds(self) -> list[tuple[float, float]]:
        """For each repetition, the least time by arithmetic and by reading: means of what was measured around."""

        def around(values: list[float], i: int) -> float:
            return (values[i] + values[i + 1]) / 2 * 1e9

        count = len(self.seconds)
        return [(self.macs / around(self.gmacs, i), self.weight_bytes / around(self.gbs, i)) for i in range(count)]

    @property
    def share(self) -> float:
        """Median of least time / measured time; the longer one of both least times binds."""
        return median(max(both) / took for both, took in zip(self.limit_seconds(), self.seconds, strict=True))

    @property
    def binding(self) -> str:
        """The limit that binds: "int8" or "read"."""
        return "int8" if median(int8 - read for int8, read in self.limit_seconds()) > 0 else "read"


def parse(line: Mapping[str, Any]) -> Product:
    """A line of the program's output."""
    try:
        numbers = {name: int(line[name]) for name in ("n", "k", "m", "threads", "weight_bytes")}
        product = Product(
            line["tier"],
            line["packing"],
            **numbers,
            seconds=list(line["seconds"]),
            gmacs=list(line["int8_gmacs"]),
            gbs=list(line["read_gbs"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TritError(f"{PROGRAM} printed something else than expected ({error!r}); build it again") from error
    if not product.seconds or not len(product.gmacs) == len(product.gbs) == len(product.seconds) + 1:
        raise TritError(f"{PROGRAM} printed lists of {len(product.seconds)} times that do not fit; build it again")
    return product


def model_shapes(models: Iterable[str]) -> list[tuple[int, int]]:
    """Each (n, k) of these models once, in order."""
    return list(dict.fromkeys(nk for model in models for nk in matrices(SHAPES[model]).values()))


def summary(products: Sequence[Product]) -> str:
    """One row for each tier, packing and number of threads: the median share of the limit, per number of tokens."""
    tokens = sorted({product.m for product in products})
    groups = dict.fromkeys((product.tier, product.packing, product.threads) for product in products)
    rows = [["tier", "packing", "threads", *(f"m = {m}" for m in tokens)]]
    for tier, packing, threads in groups:
        cells = []
        for m in tokens:
            wanted = (tier, packing, threads, m)
            found = [p.share for p in products if (p.tier, p.packing, p.threads, p.m) == wanted]
            cells.append(f"{100 * median(found):.0f}%" if found else "-")
        rows.append([tier, packing, str(threads), *cells])
    return report.markdown(rows)


def details(products: Sequence[Product]) -> str:
    """One row for each product."""
    rows = [["tier", "packing", "n x k", "threads", "m", "us", "GMAC/s", "GB/s", "of limit", "limit"]]
    for p in products:
        seconds = median(p.seconds)
        speeds = [f"{seconds * 1e6:.1f}", f"{p.macs / seconds / 1e9:.1f}", f"{p.weight_bytes / seconds / 1e9:.1f}"]
        words = [p.tier, p.packing, f"{p.n} x {p.k}", str(p.threads), str(p.m)]
        rows.append([*words, *speeds, f"{100 * p.share:.0f}%", p.binding])
    return report.markdown(rows)


def text(products: Sequence[Product], megabytes: int) -> str:
    """The Markdown behind the heading."""
    return (
        "Share of the binding limit, median over the shapes. The limits are measured before and after every product;\n"
        f"up to 16 tokens, weights come from memory ({megabytes} MB are read before the same come again).\n\n"
        f"{summary(products)}\n\n"
        "Medians. GB/s: packed weights. Limit: `int8` arithmetic or `read`ing weights from memory.\n\n"
        f"{details(products)}\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="trit committed kernels", description="Measure the ternary kernels.")
    add = parser.add_argument
    add("--model", choices=[*SHAPES, "all"], nargs="+", default=["all"], help="whose matrices (default: all)")
    add("--tier", default="chosen", help='name of a tier, "chosen" or "all" (default: chosen)')
    text = f"{', '.join(PACKINGS)}, or look-up kernels of the build (default: all of the first that the tier has)"
    add("--packing", nargs="+", default=list(PACKINGS), metavar="NAME", help=text)
    add("--m", type=whole_numbers, default=TOKENS, help="tokens (default: 1,2,4,8,16,64,512)")
    add("--threads", type=THREAD_COUNTS, default=thread_counts(physical_cores()), help="such as 1,2")
    add("--repetitions", type=whole(1), default=LEAST_REPETITIONS, help="(default: %(default)s)")
    add(
        "--milliseconds", type=real(0, 60_000, above=True), default=4, help="of each measurement (default: %(default)s)"
    )
    add("--megabytes", type=MEGABYTES, help="weights to go through (default: 4 times the caches)")
    report.add_shared_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, measure, write the results."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    report.check_out(args.out, "kernels")
    megabytes = args.megabytes or min(memory_megabytes(), MOST_MEGABYTES)
    shapes = model_shapes(SHAPES if "all" in args.model else args.model)
    command = [str(engine_binary(PROGRAM, args.bin_dir)), "--tier", args.tier]
    command += ["--shapes", ",".join(f"{n}x{k}" for n, k in shapes), "--packings", ",".join(args.packing)]
    command += ["--m", joined(args.m), "--threads", joined(args.threads), "--repetitions", str(args.repetitions)]
    command += ["--milliseconds", str(args.milliseconds), "--megabytes", str(megabytes)]
    products: list[Product] = []
    head: dict[str, Any] = {}
    total = len(shapes) * len(args.packing) * len(args.m) * len(args.threads) if args.tier != "all" else None
    interval = 0.5 if sys.stderr.isatty() else 20
    with tqdm(total=total, desc="products", unit="", mininterval=interval) as bar:

        def take(line: dict[str, Any]) -> None:
            if line.get("kind") == "head":
                head.update(line)
            if line.get("kind") == "product":
                products.append(parse(line))
                bar.update()

        with until_now(lambda: summary(products) if products else "", report.show):
            json_lines(command, "measuring the kernels", on_object=take)
    if not products:
        raise UserError("nothing was measured: the tier has none of these packings, or every product took too long")
    about = report.about("trit committed kernels", given, str(head.get("compiler", "unknown")))
    found = [{**vars(p), "share_of_limit": p.share, "binding": p.binding} for p in products]
    data = {"megabytes": megabytes, "products": found}
    report.keep_and_show(args.out, "kernels", about, text(products, megabytes), data, summary(products))
    return 0
