# SPDX-License-Identifier: MIT
"""Answer all prompts of a file into files: what was done is kept, and a second run does the rest.

Example: trit batch prompts.jsonl --out answers -m bitnet-2b-4t
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, replace
from typing import Any

from trit import __version__
from trit.base.errors import EXIT_OK, UserError
from trit.base.files import check_output
from trit.base.flags import SEEDS, THREADS, ArgumentParser, a_path, real, some_text, whole
from trit.base.processes import signals_end_us
from trit.base.progress import StepLine, clock
from trit.batch import output, run, source, task
from trit.batch.check import check
from trit.batch.engine import Engine
from trit.batch.manifest import NAME, Manifest, refuse_difference
from trit.batch.run import Progress
from trit.batch.source import OPENAI, Ids, Source
from trit.batch.task import COMPLETE, EMBED, SCORE
from trit.engine.inference import TEMPERATURES, chat_template, unescape
from trit.engine.server import Server
from trit.gguf.parts import parts_beside
from trit.run.serve import MEMORY
from trit.run.serving import plan
from trit.run.serving.plan import Plan

# All rows are there, and some of them are errors.
EXIT_ROWS = 3
_EMBEDDINGS = "/v1/embeddings"
# Of the flags that say how a prompt is made of a row, or what is told of an answer: OpenAI's form says so itself.
_OF_ROWS = ("prompt_column", "template", "continuation_column", "id_column", "chat", "score", "logprobs", "stop")
_OF_ANSWERS = ("n_predict", "temperature", "seed", "top_k", "top_p", "stop", "logprobs", "chat")
_ANSWER, _SHARD = 256, 1000
_PROMPT, _CONTINUATION = "prompt", "continuation"


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="trit batch",
        description="Answer all prompts of a file into the files of a folder. What was done is kept: the same command "
        "again does the rest, after whatever ended the first.",
        epilog="Exit codes: 0, all rows have answers; 3, all rows are there, some are errors; 1 and 2 as ever; 130 and "
        "143, asked to end.",
    )
    add = parser.add_argument
    add("input", nargs="?", type=a_path, help="JSONL, OpenAI's batch form, CSV or Parquet")
    add("--out", type=a_path, metavar="DIR", help="folder that gets manifest.json and the parts")
    add("--check", type=a_path, metavar="DIR", help="prove that the batch in this folder is complete; no INPUT")
    add("-m", "--model", type=a_path, help="GGUF file, folder, or a name for `trit run` (default: the bundled model)")
    add("--json", action="store_true", help="print one JSON object instead of lines for people")
    rows = parser.add_argument_group("rows")
    rows.add_argument("--format", choices=source.FORMATS, help="of INPUT (default: by its content, CSV by its name)")
    prompt = rows.add_mutually_exclusive_group()
    prompt.add_argument("--prompt-column", type=some_text, metavar="NAME", help=f"has the prompt (default: {_PROMPT})")
    text = r"the prompt, with {NAME} for what a row has in that column; \n in it is a newline"
    prompt.add_argument("--template", type=some_text, metavar="TEXT", help=text)
    text = "calls a row in the output, each another (default: the row's number, from 0)"
    rows.add_argument("--id-column", type=some_text, metavar="NAME", help=text)
    rows.add_argument(
        "--chat", action="store_true", help="a prompt is a message of a chat, put into the model's template"
    )
    text = f"with --score (default: {_CONTINUATION})"
    rows.add_argument("--continuation-column", type=some_text, metavar="NAME", help=text)
    what = parser.add_argument_group("what is wanted").add_mutually_exclusive_group()
    what.add_argument("--score", action="store_true", help="how likely a given continuation of each prompt is")
    what.add_argument(
        "--embeddings", action="store_true", help="a vector of each prompt; default for models of vectors"
    )
    answers = parser.add_argument_group("answers")
    number = whole(1, also=(-1,))
    text = f"most tokens of an answer; -1: until the model ends or the context is full (default: {_ANSWER})"
    answers.add_argument("-n", "--n-predict", type=number, metavar="N", help=text)
    answers.add_argument("-temp", "--temperature", type=TEMPERATURES, metavar="T", help="default: 0, which is greedy")
    answers.add_argument("--seed", type=SEEDS, help="of all rows' seeds, for a temperature above 0 (default: 0)")
    answers.add_argument("--top-k", type=whole(0), metavar="N", help="draw from the N likeliest tokens; 0: from all")
    answers.add_argument("--top-p", type=real(0, 1), metavar="P", help="draw from the likeliest that make up P")
    answers.add_argument(
        "--stop",
        type=some_text,
        action="append",
        metavar="TEXT",
        help=r"end an answer in front of it; \n in it is a newline",
    )
    text = "with each token of an answer its log-probability, and those of the N likeliest"
    answers.add_argument("--logprobs", type=whole(1, 100), metavar="N", help=text)
    files = parser.add_argument_group("files")
    text = "of the parts (default: jsonl)"
    files.add_argument("--output-format", choices=output.FORMATS, default=output.JSONL, help=text)
    files.add_argument("--shard-size", type=whole(1, 1_000_000), default=_SHARD, metavar="N", help="rows of a part "
        "(default: %(default)s)")  # fmt: skip
    machine = parser.add_argument_group("machine")
    machine.add_argument("-t", "--threads", type=THREADS, metavar="N", help="default: physical cores")
    text = "tokens of prompt and answer together; 0: what the model was trained for (default: %(default)s)"
    machine.add_argument("-c", "--ctx-size", type=whole(2, also=(0,)), default=2048, metavar="N", help=text)
    text = "rows at a time, each with a context of -c; of vectors one (default: 8, or as many as a quarter of the free "
    text += "memory holds)"
    machine.add_argument("--parallel", type=whole(1, 256), metavar="N", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, do what they say, tell what was done."""
    parser = _parser()
    args = parser.parse_args(argv)
    with redirect_stdout(sys.stderr if args.json else sys.stdout), signals_end_us():
        if args.check:
            if args.input or args.out:
                raise UserError("--check DIR: stands alone; the batch's manifest says what it is of")
            proof = asdict(check(args.check))
            code, told = EXIT_OK, proof
            lines = [
                f"{args.check}: complete, {proof['rows']:,} rows in {proof['parts']} parts, each id once and in order"
            ]
            lines += [f"{proof['errors']:,} of them are errors"] if proof["errors"] else []
            lines.append(f"sha256 of the rows: {proof['sha256']}")
        else:
            code, told, lines = _batch(args)
        if not args.json:
            print("\n".join(lines))
    if args.json:
        print(json.dumps(told))
    return code


