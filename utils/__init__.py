# SPDX-License-Identifier: MIT
"""Scripts with bitnet.cpp's names; each calls a command of ``trit``."""
