# SPDX-License-Identifier: MIT
"""The command line of ``setup_env.py``; the names and meanings of bitnet.cpp's flags are kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from trit.base.flags import ArgumentParser, a_path, real, some_text, whole
from trit.gguf.embedding_types import EMBEDDING_TYPES
from trit.gguf.encoding_table import AUTO_TYPES, FLOATS, OURS, STOCK, in_words
from trit.setup.context import AUTO, Options

QUANT_TYPES = (AUTO, *OURS, *FLOATS, *STOCK)
_EXAMPLES = """examples:
  python3 setup_env.py                                       everything, with the bundled model, to a first answer
  python3 setup_env.py -md models/BitNet-b1.58-2B-4T -q i2_s   a model in a local folder
  python3 setup_env.py -hr microsoft/BitNet-b1.58-2B-4T      a model from the Hub, into models/BitNet-b1.58-2B-4T
  python3 setup_env.py --test -- tests/base/test_cli.py -x        part of the test suite
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser."""
    parser = ArgumentParser(
        prog="setup_env.py",
        description="Fetch, convert, compile and try everything. Run it again at any time: finished steps are skipped.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--hf-repo",
        "-hr",
        type=some_text,
        metavar="ORG/NAME[@REV]",
        help="download this model from the Hub; models that --list-models shows also go by their short names",
    )
    model.add_argument("--list-models", action="store_true", help="show the models that are known by name, and end")
    model.add_argument(
        "--model-dir",
        "-md",
        type=a_path,
        metavar="DIR",
        help="folder of the model; with --hf-repo the folder it goes into (default: models, or the bundled model)",
    )
    model.add_argument(
        "--quant-type",
        "-q",
        choices=QUANT_TYPES,
        default=AUTO,
        help=f"encoding of the ternary weights; auto: {in_words(*sorted(AUTO_TYPES), last='or')}, whichever is "
        "measured to be the fastest here (default: %(default)s)",
    )
    model.add_argument(
        "--quant-embd",
        nargs="?",
        const="f16",
        type=str.lower,
        choices=EMBEDDING_TYPES,
        metavar="TYPE",
        help="encoding of the embeddings: f16 if no type is given (default: the converter's choice)",
    )
    kernels = model.add_mutually_exclusive_group()
    kernels.add_argument(
        "--use-pretuned", "-p", action="store_true", help="use the kernel presets that come along, measure nothing"
    )
    kernels.add_argument(
        "--tune-seconds",
        type=real(0, 86400),
        default=60.0,
        metavar="S",
        help="budget for measuring which kernels are fastest here; 0: do not (default: %(default)g)",
    )
    build = parser.add_argument_group("build")
    build.add_argument(
        "--compiler",
        type=some_text,
        default="auto",
        metavar="{auto,gcc,clang,zig,PATH}",
        help="compiler: the best there is, one kind, zig (pip installs it), or a path; kept for later runs",
    )
    build.add_argument(
        "--wheel", type=a_path, metavar="FILE", help="take the engine's programs out of this wheel, compile nothing"
    )
    build.add_argument(
        "--native",
        action="store_true",
        help="compile llama.cpp's own part for this CPU alone, not for every x86-64 CPU with AVX2",
    )
    build.add_argument("--jobs", type=whole(1, 1024), metavar="N", help="parallel compilers (default: all cores)")
    build.add_argument("--llama-cpp-dir", type=a_path, metavar="DIR", help="take llama.cpp from here, not from PyPI")
    build.add_argument(
        "--clean",
        action="store_true",
        help="first delete build/, 3rdparty/llama.cpp and all notes of finished steps; "
        "models, .venv and the downloaded source stay",
    )
    other = parser.add_argument_group("other")
    other.add_argument("--log-dir", "-ld", type=a_path, default=Path("logs"), metavar="DIR", help="default: logs")
    other.add_argument("--no-run", action="store_true", help="do not ask the model anything at the end")
    other.add_argument("--test", action="store_true", help="install what tests need and run them; after --: for pytest")
    return parser


def parse_options(argv: Sequence[str]) -> Options:
    """Parse the command line; what follows ``--`` is for pytest."""
    parser = build_parser()
    own, pytest_args = list(argv), []
    if "--" in own:
        cut = own.index("--")
        own, pytest_args = own[:cut], own[cut + 1 :]
    args = parser.parse_args(own)
    if pytest_args and not args.test:
        parser.error("arguments after -- are for pytest: add --test")
    if args.wheel:
        compiling = [name for name in ("native", "jobs", "llama_cpp_dir", "test") if getattr(args, name)]
        compiling += ["compiler"] if args.compiler != "auto" else []
        if compiling:
            flag = f"--{compiling[0].replace('_', '-')}"
            parser.error(f"--wheel compiles nothing, and {flag} is for what is compiled here: leave one of them away")
    # The steps run in the checkout's folder, wherever the command was given.
    for name in ("log_dir", "model_dir", "llama_cpp_dir", "wheel"):
        if getattr(args, name) is not None:
            setattr(args, name, getattr(args, name).resolve())
    if "/" in args.compiler or "\\" in args.compiler:
        args.compiler = str(Path(args.compiler).resolve())
    return Options(**vars(args), pytest_args=pytest_args)