def _batch(args: argparse.Namespace) -> tuple[int, dict[str, Any], list[str]]:
    """Run a batch; its exit code, and what was done for programs and people."""
    if not args.input or not args.out:
        raise UserError("a batch needs INPUT and --out DIR; what can be given: trit batch --help")
    kind = source.detect(args.input, args.format)
    _check_flags(args, kind)
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out}: is a file, expected a folder; name another")
    check_output("--out", args.out / NAME, in_folder=True)
    if args.output_format == source.PARQUET:
        source.parquet_package("--output-format parquet: writes Parquet")
    first = source.first_row(Source(args.input, kind))
    if kind == OPENAI and first and first.value.get("url") == _EMBEDDINGS:
        args.embeddings = True
    models = _plan(args)
    model = models.models[0]
    if model.vectors and args.score:
        raise UserError(f"-m {model.path}: gives vectors, so nothing can be scored with it; name a model that answers")
    if args.chat and chat_template(model.path) is None:
        raise UserError(f"--chat: {model.path} has no chat template; write the whole prompt with --template")
    parameters = _parameters(args, kind, model.vectors, model.context)
    work = task.make(kind, parameters)
    if first:
        task.check_columns(work, first, args.input)
    args.out.mkdir(parents=True, exist_ok=True)
    with run.locked(args.out):
        manifest = _manifest(args, kind, work, parameters, models)
        progress = Progress(manifest.rows)
        with ExitStack() as stack:
            show = stack.enter_context(StepLine(1, 1, "batch", "starting the engine"))
            engine = stack.enter_context(Engine(lambda: _server(models), model.slots, show.note))
            run.run(manifest, args.input, args.out, engine, progress, show)
            show.done(str(progress).rpartition(", ")[0] if progress.made and not progress.asked else str(progress))
    told = {
        "out": str(args.out),
        "rows": progress.rows,
        "done": progress.done,
        "errors": progress.errors,
        "answered": progress.made,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 3),
        "parts": len(manifest.shards),
        "slots": model.slots,
    }
    if progress.asked and progress.done < progress.rows:
        return run.exit_code(progress), told, ["stopped; give the same command again and it carries on where it was"]
    lines = [f"{args.out}: {progress.rows:,} rows in {len(manifest.shards)} parts"]
    if progress.made:
        rate = f"{progress.tokens / progress.seconds:.0f} tokens/s"
        lines[0] += f"; {progress.made:,} answered now, in {clock(progress.seconds)}, {rate}"
    if progress.errors:
        lines.append(f"{progress.errors:,} rows are errors; each says why in its field error")
    return EXIT_ROWS if progress.errors else EXIT_OK, told, lines


