# SPDX-License-Identifier: MIT
"""The tables of sizes in docs/server.md, computed by trit/engine/cost.py: ``python -m tests.support.server_sizes``."""

from __future__ import annotations

import math
from itertools import count
from pathlib import Path

from trit.base.places import ROOT
from trit.engine.cost import KV_ELEMENT, ModelCost, Step
from trit.models.shapes import SHAPES, Shape, matrices

PAGE = ROOT / "docs" / "server.md"
MODELS = ("bitnet-large", "falcon3-1b", "bitnet-2b-4t", "falcon3-3b", "llama3-8b", "falcon3-7b", "falcon3-10b")
_HEAD_BITS = 6.5625  # q6_K
_TOKENS, _LEAST = 1000, 5  # in each client's context, and tokens per second that it shall get
# Cores, int8 multiply-accumulates of one per second, and bytes that they read per second together.
MACHINES = ((2, 60e9, 30e9), (4, 60e9, 40e9), (8, 60e9, 60e9), (16, 60e9, 150e9))


def cost(shape: Shape) -> ModelCost:
    """Of a model with 2-bit panels and an output head in q6_K, as set-up makes it."""
    macs = shape.layers * sum(math.prod(size) for size in matrices(shape).values())
    head = shape.vocab * shape.hidden
    width = 2 * shape.kv_heads * (shape.hidden // shape.heads)
    return ModelCost(
        layer_bytes=macs // 4,
        head_bytes=round(head * _HEAD_BITS / 8),
        layer_macs=macs,
        head_macs=head,
        kv_bytes=shape.layers * width * KV_ELEMENT,
        attention_macs=2 * shape.layers * shape.hidden,
        window=None,
    )


def weights(shape: Shape) -> int:
    """Bytes in memory; an embedding that is no head is there, too."""
    own = cost(shape)
    return own.layer_bytes + own.head_bytes * (1 if shape.tied else 2)


def clients(shape: Shape, cores: int, macs: float, read: float) -> int:
    """Most clients that can get so many tokens per second, each: whatever the kernels are."""
    own = cost(shape)
    for number in count(1):
        moved = own.bytes_per_token + number * own.kv_bytes * _TOKENS
        computed = number * (own.layer_macs + own.head_macs)
        assert computed == own.step_macs(Step(number, number, _TOKENS))
        if max(moved / read, computed / (cores * macs)) > 1 / _LEAST:
            return number - 1
    raise AssertionError


def text() -> str:
    """Both tables, as they stand in the page."""
    lines = [
        "Memory is weights, plus the attention cache of all slots (each has `-c` tokens).",
        "All figures are computed from the models' shapes: 2-bit weights, a q6_K head, a float16 cache.",
        "Measured with four full contexts, bitnet-2b-4t took 2.05 GB.",
        "",
        "| model | weights | cache for 1,000 tokens | with 4 x 4,096 tokens |",
        "|---|---:|---:|---:|",
    ]
    for name in MODELS:
        shape, own = SHAPES[name], cost(SHAPES[name])
        whole = weights(shape) + 4 * 4096 * own.kv_bytes
        lines.append(
            f"| {name} | {weights(shape) / 1e9:.1f} GB | {own.kv_bytes * 1000 / 1e6:.0f} MB | {whole / 1e9:.1f} GB |"
        )
    lines += [
        "",
        "How many clients can get 5 tokens/s each, with 1,000 tokens in each context? The bounds below are computed.",
        "They take a core with AVX2 (60 GMAC/s in int8) and the reading rate in the head.",
        "Real servers stay below them ([performance.md](performance.md)); `trit roofline` measures a machine.",
        "",
        "| model | " + " | ".join(f"{cores} cores, {read / 1e9:.0f} GB/s" for cores, _, read in MACHINES) + " |",
        "|---|" + "---:|" * len(MACHINES),
    ]
    for name in MODELS:
        row = [str(clients(SHAPES[name], *machine)) for machine in MACHINES]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def page() -> tuple[str, str]:
    """The page as it is, and as it should be."""
    told = PAGE.read_text(encoding="utf-8")
    before, _, rest = told.partition("<!-- sizes -->\n")
    after = rest[rest.index("\n## ") :]
    return told, f"{before}<!-- sizes -->\n\n{text()}\n{after}"


if __name__ == "__main__":
    Path(PAGE).write_text(page()[1], encoding="utf-8")
