# SPDX-License-Identifier: MIT
"""The same weights in several formats, side by side: size, load time, memory, speed, and error against f16.

Examples: trit compare --shape bitnet-2b-4t
          trit compare -m models/BitNet-b1.58-2B-4T --types i2_s tl2 q4_0 f16 -t 1,2 --plot -o results

The weights are random in a published shape, or a checkpoint's. docs/benchmarks.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from trit.base import by_name
from trit.base.errors import UserError
from trit.base.files import check_input
from trit.base.flags import THREAD_COUNTS, ArgumentParser, a_path, whole, whole_numbers
from trit.base.host import physical_cores
from trit.base.places import BUNDLED_MODEL, INSTALLED, PACKAGE, STATE, engine_binary
from trit.base.plots import check_plot
from trit.base.progress import until_now
from trit.convert.from_random import HEADS
from trit.engine.llama_bench import Case
from trit.engine.roofline import measure as measure_roofline
from trit.measure import report, rounds
from trit.measure.formats import fidelity, tables
from trit.measure.model_store import CheckpointSource, RandomSource, Source, Store, size
from trit.measure.perplexity.held_out import HELD_OUT
from trit.measure.rounds import Loads, Rounds, SoFar
from trit.measure.speed.machine import Watch, thread_warnings
from trit.measure.variants import BASELINES, DEFAULT_VARIANTS, FORMATS, REFERENCE, Variant, parse_variant
from trit.models.shapes import SHAPES, SIZES

KIND = "comparison"
ALL_SHAPES = {**SHAPES, **SIZES}
# Of a package what is made is in one folder.
CACHE = STATE / "comparison" if INSTALLED else Path("~/.cache/trit.cpp/comparison")
SHIPPED_TEXT = PACKAGE / "verify" / "data" / "text.txt"
_WORDS_PER_TOKEN = 2


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit compare",
        description="Compare formats of the same ternary weights: size, load time, memory, speed, error against f16.",
        epilog=f"Types: {', '.join(FORMATS)}. With :no-repack behind it, the engine does not rewrite the file's "
        "weights when it loads them: tq2_0:no-repack are llama.cpp's own kernels.",
    )
    source, add = parser.add_mutually_exclusive_group(required=True), parser.add_argument
    text = f"random weights in the shape of this model: {', '.join(ALL_SHAPES)}"
    source.add_argument("--shape", choices=list(ALL_SHAPES), metavar="NAME", help=text)
    source.add_argument("-m", "--model", type=a_path, help="checkpoint folder, or a name for `trit run`")
    source.add_argument("name", type=a_path, nargs="?", metavar="NAME", help="the same without a flag")
    add("--layers", type=whole(1), help="of a --shape: fewer blocks than the model has, to be quicker")
    add("--head", choices=HEADS, help="embedding and head in every file (default: as trit convert)")
    add("--types", type=parse_variant, nargs="+", default=list(DEFAULT_VARIANTS), help="(default: all)")
    first, second = BASELINES
    text = f"ratios are to this type (default: {first.name}, or {second.name} where that does not fit)"
    add("--baseline", type=parse_variant, help=text)
    add("-p", "--prompt", type=whole_numbers, default=[512], help="tokens (default: 512)")
    add("-n", "--generate", type=whole_numbers, default=[128], help="tokens (default: 128)")
    add("-t", "--threads", type=THREAD_COUNTS, default=[physical_cores()], help="such as 1,2 (default: cores)")
    add("-r", "--rounds", type=whole(1), default=5, help="of everything, in turns (default: %(default)s)")
    add("--no-error", action="store_true", help=f"no error against {REFERENCE}, so no {REFERENCE} file")
    add("--text", type=a_path, help="text for the error (default: random letters, or a shipped text)")
    add("--context", type=whole(8), default=256, help="tokens of a piece of it (default: %(default)s)")
    add("--chunks", type=whole(1), default=1, help="pieces (default: %(default)s)")
    add("--workdir", type=a_path, default=CACHE, help="the models are kept there (default: %(default)s)")
    add("--clean", action="store_true", help="delete them afterwards")
    add("--plot", action="store_true", help="draw a picture, too (needs matplotlib)")
    # Not the folder of the committed results: a try must not replace them.
    report.add_shared_flags(parser, Path("comparison_results"))
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is made."""
    if args.layers and not args.shape:
        raise UserError("--layers: only a --shape can have fewer blocks than it has; leave it out")
    if args.text:
        check_input(args.text)
    if args.layers and args.layers > ALL_SHAPES[args.shape].layers:
        raise UserError(f"--layers {args.layers}: {args.shape} has {ALL_SHAPES[args.shape].layers}, expected fewer")
    report.check_out(args.out, KIND)
    if args.plot:
        check_plot(args.out)
    if args.model:
        # Only now: it may have to be fetched.
        args.model = by_name.checkpoint(args.model)
        if not args.model.is_dir():
            raise UserError(f"-m {args.model}: expected a checkpoint folder (config.json, tokenizer.json, safetensors)")


