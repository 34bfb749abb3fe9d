# SPDX-License-Identifier: MIT
"""Command line: ``trit verify CHECKPOINT_DIR MODEL.gguf``, or ``--bundled``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from trit.base import by_name
from trit.base.errors import EXIT_FAILED, EXIT_OK, UserError
from trit.base.files import atomic_output, check_input, check_output
from trit.base.flags import THREADS, ArgumentParser, a_path, whole
from trit.base.host import physical_cores
from trit.base.places import BUNDLED_MODEL, INSTALLED, document, python_command
from trit.base.progress import until_now
from trit.engine.inference import check_model
from trit.engine.server import Server
from trit.gguf.made import default_model
from trit.verify.golden import check_transcripts, story_text
from trit.verify.report import FAILED, Check, as_json, left_out, table

NEEDED = ("torch", "transformers")


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="trit verify",
        description="Prove a converted model: file and compiled engine against the checkpoint and transformers.",
        epilog=f"What is compared and why the bounds are what they are: {document('verify.md')}",
    )
    parser.add_argument("checkpoint", type=a_path, nargs="?", help="Hugging Face folder that was converted, or a name")
    parser.add_argument(
        "model", type=a_path, nargs="?", help="GGUF file that it became, or a name (default: of a name, its own)"
    )
    parser.add_argument("--bundled", action="store_true", help="the bundled model, with its recorded answers")
    parser.add_argument("--text", type=a_path, help="text to compute log-probabilities over (default: a shipped one)")
    parser.add_argument("--context", type=whole(8), default=128, help="tokens of each piece of the text (default: 128)")
    parser.add_argument("--chunks", type=whole(1), default=4, help="how many pieces (default: %(default)s)")
    parser.add_argument("--master-weights", action="store_true", help="as for trit convert")
    parser.add_argument(
        "--activations",
        choices=("auto", "int8", "float"),
        default="auto",
        help="what the reference computes with (default: int8 if the file's matrices are ternary)",
    )
    parser.add_argument(
        "-t", "--threads", type=THREADS, default=physical_cores(), help="threads (default: %(default)s)"
    )
    parser.add_argument("--json", type=a_path, help="write what was found to this file, too")
    return parser


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    args = _parser().parse_args(argv)
    if args.bundled:
        if args.checkpoint:
            raise UserError("--bundled: names the model itself; leave the folder and the file away")
        args.checkpoint, args.model = BUNDLED_MODEL, default_model()
    elif not args.checkpoint or not (args.model or not args.checkpoint.exists()):
        raise UserError("name a model, or a checkpoint folder and the GGUF file that it became, or give --bundled")
    if args.text:
        check_input(args.text, content=False)
    check_output("--json", args.json)
    if not args.bundled:
        by_name.check_all([path for path in (args.checkpoint, args.model) if path])
        # The smaller one first: a checkpoint of gigabytes may have to be fetched.
        args.model = by_name.model_file(args.model or args.checkpoint)
        check_model(args.model)
        if reason := _lacking():
            raise UserError(reason)
        args.checkpoint = by_name.checkpoint(args.checkpoint)
    check_model(args.model)
    return args


def _lacking() -> str:
    """What to do about the packages that this Python lacks; empty: it has them."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return f"{missing[0]} is not installed; run: {python_command('-m pip install -r requirements-train.txt')}"
    return ""


def run_checks(args: argparse.Namespace) -> Iterator[Check]:
    """Every check, one after the other."""
    if args.bundled:
        with Server(args.model, args.threads, slots=1) as server:
            yield check_transcripts(server)
        if reason := "a package has no checkpoint of the bundled model" if INSTALLED else _lacking():
            yield left_out("all others", reason)
            return
    from trit.verify.proof import prove

    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        if args.bundled and not args.text:
            args.text = Path(folder) / "stories.txt"
            args.text.write_text(story_text(), encoding="utf-8", newline="")
        yield from prove(args, Path(folder))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks, print the table; 1 if one fails."""
    args = _arguments(argv)
    checks: list[Check] = []
    with until_now(lambda: table(checks) if checks else ""):
        for check in run_checks(args):
            checks.append(check)
            if sys.stderr.isatty():
                print(f"{check.name}: {check.status}", file=sys.stderr)
    print(table(checks))
    if args.json:
        with atomic_output(args.json) as partial:
            partial.write_text(json.dumps(as_json(checks), indent=2) + "\n", encoding="utf-8")
    failed = [check.name for check in checks if check.status == FAILED]
    if failed:
        print(f"{args.model}: {', '.join(failed)} failed; {document('verify.md')} says what that means")
        return EXIT_FAILED
    print(f"{args.model}: the engine computes what the checkpoint says; a weak answer is the model's own")
    return EXIT_OK
