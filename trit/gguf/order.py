# SPDX-License-Identifier: MIT
"""Are the columns of an i2_s file where the published layout says? A test on the weights, because nothing else tells.

Reading one i2_s layout as another is (nearly) a permutation of columns, the same in every matrix, so no statistic of a
single matrix can notice it. But a trained model knows which channel is which: the columns of a matrix are denser
(hold fewer zeros) or sparser where the gain of the norm in front of it is larger, and the norms are stored in plain
order; likewise the columns of ffn_down and the rows of ffn_up belong to the same channels. So, for each of the layouts,
r is the correlation over a matrix's columns of the share of non-zeros with the gain (or with ffn_up's rows), and

    Q = sum over matrices of (K - 3) * artanh(r)^2 / (number of matrices)

is 1 on average where there is no relation (a chi-square of one degree of freedom for each) and large for the right
layout. Measured on trit-story-3m, whose weights are trained: docs/decisions.md. A model with random weights or constant
gains says nothing, and then nothing is claimed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trit.base.errors import EXIT_OK, UserError, run_main
from trit.gguf.decode import decode
from trit.gguf.layouts import FLAT_I2_S, I2_S_LAYOUTS, LAYOUTS, PUBLISHED_I2_S
from trit.gguf.source import Source

Floats = npt.NDArray[np.float64]

# Matrix -> what its columns are compared with.
PARTNERS = {
    "attn_q": "attn_norm",
    "attn_k": "attn_norm",
    "attn_v": "attn_norm",
    "attn_output": "attn_sub_norm",
    "ffn_gate": "ffn_norm",
    "ffn_up": "ffn_norm",
    "ffn_down": "ffn_sub_norm",
}
LAYERS = 4
# A layout is suggested if its Q is this many times that of every other, above LEAST, and this many standard deviations
# (each term's is sqrt(2)) above chance.
RATIO, LEAST, DEVIATIONS = 2.0, 5.0, 10.0
LARGEST_R = 0.999
# Metadata of our own converter (docs/formats.md), which writes the published layout only.
_OWN_ENCODING = "trit.encoding.ternary"


@dataclass(frozen=True)
class Order:
    """Q of every layout of type 36 that the file's sizes allow, and how many matrices were looked at."""

    scores: dict[str, float]
    matrices: int

    @property
    def suggestion(self) -> str | None:
        """The key of ``I2_S_LAYOUTS`` that is clearly the right one; None if the test does not say."""
        if len(self.scores) < 2:
            return None
        best, second = sorted(self.scores, key=lambda name: -self.scores[name])[:2]
        least = max(LEAST, 1 + DEVIATIONS * math.sqrt(2 / self.matrices), RATIO * self.scores[second])
        if self.scores[best] < least:
            return None
        return best


def measure_order(source: Source, layers: int = LAYERS) -> Order:
    """Q of every layout on up to ``layers`` layers of a file with i2_s tensors."""
    blocks = sorted(
        {
            int(name.split(".")[1])
            for name, item in source.found.items()
            if item.tensor.ggml_type == LAYOUTS[PUBLISHED_I2_S].ids[0]
            and name.startswith("blk.")
            and name.split(".")[1].isdigit()
        }
    )
    chosen = blocks[:: max(1, len(blocks) // layers)][:layers]
    scores: dict[str, list[float]] = {}
    for block in chosen:
        for key, layout in I2_S_LAYOUTS.items():
            for score in _block_scores(source, f"blk.{block}.", layout):
                scores.setdefault(key, []).append(score)
    most = max(map(len, scores.values()), default=0)
    return Order({key: float(np.mean(values)) for key, values in scores.items() if len(values) == most}, most)


def _block_scores(source: Source, prefix: str, layout: str) -> list[float]:
    """The terms of Q of one transformer block."""
    rows_of: dict[str, Floats] = {}
    terms = []
    for matrix, norm in PARTNERS.items():
        density = _densities(source, f"{prefix}{matrix}.weight", layout)
        if density is None:
            continue
        rows_of[matrix], columns = density
        gain = source.found.get(f"{prefix}{norm}.weight")
        if gain is not None and gain.name == "f32" and gain.tensor.shape == (len(columns),):
            terms.append(_term(columns, np.abs(source.floats(gain)[0].astype(np.float64))))
        if matrix == "ffn_down" and "ffn_up" in rows_of and len(rows_of["ffn_up"]) == len(columns):
            terms.append(_term(columns, rows_of["ffn_up"]))
    return [term for term in terms if term is not None]


def _densities(source: Source, name: str, layout: str) -> tuple[Floats, Floats] | None:
    """Share of non-zeros in each row and in each column of an i2_s tensor read as ``layout``."""
    item = source.found.get(name)
    if item is None or item.tensor.ggml_type not in LAYOUTS[layout].ids or len(item.tensor.shape) != 2:
        return None
    n, k = item.tensor.shape
    if layout == PUBLISHED_I2_S and k % LAYOUTS[layout].columns:
        layout = FLAT_I2_S
    row = LAYOUTS[layout]
    if k % row.columns or item.nbytes not in row.sizes(n, k):
        return None
    try:
        used = decode(layout, source.bytes(item.tensor, 0, item.nbytes), n, k, name).values != 0
    except UserError:
        return None
    return used.mean(axis=1), used.mean(axis=0)


def _term(columns: Floats, partner: Floats) -> float | None:
    """(K - 3) * artanh(r)^2; None where one of the two is constant."""
    if len(columns) < 32 or not columns.std() or not partner.std() or not np.isfinite(partner).all():
        return None
    r = float(np.clip(np.corrcoef(columns, partner)[0, 1], -LARGEST_R, LARGEST_R))
    return (len(columns) - 3) * float(np.arctanh(r)) ** 2


def check_order(source: Source, asked: str | None) -> None:
    """Refuse to read a file's i2_s in a layout that its weights or its metadata speak against.

    Args:
        source: The file.
        asked: The key of ``I2_S_LAYOUTS`` that the user gave. "published" is obeyed, because it is how the engine reads
            the file in any case; None stands for it, too, but is not obeyed.

    Raises:
        UserError: names the option that reads the file, and what speaks for it.
    """
    if asked == "published":
        return
    order = measure_order(source)
    right = order.suggestion
    numbers = ", ".join(f"{key} {score:.1f}" for key, score in order.scores.items())
    reason = f"agreement with the norms over {order.matrices} matrices: {numbers}; 1 is chance"
    if right is None and source.header.metadata.get(_OWN_ENCODING) == PUBLISHED_I2_S:
        right, reason = "published", f"{_OWN_ENCODING} says that trit.cpp wrote it"
    if right in (None, asked or "published"):
        return
    if asked is None:
        raise UserError(
            f"{source.path}: its i2_s tensors are probably not in the published layout but in that of "
            f"{LAYOUTS[I2_S_LAYOUTS[right]].writer} ({reason}); convert with --i2-s-layout {right}, or with "
            "--i2-s-layout published to read it as it stands",
            flags=["--i2-s-layout"],
        )
    raise UserError(
        f"{source.path}: --i2-s-layout {asked} would scramble its i2_s tensors, which are in the layout {right} "
        f"({reason}); give --i2-s-layout {right}",
        flags=["--i2-s-layout"],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the layout of ``I2_S_LAYOUTS`` that one layer of a file speaks for, or nothing; for ``known_order``."""
    (path,) = sys.argv[1:] if argv is None else argv
    print(measure_order(Source.open(Path(path), arrays=False), layers=1).suggestion or "")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_main(main))
