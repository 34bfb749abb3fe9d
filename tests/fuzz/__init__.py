# SPDX-License-Identifier: MIT
"""Fuzzing of the readers and of the engine's loader; see the modules for the commands."""
