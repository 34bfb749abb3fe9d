# SPDX-License-Identifier: MIT
"""Command line: ``python -m utils.convert CHECKPOINT_DIR --outtype i2_s``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.cli import UserError, run_main
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
        help="type of embedding and head (default: f16, in an f32 file f32; without a value: f16)",
    )
    parser.add_argument(
        "--master-weights",
        action="store_true",
        help="ternarise float weights as master weights of BitLinear training though config.json does not say so",
    )
    parser.add_argument("--model-name", help="general.name of the file (default: from the folder and its model card)")
    parser.add_argument("--force", action="store_true", help="replace an output file that exists")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, convert, say what was done."""
    from utils.convert.embedding import default_embedding_type
    from utils.convert.pipeline import Options, convert

    args = _parser().parse_args(argv)
    embedding_type = args.quant_embd or default_embedding_type(args.outtype)
    outfile = args.outfile or args.model / f"ggml-model-{args.outtype}.gguf"
    if outfile.exists() and not args.force:
        raise UserError(f"{outfile}: exists already; pass --force to replace it")
    # gguf-py warns about files and keys that a checkpoint may well lack.
    logging.getLogger("gguf").setLevel(logging.ERROR)
    options = Options(ENCODINGS[args.outtype], embedding_type, args.master_weights, args.model_name)
    report = convert(args.model, outfile, options)
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    print(f"{outfile}: {report.file_bytes / 1e6:.1f} MB; {args.outtype} from {kinds}; embedding {embedding_type}")
    for note in report.notes:
        print(f"note: {note}")
    print(report.verified)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
