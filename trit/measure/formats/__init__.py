# SPDX-License-Identifier: MIT
"""The same weights in several formats, one beside the other: what ``trit compare`` is made of."""
