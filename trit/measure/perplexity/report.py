# SPDX-License-Identifier: MIT
"""What was measured, as a table, CSV, JSON and a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from trit.base.plots import LINE, PALE, STRONG, picture
from trit.engine.perplexity_output import Measured
from trit.measure.perplexity.measure import Row
from trit.measure.speed.output import write

_DIVERGENCE = ("kl_median", "kl_99", "kl_max")


def _number(number: Measured | None, digits: int, factor: float = 1.0) -> str:
    return "" if number is None else f"{number.value * factor:.{digits}f} +/- {number.error * factor:.{digits}f}"


def _text_name(row: Row) -> str:
    return f"{row.text}, behind '{row.part}'" if row.part else row.text


def table(rows: Sequence[Row]) -> str:
    """Markdown; columns without a value are left out."""
    columns = {
        "model": [Path(row.model).name for row in rows],
        "matrices": [row.matrices for row in rows],
        "head": [row.head for row in rows],
        "MB": [f"{row.nbytes / 1e6:.1f}" for row in rows],
        "text": [_text_name(row) for row in rows],
        "tokens": [str(row.counted) for row in rows],
        "perplexity": [_number(row.perplexity, 4) for row in rows],
        "right, %": [_number(row.right, 2, 100) for row in rows],
        "ln(ppl / reference's)": [_number(row.log_ratio, 5) for row in rows],
        "KL divergence": ["reference" if row.is_reference else _number(row.kl, 6) for row in rows],
        "same top token, %": [_number(row.same_top, 2, 100) for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    widths = [max(map(len, [name, *cells])) for name, cells in columns.items()]
    lines = [list(columns), ["-" * width for width in widths], *map(list, zip(*columns.values(), strict=True))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


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
    """A row as a flat mapping: a measured number and its error are two entries."""
    entries: dict[str, Any] = {}
    for field in fields(Row):
        value = getattr(row, field.name)
        if field.name == "divergence":
            entries |= {name: value and getattr(value, name) for name in _DIVERGENCE}
        else:
            entries |= _entries(field.name, value, "Measured" in str(field.type))
    return entries


def _entries(name: str, value: Any, measured: bool) -> dict[str, Any]:
    if not measured:
        return {name: value}
    return {name: None if value is None else value.value, f"{name}_error": None if value is None else value.error}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line per row."""
    text = io.StringIO()
    entries = [flat(row) for row in rows]
    writer = csv.DictWriter(text, list(entries[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    write(path, text.getvalue())


def write_json(path: Path, rows: Sequence[Row], how: dict[str, Any]) -> None:
    """The rows, and how they were measured."""
    write(path, json.dumps({**how, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


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
