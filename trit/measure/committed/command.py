# SPDX-License-Identifier: MIT
"""The benchmarks whose results are committed; without a name the kernels, then whole models.

Examples: trit committed
          trit committed kernels --model bitnet-2b-4t --threads 1,2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from trit.base.command import run_command
from trit.base.flags import ArgumentParser, a_path
from trit.base.places import ENGINE_BIN
from trit.measure import report
from trit.measure.committed import end_to_end, kernels

# Name -> module, and what it measures or makes.
PARTS = {
    "kernels": ("kernels", "matrix products in the shapes of known models"),
    "end-to-end": ("end_to_end", "whole models, with llama-bench"),
    "profile": ("token_profile", "where a token's time goes"),
    "busy": ("busy", "what other programs leave of the speed"),
    "load": ("load", "what a server gives to many clients"),
    "arm": ("arm", "the ARM loops, as LLVM's models predict them"),
    "summary": ("summary", "what the documents show of the results"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one part with its own flags; without a part the first two with those that they share."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in PARTS:
        return run_command(f"{__package__}.{PARTS[words[0]][0]}", words[1:])
    parser = ArgumentParser(
        prog="trit committed",
        description="The kernels, then whole models. `trit committed NAME` runs one part, with flags of its own.",
        epilog="parts:\n" + "\n".join(f"  {name:14}  {deed}" for name, (_, deed) in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_shared_flags(parser)
    parser.add_argument("--workdir", type=a_path, default=end_to_end.CACHE, help="where the random models are kept")
    args = parser.parse_args(words)
    shared = ["--out", str(args.out)] if args.out != report.RESULTS else []
    shared += ["--bin-dir", str(args.bin_dir)] if args.bin_dir != ENGINE_BIN else []
    kept = ["--workdir", str(args.workdir)] if args.workdir != end_to_end.CACHE else []
    return kernels.main(shared) or end_to_end.main([*shared, *kept])
