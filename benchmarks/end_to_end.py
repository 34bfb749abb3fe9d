# SPDX-License-Identifier: MIT
"""Tokens per second of whole models: our kernels and llama.cpp's own TQ2_0, in the same binary, in turns.

Example: python -m benchmarks.end_to_end --shape bitnet-2b-4t --threads 1,2

The weights are random (utils.generate_dummy_model), the same in every file; only speed is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from utils.cli import TritError, UserError, run_main
from utils.generate_dummy_model import HEADS, SHAPES, Shape, generate, matrices
from utils.gguf_types import GGMLQuantizationType, read_header
from utils.host import engine_binary, physical_cores
from utils.roofline import Roofline, measure, memory_megabytes, thread_counts
from utils.roofline.program import json_lines
from utils.tune import store
from utils.tune.shapes import of_published_shape
from utils.weight_encodings import ENCODINGS

PROGRAM = "llama-bench"
RIVAL = ("tq2_0", False)
TYPES = ("i2_s", "tq2_0", "tq1_0", "q2_0")
# q2_0 may hold the weight +2, which has no place among five trits.
FOUR_CODES = ("q2_0",)
LEAST_ROUNDS = 5
ROOFLINE_SECONDS = 0.2
CACHE = Path("~/.cache/trit.cpp/benchmarks")


@dataclass(frozen=True)
class Way:
    """A file's type, and whether its weights are packed when it is loaded (``--repack 1``)."""

    type: str
    packed: bool

    @property
    def name(self) -> str:
        """For the heading of a column."""
        if self.type == "i2_s":
            return "i2_s" if self.packed else "i2_s in place"
        return f"{self.type} packed" if self.packed else f"{self.type} (llama.cpp)"


@dataclass(frozen=True, order=True)
class Case:
    """One of the tests of ``llama-bench``: a prompt or generated text, on a number of threads."""

    n_prompt: int
    n_gen: int
    threads: int

    @property
    def name(self) -> str:
        """As the engine's people write it."""
        return f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"


@dataclass
class Samples:
    """Everything that was measured; one entry of each list per round.

    Attributes:
        speeds: Tokens per second.
        limits: Tokens per second that the machine's limit allows.
    """

    speeds: dict[tuple[Case, Way], list[float]] = field(default_factory=dict)
    limits: dict[tuple[Case, Way], list[float]] = field(default_factory=dict)


def parse(objects: Sequence[Mapping[str, Any]]) -> dict[Case, float]:
    """Tokens per second of each test, from ``llama-bench -o jsonl``."""
    try:
        found = {
            Case(int(line["n_prompt"]), int(line["n_gen"]), int(line["n_threads"])): float(line["avg_ts"])
            for line in objects
        }
    except (KeyError, TypeError, ValueError) as error:
        raise TritError(f"{PROGRAM} printed something else than expected ({error!r})") from error
    if not found or min(found.values()) <= 0:
        raise TritError(f"{PROGRAM} printed no speeds")
    return found


