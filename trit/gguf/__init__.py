# SPDX-License-Identifier: MIT
"""What the bytes of a GGUF file mean, ours and other engines'.

Standard library only: ``header``, ``layouts`` (a row per layout), ``identify`` (which layout a tensor has, by type
number and size together), ``parts`` (the files of a split model), ``loadable`` (does the engine load it, and why not).
With numpy: ``encodings``, ``decode`` and ``tiles`` (bytes -> ternary matrix and scales), ``encode``, ``k_quants``,
``source``, ``order`` (does an i2_s file hold its columns in the published order?), ``types``, ``writer``.
docs/formats.md describes every layout.
"""
