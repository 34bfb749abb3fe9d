# SPDX-License-Identifier: MIT
"""A comparison as Markdown, as JSON, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from trit.base.plots import LINE, PALE, STRONG, picture
from trit.base.statistics import LEAST_ROUNDS, Interval, paired_ratio
from trit.engine.llama_bench import Case
from trit.engine.loading import Loading
from trit.gguf.encoding_table import OURS, STOCK, in_words
from trit.measure.formats.fidelity import Error
from trit.measure.model_store import Size
from trit.measure.report import Columns, beside, cells, markdown, sentences
from trit.measure.variants import REFERENCE, Variant

WHAT_ERROR_MEANS = (
    "The reference is the f16 file in the same engine, with activations in float16. BitNet models are trained with "
    "activations rounded to int8, once for each token, and our kernels do exactly that (once for each block, where "
    "weights have a scale for each block): what a row with our kernels is off by is this rounding, not its weights. "
    "llama.cpp's kernels round activations, too, in blocks of 32 or 256, which is closer to f16 and not what training "
    "did. q4_0 changes the weights as well: of -s and +s it holds one an eighth too small. Scales have 16 bits in "
    f"{in_words('f16', *STOCK)}, 32 in {in_words(*OURS)}."
)
_MEASURES = (
    "KL: mean divergence of the distributions of the next token, in nats. Top-1: positions with the same likeliest "
    "token. Logits: root mean square of their differences, relative to that of f16's logits."
)


@dataclass
class Row:
    """Everything that is known of one variant.

    Attributes:
        speeds: tokens per second of every round.
        error: None if errors were not asked for.
    """

    variant: Variant
    size: Size
    loads: list[Loading] = field(default_factory=list)
    speeds: dict[Case, list[float]] = field(default_factory=dict)
    error: Error | None = None

    @property
    def seconds(self) -> float:
        """To load, median."""
        return median(load.seconds for load in self.loads)

    @property
    def resident(self) -> float | None:
        """Bytes in use after loading, median; None where the system does not tell."""
        return _median(load.resident_bytes for load in self.loads)

    @property
    def peak(self) -> float | None:
        """The most bytes in use; the same."""
        return _median(load.peak_bytes for load in self.loads)


def _median(counts: Iterable[int | None]) -> float | None:
    known = [count for count in counts if count is not None]
    return median(known) if known else None


@dataclass
class Comparison:
    """The whole result.

    Attributes:
        label: what the weights are.
        baseline: ratios are to this variant.
        left_out: format -> why it is not among the rows.
        text: what errors were measured over; empty if they were not.
        notes: what a reader has to know of this run.
    """

    label: str
    rows: list[Row]
    baseline: Variant
    left_out: dict[str, str] = field(default_factory=dict)
    text: str = ""
    notes: list[str] = field(default_factory=list)

    def ratio(self, row: Row, case: Case) -> Interval:
        """Speed divided by the baseline's in the same round: median and 95 % interval, of few rounds their range."""
        (other,) = (one for one in self.rows if one.variant == self.baseline)
        ours, others = row.speeds[case], other.speeds[case]
        if len(ours) >= LEAST_ROUNDS:
            return paired_ratio(ours, others)
        ratios = [own / baseline for own, baseline in zip(ours, others, strict=True)]
        return Interval(median(ratios), min(ratios), max(ratios))

    @property
    def cases(self) -> list[Case]:
        """Prompts first, then text, each by threads."""
        return sorted(self.rows[0].speeds, key=lambda case: (case.n_gen, case.n_prompt, case.threads))

    def same_answers(self) -> list[list[Variant]]:
        """Groups of at least two variants that give the same log-probabilities, bit for bit."""
        groups: dict[str, list[Variant]] = {}
        for row in self.rows:
            if row.error:
                groups.setdefault(row.error.digest, []).append(row.variant)
        return [group for group in groups.values() if len(group) > 1]


def _megabytes(count: float | None) -> str:
    return "not measured" if count is None else f"{count / 1e6:.0f}" if count >= 1e8 else f"{count / 1e6:.1f}"


_NAMES: Columns[Row] = {"format": lambda row: row.variant.type, "kernels": lambda row: row.variant.kernels}
_MEMORY: Columns[Row] = {
    **_NAMES,
    "file MB": lambda row: _megabytes(row.size.file_bytes),
    "bits/weight": lambda row: "-" if row.size.bits is None else f"{row.size.bits:.2f}",
    "load s": lambda row: f"{row.seconds:.2f}",
    "MB resident": lambda row: _megabytes(row.resident),
    "MB peak": lambda row: _megabytes(row.peak),
}


def _speed(comparison: Comparison, row: Row, case: Case) -> str:
    """Tokens per second, and the ratio to the baseline with its interval."""
    speed = f"{median(row.speeds[case]):.1f}"
    if row.variant == comparison.baseline:
        return speed
    middle, low, high = comparison.ratio(row, case)
    # One round has no spread.
    interval = f", {low:.2f} to {high:.2f}" if len(row.speeds[case]) > 1 else ""
    return f"{speed} ({middle:.2f}x{interval})"


