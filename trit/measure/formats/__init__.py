# SPDX-License-Identifier: MIT
"""The same weights in several formats, one beside the other: what ``utils/compare.py`` is made of."""
