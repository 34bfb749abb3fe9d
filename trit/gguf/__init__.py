# SPDX-License-Identifier: MIT
"""What the bytes of a GGUF file mean, ours and other engines'.

Standard library only: ``encoding_table`` (a row per encoding, which everything else about encodings is made of),
``layouts`` (those and other engines'), ``header``, ``identify`` (which layout a tensor has, by type number and size
together), ``parts`` (the files of a split model), ``loadable`` (does the engine load it, and why not), ``validate`` and
``engine_names`` (would it come through with what the header says), ``known_order`` (is i2_s in the engine's order,
remembered), ``made``.
With numpy: ``codecs`` (packer and decoder of each encoding), ``decode`` and ``tiles`` (bytes of any layout -> matrix
and scales), ``encodings``, ``encode``, ``k_quants``, ``source``, ``order`` (does an i2_s file hold its columns in the
published order?), ``types``, ``writer``.
docs/formats.md describes every layout.
"""
