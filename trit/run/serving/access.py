# SPDX-License-Identifier: MIT
"""Who is answered by a server: addresses, keys, names and origins; what the engine's build cannot do.

Standard library only.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from trit.base.errors import UserError
from trit.base.files import check_input
from trit.base.flags import a_path, some_text

_KEY_FLAGS = {"--api-key", "--api-key-file"}
KEY_VARIABLE = "LLAMA_API_KEY"
_TLS_FLAGS = {"--ssl-key-file", "--ssl-cert-file"}
# They download, and the engine has no TLS; or they are written by us.
_DOWNLOAD_FLAGS = {
    *("-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf", "-hfv", "-hfrv", "--hf-repo-v", "-hffv", "--hf-file-v"),
    *("-hft", "--hf-token", "-mmu", "--mmproj-url"),
}
_ROUTER_FLAGS = {"--models-dir", "--models-preset", "--models-max", "--models-autoload", "--no-models-autoload"}
_MOST_KEY_BYTES = 1 << 20
_HEALTH_S = 5.0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    access = parser.add_argument_group("who is answered")
    access.add_argument(
        "--api-key",
        type=some_text,
        metavar="KEY",
        help="key that requests have to show; other users of this machine see it here, so a file is better",
    )
    access.add_argument("--api-key-file", type=a_path, metavar="FILE", help="file with such keys, one a line")
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


def keys(args: argparse.Namespace) -> list[str]:
    """The keys of our own flags.

    Raises:
        UserError: there is none in the file, or it cannot be read.
    """
    found = [args.api_key.strip()] if args.api_key else []
    if args.api_key_file:
        check_input(args.api_key_file, _MOST_KEY_BYTES)
        try:
            text = Path(args.api_key_file).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(
                f"--api-key-file {args.api_key_file}: is no text in UTF-8; put keys there, one a line"
            ) from None
        lines = [line.strip() for line in text.splitlines()]
        here = [line for line in lines if line and not line.startswith("#")]
        if not here:
            raise UserError(f"--api-key-file {args.api_key_file}: has no key in it; put one that nobody guesses there")
        found += here
    return found


def key_variable(found: Sequence[str], environment: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """The engine's variable with the keys, for it alone: nobody else sees a program's variables, as they do its flags.

    The models of a router inherit it, too. An empty variable means none.
    """
    quoted = ['"{}"'.format(key.replace('"', '""')) for key in found]
    before = environment.get(KEY_VARIABLE)
    return {KEY_VARIABLE: ",".join([*quoted, *([before] if before else [])]) or None}


def flags(args: argparse.Namespace, engine_flags: Sequence[str]) -> list[str]:
    """The engine's flags for who is answered, and for how long after it was told to end."""
    command = ["--grace", str(args.grace)]
    if args.allow_origin:
        command += ["--cors-origins", ",".join(["localhost", *args.allow_origin])]
    # Browsers send names beyond ASCII in this form.
    names = [name.encode("idna").decode() for name in args.allow_host]
    if not names and has_key(args, engine_flags) and outside(args, engine_flags):
        # The names of a network are many, and a page that takes one of them has no key.
        names = ["*"]
    if names:
        command += ["--allowed-hosts", ",".join(names)]
    return command


def outside(args: argparse.Namespace, engine_flags: Sequence[str]) -> list[str]:
    """The addresses beyond this machine that are listened on."""
    hosts = [args.host, *(value for flag, value in pairwise(engine_flags) if flag == "--host")]
    return [host for word in hosts for host in word.split(",") if not is_local(host)]


def has_key(args: argparse.Namespace, engine_flags: Sequence[str]) -> bool:
    """Whether a request has to show a key."""
    given = any(flag.partition("=")[0] in _KEY_FLAGS for flag in engine_flags)
    return given or bool(args.api_key or args.api_key_file or os.environ.get(KEY_VARIABLE))


def check_possible(engine_flags: Sequence[str], several: bool) -> None:
    """Refuse flags for what the engine's build cannot do, or what is ours to say.

    Args:
        engine_flags: what follows ``--``.
        several: whether there are several models.

    Raises:
        UserError: names the flag.
    """
    for word in engine_flags:
        flag = word.partition("=")[0]
        if flag in _TLS_FLAGS:
            raise UserError(f"{flag}: this server has no TLS; put a proxy that has in front of it")
        if flag in _DOWNLOAD_FLAGS:
            raise UserError(f"-- {flag}: the engine downloads nothing; fetch models with: trit pull NAME")
        if flag in _ROUTER_FLAGS:
            raise UserError(f"-- {flag}: name the models in front of --: trit serve NAME NAME --models-max N")
        if several and flag in _KEY_FLAGS:
            raise UserError(f"-- {flag}: of several models, keys go in front of --: {flag} ...")


def check(args: argparse.Namespace, engine_flags: Sequence[str]) -> None:
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
    if hosts and not has_key(args, engine_flags) and not args.insecure:
        raise UserError(
            f"--host {hosts[0]} lets everyone on the network use this server; set a key with: "
            "--api-key-file FILE, or say --insecure if that is meant"
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


def url(host: str, port: int) -> str:
    """Where a client of this machine finds the server; of several addresses, the first."""
    first = host.split(",")[0]
    if first in ("0.0.0.0", "::"):
        first = "127.0.0.1" if first == "0.0.0.0" else "::1"
    return f"http://[{first.strip('[]')}]:{port}" if ":" in first else f"http://{first}:{port}"


def answers(host: str, port: int) -> bool:
    """Whether the server says that it is ready; of several addresses, on the first."""
    first = host.split(",")[0]
    request = b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n"
    try:
        if first.endswith(".sock"):
            client = socket.socket(getattr(socket, "AF_UNIX"))  # noqa: B009 - Windows' stubs lack it
            client.settimeout(_HEALTH_S)
            client.connect(first)
        else:
            address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(first, first.strip("[]"))
            client = socket.create_connection((address, port), timeout=_HEALTH_S)
        with client:
            client.sendall(request)
            return client.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False
