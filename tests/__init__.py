# SPDX-License-Identifier: MIT
"""Tests, a folder for each room; support/ is what several share."""
