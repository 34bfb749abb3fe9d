# SPDX-License-Identifier: MIT
"""GGUF files in the wild: what bytes they hold, and how to make them into files that our engine loads.

The parts: ``layouts`` (the table: one row per layout, standard library only), ``identify`` (which layout a tensor of
a file has: type number and size together), ``parts`` (the files of a split model), ``decode`` and ``tiles`` (bytes ->
ternary matrix and scales), ``encode`` (in the terms of an encoding of ours), ``order`` (does an i2_s file hold its
columns in the published order?), ``convert`` (GGUF in, GGUF out).
The bytes of every layout are written down in docs/formats.md.
"""
