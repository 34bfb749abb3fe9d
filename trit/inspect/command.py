# SPDX-License-Identifier: MIT
"""Command line: ``trit inspect PATH``, PATH a GGUF file or a Hugging Face checkpoint folder."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trit.base import by_name
from trit.base.errors import UserError
from trit.base.files import check_input
from trit.base.flags import ArgumentParser, a_path, whole
from trit.gguf.types import quiet_gguf_package
from trit.inspect import checkpoint_folder, gguf_file
from trit.inspect.description import Description
from trit.inspect.host import read_rate, speed_bound
from trit.inspect.report import lines

DEFAULT_CONTEXT = 2048


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit inspect",
        description="Say what a model file or checkpoint folder is, what it needs, and what would be done with it.",
        epilog="Example: trit inspect models/trit-story-3m/ggml-model-i2_s.gguf --layers",
    )
    parser.add_argument(
        "path",
        type=a_path,
        help="a GGUF file of any engine, a Hugging Face checkpoint folder, or a name for `trit run`",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--layers", action="store_true", help="shares of -1, 0 and +1 for every layer")
    parser.add_argument("--exact", action="store_true", help="look at all weights, not at some rows or layers")
    parser.add_argument(
        "-c", "--ctx-size", type=whole(1), default=DEFAULT_CONTEXT, help="tokens of the KV cache (default: %(default)s)"
    )
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--no-speed", action="store_true", help="do not measure how fast this machine reads memory")
    speed.add_argument("--measure", action="store_true", help="measure it again instead of using what is known")
    return parser


def inspect(path: Path, context: int = DEFAULT_CONTEXT, exact: bool = False) -> Description:
    """Describe a file or folder, without the speed of this host.

    Raises:
        UserError: there is no such file.
    """
    if path.is_dir():
        return checkpoint_folder.describe(path, context, exact)
    check_input(path, content=False)
    with path.open("rb") as file:
        magic = file.read(4)
        size = file.seek(0, 2)
    found = Description(str(path), "GGUF file" if magic == b"GGUF" else "no model file", bytes=size)
    if magic == b"GGUF" or path.suffix == ".gguf":
        try:
            return gguf_file.describe(path, context, exact)
        except UserError as error:
            found.refuse(str(error))
            return found
    try:
        check_input(path)
    except UserError as error:
        found.refuse(str(error))
        return found
    if path.suffix in {".safetensors", ".bin"}:
        found.kind = "part of a checkpoint"
        found.refuse(f"give the whole folder, {path.parent}")
        return found
    found.refuse("neither a GGUF file nor a Hugging Face checkpoint folder")
    return found


def for_setup(path: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """What set-up asks of a folder before it compiles anything; the encodings that it can be converted to.

    Raises:
        UserError: the folder would be refused.
    """
    quiet_gguf_package()
    found = inspect(Path(path))
    _refuse(found)
    return {"verdict": found.verdict, "outtypes": found.outtypes}


def _refuse(found: Description) -> None:
    if found.refused:
        raise UserError(found.refused if found.path in found.refused else f"{found.path}: {found.refused}")


def main(argv: Sequence[str] | None = None) -> int:
    """Look, measure, print.

    Raises:
        UserError: what was looked at is refused; its description is printed all the same.
    """
    args = _parser().parse_args(argv)
    if args.ctx_size < 1:
        raise UserError(f"-c {args.ctx_size}: give a positive number of tokens")
    quiet_gguf_package()
    args.path = by_name.named_file(args.path)
    # A folder's shares come from some layers, a file's from some rows of all layers.
    exact = args.exact or (args.layers and args.path.is_dir())
    found = inspect(args.path, args.ctx_size, exact)
    if "packed" in found.memory and not args.no_speed:
        size = found.speed.get("bytes_per_token") or gguf_file.bytes_per_token(args.path)
        found.speed = speed_bound(size, read_rate(args.measure))
    if args.json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=True))
    else:
        for line in lines(found, args.layers):
            # Names come from the file: what a terminal would act on is shown, not sent.
            print("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line))
    _refuse(found)
    return 0
