# SPDX-License-Identifier: MIT
"""Measure which kernels are fastest here, and write down what the engine shall use.

Example: python -m utils.tune -m models/BitNet-b1.58-2B-4T/ggml-model-i2_s.gguf --threads 1,2 --plot tuning.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.cli import EXIT_OK, UserError, run_main
from utils.host import ENGINE_BIN, cpu_name, physical_cores
from utils.tune import report, store
from utils.tune.shapes import of_model, of_published_shape
from utils.tune.timer import Timer
from utils.tune.tuner import Tuned, tune


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m utils.tune", description=(__doc__ or "").split("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", "-m", type=Path, metavar="FILE", help="GGUF file whose shapes are tuned for")
    what.add_argument("--shape", default="bitnet-2b-4t", metavar="NAME", help="or a published shape (%(default)s)")
    parser.add_argument(
        "--threads", "-t", default=str(physical_cores()), metavar="N[,N]", help="(default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of the search (default: %(default)g)")
    parser.add_argument(
        "--out", type=Path, default=store.TUNING_FILE, help="file that is written (default: %(default)s)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the search (needs matplotlib)")
    parser.add_argument("--bin-dir", type=Path, default=ENGINE_BIN, help="compiled programs (default: build/bin)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    args = parser().parse_args(argv)
    words = args.threads.split(",")
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UserError(f"--threads {args.threads}: expected numbers of 1 or more, separated by commas")
    if args.seconds < 0:
        raise UserError(f"--seconds {args.seconds:g}: expected 0 or more")
    shapes = of_model(args.model) if args.model else of_published_shape(args.shape)
    model = args.model.name if args.model else args.shape

    def told(result: Tuned) -> None:
        print(report.line(result), flush=True)

    with Timer(args.bin_dir) as timer:
        print(f"tuning for {model} on {cpu_name()}, tier {timer.tier}, up to {args.seconds:g} s", flush=True)
        results = tune(timer, shapes, sorted(set(map(int, words))), args.seconds, told)
        store.save(args.out, timer.tier, [result.choice for result in results], model)
    for text in report.total(results):
        print(text)
    print(f"written: {args.out}")
    if args.plot:
        report.plot(results, args.plot, f"{model} on {cpu_name()}, tier {timer.tier}")
        print(f"drawn: {args.plot}")
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(run_main(main))
