# SPDX-License-Identifier: MIT
"""Which generated kernels are worth a try beside the presets: one change at a time, most promising first.

The presets won on the machines that could be measured (docs/decisions.md). What differs elsewhere is the size of the
caches, how far ahead memory has to be asked, and how many registers there are; each variant asks one such question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest

from trit.tune.codegen import Lookup, Table
from trit.tune.codegen.configuration import AVX2, AVX512, AVX512_VBMI, MOST_INPUTS, NEON, TABLE_ISA_OF_TIER

MOST = 12
# Tiers whose own kernels have no dot product: there tables over tokens may win for prompts.
PREFILL = {"avx2": Lookup("avx2"), "neon": Lookup("neon", rows=1280, least_tokens=9)}
# The tiers beside which the presets for TL1 and TL2 stand. Behind them a variant of the same tier is no default.
PRESET_TIERS = {AVX2: "avx2", AVX512: "avx512_vnni", AVX512_VBMI: "avx512_vbmi", NEON: "neon"}
# Bytes of prefetch beside the presets' 4096: memory that answers later or sooner, and prefetchers that need no help.
AHEAD = (8192, 2048, 0)


@dataclass(frozen=True)
class Variant:
    """A kernel to be generated, and why it may be faster than its preset."""

    configuration: Lookup | Table
    reason: str

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.configuration.name

    @property
    def preset(self) -> str:
        """How ``trit-tune`` calls the kernel in whose place it would be."""
        return self.configuration.packing if isinstance(self.configuration, Table) else "lookup"


def variants(tier: str, shapes: Iterable[tuple[int, int]]) -> list[Variant]:
    """The variants to try beside a tier's kernels for matrices of these shapes (n, k); at most ``MOST``.

    Kernels of all kinds take turns, so that a budget that ends early has tried something of each.
    """
    sizes = list(shapes)
    if tier not in TABLE_ISA_OF_TIER or not sizes:
        return []
    base = PRESET_TIERS[TABLE_ISA_OF_TIER[tier]]
    most_inputs = max(k for _, k in sizes)
    kinds = [_tables(Table(packing, base), most_inputs) for packing in ("tl2", "tl1")]
    if tier in PREFILL:
        kinds.insert(0, _prefill(PREFILL[tier], max(n for n, _ in sizes)))
    turns = chain.from_iterable(zip_longest(*kinds))
    return list(islice((variant for variant in turns if variant is not None), MOST))


def _prefill(preset: Lookup, most_rows: int) -> Iterator[Variant]:
    """Tables over tokens: their size against the first-level cache, and how many rows share one set."""

    def lookup(registers: int, steps: int, rows: int = preset.rows) -> Lookup:
        tokens = replace(preset, registers=registers, least_tokens=1).tokens
        return Lookup(preset.tier, registers, steps, rows, tokens * 3 // 4)

    yield Variant(lookup(2, 1), "tables of half the size, for the same tokens")
    yield Variant(lookup(4, 1), "twice the tokens for each index, tables of the same size")
    yield Variant(lookup(1, 2), "tables of half the size, half the tokens for each index")
    # CPUs with AVX2 and no dot product have 256 or 512 KiB of it.
    if preset.isa is NEON and most_rows > preset.rows:
        yield Variant(lookup(2, 2, 2 * preset.rows), "tables built less often, where the second-level cache is large")


def _tables(preset: Table, most_inputs: int) -> Iterator[Variant]:
    """Tables over inputs: prefetch, sums in 8 bits, registers, inputs with tables."""
    yield Variant(replace(preset, ahead=AHEAD[0]), "memory that answers late")
    if preset.most_unroll != preset.turn:
        yield Variant(replace(preset, unroll=preset.most_unroll), "as many sums in 8 bits as fit")
    if most_inputs > preset.inputs:
        inputs = min(_up(most_inputs, preset.step_inputs), MOST_INPUTS // preset.step_inputs * preset.step_inputs)
        yield Variant(replace(preset, inputs=inputs), "one stream of weights instead of several")
    if preset.isa is NEON:
        yield Variant(replace(preset, block=32), "fewer registers in use")
    yield Variant(replace(preset, ahead=AHEAD[1]), "memory that answers soon")
    yield Variant(replace(preset, unroll=1), "fewer registers in use, shorter chains of additions")
    yield Variant(replace(preset, ahead=AHEAD[2]), "a hardware prefetcher that needs no help")
    half = _up(preset.inputs // 2, preset.step_inputs)
    if most_inputs > half:
        yield Variant(replace(preset, inputs=half), "tables of half the size")
    yield Variant(replace(preset, split="bytes"), "additions in 16 bits, where widening is dear")


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
