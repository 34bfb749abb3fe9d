# SPDX-License-Identifier: MIT
"""Measure which kernels are fastest here, and write down what the engine shall use.

Example: trit tune -m models/BitNet-b1.58-2B-4T/ggml-model-i2_s.gguf --threads 1,2 --plot tuning.png
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trit.base import by_name
from trit.base.errors import EXIT_OK, UserError
from trit.base.files import check_output
from trit.base.flags import THREAD_COUNTS, ArgumentParser, a_path, real
from trit.base.host import cpu_cores, cpu_name, physical_cores
from trit.base.places import ENGINE_BIN, INSTALLED, engine_binary, python_command
from trit.base.plots import check_plot
from trit.engine import kept_kernels, tuning_file
from trit.engine.tuning_file import Shape
from trit.tune import formats, report
from trit.tune.generated import build_in, compile_for, first_look, verdict
from trit.tune.layer import LayerContest
from trit.tune.library import Library
from trit.tune.search import Contest
from trit.tune.shapes import of_model, of_published_shape
from trit.tune.timer import PROGRAM, Timer
from trit.tune.tuner import Tuned, tune


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = ArgumentParser(prog="trit tune", description=(__doc__ or "").split("\n")[0])
    what, add = parser.add_mutually_exclusive_group(), parser.add_argument
    text = "GGUF file, checkpoint folder or name of a model whose shapes are tuned for"
    what.add_argument("--model", "-m", type=a_path, metavar="FILE", help=text)
    what.add_argument("name", type=a_path, nargs="?", metavar="NAME", help="the same without a flag")
    what.add_argument("--shape", default="bitnet-2b-4t", metavar="NAME", help="or a published shape (%(default)s)")
    text = f"(default: {physical_cores()})"
    add("--threads", "-t", type=THREAD_COUNTS, default=[physical_cores()], metavar="N[,N]", help=text)
    add("--seconds", type=real(0, 86400), default=60.0, help="budget of the search (default: %(default)g)")
    add("--out", type=a_path, default=tuning_file.TUNING_FILE, help="file that is written (default: %(default)s)")
    add("--if-needed", action="store_true", help="only if a shape of the model is not tuned yet")
    add("--use-pretuned", action="store_true", help="measure nothing: say what the preset for this CPU is")
    text = "in a checkout: write the preset for this tier and CPU instead"
    add("--as-preset", action="store_true", help=text)
    add("--no-variants", action="store_true", help="only kernels that the engine has: compile nothing")
    add("--plot", type=a_path, metavar="FILE.png", help="draw the search (needs matplotlib)")
    add("--json", action="store_true", help="print one JSON object; what is told meanwhile goes to standard error")
    add("--bin-dir", type=a_path, default=ENGINE_BIN, help="compiled programs (default: the engine's)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    args = parser().parse_args(argv)
    with redirect_stdout(sys.stderr if args.json else sys.stdout):
        found = _tune(args)
    if args.json:
        print(json.dumps({**asdict(found), "file": str(args.out)}))
    return EXIT_OK


def for_setup(arguments: list[str], tell: Callable[[str], None]) -> dict[str, Any]:
    """What set-up calls, with flags of the command line; the result is a :class:`trit.tune.formats.Verdict`."""
    return asdict(_tune(parser().parse_args(arguments)))


def _tune(args: argparse.Namespace) -> formats.Verdict:
    """Print what is done, at the end the verdict; that too."""
    if args.plot:
        check_plot(args.plot)
    check_output("--plot", args.plot)
    # The folder of the default is ours to make: of a wheel it is in the user's cache.
    check_output("--out", args.out, in_folder=args.out == tuning_file.TUNING_FILE)
    args.model = args.model or args.name
    if args.model:
        args.model = by_name.named_file(args.model)
        if not args.model.exists():
            raise UserError(f"-m {args.model}: there is no such file or folder")
    if INSTALLED:
        if args.as_preset:
            raise UserError("--as-preset needs a checkout of trit.cpp, whose presets it writes; leave it away")
        # Variants are compiled from a checkout's sources, and built into its engine.
        args.no_variants = True
    threads = args.threads
    shapes = of_model(args.model) if args.model else of_published_shape(args.shape)
    model = args.model.name if args.model else args.shape
    if not shapes:
        if args.if_needed or args.use_pretuned:
            return _end(formats.Verdict(None, f"nothing to tune: {model} has no ternary matrix"))
        convert = python_command("-m utils.convert")
        raise UserError(f"{args.model} has no ternary matrix to tune for; convert it first: {convert}")
    program = engine_binary(PROGRAM, args.bin_dir)
    key = tuning_file.machine_key(program)
    old = _old(args.out)
    if args.if_needed and not args.use_pretuned and old and old.key == key:
        known = {(shape.n, shape.k, shape.threads) for shape in old.shapes}
        if all((n, k, count) in known for n, k in shapes for count in threads):
            print(f"up to date: {args.out}")
            return _end(formats.verdict(old, shapes, ""))
    if args.use_pretuned or (args.if_needed and args.seconds == 0):
        return _end(_preset_verdict(args.bin_dir, shapes))
    end = time.monotonic() + args.seconds
    # A preset is for builds that have nothing but presets.
    library = Library() if args.no_variants or args.as_preset else compile_for(program, shapes, args.seconds)
    with Timer(args.bin_dir, library=library.path) as timer:
        print(f"tuning for {model} on {cpu_name()}, tier {timer.tier}, up to {args.seconds:g} s", flush=True)
        preset = tuning_file.preset(timer.tier)
        there = timer.names
        without = kept_kernels.sources(_build_dir(program)) if args.as_preset else ()
        tables = first_look(timer, library, shapes, max(threads), args.seconds, without)
        result = tune(timer, shapes, threads, max(0.0, end - time.monotonic()), _say, preset, tables)
    out = args.out
    new = tuning_file.Tuning(
        timer.tier, key, result.choices, result.measured, tables=result.tables, at_once=result.at_once
    )
    if args.as_preset:
        out, old = tuning_file.own_preset(timer.tier)
        new = replace(new, key=tuning_file.PRESET_KEY, match=old.match if old else cpu_cores()[:1])
    found = tuning_file.merged(old, new)
    if library.path:
        print(verdict(library, there, tuning_file.kernels(found)), flush=True)
    if args.no_variants or args.as_preset:
        tuning_file.save(out, found)
    else:
        _write(out, found, library, program)
    print(f"written: {out}")
    said = _end(formats.verdict(found, shapes, ""))
    if args.plot:
        report.plot(result, args.plot, f"{model} on {cpu_name()}, tier {timer.tier}")
        print(f"drawn: {args.plot}")
    return said


def _end(verdict: formats.Verdict) -> formats.Verdict:
    print(verdict.line)
    return verdict


def _say(result: Tuned | LayerContest | Contest) -> None:
    for line in report.lines(result):
        print(line, flush=True)


def _preset_verdict(bin_dir: Path, shapes: Mapping[Shape, int]) -> formats.Verdict:
    """What is used here without measuring."""
    with Timer(bin_dir, megabytes=1) as timer:
        preset = tuning_file.preset(timer.tier)
    where = f"preset for {timer.tier}, {preset.cpu}" if preset else f"no preset for {timer.tier}"
    return formats.verdict(preset, shapes, where)


def _build_dir(program: Path) -> Path:
    return program.resolve().parent.parent


def _write(out: Path, tuning: tuning_file.Tuning, library: Library, program: Path) -> None:
    """Build the winners into the engine and save the choices: they mean the same kernels in the new program."""
    files = {out.resolve(): tuning}
    engine_file = _build_dir(program) / tuning_file.TUNING_FILE.name
    if engine_file not in files and (other := _old(engine_file)):
        files[engine_file] = other
    if not build_in(library, _build_dir(program), set().union(*map(tuning_file.kernels, files.values()))):
        tuning_file.save(out, tuning)
        return
    key = tuning_file.machine_key(program)
    for path, file in files.items():
        if file.key == tuning.key:
            tuning_file.save(path, replace(file, key=key))


def _old(path: Path) -> tuning_file.Tuning | None:
    """What was found earlier; a file that cannot be used is as good as none, it is going to be replaced."""
    try:
        return tuning_file.load(path)
    except UserError:
        return None
