# SPDX-License-Identifier: MIT
"""What other programs on the same CPUs leave of a model's speed, beside another build of the engine.

Example: trit committed busy --threads 2 --beside 0,1,2,4 --other openmp=build-openmp/bin
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from trit.base.errors import UserError
from trit.base.flags import THREADS, ArgumentParser, a_path, numbers_from, some_text, whole
from trit.base.host import physical_cores, usable_cpus
from trit.base.places import engine_binary
from trit.base.progress import until_now
from trit.base.statistics import in_turns
from trit.convert.from_random import HEADS
from trit.engine import llama_bench
from trit.engine.llama_bench import Case
from trit.engine.roofline import measure
from trit.measure import report
from trit.measure.committed.end_to_end import CACHE
from trit.measure.model_store import random_model
from trit.models.shapes import SHAPES

OURS = "this build"
# Reads and writes nothing: it only wants a CPU.
_BUSY = "while True: pass"

Speeds = dict[tuple[str, int], list[float]]


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """So many processes that want a CPU each."""
    running = [subprocess.Popen([sys.executable, "-S", "-c", _BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
        for one in running:
            one.wait()


def fair_share(threads: int, beside: int, cpus: int) -> float:
    """Of the speed on an idle machine: what is left if each of all threads gets the same share of the CPUs."""
    return min(1.0, cpus / (threads + beside))


def measure_all(model: Path, builds: Mapping[str, Path], case: Case, rounds: int, speeds: Speeds) -> None:
    """Add tokens per second of each build beside each number of programs, round by round."""
    for number, (name, count) in in_turns(list(speeds), rounds):
        print(f"round {number + 1} of {rounds}: {name} beside {count}", file=sys.stderr)
        with busy_programs(count):
            speeds[name, count] += llama_bench.run(model, [case], repetitions=1, bin_dir=builds[name])[case]


def as_table(speeds: Speeds, names: Sequence[str], threads: int, cpus: int) -> list[list[str]]:
    """A row for each number of programs: tokens per second, and ours as shares of what is fair and of the others."""
    rows = [["programs", *names, "fair share", f"{OURS}, of it", *(f"{OURS} / {name}" for name in names[1:])]]
    for count in dict.fromkeys(count for _, count in speeds):
        middle = {name: median(speeds[name, count]) for name in names}
        fair = fair_share(threads, count, cpus)
        idle = median(speeds[OURS, 0]) if (OURS, 0) in speeds else None
        ratios = [
            median(a / b for a, b in zip(speeds[OURS, count], speeds[name, count], strict=False)) for name in names[1:]
        ]
        rows.append(
            [
                str(count),
                *(f"{middle[name]:.3g}" for name in names),
                f"{100 * fair:.0f} %",
                f"{100 * middle[OURS] / (idle * fair):.0f} %" if idle else "",
                *(f"{ratio:.2f}" for ratio in ratios),
            ]
        )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, make the model, run, write the results."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = ArgumentParser(prog="trit committed busy", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--shape", choices=list(SHAPES), default="bitnet-2b-4t", help="(default: %(default)s)")
    add("--head", choices=HEADS, default="q6_k", help="embedding and head (default: %(default)s)")
    add("--generate", "-n", type=whole(1), default=32, help="tokens (default: %(default)s)")
    add("--threads", "-t", type=THREADS, default=physical_cores(), help="(default: %(default)s)")
    add("--beside", type=numbers_from(0), default=[0, 1, 2, 4], help="busy programs (default: 0,1,2,4)")
    text = "another build's programs, to compare with"
    add("--other", type=some_text, action="append", default=[], metavar="NAME=DIR", help=text)
    add("--rounds", type=whole(1), default=5, help="(default: %(default)s)")
    add("--workdir", type=a_path, default=CACHE, help="where the model is kept (default: %(default)s)")
    report.add_shared_flags(parser)
    args = parser.parse_args(given)
    builds = {OURS: args.bin_dir}
    for text in args.other:
        name, equals, folder = text.partition("=")
        if not name or not equals or name in builds:
            raise UserError(
                f"--other {text}: expected NAME=DIR with a name of its own, such as openmp=build-openmp/bin"
            )
        builds[name] = Path(folder)
    for folder in builds.values():
        engine_binary(llama_bench.PROGRAM, folder)
    report.check_out(args.out, "busy")
    model = random_model(args.workdir, args.shape, args.head, "i2_s")
    case = Case(0, args.generate, threads=args.threads)
    speeds: Speeds = {(name, count): [] for count in args.beside for name in builds}

    def table() -> list[list[str]]:
        return as_table(speeds, list(builds), args.threads, usable_cpus())

    with until_now(lambda: report.plain(table()) if all(speeds.values()) else ""):
        measure_all(model, builds, case, args.rounds, speeds)
    rows = table()
    about = report.about("trit committed busy", given, measure([1], tier="chosen", seconds=0.01).compiler)
    about["model"] = f"{args.shape}, head {args.head}"
    text = (
        f"Random weights in the shape of {about['model']}: {case.in_words}, tokens/s, medians of {args.rounds} rounds "
        f"in turns, beside programs that each want a CPU.\n\n{report.markdown(rows)}\n"
    )
    tests = [{"build": name, "beside": count, "tokens_per_second": values} for (name, count), values in speeds.items()]
    kept = {"threads": args.threads, "n_gen": args.generate, "tests": tests}
    report.keep_and_show(args.out, "busy", about, text, kept, report.plain(rows))
    return 0
