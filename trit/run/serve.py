# SPDX-License-Identifier: MIT
"""Serve models over HTTP, with the routes of OpenAI's API under /v1: ``python3 run_inference_server.py``.

Keeps the engine's llama-server alive; arguments after ``--`` go to it. One model is served by it alone, several by
its router, which loads them when they are asked for. Pages of other sites are not answered, nor is a network without
a key. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from trit.base.flags import some_text, whole
from trit.base.places import engine_binary
from trit.engine import confinement, inference
from trit.engine.confinement import values
from trit.engine.inference import DRAFTS
from trit.run import page, running
from trit.run.serving import access, plan
from trit.run.serving.access import check_port
from trit.run.serving.log import JsonLog, Log
from trit.run.serving.plan import Model, Plan
from trit.run.serving.supervise import Supervisor

# glibc gives back what large requests took, instead of keeping it in an arena of every thread.
MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_MMAP_THRESHOLD_": "4194304"}
_MOST_MODELS = 64


def build_parser() -> inference.ArgumentParser:
    """The argument parser."""
    parser = inference.ArgumentParser(
        prog="run_inference_server.py",
        usage="%(prog)s [MODEL ...] [FLAGS] [-- ENGINE_FLAGS]",
        description="Serve ternary models over HTTP. MODEL is a file or a folder, or NAME=MODEL to call it NAME in "
        "requests; several are loaded when they are asked for. What follows -- is for the engine.",
    )
    parser.most_words = _MOST_MODELS
    inference.add_common_flags(parser, n_predict=4096)
    parser.add_argument(
        "-p", "--prompt", type=some_text, metavar="TEXT", help="system prompt of chats that bring none of their own"
    )
    parser.add_argument(
        "-temp",
        "--temperature",
        type=inference.TEMPERATURES,
        default=0.8,
        metavar="T",
        help="default: %(default)s; 0: greedy",
    )
    parser.add_argument(
        "-cnv", "--conversation", action="store_true", help="taken for the sake of scripts: a server chats in any case"
    )
    parser.add_argument(
        "--host", type=some_text, default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)"
    )
    parser.add_argument("--port", type=whole(1, 65535), default=8080, help="port to listen on (default: %(default)s)")
    parser.add_argument(
        "--grace",
        type=whole(1, 86400),
        default=5,
        metavar="S",
        help="most seconds in which answers that run are finished after SIGTERM or Ctrl-C (default: %(default)s)",
    )
    page.add_flag(parser)
    parser.add_argument(
        "--parallel",
        type=whole(1, 256),
        metavar="N",
        help="answers made at the same time, each with a context of -c (default: 8, or as many as a quarter of the "
        "free memory holds)",
    )
    parser.add_argument(
        "--embeddings",
        action="store_true",
        help="serve vectors (/v1/embeddings) and no answers; default for models of vectors",
    )
    parser.add_argument(
        "--models-max",
        type=whole(1, _MOST_MODELS),
        metavar="N",
        help="of several models, most that are loaded at a time (default: as many as the memory holds)",
    )
    parser.add_argument(
        "--unload-after",
        type=whole(1, 31_536_000),
        metavar="S",
        help="give a model's memory back after so many seconds without a request; the next one loads it again",
    )
    parser.add_argument("--log-json", action="store_true", help="log one JSON object a line, each request among them")
    access.add_flags(parser)
    confinement.add_flags(parser, default=True)
    return parser


def command(argv: Sequence[str] | None = None) -> int:
    """``trit serve NAME``: as :func:`main`, with the names of ``trit list``."""
    parser = build_parser()
    parser.prog, parser.usage = "trit serve", "trit serve [NAME ...] [FLAGS] [-- ENGINE_FLAGS]"
    return _serve(parser, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is stopped."""
    return _serve(build_parser(), argv)


