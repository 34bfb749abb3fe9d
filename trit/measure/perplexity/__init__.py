# SPDX-License-Identifier: MIT
"""Perplexity, and how far a file's predictions are from a reference's.

``measure`` puts the runs of llama-perplexity together; ``passages`` counts a part of a text only.
"""
