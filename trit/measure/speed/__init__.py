# SPDX-License-Identifier: MIT
"""Measuring whole models: the engine's llama-bench, what a token costs at least, ratios, energy, a machine's state."""
