# SPDX-License-Identifier: MIT
"""Where a token's time goes: what ``run_inference.py --profile`` makes of the engine's counters.

The engine writes them to the file that ``TRIT_PROFILE`` names (src/ggml/profile.h). Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from trit.base.errors import TritError
from trit.base.host import last_level_cache_bytes
from trit.base.places import python_command
from trit.engine.roofline import BESIDE_SECONDS, measure

# The engine's names, in the order of the table.
PARTS = {
    "ternary_one": "ternary products, one token",
    "ternary_few": "ternary products, 2 to 16 tokens",
    "ternary_many": "ternary products, more tokens",
    "quantize": "rounding activations to int8",
    "head": "head",
    "other_matrix": "products of other weights",
    "attention": "attention",
    "elementwise": "norms, activation functions",
    "rows": "embedding, choice of rows",
    "other": "other operations",
    "barrier": "waiting at barriers",
}
_TERNARY = ("ternary_one", "ternary_few", "ternary_many")
# Between the graphs, in the engine's own words: preparing batches, building graphs, copying logits.
_BETWEEN, _SAMPLING, _REST = "between graphs", "sampling", "output, and the rest"
# The first graph only touches the weights; --no-warmup leaves it out.
_WARM_UP = "--no-warmup"
_REGIMES = {"one": "text, {} one by one", "few": "{} in batches of up to 16", "many": "prompt, {}"}
# Shorter than this and nobody needs to see it.
_LEAST_SHARE = 0.0005


@dataclass(frozen=True)
class Limits:
    """What this machine can do on as many threads as the engine had.

    Attributes:
        read_gbs: reading memory that no cache holds, 10^9 bytes per second.
        int8_gmacs: 10^9 int8 multiply-accumulates per second.
        cache_bytes: of the highest level; None if the system does not tell.
    """

    read_gbs: float
    int8_gmacs: float
    cache_bytes: int | None


@dataclass(frozen=True)
class Row:
    """A part of the time of all tokens of a column.

    Attributes:
        limit_seconds: the least that its weights and multiply-accumulates need on this machine; None where no limit
            is known.
    """

    name: str
    seconds: float
    weight_bytes: float = 0.0
    macs: float = 0.0
    limit_seconds: float | None = None


@dataclass(frozen=True)
class Column:
    """The tokens of one regime: text, small batches or a prompt."""

    title: str
    tokens: int
    rows: list[Row]

    @property
    def seconds(self) -> float:
        """All parts together."""
        return sum(row.seconds for row in self.rows)


def environment(path: Path, engine_flags: Sequence[str]) -> dict[str, str]:
    """The variables that make the engine count, and write to ``path`` when it ends."""
    return {"TRIT_PROFILE": str(path), "TRIT_PROFILE_SKIP": "0" if _WARM_UP in engine_flags else "1"}


def measure_limits(threads: int) -> Limits:
    """Measure them now: they drift on shared machines, and belong to the same minute as the run."""
    roofline = measure([threads], tier="chosen", seconds=BESIDE_SECONDS)
    (limit,) = roofline.limits
    return Limits(median(limit.read.gbs), median(limit.int8_gmacs), last_level_cache_bytes())


def columns(path: Path, timings: Mapping[str, float], limits: Limits | None) -> list[Column]:
    """The engine's counters, with what its own log says of the time outside of graphs.

    Args:
        path: the file that the engine wrote.
        timings: milliseconds: ``prompt_ms``, ``generation_ms``, ``sampling_ms``, ``unaccounted_ms``.
        limits: None: not measured.

    Raises:
        TritError: the file is missing or not as expected.
    """
    try:
        regimes = json.loads(path.read_text(encoding="utf-8"))["regimes"]
        found = {name: regime for name in _REGIMES if (regime := regimes[name])["graphs"]}
        between = _between({name: regime["seconds"] for name, regime in found.items()}, timings)
        made = []
        for name, regime in found.items():
            rows = _part_rows(regime, limits)
            rows.append(Row(_BETWEEN, between.get(name, 0.0)))
            if name == "one":
                rows.append(Row(_SAMPLING, timings["sampling_ms"] / 1e3))
                rows.append(Row(_REST, timings["unaccounted_ms"] / 1e3))
            count = int(regime["tokens"])
            title = _REGIMES[name].format(f"{count} token{'s' if count > 1 else ''}")
            made.append(Column(title, count, rows))
        return made
    except (OSError, KeyError, TypeError, ValueError) as error:
        again = python_command("setup_env.py")
        raise TritError(f"the engine wrote no profile ({error!r}); build it again: {again}") from error


def _between(graph_seconds: Mapping[str, float], timings: Mapping[str, float]) -> dict[str, float]:
    """What the engine says its evaluations took beyond their graphs; the prompt's goes to its larger regime."""
    prompts = {name: seconds for name, seconds in graph_seconds.items() if name != "one"}
    between = {"one": timings["generation_ms"] / 1e3 - graph_seconds.get("one", 0.0)}
    # A prompt of one token is counted as text.
    largest = max(prompts, key=lambda name: prompts[name], default="one")
    between[largest] = between.get(largest, 0.0) + timings["prompt_ms"] / 1e3 - sum(prompts.values())
    # A last batch of one token belongs to the prompt for the engine, and to text for us.
    return {name: max(seconds, 0.0) for name, seconds in between.items()}


