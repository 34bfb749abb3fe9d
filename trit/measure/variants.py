# SPDX-License-Identifier: MIT
"""What takes turns in a measurement: a model's file in one format, loaded in one way."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from trit.engine.cost import ModelFile
from trit.gguf.encoding_table import OURS, STOCK, TABLE, InPlace

# Ternary encodings with our kernels; q4_0 and f16 are what people would run without them.
FORMATS = (*OURS, *STOCK, "q4_0", "f16")
REFERENCE = "f16"
NO_REPACK = ":no-repack"
_NOT_PACKED = {
    InPlace.OUR_KERNEL: "ours, from the file's bytes",
    InPlace.OURS_UNPACKED: "ours, unpacked each time",
    InPlace.LLAMA_CPP: "llama.cpp's",
}


@dataclass(frozen=True)
class Variant:
    """A row of a table.

    Attributes:
        type: what differs: the type of the matrices or of the head, or where any files are compared, their names.
        packed: the engine may rewrite matrices when it loads them (its default, ``--repack``).
    """

    type: str
    packed: bool = True

    @property
    def name(self) -> str:
        """As ``--types`` takes it."""
        return self.type if self.packed else self.type + NO_REPACK

    @property
    def kernels(self) -> str:
        """Whose code multiplies, if the type is one of ``FORMATS``."""
        if self.type in ("q4_0", "f16"):
            return "llama.cpp's" if self.packed or self.type == "f16" else "llama.cpp's, not repacked"
        return "ours, packed at load" if self.packed else _NOT_PACKED[TABLE[self.type].in_place]


# llama.cpp's own kernels on the smallest error and the highest speed among its own ternary types: what one has without
# this project. Where a shape has no tq2_0, the 4-bit type that everybody uses stands in.
BASELINES = (Variant("tq2_0", packed=False), Variant("q4_0"))
DEFAULT_VARIANTS = (*map(Variant, FORMATS), BASELINES[0])


def parse_variant(text: str) -> Variant:
    """``i2_s`` or ``i2_s:no-repack``, for argparse."""
    name = text.lower()
    variant = Variant(name.removesuffix(NO_REPACK), not name.endswith(NO_REPACK))
    if variant.type not in FORMATS:
        raise argparse.ArgumentTypeError(f"{text!r}: there are {', '.join(FORMATS)}, each also with {NO_REPACK}")
    return variant


def labelled(files: Sequence[ModelFile]) -> dict[Variant, ModelFile]:
    """Any files by names that differ: their own, with as many folders in front as it takes."""
    paths = [file.path.absolute() for file in files]
    found: dict[Variant, ModelFile] = {}
    for number, (file, path) in enumerate(zip(files, paths, strict=True)):
        depth = 1
        while any(other.parts[-depth:] == path.parts[-depth:] for other in paths if other != path):
            depth += 1
        again = paths[:number].count(path)
        found[Variant("/".join(path.parts[-depth:]) + f" #{again + 1}" * (again > 0))] = file
    return found
