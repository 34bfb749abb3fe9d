# SPDX-License-Identifier: MIT
"""Many prompts from a file to files: shards that are whole or not there, and the same bytes whoever computes them."""
