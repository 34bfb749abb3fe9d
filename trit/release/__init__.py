# SPDX-License-Identifier: MIT
"""What a release consists of: wheels, checksums, a bill of materials, notes. Works in a checkout only."""