def _check_flags(args: argparse.Namespace, kind: str) -> None:
    """Refuse what has no meaning together."""

    def given(names: Sequence[str]) -> list[str]:
        return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) not in (None, False)]

    if kind == OPENAI:
        if wrong := given((*_OF_ROWS, "top_k", "top_p")):
            raise UserError(f"{wrong[0]}: the rows of {args.input} are in OpenAI's form and say that themselves")
        if args.output_format != output.JSONL:
            raise UserError("--output-format: OpenAI's form is written as jsonl; leave the flag away")
        return
    if not args.score and args.continuation_column:
        raise UserError("--continuation-column: is for --score; add that, or leave it away")
    mode = "--score" if args.score else "--embeddings" if args.embeddings else ""
    if mode and (wrong := given(_OF_ANSWERS)):
        raise UserError(f"{wrong[0]}: is for answers, and {mode} makes none; leave it away")


def _parameters(args: argparse.Namespace, kind: str, vectors: bool, context: int) -> dict[str, Any]:
    """All that changes a result, by the name of its flag."""
    wanted = SCORE if args.score else EMBED if vectors else COMPLETE
    parameters = {"task": wanted, "ctx-size": context, "output-format": args.output_format}
    if kind != OPENAI:
        column = args.prompt_column or _PROMPT
        parameters["template"] = unescape(args.template) if args.template else f"{{{column}}}"
        parameters["id-column"] = args.id_column
    if wanted == SCORE:
        parameters["continuation-column"] = args.continuation_column or _CONTINUATION
    if wanted == COMPLETE:
        parameters["n-predict"] = args.n_predict or _ANSWER
        parameters["temperature"] = args.temperature or 0.0
        parameters["seed"] = args.seed or 0
        if kind != OPENAI:
            parameters |= {"top-k": args.top_k, "top-p": args.top_p, "logprobs": args.logprobs}
            parameters["stop"] = [unescape(text) for text in args.stop] if args.stop else None
            parameters["chat"] = args.chat
    return parameters


def _plan(args: argparse.Namespace) -> Plan:
    """The model, its memory and its slots, as a server has them."""
    given = argparse.Namespace(
        ctx_size=args.ctx_size, threads=args.threads, parallel=args.parallel, embeddings=args.embeddings,
        prompt=None, draft="none", models_max=None,
    )  # fmt: skip
    made = plan.make(given, [None if args.model is None else str(args.model)], [])
    # The sums of a vector's mean go over all texts of a step, so that their order would depend on the others.
    models = tuple(replace(model, slots=1) if model.vectors else model for model in made.models)
    return replace(made, models=models)


def _server(models: Plan) -> Server:
    """The engine's server, with nothing of what people set for servers of their own."""
    model = models.models[0]
    theirs = dict.fromkeys(name for name in os.environ if name.startswith("LLAMA_ARG_"))
    env: dict[str, str | None] = {**theirs, **MEMORY, **models.environment}
    # Chats do not go on here, and each row would be a line of the log.
    flags = [
        *model.flags,
        "--cache-ram",
        "0",
        "-lv",
        "1",
        "--alias",
        model.name,
        "--threads-http",
        str(model.slots + 2),
    ]
    return Server(model.path, models.threads, flags, model.slots, model.context, env=env)


def _manifest(
    args: argparse.Namespace, kind: str, work: task.Task, parameters: dict[str, Any], models: Plan
) -> Manifest:
    """That of the folder if it is the same batch; else a new one, which is written."""
    model = models.models[0]
    files = [path for path in parts_beside(model.path) if path.is_file()] or [model.path]
    hashes = [source.digest(path) for path in files]
    of_model = {
        "name": model.name,
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": hashes[0] if len(hashes) == 1 else "+".join(hashes),
    }
    before = args.input.stat()
    of_input = {
        "name": args.input.name,
        "format": kind,
        "bytes": before.st_size,
        "sha256": source.digest(args.input),
    }
    there = Manifest.read(args.out)
    if there:
        here = Manifest(__version__, of_input, of_model, parameters, args.shard_size, 0, "", [])
        refuse_difference(args.out, there.facts(), here.facts())
        return there
    if left := next(args.out.glob("part-*"), None):
        raise UserError(f"--out {args.out}: has {left.name} and no {NAME}; name another folder")
    column = "custom_id" if kind == OPENAI else args.id_column
    reader = Source(args.input, kind, work.columns)
    with ExitStack() as stack:
        show = stack.enter_context(StepLine(1, 1, "input", f"reading {args.input}"))
        ids = stack.enter_context(Ids(args.input, column)) if column else None
        index = reader.index(args.shard_size, ids)
        show.done(f"{index.rows:,} rows of {kind}, {len(index.places)} parts of {args.shard_size}")
    after = args.input.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"{args.input}: was changed while it was read; run this again when it is whole")
    shards = [[place.offset, place.line] for place in index.places]
    manifest = Manifest(__version__, of_input, of_model, parameters, args.shard_size, index.rows, index.ids, shards)
    manifest.write(args.out)
    return manifest
