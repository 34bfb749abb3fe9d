# SPDX-License-Identifier: MIT
"""Configurations of look-up kernels beside the presets, for tests: the corners of what may be generated."""

from __future__ import annotations

from trit.tune.codegen import Lookup, Table

# Of those for prompts none is made for a tier with AVX-512, which would use it by default.
OTHERS = [
    # One step, few and many registers, few rows.
    Lookup("avx2", registers=1, steps=1, rows=64, least_tokens=1),
    Lookup("avx2", registers=4, steps=2, rows=192, least_tokens=40),
    Lookup("avx512", registers=1, steps=2, rows=640, least_tokens=20),
    Lookup("avx512", registers=2, steps=1, rows=128, least_tokens=20),
    Lookup("neon", registers=1, steps=2, rows=128, least_tokens=3),
    Lookup("neon", registers=4, steps=1, rows=64, least_tokens=3),
    # The smallest tile, a turn of as many vectors as 8 bits hold with a rest, both splits, inputs in several turns.
    Table("tl1", "avx2", rows=64, inputs=32, block=32, unroll=1, tokens=1),
    Table("tl1", "avx2", rows=192, inputs=96, unroll=3, tokens=16),
    Table("tl1", "avx2", rows=128, inputs=256, split="bytes", tokens=3),
    Table("tl2", "avx2", rows=64, inputs=24, block=32, unroll=1, tokens=1, ahead=0),
    Table("tl2", "avx2", rows=192, inputs=240, tokens=16),
    Table("tl2", "avx2", rows=128, inputs=480, split="bytes", tokens=3),
    Table("tl1", "avx512_vnni", rows=64, inputs=32, unroll=1, tokens=1, ahead=0),
    Table("tl1", "avx512_vnni", rows=128, inputs=256, split="bytes", tokens=3),
    Table("tl1", "avx512_vbmi", rows=192, inputs=96, unroll=3, tokens=16),
    Table("tl2", "avx512_vnni", rows=192, inputs=240, tokens=16),
    Table("tl2", "avx512_vnni", rows=128, inputs=480, split="bytes", tokens=3),
    Table("tl2", "avx512_vbmi", rows=64, inputs=24, unroll=1, tokens=1),
    Table("tl2", "avx512_vbmi", rows=128, inputs=480, split="bytes", tokens=2),
    Table("tl1", "neon", rows=128, inputs=96, block=16, unroll=3, tokens=2),
    Table("tl2", "neon", rows=128, inputs=240, block=32, split="bytes", tokens=2),
]
