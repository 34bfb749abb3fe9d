# SPDX-License-Identifier: MIT
"""Measure how fast a model reads prompts and writes text, with bitnet.cpp's flags and more.

Example: trit bench -m MODEL.gguf -p 512 -n 128 -t 1,2 --baseline OTHER.gguf --roofline
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from trit.base import by_name
from trit.base.errors import UserError
from trit.base.files import check_output
from trit.base.flags import THREAD_COUNTS, ArgumentParser, a_path, numbers_from, whole
from trit.base.host import last_level_cache_bytes, physical_cores
from trit.base.places import ENGINE_BIN, engine_binary
from trit.base.plots import check_plot
from trit.base.progress import until_now
from trit.base.provenance import facts
from trit.base.statistics import LEAST_ROUNDS
from trit.engine import cost
from trit.engine.inference import check_model
from trit.engine.llama_bench import BATCH, PROGRAM, Case
from trit.gguf.made import default_model
from trit.measure import report, rounds
from trit.measure.rounds import Limits, Observer, Progress, Result, SoFar
from trit.measure.speed import energy, tables
from trit.measure.speed.machine import Watch, thread_warnings
from trit.measure.variants import Variant, labelled

Files = Mapping[Variant, cost.ModelFile]


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit bench", description="Measure how fast a model reads prompts and writes text (llama-bench)."
    )
    add, cores = parser.add_argument, physical_cores()
    what = parser.add_mutually_exclusive_group()
    text = "GGUF file, or a name for `trit run` (default: the bundled model)"
    what.add_argument("-m", "--model", type=a_path, help=text)
    what.add_argument("name", type=a_path, nargs="?", metavar="NAME", help="the same without a flag")
    text = "tokens to write, such as 128 or 32,128 (default: 128)"
    add("-n", "--n-token", type=numbers_from(0), default=[128], metavar="N", help=text)
    text = "tokens of a prompt, such as 512 or 128,512 (default: 512)"
    add("-p", "--n-prompt", type=numbers_from(0), default=[512], metavar="N", help=text)
    text = f"threads, such as 4 or 1,2,4 (default: physical cores, here {cores})"
    add("-t", "--threads", type=THREAD_COUNTS, default=[cores], metavar="N", help=text)
    text = "of each test (default: %(default)s)"
    add("-r", "--repetitions", type=whole(1), default=LEAST_ROUNDS, metavar="N", help=text)
    add("-b", "--batch-size", type=whole(1), default=BATCH, metavar="N", help="of prompts (default: %(default)s)")
    text = "write behind so many tokens of context, such as 0,2048,8192 (default: 0)"
    add("--depth", type=numbers_from(0), default=[0], metavar="N", help=text)
    text = "compare with these, run by run in turns"
    add("--baseline", type=a_path, nargs="+", default=[], metavar="MODEL", help=text)
    add("--roofline", action="store_true", help="share of this machine's limits, measured in between")
    add("--energy", action="store_true", help="joules per token, where the CPU's counters are readable")
    add("--json", type=a_path, metavar="FILE", help="also write everything here, every repetition")
    add("--csv", type=a_path, metavar="FILE", help="also write a table here, a line for each test")
    add("--plot", type=a_path, metavar="FILE.png", help="also draw it (needs matplotlib)")
    add("--bin-dir", type=a_path, default=ENGINE_BIN, help="compiled programs (default: the engine's)")
    return parser


def _cases(args: argparse.Namespace) -> list[Case]:
    """Prompts into an empty context, text behind every depth; on every number of threads.

    Raises:
        UserError: nothing is asked for, or a flag would have no effect.
    """
    prompts, texts = [n for n in args.n_prompt if n], [n for n in args.n_token if n]
    if not prompts and not texts:
        raise UserError("-p 0 -n 0: nothing to measure; give one of them tokens")
    if args.depth != [0] and not texts:
        raise UserError("--depth is the context that text is written behind; give -n tokens as well")
    sizes = [(prompt, 0, 0) for prompt in prompts] + [(0, text, depth) for text in texts for depth in args.depth]
    return [Case(p, n, depth, threads, args.batch_size) for threads in args.threads for p, n, depth in sizes]


def _files(args: argparse.Namespace) -> Files:
    """The headers of the model and those to compare it with."""
    check_model(args.model)
    args.baseline = by_name.model_files(args.baseline)
    for path in args.baseline:
        check_model(path, "--baseline")
    return labelled([cost.ModelFile.read(path) for path in (args.model, *args.baseline)])


def _fit_warnings(args: argparse.Namespace, files: Files, cases: Sequence[Case]) -> list[str]:
    """What to say of tests that are possible, but not what a model is for."""
    said = thread_warnings(args.threads, physical_cores())
    most = max(case.depth + case.n_prompt + case.n_gen for case in cases)
    said += [
        f"{file.path} was made for a context of {file.context} tokens, the tests fill {most}: their speed is real, an "
        "answer there would not be"
        for file in files.values()
        if 0 < file.context < most
    ]
    if args.baseline and args.repetitions < LEAST_ROUNDS:
        said.append(f"-r {args.repetitions}: no ratios are given for fewer than {LEAST_ROUNDS} rounds")
    return said


def _open_meter(asked: bool, stack: ExitStack) -> tuple[energy.Meter | None, str]:
    """A meter, or why there is none."""
    if not asked:
        return None, "not asked for"
    try:
        print(f"measuring the idle machine's power, {energy.IDLE_SECONDS:.0f} s", file=sys.stderr)
        return stack.enter_context(energy.Meter(energy.Counters())), ""
    except energy.NotMeasured as error:
        return None, str(error)


def _measure(
    args: argparse.Namespace, files: Files, cases: Sequence[Case], observers: Sequence[Observer]
) -> list[Result]:
    """One model's repetitions one after the other, several models in turns."""
    repetitions = args.repetitions if len(files) == 1 else 1
    turns = args.repetitions // repetitions
    progress = Progress(turns * len(files) * len(cases), repetitions)
    paths = {variant: file.path for variant, file in files.items()}
    so_far = SoFar()
    told = [*observers, progress, so_far]

    def table() -> str:
        return tables.speed_table(list(so_far.results.values()), files) if so_far.results else ""

    with until_now(table, report.show):
        found = rounds.measure(paths, cases, turns, told, repetitions=repetitions, bin_dir=args.bin_dir)
    return list(found.values())


