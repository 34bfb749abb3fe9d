# SPDX-License-Identifier: MIT
"""Serve a model over HTTP, with the routes of OpenAI's API under /v1: ``python3 run_inference_server.py``.

Wraps the engine's llama-server; arguments after ``--`` go to it. Pages of other sites are not answered, nor is a
network without a key. Standard library only.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from trit.base.errors import UserError
from trit.base.flags import some_text, whole
from trit.base.places import engine_binary
from trit.base.processes import become
from trit.engine import confinement, inference
from trit.engine.confinement import values
from trit.run import page, running

_KEY_FLAGS = {"--api-key", "--api-key-file"}
_KEY_VARIABLE = "LLAMA_API_KEY"
_TLS_FLAGS = {"--ssl-key-file", "--ssl-cert-file"}
# Prompts of earlier chats that are kept to be continued; the engine alone would keep 8 GiB of them.
_CACHE_MIB = 256
# glibc gives back what large requests took, instead of keeping it in an arena of every thread.
_MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_MMAP_THRESHOLD_": "4194304"}


def build_parser() -> inference.ArgumentParser:
    """The argument parser."""
    parser = inference.ArgumentParser(
        prog="run_inference_server.py",
        description="Serve a ternary model over HTTP. What follows -- is for the engine.",
    )
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
        "-cnv", "--conversation", action="store_true", help="as for run_inference.py: a server chats in any case"
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
        help="most seconds to end in after SIGTERM (default: %(default)s)",
    )
    page.add_flag(parser)
    access = parser.add_argument_group("who is answered")
    access.add_argument(
        "--allow-origin",
        "--cors-origins",
        type=some_text,
        action="append",
        default=[],
        metavar="ORIGIN",
        help="also pages of this origin, such as https://chat.example; else those of this machine",
    )
    access.add_argument(
        "--allow-host",
        "--allowed-hosts",
        type=some_text,
        action="append",
        default=[],
        metavar="NAME",
        help="also requests to this name of the server",
    )
    access.add_argument("--insecure", action="store_true", help="listen beyond this machine without a key")
    confinement.add_flags(parser, default=True)
    return parser


def command(argv: Sequence[str] | None = None) -> int:
    """``trit serve NAME``: as :func:`main`, but the model may stand alone."""
    parser = build_parser()
    parser.prog, parser.usage, parser.most_words = "trit serve", "trit serve [NAME] [FLAGS] [-- ENGINE_FLAGS]", 1
    return _serve(parser, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server until it is stopped."""
    return _serve(build_parser(), argv)


def _serve(parser: inference.ArgumentParser, argv: Sequence[str] | None) -> int:
    args, extra = parser.parse(argv)
    if args.words:
        if args.model is not None:
            parser.refuse(args, args.words)
        args.model = Path(args.words[0])
    inference.check_engine_flags(extra)
    check_tls(extra)
    # The engine takes the last ones.
    host, port = [
        [str(own), *values(extra, {flag})][-1] for own, flag in ((args.host, "--host"), (args.port, "--port"))
    ]
    check_port(host, int(port) if port.isdecimal() else args.port)
    check_access(args, extra)
    # Only now: a model may have to be fetched.
    inference.check_common(args)
    command = [str(engine_binary("llama-server")), "-m", str(args.model), "-n", str(args.n_predict)]
    command += ["-c", str(args.ctx_size), "-t", str(args.threads), "--temp", str(args.temperature), "-cb"]
    command += ["--host", args.host, "--port", str(args.port), *access_flags(args, extra), *page.engine_flags(args)]
    command += ["--cache-ram", str(_CACHE_MIB), *inference.DRAFTS[args.draft]]
    if args.no_repack:
        command.append("--no-repack")
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
    if not os.environ.get(_KEY_VARIABLE):
        os.environ.pop(_KEY_VARIABLE, None)  # an empty one means none
    for name, value in _MEMORY.items():
        os.environ.setdefault(name, value)
    command += extra
    sandbox = confinement.prepare(args, command)
    if sandbox:
        print(f"The engine is {sandbox}", file=sys.stderr, flush=True)
    running.note("server", args.model, f"{host}:{port}")
    return become(command, sandbox)


