# SPDX-License-Identifier: MIT
"""Measures our kernels against the machine's limits, and whole models against llama.cpp's own ternary type."""
