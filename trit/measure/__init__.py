# SPDX-License-Identifier: MIT
"""Speed, formats, perplexity, heads, and the committed benchmarks."""