def _medians(rounds: int) -> str:
    return f"Medians of {rounds} rounds in turns" if rounds > 1 else "One round"


def _spread(rounds: int) -> str:
    """What is said beside a median."""
    if rounds >= LEAST_ROUNDS:
        return "median and its 95 % interval"
    return f"median, lowest and highest (an interval takes {LEAST_ROUNDS} rounds)" if rounds > 1 else "once"


def text(comparison: Comparison) -> Iterator[str]:
    """The paragraphs of the Markdown behind the heading."""
    rows, cases = comparison.rows, comparison.cases
    rounds = len(rows[0].loads)
    yield f"{comparison.label[0].upper()}{comparison.label[1:]}: the same weights in every file, the same programs."
    yield from sentences(comparison.notes)
    yield from (f"Left out: {form}, {reason}." for form, reason in comparison.left_out.items())
    yield "## Files, loading, memory"
    yield (
        f"Bits per weight: of the matrices in the layers, scales included. Load: until the model is ready, packing "
        "included, from a file in the page cache; resident: memory in use then, mapped pages of the file included; "
        f"peak: the most until a prompt has been read. {_medians(rounds)}."
    )
    yield markdown(cells(_MEMORY, rows), left=2)
    yield "## Speed"
    yield (
        f"Tokens/s. {_medians(rounds)}; in brackets the ratio to {comparison.baseline.type} with "
        f"{comparison.baseline.kernels} kernels in the same round, {_spread(rounds)}."
    )
    speeds = [[_speed(comparison, row, case) for case in cases] for row in rows]
    yield markdown(beside(cells(_NAMES, rows), [[case.in_words for case in cases], *speeds]), left=2)
    if any(row.error for row in rows):
        yield f"## Error against {REFERENCE}"
        yield f"{WHAT_ERROR_MEANS}\n\nOver {comparison.text}. {_MEASURES}"
        compared = [(row, row.error) for row in rows if row.error]
        errors = [[f"{e.divergence:.2e}", f"{e.agreement:.1%}", f"{e.logits:.1%}"] for _, e in compared]
        names = cells(_NAMES, [row for row, _ in compared])
        yield markdown(beside(names, [["KL, nats", "top-1", "logits"], *errors]), left=2)
        for group in comparison.same_answers():
            yield f"The same log-probabilities, bit for bit: {', '.join(variant.name for variant in group)}."


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Every repetition of everything."""
    return {
        "model": comparison.label,
        "baseline": comparison.baseline.name,
        "left_out": comparison.left_out,
        "notes": comparison.notes,
        "text": comparison.text,
        "rows": [
            {
                "type": row.variant.name,
                "kernels": row.variant.kernels,
                **asdict(row.size),
                "loads": [asdict(load) for load in row.loads],
                "tests": [
                    {
                        **asdict(case),
                        "tokens_per_second": speeds,
                        "ratio": dict(zip(("median", "low", "high"), comparison.ratio(row, case), strict=True)),
                    }
                    for case, speeds in row.speeds.items()
                ],
                "error": asdict(row.error) if row.error else None,
            }
            for row in comparison.rows
        ],
    }


def plot(comparison: Comparison, path: Path, title: str) -> None:
    """Draw one panel for each test, and one each for memory and error; a bar a variant, the baseline pale."""
    rows = comparison.rows
    panels: list[tuple[str, list[tuple[Row, float]], Case | None]] = [
        (f"{case.in_words}: tokens/s, median and range", [(row, median(row.speeds[case])) for row in rows], case)
        for case in comparison.cases
    ]
    errors = [(row, 100 * row.error.logits) for row in rows if row.error and row.variant.type != REFERENCE]
    panels += [
        ("file, MB", [(row, row.size.file_bytes / 1e6) for row in rows], None),
        ("memory at most, MB", [(row, row.peak / 1e6) for row in rows if row.peak is not None], None),
        ("load time, s", [(row, row.seconds) for row in rows], None),
        (f"logits: error against {REFERENCE}, %", errors, None),
    ]
    panels = [panel for panel in panels if panel[1]]
    columns = 2
    lines = math.ceil(len(panels) / columns)
    height = 0.7 + (0.5 + 0.22 * len(rows)) * lines
    with picture(path, title, lines, columns, (11, height)) as axes:
        for axis, (name, values, case) in zip(axes.flat, panels, strict=False):
            values.reverse()  # bars are drawn from below
            ends = [(length - min(row.speeds[case]), max(row.speeds[case]) - length) for row, length in values if case]
            axis.barh(
                [row.variant.name for row, _ in values],
                [length for _, length in values],
                xerr=list(zip(*ends, strict=True)) or None,
                color=[PALE if row.variant == comparison.baseline else STRONG for row, _ in values],
                ecolor=LINE,
            )
            axis.set_title(name, fontsize=9, loc="left")
            axis.tick_params(labelsize=7)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
