# SPDX-License-Identifier: MIT
"""Command line: ``python -m utils.convert CHECKPOINT_DIR --outtype i2_s``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.cli import run_main
from utils.weight_encodings import ENCODINGS


def _parser() -> argparse.ArgumentParser:
    from utils.convert.embedding import EMBEDDING_TYPES

    parser = argparse.ArgumentParser(
        prog="python -m utils.convert",
        description="Convert a Hugging Face checkpoint with ternary (1.58-bit) weights to GGUF.",
        epilog="Example: python -m utils.convert models/BitNet-b1.58-2B-4T --outtype i2_s --quant-embd q6_k",
    )
    parser.add_argument("model", type=Path, help="folder with config.json, tokenizer.json and safetensors files")
    parser.add_argument("--outtype", choices=list(ENCODINGS), default="i2_s", help="ternary matrices (default: i2_s)")
    parser.add_argument("--outfile", type=Path, help="default: <model>/ggml-model-<outtype>.gguf")
    parser.add_argument(
        "--quant-embd",
        nargs="?",
        const="f16",
        type=str.lower,
        choices=EMBEDDING_TYPES,
        help="type of embedding and head (default: q6_k if the hidden size is a multiple of 256, else q8_0 or f16; "
        "in an f16 or f32 file the same as there; without a value: f16)",
    )
    parser.add_argument(
        "--master-weights",
        action="store_true",
        help="ternarise float weights as master weights of BitLinear training though config.json does not say so",
    )
    parser.add_argument("--model-name", help="general.name of the file (default: from the folder and its model card)")
    parser.add_argument(
        "--source", metavar="ORG/NAME[@REV]", help="where the checkpoint is from, for the file's metadata"
    )
    parser.add_argument(
        "--split-max-size",
        metavar="N(M|G)",
        help="several files NAME-00001-of-0000N.gguf with at most this much data each; the engine takes the first",
    )
    parser.add_argument("--force", action="store_true", help="replace an output file that exists")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, convert, say what was done."""
    from utils.convert.pipeline import Options, convert
    from utils.convert.writer import parse_size

    args = _parser().parse_args(argv)
    outfile = args.outfile or args.model / f"ggml-model-{args.outtype}.gguf"
    # gguf-py warns about files and keys that a checkpoint may well lack.
    logging.getLogger("gguf").setLevel(logging.ERROR)
    options = Options(
        ENCODINGS[args.outtype],
        args.quant_embd,
        master_weights=args.master_weights,
        name=args.model_name,
        source=args.source,
        split_bytes=parse_size(args.split_max_size) if args.split_max_size else None,
        force=args.force,
    )
    report = convert(args.model, outfile, options)
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    size = sum(path.stat().st_size for path in report.paths)
    files = f" in {len(report.paths)} files" if len(report.paths) > 1 else ""
    print(
        f"{report.paths[0]}: {size / 1e6:.1f} MB{files}; {args.outtype} from {kinds}; embedding {report.embedding_type}"
    )
    print(report.verified)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
