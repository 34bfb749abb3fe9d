# SPDX-License-Identifier: MIT
"""Perplexity, and how far a file's predictions are from a reference's: what ``utils/test_perplexity.py`` measures.

``engine`` runs llama-perplexity, ``output`` and ``logprobs`` read what it says and saves, ``measure`` puts the runs
together; ``passages`` counts a part of a text only, ``heads`` makes files that differ in nothing but their head.
"""
