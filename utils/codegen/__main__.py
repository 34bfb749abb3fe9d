# SPDX-License-Identifier: MIT
"""Write the C++ source of a kernel.

Example: python -m utils.codegen lookup --tier avx2 --registers 2 --steps 2 --rows 2560 --outdir build/generated
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.cli import EXIT_OK, atomic_output, run_main
from utils.codegen.configuration import ISA_OF_TIER, Lookup
from utils.codegen.render import render


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m utils.codegen", description="Write a kernel's C++ source.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    lookup = kinds.add_parser(
        "lookup", help="prefill by tables over tokens", description="Prefill by tables over tokens."
    )
    lookup.add_argument("--tier", required=True, metavar="NAME", help=", ".join(ISA_OF_TIER))
    defaults = Lookup("avx2")
    lookup.add_argument("--registers", type=int, default=defaults.registers, help="of sums; 1, 2 or 4")
    lookup.add_argument("--steps", type=int, default=defaults.steps, help="of 16 inputs in a pass; 1 or 2")
    lookup.add_argument("--rows", type=int, default=defaults.rows, help="that one set of tables serves")
    lookup.add_argument("--least-tokens", type=int, default=None, help="fewer go to the tier's own kernel")
    lookup.add_argument("--outdir", type=Path, default=Path(), help="folder of the file (default: here)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    args = parser().parse_args(argv)
    tokens = Lookup(args.tier, args.registers, args.steps, args.rows, 1).tokens
    least = args.least_tokens if args.least_tokens is not None else max(1, tokens * 3 // 4)
    configuration = Lookup(args.tier, args.registers, args.steps, args.rows, least)
    args.outdir.mkdir(parents=True, exist_ok=True)
    path = args.outdir / f"{configuration.name}.cpp"
    with atomic_output(path) as part:
        part.write_text(render(configuration), encoding="utf-8", newline="\n")
    print(path)
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(run_main(main))
