# SPDX-License-Identifier: MIT
"""Make and measure a model with several types of embedding and head, with the flags of bitnet.cpp's script.

Example: python utils/quantize_embeddings.py -i models/trit-story-3m -t f16 q8_0 q6_k --threads 1,2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trit.base.errors import EXIT_OK, UserError
from trit.base.flags import at_least, whole_numbers
from trit.base.host import physical_cores
from trit.base.places import BUNDLED_MODEL, ENGINE_BIN, ROOT, engine_binary
from trit.engine.llama_bench import PROGRAM, Case
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import block_of, quiet_gguf_package
from trit.measure.embeddings.sweep import TYPES, base_name, columns_of, make, measure, table, write_csv
from trit.measure.variants import Variant

TESTS = ((128, 0), (0, 128))
CSV_NAME = "embedding_benchmark.csv"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quantize_embeddings.py", description="Make and measure a model with several types of embedding and head."
    )
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        default=BUNDLED_MODEL,
        help="folder of a checkpoint, or a GGUF file with ternary matrices and an embedding in f16, f32 or bf16 "
        "(default: the bundled model's folder)",
    )
    parser.add_argument("-o", "--output-dir", type=Path, help="where the files go (default: beside the input's)")
    parser.add_argument(
        "-t", "--types", nargs="+", type=str.lower, choices=TYPES, metavar="TYPE", help=f"default: {' '.join(TYPES)}"
    )
    parser.add_argument("--outtype", choices=list(ENCODINGS), default="i2_s", help="ternary matrices (default: i2_s)")
    parser.add_argument(
        "-q", "--quantize-bin", type=Path, metavar="FILE", help="no effect: the converter of trit.cpp quantises"
    )
    parser.add_argument("-b", "--bench-bin", type=Path, metavar="FILE", help="llama-bench (default: that of build/bin)")
    parser.add_argument("--stats-dir", type=Path, default=ROOT / "stats", help="folder of the CSV (default: stats)")
    parser.add_argument(
        "-c", "--csv-output", type=Path, metavar="FILE", help=f"default: {CSV_NAME} in --stats-dir; is replaced"
    )
    parser.add_argument(
        "-s",
        "--skip-existing",
        action="store_true",
        help="no effect, as in bitnet.cpp: files that exist are always kept, and measured",
    )
    parser.add_argument("--force", action="store_true", help="make files anew that exist")
    parser.add_argument("--no-bench", action="store_true", help="make the files, measure nothing")
    parser.add_argument(
        "--threads",
        type=whole_numbers,
        default=[physical_cores()],
        help=f"such as 1,2,4 (default: physical cores, here {physical_cores()})",
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each file (default: %(default)s)")
    return parser


def _bench_dir(given: Path | None) -> Path:
    """Folder of llama-bench; raises UserError if it is not there."""
    if given is not None and given.stem != PROGRAM:
        raise UserError(f"-b {given}: expected the program {PROGRAM}")
    folder = given.parent if given else ENGINE_BIN
    engine_binary(PROGRAM, folder)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, make the files, measure them, print and keep the result."""
    args = _parser().parse_args(argv)
    at_least("--rounds", args.rounds, 1)
    quiet_gguf_package()
    bin_dir = None if args.no_bench else _bench_dir(args.bench_bin)
    columns = columns_of(args.input)
    types = list(dict.fromkeys(args.types or [name for name in TYPES if columns % block_of(name) == 0]))
    folder = args.output_dir or (args.input if args.input.is_dir() else args.input.parent)
    base = base_name(args.input, args.outtype)
    files = {Variant(name): folder / f"{base}-embed-{name}.gguf" for name in types}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"-o {folder}: cannot be made ({error.strerror})") from None
    for variant, path in files.items():
        make(args.input, path, variant.type, args.outtype, args.force)
    threads = [] if args.no_bench else args.threads
    cases = [Case(prompt, generated, threads=count) for prompt, generated in TESTS for count in threads]
    results = measure(files, cases, args.rounds, bin_dir) if bin_dir else {}
    print(table(files, cases, results))
    csv_path = args.csv_output or args.stats_dir / CSV_NAME
    write_csv(csv_path, files, threads, results)
    print(f"written: {csv_path}", file=sys.stderr)
    return EXIT_OK
