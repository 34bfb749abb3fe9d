# SPDX-License-Identifier: MIT
"""A comparison as Markdown, as JSON, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from trit.base.plots import LINE, PALE, STRONG, picture
from trit.base.statistics import LEAST_ROUNDS, Interval, paired_ratio
from trit.engine.llama_bench import Case
from trit.engine.loading import Loading
from trit.measure.formats.fidelity import Error
from trit.measure.model_store import Size
from trit.measure.speed.output import markdown_table
from trit.measure.variants import REFERENCE, Variant

WHAT_ERROR_MEANS = (
    "The reference is the f16 file in the same engine, with activations in float16. BitNet models are trained with "
    "activations rounded to int8, once for each token, and our kernels do exactly that (once for each block, where "
    "weights have a scale for each block): what a row with our kernels is off by is this rounding, not its weights. "
    "llama.cpp's kernels round activations, too, in blocks of 32 or 256, which is closer to f16 and not what training "
    "did. q4_0 changes the weights as well: of -s and +s it holds one an eighth too small. Scales have 16 bits in f16, "
    "tq2_0, tq1_0 and q2_0, 32 in i2_s, tl1 and tl2."
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

    def memory(self, of: Callable[[Loading], int | None]) -> float | None:
        """Bytes, median; None where the system does not tell."""
        known = [count for load in self.loads if (count := of(load)) is not None]
        return median(known) if known else None

    @property
    def resident(self) -> float | None:
        """Bytes in use after loading."""
        return self.memory(lambda load: load.resident_bytes)

    @property
    def peak(self) -> float | None:
        """The most bytes in use."""
        return self.memory(lambda load: load.peak_bytes)


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


def memory_table(comparison: Comparison) -> list[list[str]]:
    """Files, load time and memory: heading and a row for each variant."""
    heading = ["format", "kernels", "file MB", "bits/weight", "load s", "MB resident", "MB peak"]
    rows = [
        [
            row.variant.type,
            row.variant.kernels,
            _megabytes(row.size.file_bytes),
            "-" if row.size.bits is None else f"{row.size.bits:.2f}",
            f"{row.seconds:.2f}",
            _megabytes(row.resident),
            _megabytes(row.peak),
        ]
        for row in comparison.rows
    ]
    return [heading, *rows]


def speed_table(comparison: Comparison) -> list[list[str]]:
    """Tokens per second, and ratios to the baseline with their intervals."""
    rows = [["format", "kernels", *(case.in_words for case in comparison.cases)]]
    for row in comparison.rows:
        cells = []
        for case in comparison.cases:
            speed = f"{median(row.speeds[case]):.1f}"
            if row.variant != comparison.baseline:
                middle, low, high = comparison.ratio(row, case)
                # One round has no spread.
                interval = f", {low:.2f} to {high:.2f}" if len(row.speeds[case]) > 1 else ""
                speed += f" ({middle:.2f}x{interval})"
            cells.append(speed)
        rows.append([row.variant.type, row.variant.kernels, *cells])
    return rows


def error_table(comparison: Comparison) -> list[list[str]]:
    """Errors against the reference."""
    rows = [["format", "kernels", "KL, nats", "top-1", "logits"]]
    for row in comparison.rows:
        if row.error:
            error = row.error
            cells = [f"{error.divergence:.2e}", f"{error.agreement:.1%}", f"{error.logits:.1%}"]
            rows.append([row.variant.type, row.variant.kernels, *cells])
    return rows


def _medians(rounds: int) -> str:
    return f"Medians of {rounds} rounds in turns" if rounds > 1 else "One round"


def _spread(rounds: int) -> str:
    """What is said beside a median."""
    if rounds >= LEAST_ROUNDS:
        return "median and its 95 % interval"
    return f"median, lowest and highest (an interval takes {LEAST_ROUNDS} rounds)" if rounds > 1 else "once"


def text(comparison: Comparison) -> Iterator[str]:
    """The paragraphs of the Markdown behind the heading."""
    rounds = len(comparison.rows[0].loads)
    yield f"{comparison.label[0].upper()}{comparison.label[1:]}: the same weights in every file, the same programs."
    yield from (f"{note[0].upper()}{note[1:]}." for note in comparison.notes)
    yield from (f"Left out: {form}, {reason}." for form, reason in comparison.left_out.items())
    yield "## Files, loading, memory"
    yield (
        f"Bits per weight: of the matrices in the layers, scales included. Load: until the model is ready, packing "
        "included, from a file in the page cache; resident: memory in use then, mapped pages of the file included; "
        f"peak: the most until a prompt has been read. {_medians(rounds)}."
    )
    yield markdown_table(memory_table(comparison), left=2)
    yield "## Speed"
    yield (
        f"Tokens/s. {_medians(rounds)}; in brackets the ratio to {comparison.baseline.type} with "
        f"{comparison.baseline.kernels} kernels in the same round, {_spread(rounds)}."
    )
    yield markdown_table(speed_table(comparison), left=2)
    if any(row.error for row in comparison.rows):
        yield f"## Error against {REFERENCE}"
        yield f"{WHAT_ERROR_MEANS}\n\nOver {comparison.text}. {_MEASURES}"
        yield markdown_table(error_table(comparison), left=2)
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
    panels: list[tuple[str, dict[Variant, float], dict[Variant, tuple[float, float]]]] = []
    for case in comparison.cases:
        speeds = {row.variant: median(row.speeds[case]) for row in comparison.rows}
        whiskers = {
            row.variant: (speeds[row.variant] - min(row.speeds[case]), max(row.speeds[case]) - speeds[row.variant])
            for row in comparison.rows
        }
        panels.append((f"{case.in_words}: tokens/s, median and range", speeds, whiskers))
    rows = comparison.rows
    panels.append(("file, MB", {row.variant: row.size.file_bytes / 1e6 for row in rows}, {}))
    panels.append(("memory at most, MB", {row.variant: row.peak / 1e6 for row in rows if row.peak is not None}, {}))
    panels.append(("load time, s", {row.variant: row.seconds for row in rows}, {}))
    errors = {row.variant: 100 * row.error.logits for row in rows if row.error and row.variant.type != REFERENCE}
    panels.append((f"logits: error against {REFERENCE}, %", errors, {}))
    panels = [panel for panel in panels if panel[1]]
    columns = 2
    lines = math.ceil(len(panels) / columns)
    height = 0.7 + (0.5 + 0.22 * len(comparison.rows)) * lines
    with picture(path, title, lines, columns, (11, height)) as axes:
        for axis, (name, values, whiskers) in zip(axes.flat, panels, strict=False):
            shown = list(reversed(values))
            spread = [[whiskers[variant][side] for variant in shown] for side in (0, 1)] if whiskers else None
            colours = [PALE if variant == comparison.baseline else STRONG for variant in shown]
            names, lengths = [variant.name for variant in shown], [values[variant] for variant in shown]
            axis.barh(names, lengths, xerr=spread, color=colours, ecolor=LINE)
            axis.set_title(name, fontsize=9, loc="left")
            axis.tick_params(labelsize=7)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