def access_flags(args: argparse.Namespace, engine_flags: Sequence[str]) -> list[str]:
    """The engine's flags for who is answered, and for how long after it was told to end."""
    command = ["--grace", str(args.grace)]
    if args.allow_origin:
        command += ["--cors-origins", ",".join(["localhost", *args.allow_origin])]
    # Browsers send names beyond ASCII in this form.
    names = [name.encode("idna").decode() for name in args.allow_host]
    if not names and has_key(engine_flags) and outside(args, engine_flags):
        # The names of a network are many, and a page that takes one of them has no key.
        names = ["*"]
    if names:
        command += ["--allowed-hosts", ",".join(names)]
    return command


def outside(args: argparse.Namespace, engine_flags: Sequence[str]) -> list[str]:
    """The addresses beyond this machine that are listened on."""
    hosts = [args.host, *(value for flag, value in pairwise(engine_flags) if flag == "--host")]
    return [host for word in hosts for host in word.split(",") if not is_local(host)]


def has_key(engine_flags: Sequence[str]) -> bool:
    """Whether a request has to show a key."""
    given = any(flag.partition("=")[0] in _KEY_FLAGS for flag in engine_flags)
    return given or bool(os.environ.get(_KEY_VARIABLE))


def check_tls(engine_flags: Sequence[str]) -> None:
    """Raise UserError for flags of TLS, which the engine is built without."""
    for flag in engine_flags:
        if flag.partition("=")[0] in _TLS_FLAGS:
            raise UserError(f"{flag}: this server has no TLS; put a proxy that has in front of it")


def check_access(args: argparse.Namespace, engine_flags: Sequence[str]) -> None:
    """Refuse to serve a network that nobody has to show a key to, and values that cannot be right.

    Raises:
        UserError: names the flag.
    """
    for origin in args.allow_origin:
        if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/,\s]+", origin):
            raise UserError(
                f"--allow-origin {origin}: give scheme and host without a path, such as https://chat.example"
            )
    for name in args.allow_host:
        if name != "*" and not _is_name(name):
            raise UserError(f"--allow-host {name}: give a name without scheme, port and path, such as llm.example")
    hosts = outside(args, engine_flags)
    if hosts and not has_key(engine_flags) and not args.insecure:
        raise UserError(
            f"--host {hosts[0]} lets everyone on the network use this server; set a key with: "
            "-- --api-key-file FILE, or say --insecure if that is meant"
        )


def _is_name(text: str) -> bool:
    with suppress(UnicodeError):
        return bool(re.fullmatch(r"[\w.-]+", text) and text.encode("idna"))
    return False


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server on this address: loopback, or a UNIX socket."""
    name = host.lower().removesuffix(".")
    if host.endswith(".sock") or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_port(host: str, port: int) -> None:
    """Refuse addresses that cannot be listened on, before the model is loaded.

    Args:
        host: one, or several with commas between them.
        port: the same of each; 0: any free one, for who reads the engine's log.

    Raises:
        UserError: the port is taken or forbidden, or the host is not an address of this machine.
    """
    if port >= 1 << 16:
        raise UserError(f"--port {port}: expected 0 to 65535")
    hosts = host.split(",")
    if len(set(hosts)) < len(hosts):
        raise UserError(f"--host {host}: names an address twice; leave one away")
    for one in hosts:
        if not one.endswith(".sock"):
            _check_address(one, port)


def _check_address(host: str, port: int) -> None:
    if not host.strip():
        raise UserError("--host: an address is empty; give one such as 127.0.0.1")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if sys.platform != "win32":
                # As the server does: a port whose last user has just gone counts as free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except UnicodeError:  # a name with an empty part, or one of more than 63 letters
        raise UserError(f"--host {host}: is no name or address; give one such as 127.0.0.1") from None
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
