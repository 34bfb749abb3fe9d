# SPDX-License-Identifier: MIT
"""Does the engine load this GGUF file? Asked before the engine starts, which would say less. Standard library only."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from trit.base.errors import UserError
from trit.base.places import python_command
from trit.gguf.header import RawHeader
from trit.gguf.identify import Found, identify
from trit.gguf.layouts import TILED
from trit.gguf.parts import read_parts
from trit.gguf.tensor_numbers import broken_numbers
from trit.gguf.validate import LOOKED_AT, misplaced, unsound

AGAIN = "; download or convert it again"


def check_loadable(path: Path) -> RawHeader:
    """Refuse a file that the engine does not load, or would load and compute nonsense with; else the model's header.

    Headers are read, of a split model those of all its files, and the vectors of a model, not its matrices.

    Raises:
        UserError: the file is damaged or cut short (names it and the bytes), a tensor has a layout that is not loaded
            (names both, who writes it, and the command that helps), or the engine would not come through with a number
            in it (names the key or tensor, what it is and what it has to be).
    """
    parts = [(part, header, identify(header)) for part, header in read_parts(path, arrays=LOOKED_AT)]
    for part, header, found in parts:
        if reason := why_not(path, header, found):
            raise UserError(f"{part}: {reason}")
    for part, header, found in parts:
        if reason := damage(part, header, found):
            raise UserError(f"{part}: {reason}")
    tensors = {name: tensor for _, header, _ in parts for name, tensor in header.tensors.items()}
    model = replace(parts[0][1], tensors=tensors)
    if reason := unsound(model):
        raise UserError(f"{path}: {reason}{AGAIN}")
    return model


def damage(part: Path, header: RawHeader, found: list[Found]) -> str | None:
    """What is wrong with the data of a file whose layouts are all loaded; None if nothing is."""
    reason = misplaced(header, found) or broken_numbers(part, found)
    return f"{reason}{AGAIN}" if reason else None


def why_not(path: Path, header: RawHeader, found: list[Found]) -> str | None:
    """Why the engine loads none of the file's kind or layouts, with the command that helps if there is one, or None."""
    if reason := no_model(header):
        return reason
    item = next((item for item in found if not item.loads), None)
    if item is None:
        return None
    if item.problem or item.layout is None:
        return f"{item.tensor.name} {item.problem}; the engine does not load it"
    return (
        f"{item.tensor.name} is {item.name}, written by {item.layout.writer}, which the engine does not load; convert "
        f"the file first: {convert_command(path, item)}"
    )


def convert_command(path: Path, item: Found) -> str:
    """The command that makes a file with a foreign tensor loadable."""
    assert item.layout is not None
    tiles = " --kernel-config kernel_config.ini" if item.name in TILED else ""
    return f"{python_command('-m utils.convert')} {shlex.quote(str(path))} --outtype {item.layout.outtype}{tiles}"


def no_model(header: RawHeader) -> str | None:
    """Why a GGUF file that is an adapter, a projector or the like is no model; None if it is one."""
    kind = header.metadata.get("general.type", "model")
    if kind == "model" or not isinstance(kind, str):
        return None
    return f"it is no model but what general.type calls {kind!a}, an addition to one"
