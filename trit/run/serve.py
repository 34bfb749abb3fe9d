# SPDX-License-Identifier: MIT
"""Serve a model over HTTP, with the routes of OpenAI's API under /v1: ``python3 run_inference_server.py``.

Wraps the engine's llama-server; arguments after ``--`` go to it. Standard library only.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from trit.base.errors import UserError
from trit.base.places import engine_binary
from trit.base.processes import become
from trit.engine import confinement, inference


def build_parser() -> inference.ArgumentParser:
    """The argument parser."""
    parser = inference.ArgumentParser(
        prog="run_inference_server.py",
        description="Serve a ternary model over HTTP. What follows -- is for the engine.",
    )
    inference.add_common_flags(parser, n_predict=4096)
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="system prompt of chats that bring none of their own")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="default: %(default)s; 0: greedy")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (default: %(default)s)")
    confinement.add_flags(parser, default=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is stopped."""
    args, extra = build_parser().parse(argv)
    inference.check_common(args)
    command = [str(engine_binary("llama-server")), "-m", str(args.model), "-n", str(args.n_predict)]
    command += ["-c", str(args.ctx_size), "-t", str(args.threads), "--temp", str(args.temperature), "-cb"]
    command += ["--host", args.host, "--port", str(args.port)]
    if args.no_repack:
        command.append("--no-repack")
    check_port(args.host, args.port)
    if args.prompt:
        command += ["--jinja", "--chat-template", with_system_prompt(args.model, inference.unescape(args.prompt))]
    elif inference.lacks_chat_template(args.model, extra) and not inference.is_embedding_model(args.model):
        print(
            f"warning: {args.model} has no chat template, so chat requests are put into the engine's default, ChatML; "
            f"send prompts to /v1/completions instead, or {inference.TEMPLATE_ADVICE}",
            file=sys.stderr,
            flush=True,
        )
    print(f"Starting server on {args.host}:{args.port}", flush=True)
    command += extra
    sandbox = confinement.prepare(args, command)
    if sandbox:
        print(f"The engine is {sandbox}", file=sys.stderr, flush=True)
    return become(command, sandbox)


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be listened on, before the model is loaded.

    Raises:
        UserError: the port is taken or forbidden, or the host is not an address of this machine.
    """
    if host.endswith(".sock"):
        return
    if not 0 < port < 65536:
        raise UserError(f"--port {port}: give a number from 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if sys.platform != "win32":
                # As the server does: a port whose last user has just gone counts as free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host"
        ) from error


def with_system_prompt(model: Path, prompt: str) -> str:
    """The model's chat template with a default system message in front.

    llama-server takes no system prompt of its own; a template is where one can be put for every chat.

    Raises:
        UserError: the model has no chat template.
    """
    template = inference.chat_template(model)
    if template is None:
        raise UserError(f"{model} has no chat template, so a system prompt has no place in it; leave -p away")
    message = f"{{'role': 'system', 'content': {json.dumps(prompt, ensure_ascii=False)}}}"
    return (
        "{%- if messages and messages[0]['role'] != 'system' -%}"
        f"{{%- set messages = [{message}] + messages -%}}"
        "{%- endif -%}"
        f"{template}"
    )
