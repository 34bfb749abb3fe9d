# SPDX-License-Identifier: MIT
"""What the engine makes of ternary matrices when it loads them: asked of the engine itself, by ``trit-describe``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import TritError
from trit.base.places import ENGINE_BIN, engine_binary
from trit.engine.program import json_lines

PROGRAM = "trit-describe"
Matrix = tuple[str, int, int]  # encoding, rows n, columns k


@dataclass(frozen=True)
class Packed:
    """A matrix in memory.

    Attributes:
        packing: of its panels; empty: it stays as it is in the file.
        nbytes: with one scale for all weights; 0 if it stays as it is.
        grouped_nbytes: with scales of their own for groups of inputs; 0 if its encoding has none.
    """

    packing: str
    nbytes: int
    grouped_nbytes: int


def packed(matrices: Iterable[Matrix], bin_dir: Path = ENGINE_BIN, tier: str | None = None) -> dict[Matrix, Packed]:
    """Ask for some matrices, with this process's environment and this machine's tuning.

    Args:
        matrices: each once.
        bin_dir: folder of the compiled programs.
        tier: of the kernels; None: the engine chooses.

    Raises:
        UserError: the engine is not built, or cannot do what the environment asks for.
        TritError: it says something else than expected.
    """
    names = [f"{encoding}:{n}x{k}" for encoding, n, k in matrices]
    if not names:
        return {}
    command: list[str | Path] = [engine_binary(PROGRAM, bin_dir), "--matrices", ",".join(names)]
    lines = json_lines(command, "asking what the engine packs", env={"TRIT_TIER": tier} if tier else None)
    try:
        return {
            (line["encoding"], line["n"], line["k"]): Packed(line["packing"], line["bytes"], line["grouped_bytes"])
            for line in lines
            if line["kind"] == "matrix"
        }
    except KeyError as error:
        raise TritError(f"{PROGRAM} printed something else than expected ({error!r}); build it again") from error