def _part_rows(regime: Mapping[str, Any], limits: Limits | None) -> list[Row]:
    parts: Mapping[str, Mapping[str, float]] = regime["parts"]
    a_graph = sum(part["weight_bytes"] for part in parts.values()) / regime["graphs"]
    cached = limits is not None and a_graph < (limits.cache_bytes or 0)
    rows = []
    for name, title in PARTS.items():
        part = parts[name]
        limit = None
        if limits is not None and part["weight_bytes"] > 0:
            reading = 0.0 if cached else part["weight_bytes"] / (limits.read_gbs * 1e9)
            counting = part["macs"] / (limits.int8_gmacs * 1e9) if name in _TERNARY else 0.0
            limit = max(reading, counting) or None
        rows.append(Row(title, part["seconds"], part["weight_bytes"], part["macs"], limit))
    return rows


def table(made: Sequence[Column], limits: Limits | None, threads: int) -> str:
    """Lines for people: time per token, share of the whole, and share of what the machine can do."""
    lines = [f"where the time goes, {threads} thread{'s' if threads > 1 else ''}"]
    if limits is not None:
        lines[0] += f"; limits here: reading {limits.read_gbs:.1f} GB/s, int8 {limits.int8_gmacs:.0f} GMAC/s"
    for column in made:
        unit, factor = ("us", 1e6) if column.seconds / column.tokens < 1e-3 else ("ms", 1e3)
        lines.append("")
        lines.append(f"  {column.title:<36}{f'{unit}/token':>10}{'share':>9}{'of limit':>10}")
        for row in (*column.rows, _whole(column)):
            share = row.seconds / column.seconds
            if share < _LEAST_SHARE:
                continue
            of_limit = f"{row.limit_seconds / row.seconds:.0%}" if row.limit_seconds else ""
            time = f"{factor * row.seconds / column.tokens:.3g}"
            lines.append(f"  {row.name:<36}{time:>10}{share:>9.1%}{of_limit:>10}".rstrip())
        megabytes = sum(row.weight_bytes for row in column.rows) / column.tokens / 1e6
        gmacs = sum(row.macs for row in column.rows) / column.tokens / 1e9
        lines.append(f"  {megabytes:.3g} MB of weights and {gmacs:.3g} G multiply-accumulates a token")
    if limits is not None and any(_is_cached(column) for column in made):
        lines += ["", "  The weights fit into the caches: reading memory is no limit, only int8 arithmetic is."]
    return "\n".join(lines)


def _whole(column: Column) -> Row:
    limits = [row.limit_seconds for row in column.rows if row.limit_seconds]
    return Row("all", column.seconds, limit_seconds=sum(limits) or None)


def _is_cached(column: Column) -> bool:
    """A head has only the limit of reading, ternary products have both."""
    ternary = [PARTS[name] for name in _TERNARY]
    head_is_free = any(row.name == PARTS["head"] and row.weight_bytes and not row.limit_seconds for row in column.rows)
    return head_is_free and any(row.name in ternary and row.limit_seconds for row in column.rows)


def as_json(made: Sequence[Column], limits: Limits | None) -> dict[str, Any]:
    """Everything that the table is made of."""
    return {"limits": asdict(limits) if limits else None, "columns": [asdict(column) for column in made]}
