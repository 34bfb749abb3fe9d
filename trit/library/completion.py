# SPDX-License-Identifier: MIT
"""Completion in shells, by the package argcomplete: commands, then names of models. Nothing else needs the package."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

from trit.base.errors import TritError, UserError
from trit.base.flags import ArgumentParser
from trit.base.places import BUNDLED_MODEL
from trit.library.names import of_name
from trit.library.store import Store
from trit.models.registry import registry

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_ARGCOMPLETE"  # set by the shell's function, when it asks us
# Commands whose words may be names of any model, and those whose words are models that are here.
_OF_ANY = {"run", "serve", "pull", "show", "convert", "inspect", "bench", "tune"}
_OF_OURS = {"rm"}


def shell_code(shell: str) -> str:
    """What a shell has to read to complete our command.

    Raises:
        UserError: the package is not there.
    """
    return str(_argcomplete().shellcode(["trit"], shell=shell))


def complete(commands: Iterable[str]) -> None:
    """Answer the shell that asks, and end; without the package there is no answer."""
    parser = ArgumentParser(prog="trit", add_help=False)
    parser.add_argument("--completion", choices=SHELLS)
    parser.add_argument("--version", action="store_true")
    parser.add_argument("command", choices=list(commands))
    parser.add_argument("words", nargs="*").completer = _names  # type: ignore[attr-defined]
    _argcomplete().autocomplete(parser, always_complete_options=False)


def _names(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Names that can follow a command; files are the shell's where these are none."""
    command = parsed_args.command
    if command not in _OF_ANY | _OF_OURS:
        return []
    try:
        ours = [of_name(entry.name).shown for entry in Store().entries()]
    except TritError:
        ours = []
    known = [BUNDLED_MODEL.name, *(model.short for model in registry().models)] if command in _OF_ANY else []
    return [name for name in dict.fromkeys([*ours, *known]) if name.lower().startswith(prefix.lower())]


def _argcomplete() -> Any:
    try:
        import argcomplete
    except ImportError:
        raise UserError("completion needs a package: pip install argcomplete") from None
    return argcomplete
