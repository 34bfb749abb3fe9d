# SPDX-License-Identifier: MIT
"""The compiled programs as functions, and the files that they read."""
