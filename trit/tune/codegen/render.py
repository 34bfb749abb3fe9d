# SPDX-License-Identifier: MIT
"""C++ from a configuration: the same bytes for the same configuration and version, on every machine."""

from __future__ import annotations

from pathlib import Path

from trit.base.files import atomic_output, check_output
from trit.tune.codegen.configuration import Lookup, Table

# Goes up with every change of what stands in a source file, or of what src/kernels/lookup/ reads of it: files name it.
VERSION = 7
COLUMNS = 110  # .clang-format


def render(configuration: Lookup | Table) -> str:
    """The source file of one kernel: the configuration as constants, for the templates of src/kernels/lookup/.

    Args:
        configuration: tiles and instruction set; its rules have been checked.

    Returns:
        C++17, formatted as .clang-format says.
    """
    name = configuration.name
    kind = "table" if isinstance(configuration, Table) else "lookup"
    constants = {"char kName[]": f'"{name}"', "char kTier[]": f'"{configuration.tier}"', **configuration.constants}
    members = "".join(f"    static constexpr {member} = {value};\n" for member, value in constants.items())
    symbol = f'extern "C" const trit_lookup_kernel trit_{name} ='
    value = "lookup_kernel<Configuration>();"
    space = " " if len(f"{symbol} {value}") <= COLUMNS else "\n    "
    return f"""// SPDX-License-Identifier: MIT
// Made by trit/tune/codegen, version {VERSION}; changes here are lost. To make it again:
//     trit codegen {configuration.flags}
#include "kernels/lookup/{kind}_{configuration.isa.name}-inl.h"

namespace {{
struct Configuration {{
{members}}};
}}  // namespace

{symbol}{space}{value}
"""


def write(configuration: Lookup | Table, folder: Path) -> Path:
    """Write a kernel's source into a folder; returns its path."""
    path = folder / f"{configuration.name}.cpp"
    check_output("--outdir", path, in_folder=True)
    with atomic_output(path) as part:
        part.write_text(render(configuration), encoding="utf-8", newline="\n")
    return path
