# SPDX-License-Identifier: MIT
"""Command line: ``trit convert CHECKPOINT --outtype i2_s``, CHECKPOINT a folder or a GGUF file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trit.base import by_name
from trit.base.errors import EXIT_OK, UserError
from trit.base.files import check_input
from trit.base.flags import ArgumentParser, a_path
from trit.convert import from_checkpoint, from_gguf
from trit.convert.report import Report
from trit.gguf.embedding_types import EMBEDDING_TYPES
from trit.gguf.encoding_table import DEFAULT
from trit.gguf.encodings import ENCODINGS
from trit.gguf.layouts import I2_S_LAYOUTS
from trit.gguf.parts import whole_name
from trit.gguf.types import quiet_gguf_package
from trit.gguf.writer import parse_size


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit convert",
        description="Convert a Hugging Face checkpoint, or a GGUF file of another engine, with ternary (1.58-bit) "
        "weights to GGUF.",
        epilog="Examples: trit convert models/BitNet-b1.58-2B-4T --outtype i2_s --quant-embd q6_k; "
        "trit convert Ternary-Bonsai-8B-PQ2_0.gguf --outtype q2_0",
    )
    parser.add_argument(
        "model",
        type=a_path,
        help="folder with config.json, tokenizer.json and safetensors files, a GGUF file, or a name for `trit run`",
    )
    parser.add_argument(
        "--outtype", "-q", choices=list(ENCODINGS), default=DEFAULT, help=f"ternary matrices (default: {DEFAULT})"
    )
    parser.add_argument(
        "--outfile",
        type=a_path,
        help="default: <model>/ggml-model-<outtype>.gguf; of a GGUF file <name>-<outtype>.gguf",
    )
    parser.add_argument(
        "--quant-embd",
        nargs="?",
        const="f16",
        type=str.lower,
        choices=EMBEDDING_TYPES,
        help="type of embedding and head (default: q6_k if the hidden size is a multiple of 256, else q8_0 or f16; in "
        "an f16 or f32 file the same as there; of a GGUF file as they are; without a value: f16)",
    )
    parser.add_argument(
        "--master-weights",
        action="store_true",
        help="ternarise float weights as master weights of BitLinear training though config.json does not say so",
    )
    parser.add_argument(
        "--i2-s-layout",
        choices=list(I2_S_LAYOUTS),
        help="of a GGUF file: what its i2_s tensors hold; arm: 64-weight blocks, of bitnet.cpp on ARM; rows4: four "
        "rows in a byte, built without ACT_PARALLEL (default: published, unless the weights speak against it)",
    )
    parser.add_argument(
        "--kernel-config",
        type=a_path,
        metavar="FILE",
        help="of a GGUF file with TL1 or TL2: bitnet.cpp's kernel_config.ini",
    )
    parser.add_argument(
        "--no-rotation",
        action="store_true",
        help="of a GGUF file of PQ2_0 or PTQ1_0 without prism.hadamard.* keys: its weights are not rotated "
        "(Ternary-Bonsai-27B, not Ternary-Bonsai-2)",
    )
    parser.add_argument("--model-name", help="general.name of the file (default: from the folder and its model card)")
    parser.add_argument(
        "--source", metavar="ORG/NAME[@REV]", help="where the checkpoint or file is from, for the new file's metadata"
    )
    parser.add_argument(
        "--split-max-size",
        metavar="N(M|G)",
        help="several files NAME-00001-of-0000N.gguf with at most this much data each; the engine takes the first",
    )
    parser.add_argument("--force", action="store_true", help="replace an output file that exists")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines for people")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, convert, say what was done."""
    args = _parser().parse_args(argv)
    report = _convert(args)
    if args.json:
        told = {"outtype": args.outtype, "notes": report.notes, "warnings": report.warnings}
        print(json.dumps({**_facts(report), **told}))
    else:
        print(*report.lines(args.outtype), sep="\n")
    return EXIT_OK


def for_setup(arguments: list[str], tell: Callable[[str], None]) -> dict[str, Any]:
    """What set-up calls, with flags of the command line; the result has the paths that were written."""
    args = _parser().parse_args(arguments)
    report = _convert(args)
    print(*report.lines(args.outtype), sep="\n")
    return _facts(report)


def _facts(report: Report) -> dict[str, Any]:
    return {"paths": [str(path) for path in report.paths]}


def _convert(args: argparse.Namespace) -> Report:
    quiet_gguf_package()
    split_bytes = parse_size(args.split_max_size) if args.split_max_size else None
    named, args.model = args.model, by_name.named_file(args.model)
    if args.model != named and args.outfile is None:
        # Beside it is the store, which is not the user's.
        args.outfile = Path(f"{named.name}-{args.outtype}.gguf")
    if not args.model.exists():
        raise UserError(f"{args.model}: there is no such file or folder")
    if not args.model.is_dir():
        check_input(args.model)
        return _from_gguf(args, split_bytes)
    if args.i2_s_layout or args.kernel_config or args.no_rotation:
        raise UserError(f"--i2-s-layout, --kernel-config and --no-rotation are for GGUF files, {args.model} is none")
    outfile = args.outfile or args.model / f"ggml-model-{args.outtype}.gguf"
    options = from_checkpoint.Options(
        ENCODINGS[args.outtype],
        args.quant_embd,
        master_weights=args.master_weights,
        name=args.model_name,
        source=args.source,
        split_bytes=split_bytes,
        force=args.force,
    )
    return from_checkpoint.convert(args.model, outfile, options)


def _from_gguf(args: argparse.Namespace, split_bytes: int | None) -> Report:
    """Convert a GGUF file."""
    for flag in ("--master-weights", "--model-name"):
        if getattr(args, flag[2:].replace("-", "_")):
            raise UserError(f"{flag} is for checkpoint folders, {args.model} is a file")
    outfile = args.outfile or args.model.with_name(f"{whole_name(args.model)}-{args.outtype}.gguf")
    options = from_gguf.Options(
        ENCODINGS[args.outtype],
        args.quant_embd,
        args.i2_s_layout,
        args.kernel_config,
        no_rotation=args.no_rotation,
        source=args.source,
        split_bytes=split_bytes,
        force=args.force,
    )
    return from_gguf.convert(args.model, outfile, options)