def _serve(parser: inference.ArgumentParser, argv: Sequence[str] | None) -> int:
    args, extra = parser.parse(argv)
    if args.words and args.model is not None:
        parser.refuse(args, args.words)
    texts = args.words or [None if args.model is None else str(args.model)]
    inference.check_engine_flags(extra)
    access.check_possible(extra, several=len(texts) > 1)
    plan.check_flags(extra)
    # The engine takes the last ones.
    host, port = [
        [str(own), *values(extra, {flag})][-1] for own, flag in ((args.host, "--host"), (args.port, "--port"))
    ]
    number = int(port) if port.isdecimal() else args.port
    check_port(host, number)
    access.check(args, extra)
    keys = access.keys(args)
    # Only now: a model may have to be fetched.
    made = plan.make(args, texts, extra)
    log = JsonLog() if args.log_json else Log()
    for model in made.models:
        _warn_without_template(model, extra, log)
    log.announce([f"Starting server on {args.host}:{args.port}"], "start", host=args.host, port=args.port)
    env: dict[str, str | None] = {name: os.environ.get(name, value) for name, value in MEMORY.items()}
    env |= {**made.environment, **access.key_variable(keys)}
    with ExitStack() as stack:
        words = [str(engine_binary("llama-server"))]
        children: list[list[str]] = []
        if made.several:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trit-serve-")))
            # The engine would also list what other programs have in the Hub's cache.
            env["LLAMA_CACHE"] = str(folder / "cache")
            children = [[*words, *model.command(made.threads), *_shared_flags(args, extra)] for model in made.models]
            words += ["--models-preset", str(plan.write_list(made, folder)), "--models-max", str(made.loaded)]
        else:
            folder = None
            words += [*made.models[0].command(made.threads), "--alias", made.models[0].name]
        words += ["--host", args.host, "--port", str(args.port), *_shared_flags(args, extra)]
        sandbox = confinement.prepare(args, words, read=[folder] if folder else [], children=children)
        if sandbox:
            log.say("info", f"the engine is {sandbox}")
        address = args.host if host.endswith(".sock") else f"{host}:{port}"
        running.note("server", made.models[0].path, address, [model.path for model in made.models[1:]])
        return supervise(
            Supervisor(
                words,
                sandbox=sandbox,
                env=env,
                grace_s=args.grace,
                answers=lambda: number == 0 or access.answers(host, number),
                log=log,
            ),
            lambda: _tell(made, log, host, number, bool(keys) or access.has_key(args, extra)),
        )


def supervise(supervisor: Supervisor, ready: Callable[[], None]) -> int:
    """Run the engine; a place for tests to look at what would have been run."""
    return supervisor.run(ready)


def _shared_flags(args: argparse.Namespace, extra: Sequence[str]) -> list[str]:
    """The engine's flags that are the same for all models, and for the router that hands them on."""
    flags = [
        "-n",
        str(args.n_predict),
        "--temp",
        str(args.temperature),
        "-cb",
        *access.flags(args, extra),
        *page.engine_flags(args),
    ]
    flags += ["--cache-ram", str(plan.CACHE_MIB), *DRAFTS[args.draft]]
    if args.no_repack:
        flags.append("--no-repack")
    if args.unload_after:
        flags += ["--sleep-idle-seconds", str(args.unload_after)]
    return [*flags, *extra]


def _warn_without_template(model: Model, extra: Sequence[str], log: Log) -> None:
    if model.vectors or model.template is not None or not inference.lacks_chat_template(model.path, extra):
        return
    log.say(
        "warning",
        f"{model.path} has no chat template, so chat requests are put into the engine's default, ChatML; "
        f"send prompts to /v1/completions instead, or {inference.TEMPLATE_ADVICE}",
    )


def _tell(made: Plan, log: Log, host: str, port: int, key: bool) -> None:
    """Say where the server is, how it is asked, and what memory it takes."""
    first = made.models[0]
    socket = host.split(",")[0] if host.split(",")[0].endswith(".sock") else None
    url = "http://localhost" if socket else access.url(host, port)
    body: dict[str, object]
    if first.vectors:
        path, body = "/v1/embeddings", {"model": first.name, "input": "Hello"}
    elif inference.chat_template(first.path) is None:
        path, body = "/v1/completions", {"model": first.name, "prompt": "Once", "max_tokens": 16}
    else:
        path, body = "/v1/chat/completions", {"model": first.name, "messages": [{"role": "user", "content": "Hello"}]}
    curl = f"curl {f'--unix-socket {socket} ' if socket else ''}{url}{path}"
    curl += f"""{' -H "Authorization: Bearer $KEY"' if key else ""} -d '{json.dumps(body)}'"""
    memory = {"total": made.most, "free": made.free, "earlier_chats": made.chats * made.loaded}
    log.announce(
        # Of port 0, which is any free one, only the engine's log has the number.
        [*made.lines(), *([f"listening on {socket or url}; ask it with:", f"  {curl}"] if port or socket else [])],
        "ready",
        url=socket or url,
        curl=curl,
        models=[model.facts() for model in made.models],
        loaded=made.loaded,
        threads=made.threads,
        bytes=memory,
    )
