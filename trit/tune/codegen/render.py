# SPDX-License-Identifier: MIT
"""C++ from a configuration: the same bytes for the same configuration and version, on every machine."""

from __future__ import annotations

from pathlib import Path

import jinja2

from trit.base.files import atomic_output
from trit.tune.codegen.configuration import Lookup, Table

# Goes up with every change of a template or of what fills it in: generated files name it.
VERSION = 5
TEMPLATES = Path(__file__).resolve().parent / "templates"
LAST_BYTE = 0b10101010  # four codes 2


def render(configuration: Lookup | Table) -> str:
    """The source file of one kernel.

    Args:
        configuration: tiles and instruction set; its rules have been checked.

    Returns:
        C++17, formatted as .clang-format says.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # C++, not HTML
    )
    header = (
        f"// Made by trit/tune/codegen, version {VERSION}; changes here are lost. To make it again:\n"
        f"//     python -m trit.tune.codegen {configuration.flags}"
    )
    if isinstance(configuration, Table):
        return environment.get_template("table.cpp.jinja").render(header=header, c=configuration, isa=configuration.isa)
    return environment.get_template("lookup.cpp.jinja").render(
        header=header,
        c=configuration,
        isa=configuration.isa,
        last_byte=LAST_BYTE,
        lanes=configuration.isa.register_bytes // 2,
        lane_bytes=configuration.isa.register_bytes,
        plus=_plus,
        offset=lambda byte: _offset(configuration.entry_bytes, byte),
    )


def write(configuration: Lookup | Table, folder: Path) -> Path:
    """Write a kernel's source into a folder; returns its path."""
    path = folder / f"{configuration.name}.cpp"
    with atomic_output(path) as part:
        part.write_text(render(configuration), encoding="utf-8", newline="\n")
    return path


def _plus(number: int) -> str:
    return f" + {number}" if number else ""


def _offset(entry_bytes: int, byte: int) -> str:
    """Byte `byte` of `word`, times the size of an entry: one shift and one mask."""
    shift = 8 * byte - (entry_bytes.bit_length() - 1)
    moved = f"word >> {shift}" if shift > 0 else f"word << {-shift}" if shift < 0 else "word"
    return f"{moved} & 0x{0xFF * entry_bytes:X}"
