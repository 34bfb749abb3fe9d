# SPDX-License-Identifier: MIT
"""Which format of a file goes with what was found: what ``-q auto`` of set-up means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trit.engine.tuning_file import STEPS, Layer, Shape, Tuning
from trit.gguf.encoding_table import DEFAULT, MADE_FOR


@dataclass(frozen=True)
class Verdict:
    """The format for a model.

    Attributes:
        format: its name; None if the model has nothing to choose a format for.
        text: that, and by how much it wins.
    """

    format: str | None
    text: str

    @property
    def line(self) -> str:
        """For the end of a search."""
        return f"auto: {self.text}" if self.format else self.text


def verdict(tuning: Tuning | None, counts: Mapping[Shape, int], where: str) -> Verdict:
    """The format for a model with these matrices, and by how much it wins.

    Args:
        tuning: what was measured, or a preset; None if there is neither.
        counts: (n, k) -> matrices in a layer.
        where: what is said if nothing was measured for this model here.
    """
    packing = tuning.packing(counts) if tuning else None
    name = MADE_FOR[packing] if packing else DEFAULT
    layer = tuning.layer(counts) if tuning else None
    if layer is None or packing is None:
        return Verdict(name, f"{name} ({where})")
    others = [other for other in layer.seconds if MADE_FOR[other] != name]
    if packing not in layer.seconds or not others:
        return Verdict(name, f"{name} (nothing else works here)")
    # The default is what people know; where it is the answer itself, the best of the others.
    known = [other for other in others if MADE_FOR[other] == DEFAULT]
    second = min(known or others, key=lambda other: _total(layer, other))
    steps = [
        f"{tokens} token{'s' if tokens > 1 else ''} {_ratio(layer, second, packing, tokens):.2f}" for tokens in STEPS
    ]
    together = _total(layer, second) / _total(layer, packing)
    if together < 1:
        # Seemed faster, but not beyond doubt (trit/tune/search.py): the answer shall be the same every time.
        because = f"because {MADE_FOR[second]} is not faster beyond doubt (seemed {1 / together:.2f} times)"
        return Verdict(name, f"{name}, {because}")
    on = f"{layer.threads} thread{'s' if layer.threads > 1 else ''}"
    facts = "; ".join([", ".join(steps), on, *([where] if where else [])])
    return Verdict(name, f"{name}, {together:.2f} times as fast as {MADE_FOR[second]} ({facts})")


def _total(layer: Layer, packing: str) -> float:
    return sum(steps * layer.seconds[packing][str(tokens)] for tokens, steps in STEPS.items())


def _ratio(layer: Layer, a: str, b: str, tokens: int) -> float:
    return layer.seconds[a][str(tokens)] / layer.seconds[b][str(tokens)]
