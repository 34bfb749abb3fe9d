# SPDX-License-Identifier: MIT
"""The command ``trit``: a table of names, and what runs under each. Standard library only."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from trit import __version__
from trit.base import by_name
from trit.base.command import run_command
from trit.base.errors import UserError, run_main
from trit.base.flags import ArgumentParser
from trit.base.places import INSTALLED, LOCK, engine_program
from trit.base.processes import capture
from trit.base.provenance import commit
from trit.library import completion
from trit.library.find import check_name, find, find_checkpoint

# Name -> the function whose arguments follow it (see run_command), and what it does.
COMMANDS = {
    "run": ("trit.run.completion:command", "ask a model, or chat with it"),
    "serve": ("trit.run.serve:command", "serve models over HTTP, with the routes of OpenAI's API"),
    "batch": ("trit.batch.command", "answer all prompts of a file into files, each exactly once"),
    "pull": ("trit.library.commands:pull", "fetch a model by name, or bring it up to date"),
    "list": ("trit.library.commands:show_list", "the models that are here"),
    "show": ("trit.library.commands:show", "what is known of a model by name, and whether its files are sound"),
    "rm": ("trit.library.commands:remove", "delete models, and what no other needs"),
    "ps": ("trit.library.commands:processes", "the servers and chats that run"),
    "convert": ("trit.convert.command", "checkpoint or GGUF of another engine -> GGUF"),
    "inspect": ("trit.inspect.command", "what a GGUF file or a checkpoint folder is"),
    "bench": ("trit.measure.speed.command", "speed of a model: prefill and decode"),
    "compare": ("trit.measure.formats.command", "the same weights in several formats, side by side"),
    "perplexity": ("trit.measure.perplexity.command", "perplexity, and divergence from a reference"),
    "profile": ("trit.run.profile", "where a token's time goes"),
    "drafts": ("trit.measure.drafts", "what guessing from what was said before saves, over three kinds of text"),
    "roofline": ("trit.measure.roofline", "this machine's limits: int8 arithmetic, memory"),
    "tune": ("trit.tune.command", "find the fastest kernels for a model here"),
    "verify": ("trit.verify.command", "prove a converted model against transformers"),
    "dummy": ("trit.convert.from_random", "write a random model of a known shape"),
    "doctor": ("trit.inspect.doctor", "what works here, and what to do about the rest"),
    "download": ("trit.hub.command", "fetch a model from the Hub"),
    "train": ("trit.train.train_story", "train a small ternary model"),
    "score": ("trit.train.score", "share of right answers of a story model"),
    "heads": ("trit.measure.heads", "types of embedding and output head compared"),
    "codegen-tl1": ("trit.tune.codegen.bitnet_flags:tl1", "write TL1 kernels, with bitnet.cpp's flags"),
    "codegen-tl2": ("trit.tune.codegen.bitnet_flags:tl2", "write TL2 kernels, with bitnet.cpp's flags"),
    "dummy-bitnet": ("trit.convert.dummy_bitnet_flags", "write a random model, with bitnet.cpp's flags"),
    "codegen": ("trit.tune.codegen.command", "write the C++ of a look-up kernel"),
    "committed": ("trit.measure.committed.command", "the benchmarks whose results are committed"),
    "registry": ("trit.models.registry.command", "write the documents' table of models"),
    "held-out": ("trit.measure.perplexity.held_out", "write the text that perplexity is measured over"),
    "golden": ("trit.verify.golden", "record the bundled model's answers anew"),
}

# They read or write what only a checkout has: its sources, documents and results.
IN_A_CHECKOUT = ("codegen", "codegen-tl1", "codegen-tl2", "committed", "golden", "held-out", "registry")


def version() -> str:
    """One line: our version and commit, the engine's commit, the tier that runs on this CPU."""
    pinned = json.loads(LOCK.read_text(encoding="utf-8"))["commit"]
    code, output = capture([engine_program("trit-selftest")])
    chosen = [line.removeprefix("chosen: ") for line in output.splitlines() if line.startswith("chosen: ")]
    tier = chosen[0] if code == 0 and chosen else "not built"
    return f"trit {__version__} (commit {commit()}), llama.cpp {pinned}, tier {tier}"


class _Version(argparse.Action):
    """The tier is asked of a program, so the line is made only when it is wanted."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(version())
        parser.exit()


class _Completion(argparse.Action):
    """The package behind it is imported only when it is wanted."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, shell: object, *_: object) -> None:
        print(completion.shell_code(str(shell)))
        parser.exit()


def _works_here() -> dict[str, tuple[str, str]]:
    return {name: row for name, row in COMMANDS.items() if not (INSTALLED and name in IN_A_CHECKOUT)}


def _parser() -> argparse.ArgumentParser:
    here = _works_here()
    width = max(map(len, here))
    parser = ArgumentParser(
        prog="trit",
        description="Ternary language models on CPUs. `trit NAME --help` has the flags of a command.",
        epilog="commands:\n" + "\n".join(f"  {name:{width}}  {deed}" for name, (_, deed) in here.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="version, commits, the tier; then exit")
    text = "print what the shell reads to complete commands and names of models; then exit"
    parser.add_argument("--completion", action=_Completion, choices=completion.SHELLS, help=text)
    parser.add_argument("name", choices=COMMANDS, metavar="NAME", help="a command of the list below")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    return run_main(_run, argv)


def _run(argv: Sequence[str] | None) -> int:
    if completion.VARIABLE in os.environ:
        completion.complete(_works_here())
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        _parser().print_help()
        return 0
    args = _parser().parse_args(words[: 2 if words[0] == "--completion" else 1])
    if args.name not in _works_here():
        raise UserError(f"trit {args.name} works in a checkout of trit.cpp; this one was installed from a wheel")
    by_name.find_with(find, find_checkpoint, check_name)
    return run_command(COMMANDS[args.name][0], words[1:])
