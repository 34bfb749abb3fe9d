# SPDX-License-Identifier: MIT
"""Pictures of results: the roofline with the kernels under it, a token's time, and other engines beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from trit.base.plots import LINE, PALE, STRONG, picture
from trit.measure.committed import rivals

# The feed-forward matrices of BitNet-b1.58-2B-4T: half of its weights.
_SHAPE = (6912, 2560)
_COLOURS = {
    "2_bits": "#1b6ca8",
    "2_bits+lookup": "#17becf",
    "5_trits": "#2ca02c",
    "tl1": "#ff7f0e",
    "tl2": "#d62728",
    "tl2_bitnet_style": "#7f7f7f",
    "in_place": "#9467bd",
}
# Parts that no limit is known for get the pale end.
_PART_COLOURS = ("#1b6ca8", "#3f8fc4", "#7cb8de", "#17becf", "#2ca02c", "#98df8a", "#ff7f0e", "#ffbb78", "#c5b0d5",
                 "#9467bd", "#b8c4ce", "#d9d9d9", "#8c564b", "#444444")  # fmt: skip


def roofline(result: Mapping[str, Any], path: Path) -> Path:
    """Speed of products over multiply-accumulates per byte of weights, one panel for each number of threads.

    The roof is the median of the limits that were measured around the products. Both axes are logarithmic.
    """
    products = [p for p in result["products"] if (p["n"], p["k"]) == _SHAPE]
    threads = sorted({p["threads"] for p in products})
    about = result["about"]
    title = f"{about['cpu']}, {products[0]['tier']}: products with a matrix of {_SHAPE[0]} x {_SHAPE[1]}"
    with picture(path, title, 1, len(threads), (5 * len(threads), 4.4)) as axes:
        for axis, count in zip(axes[0], threads, strict=True):
            _panel(axis, [p for p in products if p["threads"] == count], count)
    return path


def _panel(axis: Any, products: list[Mapping[str, Any]], threads: int) -> None:
    for packing in sorted({p["packing"] for p in products}, key=list(_COLOURS).index):
        mine = sorted((p for p in products if p["packing"] == packing), key=lambda p: int(p["m"]))
        x = [_intensity(p) for p in mine]
        axis.plot(x, [_speed(p) for p in mine], "o-", color=_COLOURS[packing], label=packing, ms=3.5, lw=1)
    # Each product has the limits that were measured around it.
    read = median(median(p["gbs"]) for p in products)
    int8 = median(median(p["gmacs"]) for p in products)
    left, right = min(map(_intensity, products)) / 1.3, max(map(_intensity, products)) * 1.3
    corner = int8 / read
    axis.plot([left, corner, right], [left * read, int8, int8], color=LINE, lw=1.2, label="limit")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_title(
        f"{threads} thread{'s' if threads > 1 else ''}: {read:.1f} GB/s, {int8:.0f} GMAC/s", fontsize=9, loc="left"
    )
    axis.set_xlabel("multiply-accumulates per byte of weights (4 to 5 a token)", fontsize=8)
    axis.set_ylabel("10^9 multiply-accumulates per second", fontsize=8)
    axis.tick_params(labelsize=7, which="both")
    axis.grid(True, which="both", lw=0.3)
    axis.legend(fontsize=7)


def _intensity(product: Mapping[str, Any]) -> float:
    return float(product["n"] * product["k"] * product["m"] / product["weight_bytes"])


def _speed(product: Mapping[str, Any]) -> float:
    return float(product["n"] * product["k"] * product["m"] / median(product["seconds"]) / 1e9)


def token_profile(result: Mapping[str, Any], path: Path) -> Path:
    """Where a token's time goes: a bar for each regime, from ``run_inference.py --profile --json``."""
    columns = result["profile"]["columns"]
    names = [row["name"] for row in columns[0]["rows"]]
    names += [row["name"] for column in columns for row in column["rows"] if row["name"] not in names]
    title = (
        f"{result['about']['cpu']}, {result['threads']} threads: where a token's time goes ({result['about']['model']})"
    )
    with picture(path, title, 1, 1, (9, 1.6 + 0.9 * len(columns))) as axes:
        axis = axes[0, 0]
        lefts = [0.0] * len(columns)
        labels = [column["title"] for column in columns]
        for name, colour in zip(dict.fromkeys(names), _PART_COLOURS, strict=False):
            shares = [_share(column, name) for column in columns]
            if max(shares) < 0.5:
                continue
            axis.barh(labels, shares, left=lefts, color=colour, label=name, height=0.6)
            lefts = [left + share for left, share in zip(lefts, shares, strict=True)]
        axis.set_xlim(0, 100)
        axis.set_xlabel("% of the time", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.35))
    return path


def _share(column: Mapping[str, Any], name: str) -> float:
    seconds = [(str(row["name"]), float(row["seconds"])) for row in column["rows"]]
    return 100 * sum(own for row, own in seconds if row == name) / sum(own for _, own in seconds)


def other_engines(result: Mapping[str, Any], path: Path) -> Path:
    """Prefill and decode on two threads: a bar for each engine, ours strong."""
    names = rivals.engines(result)
    about = result["about"]
    title = f"BitNet-b1.58-2B-4T's shape on {about['cpu']}, {rivals.PREFILL.threads} threads, tokens per second"
    with picture(path, title, 1, 2, (9, 2.9)) as axes:
        for axis, test, head in zip(
            axes[0], (rivals.PREFILL, rivals.DECODE), ("prefill, pp128", "decode, tg32"), strict=True
        ):
            speeds = [rivals.speed(result, name, test) or 0.0 for name in names]
            bars = axis.barh(names, speeds, color=[STRONG, *[PALE] * (len(names) - 1)], height=0.7)
            axis.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
            axis.invert_yaxis()
            axis.set_xlim(0, 1.15 * max(speeds))
            axis.set_title(head, fontsize=9, loc="left")
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_xticks([])
        axes[0][1].set_yticklabels([])
    return path
