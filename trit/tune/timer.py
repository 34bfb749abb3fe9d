# SPDX-License-Identifier: MIT
"""Asks ``trit-tune`` for times: ways of computing one product, measured in turns in one process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from trit.base.errors import TritError
from trit.base.places import ENGINE_BIN, engine_binary

PROGRAM = "trit-tune"


@dataclass(frozen=True)
class Product:
    """m tokens times an [n, k] matrix on some threads."""

    n: int
    k: int
    m: int
    threads: int

    def __str__(self) -> str:
        """For messages and tables."""
        return f"{self.n} x {self.k}, m = {self.m}, {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True)
class Kernel:
    """A look-up kernel that runs here: the fields of ``trit_lookup_kernel`` in include/trit.h."""

    name: str
    tokens: int
    panels: int
    least_tokens: int


class Timer:
    """A running ``trit-tune``; a context manager.

    Attributes:
        tier: the tier of kernels that the engine chooses here.
        packings: those that something here reads.
        default: name of the look-up kernel that it uses without tuning; empty if none.
        kernels: all look-up kernels for panels of 2 bits that run here.
        tables: "tl1" and "tl2" -> names of the kernels for such panels that run here, the usual one first.

    Raises:
        UserError: the engine is not built.
        TritError: the program does not start; its own sentence is on stderr.
    """

    def __init__(self, bin_dir: Path = ENGINE_BIN, megabytes: int = 256, library: Path | None = None) -> None:
        command = [str(engine_binary(PROGRAM, bin_dir)), "--megabytes", str(megabytes)]
        if library is not None:
            command += ["--kernels", str(library)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        head = self._answer("started")
        self.tier, self.default = str(head["tier"]), str(head["default"])
        self.packings = list(map(str, head["packings"]))
        self.tables = {packing: list(map(str, head[packing])) for packing in ("tl1", "tl2")}
        rows = zip(head["kernels"], head["tokens"], head["panels"], head["least_tokens"], strict=True)
        self.kernels = [Kernel(name, *map(int, numbers)) for name, *numbers in rows]

    @property
    def names(self) -> list[str]:
        """All look-up kernels that run here."""
        return [*(kernel.name for kernel in self.kernels), *chain.from_iterable(self.tables.values())]

    def __enter__(self) -> Timer:
        """The timer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the program, in the middle of an order too."""
        self._process.kill()
        self._process.communicate()

    def at_once(self, packing: str, tokens: int) -> None:
        """From now on ways with such panels take so many tokens at once; 0: all."""
        self._tell(f"at_once {packing} {tokens}")

    def rounds(self, product: Product, ways: Sequence[str], count: int) -> dict[str, list[float]]:
        """Time the ways in turns.

        Args:
            product: what is computed.
            ways: names that ``trit-tune`` knows.
            count: rounds.

        Returns:
            Seconds of one product in each round, for the ways that are possible for this product.

        Raises:
            TritError: the program failed; its own sentence is on stderr.
        """
        self._tell(" ".join(map(str, [product.n, product.k, product.m, product.threads, count, *ways])))
        answer = self._answer(f"measured {product}")
        names, seconds = answer["ways"], answer["seconds"]
        return {name: seconds[i :: len(names)] for i, name in enumerate(names)}

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        with suppress(OSError):  # then there is no answer either
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _answer(self, doing: str) -> dict[str, Any]:
        assert self._process.stdout
        try:
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise TritError(f"{PROGRAM} ended while it {doing}; run it again") from error
        assert isinstance(answer, dict)
        return answer
