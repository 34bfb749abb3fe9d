# SPDX-License-Identifier: MIT
"""What every room stands on: errors, files, processes, places, this machine. Standard library only."""
