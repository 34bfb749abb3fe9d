# SPDX-License-Identifier: MIT
"""What was measured of predictions: a table and a picture for people, rows for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from trit.base.plots import LINE, PALE, STRONG, picture
from trit.engine.perplexity_output import Measured
from trit.measure.perplexity.measure import Row
from trit.measure.report import Columns, cells, padded

_DIVERGENCE = ("kl_median", "kl_99", "kl_max")


def _number(number: Measured | None, digits: int, factor: float = 1.0) -> str:
    return "" if number is None else f"{number.value * factor:.{digits}f} +/- {number.error * factor:.{digits}f}"


def _text_name(row: Row) -> str:
    return f"{row.text}, behind '{row.part}'" if row.part else row.text


_COLUMNS: Columns[Row] = {
    "model": lambda row: Path(row.model).name,
    "matrices": lambda row: row.matrices,
    "head": lambda row: row.head,
    "MB": lambda row: f"{row.nbytes / 1e6:.1f}",
    "text": _text_name,
    "tokens": lambda row: str(row.counted),
    "perplexity": lambda row: _number(row.perplexity, 4),
    "right, %": lambda row: _number(row.right, 2, 100),
    "ln(ppl / reference's)": lambda row: _number(row.log_ratio, 5),
    "KL divergence": lambda row: "reference" if row.is_reference else _number(row.kl, 6),
    "same top token, %": lambda row: _number(row.same_top, 2, 100),
}


def table(rows: Sequence[Row]) -> str:
    """Markdown in columns of equal width; those without a value are left out."""
    columns = {name: show for name, show in _COLUMNS.items() if any(map(show, rows))}
    heading, *lines = padded(cells(columns, rows), left=range(len(columns)))
    rule = ["-" * len(name) for name in heading]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heading, rule, *lines))


def notes(rows: Sequence[Row]) -> list[str]:
    """What a reader should know about the numbers."""
    found = []
    poor = [row for row in rows if row.perplexity.value > row.vocabulary]
    if poor:
        texts = " and ".join(sorted({_text_name(row) for row in poor}))
        found.append(
            f"a perplexity above {poor[0].vocabulary}, the number of tokens, says that the model does not predict "
            f"{texts}; what counts there is the divergence from a reference, or the tokens behind a mark (--after)"
        )
    return found


def flat(row: Row) -> dict[str, Any]:
    """A row for CSV: a measured number and its error are two entries."""
    entries: dict[str, Any] = {}
    for field in fields(Row):
        name, value = field.name, getattr(row, field.name)
        if name == "divergence":
            entries |= {inner: value and getattr(value, inner) for inner in _DIVERGENCE}
        elif "Measured" in str(field.type):
            entries |= {name: value and value.value, f"{name}_error": value and value.error}
        else:
            entries[name] = value
    return entries


def draw(path: Path, rows: Sequence[Row]) -> None:
    """A row of panels per text: perplexity, and with a reference divergence and disagreement."""
    texts = list(dict.fromkeys(_text_name(row) for row in rows))
    names = ["perplexity"]
    if any(row.kl for row in rows):
        names += ["KL divergence", "another top token, %"]
    longest = max(sum(_text_name(row) == text for row in rows) for text in texts)
    size = (1.5 + 3.4 * len(names), 1 + len(texts) * (1.1 + 0.28 * longest))
    with picture(path, "perplexity, with standard errors", len(texts), len(names), size) as axes:
        for text, panels in zip(texts, axes, strict=True):
            shown = [row for row in rows if _text_name(row) == text]
            for name, axis in zip(names, panels, strict=True):
                _bars(axis, name, shown)
                axis.set_xlabel(name, fontsize=8)
            panels[0].set_title(text, fontsize=8, loc="left")


def _bars(axis: Any, name: str, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        number = {"perplexity": row.perplexity, "KL divergence": row.kl}.get(name, _disagreement(row))
        if number is not None:
            colour = PALE if row.is_reference else STRONG
            axis.barh(place, number.value, xerr=number.error, color=colour, ecolor=LINE, capsize=2)
    axis.set_yticks(range(len(rows)), [f"{row.matrices}, head {row.head}" for row in rows], fontsize=7)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.locator_params(axis="x", nbins=5)
    axis.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    axis.tick_params(axis="x", labelsize=7)


def _disagreement(row: Row) -> Measured | None:
    return row.same_top and Measured(100 * (1 - row.same_top.value), 100 * row.same_top.error)
