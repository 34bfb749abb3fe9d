# SPDX-License-Identifier: MIT
"""Both trit.measure.committed with their defaults: the kernels, then whole models.

Example: python -m trit.measure.committed
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trit.base.errors import run_main
from trit.base.places import ENGINE_BIN
from trit.measure import results
from trit.measure.committed import end_to_end, kernels


def main(argv: Sequence[str] | None = None) -> int:
    """Run one after the other; each has more flags when it is run by itself."""
    parser = argparse.ArgumentParser(prog="python -m trit.measure.committed", description=__doc__.splitlines()[0])
    results.add_shared_flags(parser)
    parser.add_argument("--workdir", type=Path, default=end_to_end.CACHE, help="where the random models are kept")
    args = parser.parse_args(argv)
    shared = ["--out", str(args.out)] if args.out != results.RESULTS else []
    shared += ["--bin-dir", str(args.bin_dir)] if args.bin_dir != ENGINE_BIN else []
    kept = ["--workdir", str(args.workdir)] if args.workdir != end_to_end.CACHE else []
    return kernels.main(shared) or end_to_end.main([*shared, *kept])


if __name__ == "__main__":
    sys.exit(run_main(main))
