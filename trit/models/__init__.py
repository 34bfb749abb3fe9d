# SPDX-License-Identifier: MIT
"""What is known about models: families, shapes, the registry, checkpoints on disk, the note of a download."""
