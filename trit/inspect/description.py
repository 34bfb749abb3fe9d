# SPDX-License-Identifier: MIT
"""What an inspection found: plain data, which is also the output of --json."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from trit.engine.cost import KV_ELEMENT


def panel_bytes(rows: int, columns: int) -> int:
    """About what a ternary matrix takes in memory: 2 bits a weight, in panels of 64 rows and 16 columns.

    An estimate that needs no engine; what a built one really takes depends on the machine (trit.engine.packed).
    """
    return 64 * 16 // 4 * -(-rows // 64) * -(-columns // 16)


@dataclass
class Shares:
    """How many of the weights looked at are -1, 0, +1 and +2."""

    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    def add(self, counts: list[int]) -> None:
        """Add the counts of one tensor."""
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]

    @property
    def shares(self) -> list[float]:
        """Parts of one, of -1, 0, +1 and +2."""
        total = sum(self.counts)
        return [count / total if total else 0.0 for count in self.counts]


@dataclass
class Description:
    """Everything that is known about a model; None or empty where it is not.

    Attributes:
        path: Of the file or folder.
        kind: "GGUF file", "checkpoint folder", or what else it is.
        bytes: Size of the file, or of the checkpoint's tensors.
        name: The model's.
        architecture: general.architecture, or config.json's architectures.
        dimensions: Layers, embedding, feed-forward, heads, KV heads, head size, context: as far as they are known.
        types: Name of a type or layout -> tensors, weights and bytes.
        scales: How the scales are shared -> number of ternary tensors.
        outtypes: Encodings that a checkpoint's matrices fit, the one to take first.
        layers: Layer -> shares of its ternary weights.
        ternary: Weights of the layers' ternary matrices, without those that cannot be read.
        looked_at: Those of them that were decoded for the shares.
        head: How the logits are made.
        embedding: Type of the embedding.
        basis: What the matrices' inputs are rotated by.
        tokenizer: model, pre-tokenizer, number of tokens, chat template; of a folder what the converter notes.
        memory: Bytes: file, packed weights, KV cache and its context.
        speed: Bound of tokens per second, and from what.
        order: Of GGUF files with i2_s: agreement with the norms by layout.
        verdict: What would be done with it.
        refused: Why nothing would be; None if something would.
        command: The command that does it.
        problems: What is wrong with it.
    """

    path: str
    kind: str
    bytes: int = 0
    name: str | None = None
    architecture: str | None = None
    outtypes: list[str] = field(default_factory=list)
    dimensions: dict[str, int] = field(default_factory=dict)
    types: dict[str, dict[str, int]] = field(default_factory=dict)
    scales: dict[str, int] = field(default_factory=dict)
    layers: dict[str, Shares] = field(default_factory=dict)
    ternary: int = 0
    looked_at: int = 0
    head: str | None = None
    embedding: str | None = None
    basis: str | None = None
    tokenizer: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    order: dict[str, float] = field(default_factory=dict)
    verdict: str = ""
    refused: str | None = None
    command: str | None = None
    problems: list[str] = field(default_factory=list)

    def count(self, kind: str, weights: int, size: int) -> None:
        """Note one tensor of a type."""
        row = self.types.setdefault(kind, {"tensors": 0, "weights": 0, "bytes": 0})
        row["tensors"] += 1
        row["weights"] += weights
        row["bytes"] += size

    def refuse(self, reason: str) -> None:
        """Judge that it is of no use as it is."""
        self.refused, self.verdict = reason, f"refused: {reason}"

    def kv_cache(self, context: int, layers: int | None = None) -> None:
        """Note the bytes of a float16 KV cache for ``context`` tokens, if the dimensions are known.

        Args:
            context: Tokens.
            layers: Those that keep keys and values, where it is not all.
        """
        known = self.dimensions
        if {"layers", "kv_heads", "head_size"} <= set(known):
            context = min(context, known.get("context") or context)
            size = 2 * KV_ELEMENT * (layers or known["layers"]) * known["kv_heads"] * known["head_size"] * context
            self.memory |= {"kv_cache": size, "context": context}

    def spread(self, value: int) -> tuple[float, float, float] | None:
        """Smallest, median and largest share of a value (index: -1, 0, +1, +2) over the layers; None without layers."""
        shares = [layer.shares[value] for layer in self.layers.values()]
        return (min(shares), median(shares), max(shares)) if shares else None
