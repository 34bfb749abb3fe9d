# SPDX-License-Identifier: MIT
"""One model with its embedding and head in several types: makes the files, measures them in turns.

The types are quantised by our converter, with the bytes of llama-quantize.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gguf import GGML_QUANT_SIZES

from trit.base.errors import UserError
from trit.base.files import atomic_output
from trit.engine.llama_bench import Case
from trit.gguf.embedding_types import EMBEDDING_TYPES
from trit.gguf.encodings import ENCODINGS
from trit.gguf.parts import whole_name
from trit.gguf.source import FLOATS
from trit.gguf.types import GGMLQuantizationType, read_header
from trit.measure.model_store import with_head
from trit.measure.rounds import Results, Rounds
from trit.measure.rounds import measure as run_rounds
from trit.measure.variants import Variant
from trit.models.checkpoint import read_json
from trit.models.families.base import positive_int

EMBEDDING = "token_embd.weight"
# q2_0 is for embeddings that are ternary themselves.
TYPES = tuple(name for name in EMBEDDING_TYPES if name != "q2_0")


def bits(embedding_type: str) -> float:
    """Bits per value of the embedding."""
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[embedding_type.upper()]]
    return float(8 * size / values)


def columns_of(source: Path) -> int:
    """Values per row of the embedding.

    Raises:
        UserError: there is no such model, or its embedding is quantised already.
    """
    if source.is_dir():
        return positive_int(read_json(source / "config.json"), "hidden_size")
    if not source.is_file():
        raise UserError(f"-i {source}: there is no such file or folder")
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


def base_name(source: Path, outtype: str) -> str:
    """bitnet.cpp's names: ggml-model-f32.gguf and a checkpoint's folder both give ``ggml-model-i2_s``."""
    name = "ggml-model" if source.is_dir() else whole_name(source)
    for encoding in ENCODINGS:
        name = name.removesuffix(f"-{encoding}")
    return f"{name}-{outtype}"


def _check_kept(path: Path, kind: str, outtype: str) -> None:
    """Raise UserError if a file that exists holds something else than its name says."""
    header = read_header(path)
    tensor = header.tensors.get(EMBEDDING)
    kinds = (tensor.ggml_type if tensor else None, header.metadata.get("general.file_type"))
    if kinds != (GGMLQuantizationType[kind.upper()], ENCODINGS[outtype].file_type):
        raise UserError(
            f"{path}: exists, but is no {outtype} model with a {kind} embedding; pass --force to replace it"
        )


def make(source: Path, path: Path, kind: str, outtype: str, force: bool) -> None:
    """Write the file with a type of head unless it is there; raises UserError if the model cannot be converted."""
    if path.exists() and not force:
        _check_kept(path, kind, outtype)
        print(f"{path}: exists and is kept", file=sys.stderr)
        return
    print(f"{path}: being made", file=sys.stderr)
    with_head(source, outtype, kind, path)


Files = Mapping[Variant, Path]


def measure(files: Files, cases: Sequence[Case], rounds: int, bin_dir: Path) -> Results:
    """Measure all files in turns."""
    return run_rounds(files, cases, rounds, [Rounds(rounds)], bin_dir=bin_dir)


def table(files: Files, cases: Sequence[Case], results: Results) -> str:
    """One line per type; speeds are medians."""
    threads = {case.threads for case in cases}
    heads = [f"{case.name} -t {case.threads}" if len(threads) > 1 else case.name for case in cases]
    rows = [["embedding", "bits", "file MB", *heads]]
    for variant, path in files.items():
        speeds = [f"{results[variant, case].speed:.1f}" for case in cases]
        rows.append([variant.type, f"{bits(variant.type):.2f}", f"{path.stat().st_size / 1e6:.1f}", *speeds])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
    return "\n".join(lines)


def _rows(variant: Variant, path: Path, threads: Sequence[int], results: Results) -> list[Mapping[str, object]]:
    """The lines of the CSV file about a variant: one for each number of threads, or one without speeds."""
    about = {
        "embedding_type": variant.type,
        "bits": bits(variant.type),
        "file": path.name,
        "bytes": path.stat().st_size,
    }
    rows: list[Mapping[str, object]] = []
    for count in threads:
        found = [one for (of, case), one in results.items() if of == variant and case.threads == count]
        speeds = {f"{one.case.name}_median": f"{one.speed:.2f}" for one in found}
        every = {f"{one.case.name}_runs": " ".join(f"{value:.2f}" for value in one.speeds) for one in found}
        rows.append({**about, "threads": count, **speeds, **every})
    return rows or [about]


def write_csv(path: Path, files: Files, threads: Sequence[int], results: Results) -> None:
    """Write one line for each type and number of threads, with every run; raises UserError if that is not possible."""
    rows = [row for variant, file in files.items() for row in _rows(variant, file, threads, results)]
    try:
        with atomic_output(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another --csv-output") from None
