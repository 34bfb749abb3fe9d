# SPDX-License-Identifier: MIT
"""What utils/generate-dummy-bitnet-model.py does: bitnet.cpp's flags for trit.convert.from_random.

There a folder's config.json is read and its sizes are replaced by a row of a table. Here it gives the vocabulary,
where it has one, and nothing else.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trit.base.errors import EXIT_OK, UserError
from trit.base.files import check_output, refuse_node
from trit.base.flags import SEEDS, ArgumentParser, a_path
from trit.convert.from_random import HEADS, OUTTYPES, generate, say
from trit.gguf.embedding_types import default_embedding_type
from trit.gguf.types import quiet_gguf_package
from trit.models.shapes import SIZES, Shape

TOKENIZERS = ("tokenizer.json", "tokenizer.model")
DEFAULT_SIZE = "7B"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit dummy-bitnet",
        description="Write a random ternary model of one of bitnet.cpp's sizes, to measure speed.",
        epilog="Example: trit dummy-bitnet models/trit-story-3m --outtype i2_s --model-size 125M",
    )
    parser.add_argument(
        "model", type=a_path, help="folder of a checkpoint, whose vocabulary is used; without one LLaMA's is"
    )
    parser.add_argument(
        "--outfile", type=a_path, help="default: dummy-bitnet-<size>-<outtype>.gguf beside the folder of the model"
    )
    parser.add_argument(
        "--outtype", choices=list(OUTTYPES), default="f16", help="ternary matrices (default: f16, as in bitnet.cpp)"
    )
    parser.add_argument("--model-size", choices=list(SIZES), default=DEFAULT_SIZE, help="(default: %(default)s)")
    parser.add_argument("--model-name", help="general.name of the file (default: random bitnet <size>)")
    parser.add_argument("--head", choices=HEADS, help="embedding and head (default: as the converter's)")
    parser.add_argument("--seed", type=SEEDS, default=0, help="(default: %(default)s)")
    parser.add_argument("--vocab-only", action="store_true", help="metadata and vocabulary, no weights")
    parser.add_argument("--force", action="store_true", help="replace an output file that exists")
    parser.add_argument("--verbose", action="store_true", help="name every tensor as it is written")
    parser.add_argument("--bigendian", action="store_true", help="refused: the kernels read little-endian files")
    parser.add_argument("--use-temp-file", action="store_true", help="no effect: tensors go to the file one by one")
    return parser


def _with_vocabulary(shape: Shape, folder: Path) -> Shape:
    """The shape with the folder's vocabulary, if it has one; raises UserError if there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name one with config.json and a tokenizer, or any other")
    if any((folder / name).is_file() for name in TOKENIZERS):
        return replace(shape, vocabulary=folder.resolve())
    print(f"{folder} has no {' or '.join(TOKENIZERS)}: taking LLaMA's vocabulary", file=sys.stderr)
    return shape


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, write the file, say what is in it."""
    args = _parser().parse_args(argv)
    if args.bigendian:
        raise UserError("--bigendian: the engine's kernels run on little-endian CPUs only; leave it away")
    size, outtype = args.model_size, args.outtype
    shape = _with_vocabulary(SIZES[size], args.model)
    suffix = "vocab" if args.vocab_only else f"{size}-{outtype}"
    outfile = args.outfile or args.model.resolve().parent / f"dummy-bitnet-{suffix}.gguf"
    refuse_node(outfile)
    if outfile.exists() and not args.force:
        raise UserError(f"{outfile}: exists already; pass --force to replace it")
    check_output("--outfile", outfile)
    if args.verbose:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    quiet_gguf_package()
    head = args.head or default_embedding_type(outtype, shape.hidden)
    name = args.model_name or f"random bitnet {size}"
    weights = generate(name, shape, OUTTYPES[outtype], head, outfile, args.seed, vocab_only=args.vocab_only)
    say(outfile, outtype, head, weights)
    return EXIT_OK
