# SPDX-License-Identifier: MIT
"""Types of embedding and output head compared."""