def _print(results: Sequence[Result], files: Files, args: argparse.Namespace, meter: energy.Meter | str) -> None:
    """The tables on stdout."""
    report.show(tables.speed_table(results, files))
    if args.baseline and args.repetitions >= LEAST_ROUNDS:
        report.show(f"\n{tables.ratio_table(results)}")
    if args.roofline:
        report.show(f"\n{tables.limit_table(results)}")
        cache = last_level_cache_bytes() or 0
        fitting = {r.variant.name: None for r in results if r.case.n_gen and r.cost and r.cost.bytes <= cache}
        for name in fitting:
            print(f"\n{name} fits the caches ({cache >> 20} MiB): reading memory is no limit, int8 arithmetic is.")
    if isinstance(meter, energy.Meter):
        report.show(f"\n{tables.energy_table(results, meter.idle_watts)}")
        print(f"\nCounted: {', '.join(meter.counters.names)}; idle: {meter.idle_watts:.1f} W.")
    elif args.energy:
        print(f"\nenergy: not measured: {meter}")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, check everything, measure, print, write the files."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    args.model = args.model or args.name
    cases = _cases(args)
    for flag, path in (("--json", args.json), ("--csv", args.csv), ("--plot", args.plot)):
        check_output(flag, path)
    if args.plot:
        check_plot(args.plot)
    engine_binary(PROGRAM, args.bin_dir)
    by_name.check_all([*([args.model] if args.model else []), *args.baseline])
    args.model = by_name.model_file(args.model) if args.model else default_model()
    files = _files(args)
    if args.roofline:
        for file in files.values():
            cost.of_model(file, {})
    warnings: list[str] = []

    def warn(texts: Sequence[str]) -> None:
        warnings.extend(texts)
        for text in texts:
            print(f"warning: {text}", file=sys.stderr)

    warn(_fit_warnings(args, files, cases))
    limits = Limits(files, args.threads, after_too=True, bin_dir=args.bin_dir) if args.roofline else None
    with ExitStack() as stack:
        watch = Watch()
        meter, why = _open_meter(args.energy, stack)
        watch.wait()
        warn(watch.load_warnings(watch.load(), "before the tests"))
        # The meter first: what the others do must not count.
        results = _measure(args, files, cases, [one for one in (meter, limits, watch) if one])
        load = watch.load()
        warn(watch.load_warnings(load, "during the tests") + watch.throttle_warnings())
    _print(results, files, args, meter or why)
    roofline, idle = limits.roofline if limits else None, meter.idle_watts if meter else 0.0
    ran = facts(["trit", "bench", *given], roofline.compiler if roofline else None)
    everything = {
        "about": {
            **ran,
            "models": {variant.name: str(file.path.absolute()) for variant, file in files.items()},
            "tier": next(iter(roofline.packings)) if roofline else None,
        },
        "machine": {
            "warnings": warnings,
            "cpus_of_others": load.others if load else None,
            "cpus_stolen": load.stolen if load else None,
            "hertz": watch.hertz,
        },
        "energy": {"counters": meter.counters.names, "idle_watts": idle} if meter else {"not_measured": why},
        "tests": (tests := [tables.as_object(result, results, idle) for result in results]),
    }
    if args.json:
        report.write(args.json, report.as_json(everything))
    if args.csv:
        report.write(args.csv, report.as_csv([tables.flat(test) for test in tests]))
    if args.plot:
        tables.plot(args.plot, f"{ran['cpu']}, {ran['date']}", results)
    return 0
