# SPDX-License-Identifier: MIT
"""Measure which kernels are fastest here, and write down what the engine shall use.

Example: python -m utils.tune -m models/BitNet-b1.58-2B-4T/ggml-model-i2_s.gguf --threads 1,2 --plot tuning.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.cli import EXIT_OK, UserError, run_main
from utils.host import ENGINE_BIN, cpu_name, engine_binary, physical_cores
from utils.tune import report, store
from utils.tune.shapes import of_model, of_published_shape
from utils.tune.timer import PROGRAM, Timer
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
    parser.add_argument("--if-needed", action="store_true", help="only if a shape of the model is not tuned yet")
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
    if args.model and not args.model.is_file():
        raise UserError(f"-m {args.model}: there is no such file")
    if args.plot:
        report.check_plot(args.plot)
    threads = sorted(set(map(int, words)))
    shapes = of_model(args.model) if args.model else of_published_shape(args.shape)
    model = args.model.name if args.model else args.shape
    key = store.machine_key(engine_binary(PROGRAM, args.bin_dir))
    old = _old(args.out)
    if args.if_needed:
        known = {(shape.n, shape.k, shape.threads) for shape in old.shapes} if old and old.key == key else set()
        if not shapes:
            print(f"nothing to tune: {model} has no ternary matrix")
            return EXIT_OK
        if all((n, k, count) in known for n, k in shapes for count in threads):
            print(f"up to date: {args.out}")
            return EXIT_OK
    if not shapes:
        raise UserError(f"{args.model} has no ternary matrix to tune for; convert it first: python3 -m utils.convert")

    def told(result: Tuned) -> None:
        print(report.line(result), flush=True)

    with Timer(args.bin_dir) as timer:
        print(f"tuning for {model} on {cpu_name()}, tier {timer.tier}, up to {args.seconds:g} s", flush=True)
        results = tune(timer, shapes, threads, args.seconds, told)
        store.save(args.out, store.merged(old, store.Tuning(timer.tier, key, [result.choice for result in results])))
    for text in report.total(results):
        print(text)
    print(f"written: {args.out}")
    if args.plot:
        report.plot(results, args.plot, f"{model} on {cpu_name()}, tier {timer.tier}")
        print(f"drawn: {args.plot}")
    return EXIT_OK


def _old(path: Path) -> store.Tuning | None:
    """What was found earlier; a file that cannot be used is as good as none, it is going to be replaced."""
    try:
        return store.load(path)
    except UserError:
        return None


if __name__ == "__main__":
    raise SystemExit(run_main(main))