def _source(args: argparse.Namespace) -> Source:
    if args.model:
        return CheckpointSource(args.model, args.head, args.bin_dir)
    shape = ALL_SHAPES[args.shape]
    return RandomSource(args.shape, replace(shape, layers=args.layers or shape.layers), args.head, args.layers)


def _baseline(candidates: Sequence[Variant], store: Store) -> Variant:
    """What ratios are to: the first of the candidates that this model can be stored as."""
    for variant in candidates:
        if store.file(variant.type):
            return variant
    reasons = "; ".join(dict.fromkeys(store.left_out.values()))
    names = " and ".join(variant.name for variant in candidates)
    raise UserError(f"--baseline: this model has no {names} ({reasons}); choose another --baseline")


@contextmanager
def _text(args: argparse.Namespace) -> Iterator[tuple[Path, str]]:
    """The text that errors are measured over, and what to call it."""
    pieces = f"{args.chunks} x {args.context} tokens, of which the second halves count,"
    if args.text:
        yield args.text, f"{pieces} of {args.text.name}"
        return
    with tempfile.TemporaryDirectory(prefix="trit-compare-") as folder:
        path = Path(folder) / "text.txt"
        if args.shape:
            # llama-perplexity wants twice a context at least.
            path.write_text(fidelity.random_text(_WORDS_PER_TOKEN * args.context * max(2, args.chunks)))
            what = "words of random letters (seed 0), as good a text as any for random weights"
        elif args.model.resolve() == BUNDLED_MODEL:
            path = HELD_OUT
            what = "stories that the bundled model has not seen"
        else:
            path = SHIPPED_TEXT
            what = "the text that trit.verify ships"
        yield path, f"{pieces} of {what}"


def _run(args: argparse.Namespace, candidates: Sequence[Variant], store: Store) -> tables.Comparison:
    """Make the files and measure them."""
    cases = [Case(n, 0, threads=t) for t in args.threads for n in args.prompt]
    cases += [Case(0, n, threads=t) for t in args.threads for n in args.generate]
    watch = Watch()
    watch.wait()
    notes = watch.load_warnings(watch.load(), "before measuring") + thread_warnings(args.threads, physical_cores())
    reference = None if args.no_error else store.file(REFERENCE)
    baseline = _baseline(candidates, store)
    asked = list(dict.fromkeys([*args.types, baseline]))
    variants = [variant for variant in asked if store.file(variant.type)]
    watch.load()  # making files is over
    files = {variant: store.files[variant.type] for variant in variants}
    loads = Loads(files, cases, args.bin_dir)
    so_far = SoFar()
    with until_now(so_far.table, report.show):
        told = [Rounds(args.rounds), loads, watch, so_far]
        found = rounds.measure(files, cases, args.rounds, told, bin_dir=args.bin_dir)
    rows = [
        tables.Row(variant, size(path), loads.loads[variant], {case: found[variant, case].speeds for case in cases})
        for variant, path in files.items()
    ]
    notes += watch.load_warnings(watch.load(), "while measuring") + watch.throttle_warnings()
    left_out = {form: why for form, why in store.left_out.items() if form in {variant.type for variant in asked}}
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    comparison = tables.Comparison(store.source.label, rows, baseline, left_out, notes=notes)
    if reference:
        paths = {Variant(REFERENCE): reference, **files}
        with until_now(lambda: "\n\n".join(tables.text(comparison)), report.show), _text(args) as (text, what):
            errors = fidelity.measure(paths, text, args.context, args.chunks, max(args.threads), args.bin_dir)
        comparison.text = what
        for row in rows:
            row.error = errors[row.variant]
    return comparison


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, make the files, measure, write the results."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    args.model = args.model or args.name
    _check(args)
    for name in ("llama-bench", "llama-perplexity", "llama-quantize"):
        engine_binary(name, args.bin_dir)
    roofline = measure_roofline([1], tier="chosen", seconds=0.01, megabytes=8, bin_dir=args.bin_dir)
    about = report.about("trit compare", given, roofline.compiler)
    (about["tier"],) = roofline.packings
    candidates = [args.baseline] if args.baseline else list(BASELINES)
    forms = [*(variant.type for variant in args.types), *([] if args.no_error else [REFERENCE])]
    store = Store(args.workdir.expanduser(), _source(args), [*forms, *(variant.type for variant in candidates)])
    fitting = [variant.type for variant in candidates if variant.type in store.sizes]
    store.check_space([*forms, *fitting[:1]])
    try:
        comparison = _run(args, candidates, store)
    finally:
        if args.clean:
            store.clean()
    content = "\n\n".join([f"Tier {about['tier']}.", *tables.text(comparison)])
    paths = report.keep(args.out, KIND, about, content, tables.as_json(comparison))
    if args.plot:
        paths.append(paths[0].with_suffix(".png"))
        tables.plot(comparison, paths[-1], f"{comparison.label}\n{about['cpu']}, {about['date']}")
    report.show(content)
    print(f"\nwritten: {paths[0]}, {', '.join(path.name for path in paths[1:])}")
    return 0
