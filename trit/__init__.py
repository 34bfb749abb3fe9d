# SPDX-License-Identifier: MIT
"""trit.cpp: ternary language models on CPUs. docs/architecture.md says which room does what."""

__version__ = "0.1.0"
