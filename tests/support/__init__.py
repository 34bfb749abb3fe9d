# SPDX-License-Identifier: MIT
"""What several tests share: made-up files, stand-ins for programs, builds of the kernels."""
