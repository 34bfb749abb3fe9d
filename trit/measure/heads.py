# SPDX-License-Identifier: MIT
"""Make and measure a model with several types of embedding and head, with the flags of bitnet.cpp's script.

Example: trit heads -i models/trit-story-3m -t f16 q8_0 q6_k --threads 1,2

The types are quantised by our converter, with the bytes of llama-quantize.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gguf import GGML_QUANT_SIZES

from trit.base import by_name
from trit.base.errors import EXIT_OK, UserError
from trit.base.files import check_input, check_output
from trit.base.flags import THREAD_COUNTS, ArgumentParser, a_path, whole
from trit.base.host import physical_cores
from trit.base.places import BUNDLED_MODEL, ENGINE_BIN, STATE, engine_binary
from trit.base.progress import until_now
from trit.engine.llama_bench import PROGRAM, Case
from trit.gguf.embedding_types import EMBEDDING_TYPES
from trit.gguf.encoding_table import DEFAULT
from trit.gguf.encodings import ENCODINGS
from trit.gguf.parts import whole_name
from trit.gguf.source import FLOATS
from trit.gguf.types import GGMLQuantizationType, block_of, quiet_gguf_package, read_header
from trit.measure.model_store import make_folder, with_head
from trit.measure.report import as_csv, plain, show, write
from trit.measure.rounds import Results, Rounds, SoFar
from trit.measure.rounds import measure as measure_rounds
from trit.measure.variants import Variant
from trit.models.families.base import positive_int
from trit.models.json_files import read_json

EMBEDDING = "token_embd.weight"
# q2_0 is for embeddings that are ternary themselves.
TYPES = tuple(name for name in EMBEDDING_TYPES if name != "q2_0")
TESTS = ((128, 0), (0, 128))
CSV_NAME = "embedding_benchmark.csv"

Files = Mapping[Variant, Path]


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit heads", description="Make and measure a model with several types of embedding and head."
    )
    add, cores = parser.add_argument, physical_cores()
    text = "folder of a checkpoint, a name, or a GGUF file with ternary matrices and an embedding in f16, f32 or bf16 "
    add("-i", "--input", type=a_path, default=BUNDLED_MODEL, help=f"{text}(default: the bundled model's folder)")
    add("-o", "--output-dir", type=a_path, help="where the files go (default: beside the input's)")
    text = f"default: {' '.join(TYPES)}"
    add("-t", "--types", nargs="+", type=str.lower, choices=TYPES, metavar="TYPE", help=text)
    add("--outtype", choices=list(ENCODINGS), default=DEFAULT, help=f"ternary matrices (default: {DEFAULT})")
    text = "no effect: the converter of trit.cpp quantises"
    add("-q", "--quantize-bin", type=a_path, metavar="FILE", help=text)
    add("-b", "--bench-bin", type=a_path, metavar="FILE", help="llama-bench (default: the engine's)")
    add("--stats-dir", type=a_path, default=STATE / "stats", help="folder of the CSV (default: stats)")
    text = f"default: {CSV_NAME} in --stats-dir; is replaced"
    add("-c", "--csv-output", type=a_path, metavar="FILE", help=text)
    text = "no effect, as in bitnet.cpp: files that exist are always kept, and measured"
    add("-s", "--skip-existing", action="store_true", help=text)
    add("--force", action="store_true", help="make files anew that exist")
    add("--no-bench", action="store_true", help="make the files, measure nothing")
    text = f"such as 1,2,4 (default: physical cores, here {cores})"
    add("--threads", type=THREAD_COUNTS, default=[cores], help=text)
    add("--rounds", type=whole(1), default=3, help="runs of each file (default: %(default)s)")
    return parser


def _bench_dir(given: Path | None) -> Path:
    """Folder of llama-bench; raises UserError if it is not there."""
    if given is not None and given.stem != PROGRAM:
        raise UserError(f"-b {given}: expected the program {PROGRAM}")
    folder = given.parent if given else ENGINE_BIN
    engine_binary(PROGRAM, folder)
    return folder


def _columns_of(source: Path) -> int:
    """Values per row of the embedding.

    Raises:
        UserError: there is no such model, or its embedding is quantised already.
    """
    if source.is_dir():
        return positive_int(read_json(source / "config.json"), "hidden_size")
    check_input(source)
    tensor = read_header(source).tensors.get(EMBEDDING)
    if tensor is None:
        raise UserError(f"{source}: has no {EMBEDDING}; name the file of a whole model")
    kind = GGMLQuantizationType(tensor.ggml_type).name.lower()
    if kind not in FLOATS:
        raise UserError(
            f"{source}: its embedding is {kind} already, and would be quantised twice; name the folder of its "
            "checkpoint, or a file that was converted with --quant-embd f16"
        )
    return int(tensor.shape[-1])


def _base_name(source: Path, outtype: str) -> str:
    """bitnet.cpp's names: ggml-model-f32.gguf and a checkpoint's folder both give ``ggml-model-i2_s``."""
    name = "ggml-model" if source.is_dir() else whole_name(source)
    for encoding in ENCODINGS:
        name = name.removesuffix(f"-{encoding}")
    return f"{name}-{outtype}"


def _make(args: argparse.Namespace, kind: str, path: Path) -> None:
    """Write the file with a type of head unless it is there.

    Raises:
        UserError: the model cannot be converted, or a file that exists holds something else than its name says.
    """
    if args.force or not path.exists():
        print(f"{path}: being made", file=sys.stderr)
        with_head(args.input, args.outtype, kind, path)
        return
    header = read_header(path)
    tensor = header.tensors.get(EMBEDDING)
    kinds = (tensor.ggml_type if tensor else None, header.metadata.get("general.file_type"))
    if kinds != (GGMLQuantizationType[kind.upper()], ENCODINGS[args.outtype].file_type):
        raise UserError(
            f"{path}: exists, but is no {args.outtype} model with a {kind} embedding; pass --force to replace it"
        )
    print(f"{path}: exists and is kept", file=sys.stderr)


def _bits(variant: Variant) -> float:
    """Bits per value of the embedding."""
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[variant.type.upper()]]
    return float(8 * size / values)


def _table(files: Files, cases: Sequence[Case], results: Results) -> str:
    """One line per type; speeds are medians."""
    several = len({case.threads for case in cases}) > 1
    heads = [f"{case.name} -t {case.threads}" if several else case.name for case in cases]
    rows = [["embedding", "bits", "file MB", *heads]]
    for variant, path in files.items():
        speeds = [f"{results[variant, case].speed:.1f}" for case in cases]
        rows.append([variant.type, f"{_bits(variant):.2f}", f"{path.stat().st_size / 1e6:.1f}", *speeds])
    return plain(rows)


def _csv_rows(files: Files, threads: Sequence[int], results: Results) -> Iterator[dict[str, object]]:
    """One for each type and number of threads, with every run, or one for each type without speeds."""
    for variant, path in files.items():
        nbytes = path.stat().st_size
        row = {"embedding_type": variant.type, "bits": _bits(variant), "file": path.name, "bytes": nbytes}
        if not threads:
            yield row
        for count in threads:
            found = [one for (of, case), one in results.items() if of == variant and case.threads == count]
            medians = {f"{one.case.name}_median": f"{one.speed:.2f}" for one in found}
            runs = {f"{one.case.name}_runs": " ".join(f"{speed:.2f}" for speed in one.speeds) for one in found}
            yield {**row, "threads": count, **medians, **runs}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, make the files, measure them, print and keep the result."""
    args = _parser().parse_args(argv)
    quiet_gguf_package()
    bin_dir = None if args.no_bench else _bench_dir(args.bench_bin)
    csv_path = args.csv_output or args.stats_dir / CSV_NAME
    named, args.input = args.input, by_name.checkpoint(args.input)
    if args.input != named and args.output_dir is None:
        # Beside it is the store, which is not the user's.
        args.output_dir = Path()
    columns = _columns_of(args.input)
    types = list(dict.fromkeys(args.types or [name for name in TYPES if columns % block_of(name) == 0]))
    folder = args.output_dir or (args.input if args.input.is_dir() else args.input.parent)
    base = _base_name(args.input, args.outtype)
    files = {Variant(name): folder / f"{base}-embed-{name}.gguf" for name in types}
    make_folder("-o", folder)
    check_output("--csv-output" if args.csv_output else "--stats-dir", csv_path, in_folder=not args.csv_output)
    for variant, path in files.items():
        _make(args, variant.type, path)
    threads = [] if args.no_bench else args.threads
    cases = [Case(prompt, generated, threads=count) for prompt, generated in TESTS for count in threads]
    results: Results = {}
    if bin_dir:
        so_far = SoFar()
        with until_now(so_far.table, show):
            results = measure_rounds(files, cases, args.rounds, [Rounds(args.rounds), so_far], bin_dir=bin_dir)
    print(_table(files, cases, results))
    # Lines end as in the file of bitnet.cpp's script.
    write(csv_path, as_csv(list(_csv_rows(files, threads, results)), line_end="\r\n"), "--csv-output")
    print(f"written: {csv_path}", file=sys.stderr)
    return EXIT_OK
