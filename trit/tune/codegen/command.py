# SPDX-License-Identifier: MIT
"""Write the C++ source of a kernel.

Example: trit codegen lookup --tier avx2 --registers 2 --steps 2 --rows 2560 --outdir build/generated
         trit codegen tl2 --tier avx2 --BM 2560 --BK 6912 --bm 64 --outdir build/generated
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from trit.base.errors import EXIT_OK, run_main
from trit.base.flags import ArgumentParser, a_path, whole
from trit.tune.codegen.configuration import ISA_OF_TIER, SPLITS, TABLE_ISA_OF_TIER, Lookup, Table
from trit.tune.codegen.render import write


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = ArgumentParser(prog="trit codegen", description="Write a kernel's C++ source.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    lookup = kinds.add_parser(
        "lookup", help="prefill by tables over tokens", description="Prefill by tables over tokens."
    )
    lookup.add_argument("--tier", required=True, metavar="NAME", help=", ".join(ISA_OF_TIER))
    defaults = Lookup("avx2")
    lookup.add_argument("--registers", type=whole(1), default=defaults.registers, help="of sums; 1, 2 or 4")
    lookup.add_argument("--steps", type=whole(1), default=defaults.steps, help="of 16 inputs in a pass; 1 or 2")
    lookup.add_argument("--rows", type=whole(1), default=defaults.rows, help="that one set of tables serves")
    lookup.add_argument("--least-tokens", type=whole(1), default=None, help="fewer go to the tier's own kernel")
    _add_outdir(lookup)
    for packing, weights in (("tl1", 2), ("tl2", 3)):
        about = f"few tokens by tables over inputs, {weights} weights for each index"
        table = kinds.add_parser(packing, help=about, description=f"{about[0].upper()}{about[1:]}.")
        table.add_argument("--tier", required=True, metavar="NAME", help=", ".join(TABLE_ISA_OF_TIER))
        add_tile(table, Table(packing, "avx2"))
        _add_outdir(table)
    return parser


def add_tile(parser: argparse.ArgumentParser, defaults: Table) -> None:
    """The flags of a TL1 or TL2 kernel's tile."""
    parser.add_argument("--BM", type=whole(1), default=defaults.rows, help="rows of a call (default: %(default)s)")
    parser.add_argument(
        "--BK", type=whole(1), default=defaults.inputs, help="inputs with tables (default: %(default)s)"
    )
    parser.add_argument("--bm", type=whole(1), default=defaults.block, help="rows in registers (default: %(default)s)")
    parser.add_argument("--unroll", type=whole(1), help="vectors that are added up in 8 bits (default: 2 or 1)")
    parser.add_argument("--split", default=defaults.split, metavar="|".join(SPLITS), help="(default: %(default)s)")
    parser.add_argument("--tokens", type=whole(1), default=defaults.tokens, help="of a call (default: %(default)s)")
    parser.add_argument(
        "--ahead", type=whole(0), default=defaults.ahead, help="bytes of prefetch (default: %(default)s)"
    )


def _add_outdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--outdir", type=a_path, default=Path(), help="folder of the file (default: here)")


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    args = parser().parse_args(argv)
    configuration: Lookup | Table
    if args.kind == "lookup":
        tokens = Lookup(args.tier, args.registers, args.steps, args.rows, 1).tokens
        least = args.least_tokens if args.least_tokens is not None else max(1, tokens * 3 // 4)
        configuration = Lookup(args.tier, args.registers, args.steps, args.rows, least)
    else:
        configuration = Table(
            args.kind, args.tier, args.BM, args.BK, args.bm, args.unroll, args.split, args.tokens, args.ahead
        )
    print(write(configuration, args.outdir))
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(run_main(main))
