# SPDX-License-Identifier: MIT
"""Command line: ``python -m tests.support.tiny_checkpoints --family F --variant V --storage S --outdir DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from trit.base.errors import EXIT_OK, UserError, run_main
from trit.base.flags import SEEDS, ArgumentParser, a_path


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="python -m tests.support.tiny_checkpoints",
        description="Write a tiny random checkpoint folder with the configuration keys of a real model.",
    )
    parser.add_argument("--list", action="store_true", help="print every family, its variants and storage kinds")
    parser.add_argument("--family", help="a name that --list prints")
    parser.add_argument("--variant", help="real model to resemble (default: the family's first)")
    parser.add_argument("--storage", help="how the weights are stored (default: the family's first)")
    parser.add_argument("--outdir", type=a_path, help="folder to write")
    parser.add_argument("--seed", type=SEEDS, default=0, help="of the random weights (default: %(default)s)")
    return parser


def _choice(flag: str, value: str | None, choices: Sequence[str]) -> str:
    if value is None:
        return choices[0]
    if value not in choices:
        raise UserError(f"{flag} {value}: unknown; there is {', '.join(choices)}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, write one folder or the list."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not args.list and not (args.family and args.outdir):
        parser.error("give --family and --outdir, or --list")
    # Needs torch; not for --help. Where it is missing, utils/__init__.py hands over or says how to get it.
    from tests.support.tiny_checkpoints import all_families, find_family

    families = all_families()
    if args.list:
        for family in families:
            print(f"{family.FAMILY}: variants {', '.join(family.VARIANTS)}; storage {', '.join(family.STORAGE)}")
        return EXIT_OK
    family = find_family(args.family)
    variant = _choice("--variant", args.variant, family.VARIANTS)
    storage = _choice("--storage", args.storage, family.STORAGE)
    if args.outdir.exists() and any(args.outdir.iterdir()):
        raise UserError(f"--outdir {args.outdir}: is there and not empty; name a new folder")
    family.make(args.outdir, variant, storage, args.seed)
    print(f"{args.outdir}: {family.FAMILY}, {variant}, {storage}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_main(main))