def packed_bytes(n: int, k: int, packing: str) -> int:
    """Size of an [n, k] matrix in panels of 64 rows (docs/formats.md)."""
    inputs, step_bytes = {"2_bits": (16, 256), "5_trits": (20, 256), "tl1": (4, 64), "tl2": (24, 320)}[packing]
    return -(-n // 64) * -(-k // inputs) * step_bytes


def bytes_per_token(model: Path, packing: str | None) -> int:
    """Bytes of weights that generating one token reads.

    Args:
        model: GGUF file.
        packing: What the ternary matrices are packed into; None: as they are in the file.
    """
    tensors = read_header(model).tensors
    ternary = {encoding.ggml_type for encoding in ENCODINGS.values()} - {
        GGMLQuantizationType.F16,
        GGMLQuantizationType.F32,
    }
    total = 0
    for name, tensor in tensors.items():
        # The embedding is read whole only where it is the head as well.
        if name == "token_embd.weight" and "output.weight" in tensors:
            continue
        if packing is not None and tensor.ggml_type in ternary and len(tensor.shape) == 2:
            total += packed_bytes(*tensor.shape, packing)
        else:
            total += tensor.nbytes
    return total


def macs_per_token(shape: Shape) -> int:
    """Multiply-accumulates of one token in the ternary matrices; the head runs only for a prompt's last token."""
    return shape.layers * sum(n * k for n, k in matrices(shape).values())


def packing_of(way: Way, packings: Sequence[str], tuned: str | None) -> str | None:
    """What our loader packs a file's weights into (one scale for each matrix).

    Args:
        way: file and whether it is packed.
        packings: that the tier has kernels for.
        tuned: what was found by measuring, or the preset says.
    """
    if not way.packed:
        return None
    if way.type in FOUR_CODES:
        return "2_bits"
    return tuned or ("5_trits" if "5_trits" in packings else "2_bits")


def limit_of(test: Case, roofline: Roofline, macs: int, weight_bytes: int) -> float:
    """Most tokens per second: by arithmetic for a prompt, by reading the weights once for each generated token."""
    (tier,) = roofline.packings
    limit = roofline.of(tier, test.threads)
    if test.n_prompt:
        return median(limit.int8_gmacs) * 1e9 / macs
    return median(limit.read.gbs) * 1e9 / weight_bytes


def table(samples: Samples, ways: Sequence[Way]) -> str:
    """One row for each test; cells: median, ratio to the rival, share of the limit."""
    rival = Way(*RIVAL)
    rows = [["test", "threads", *(way.name for way in ways)]]
    for test in sorted({test for test, _ in samples.speeds}, key=lambda t: (t.n_gen, t.n_prompt, t.threads)):
        row = [test.name, str(test.threads)]
        for way in ways:
            speed = median(samples.speeds[test, way])
            ratio = speed / median(samples.speeds[test, rival])
            share = speed / median(samples.limits[test, way])
            row.append(f"{speed:.1f} ({ratio:.2f}x, {100 * share:.0f}%)")
        rows.append(row)
    return report.markdown_table(rows)


def text(samples: Samples, ways: Sequence[Way], model: str) -> str:
    """The Markdown behind the heading."""
    rounds = len(next(iter(samples.speeds.values())))
    return (
        f"Random weights in the shape of {model}. Tokens/s, medians of {rounds} rounds in turns; in brackets: ratio\n"
        f"to {Way(*RIVAL).name}, and share of the limit (pp: int8 arithmetic; tg: reading the weights), which is\n"
        f"measured before each run.\n\n{table(samples, ways)}\n"
    )


def make_model(args: argparse.Namespace, encoding: str) -> Path:
    """The random model in this encoding; made once."""
    folder: Path = args.workdir.expanduser()
    path = folder / f"random-{args.shape}-head-{args.head}-{encoding}.gguf"
    if not path.is_file():
        print(f"making {path}", file=sys.stderr)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir {folder}: cannot be made ({error.strerror})") from error
        generate(f"random {args.shape}", SHAPES[args.shape], ENCODINGS[encoding], args.head, path)
    return path


def run_rounds(args: argparse.Namespace, models: Mapping[str, Path], ways: Sequence[Way]) -> tuple[Samples, Roofline]:
    """Measure; every other round backwards, so that no way is always first."""
    env: dict[str, str | None] = {"TRIT_TIER": args.tier} if args.tier else {}
    macs = macs_per_token(SHAPES[args.shape])
    program = engine_binary(PROGRAM, args.bin_dir)
    megabytes = args.megabytes or memory_megabytes(2)
    samples = Samples()
    for number in range(args.rounds):
        for way in ways if number % 2 == 0 else list(reversed(ways)):
            print(f"round {number + 1} of {args.rounds}: {way.name}", file=sys.stderr)
            # Every time: on a machine with neighbours the limits drift within seconds.
            roofline = measure(
                args.threads,
                tier="chosen",
                seconds=ROOFLINE_SECONDS,
                megabytes=megabytes,
                bin_dir=args.bin_dir,
                env=env,
            )
            ((tier, packings),) = roofline.packings.items()
            tuning = store.in_use(tier)
            tuned = tuning.packing(of_published_shape(args.shape)) if tuning else None
            command = [str(program), "-m", str(models[way.type]), "--repack", str(int(way.packed))]
            command += ["-p", report.joined(args.prompt), "-n", report.joined(args.generate)]
            command += ["-t", report.joined(args.threads), "-r", "1", "-o", "jsonl"]
            weight_bytes = bytes_per_token(models[way.type], packing_of(way, packings, tuned))
            for test, speed in parse(json_lines(command, f"running {PROGRAM} on {way.name}", env=env)).items():
                samples.speeds.setdefault((test, way), []).append(speed)
                samples.limits.setdefault((test, way), []).append(limit_of(test, roofline, macs, weight_bytes))
    if {len(speeds) for speeds in samples.speeds.values()} != {args.rounds}:
        raise TritError(f"{PROGRAM} left out some tests in some rounds; see logs/benchmarks.log")
    return samples, roofline


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description="Measure whole models.")
    parser.add_argument("--shape", choices=list(SHAPES), default="bitnet-2b-4t", help="(default: %(default)s)")
    parser.add_argument("--head", choices=HEADS, default="q6_k", help="embedding and head (default: %(default)s)")
    parser.add_argument("--types", choices=TYPES, nargs="+", default=["i2_s", "tq2_0"], help="(default: i2_s tq2_0)")
    parser.add_argument("--prompt", "-p", type=report.whole_numbers, default=[128, 512], help="(default: 128,512)")
    parser.add_argument("--generate", "-n", type=report.whole_numbers, default=[128], help="(default: 128)")
    parser.add_argument(
        "--threads", "-t", type=report.whole_numbers, default=thread_counts(physical_cores()), help="such as 1,2"
    )
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="(default: %(default)s)")
    parser.add_argument("--tier", help="force a tier (TRIT_TIER)")
    parser.add_argument("--workdir", type=Path, default=CACHE, help="where the models are kept (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, help="memory that is read for the limit (default: 4 times the caches)")
    report.add_shared_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, make the models, measure, write the results."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    report.at_least("--rounds", args.rounds, 1)
    report.at_least("--megabytes", args.megabytes or 1, 1)
    types = list(dict.fromkeys([*args.types, RIVAL[0]]))
    for name in types:
        if name not in ENCODINGS:
            raise UserError(f"--types {name}: utils.generate_dummy_model cannot write it yet; leave it out")
    models = {name: make_model(args, name) for name in types}
    ways = [Way(name, packed) for name in types for packed in (True, False)]
    samples, roofline = run_rounds(args, models, ways)
    about = report.facts("benchmarks.end_to_end", given, roofline.compiler)
    about["tier"] = next(iter(roofline.packings))
    data = {
        "shape": args.shape,
        "head": args.head,
        "tests": [
            {
                **vars(test),
                "type": way.type,
                "packed": way.packed,
                "tokens_per_second": speeds,
                "limit_tokens_per_second": samples.limits[test, way],
            }
            for (test, way), speeds in samples.speeds.items()
        ],
    }
    content = text(samples, ways, f"{args.shape}, head {args.head}, tier {about['tier']}")
    paths = report.write(args.out, "end-to-end", about, content, data)
    print(table(samples, ways))
    print(f"\nwritten: {paths[0]} and {paths[1].name}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
