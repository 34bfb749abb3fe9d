# SPDX-License-Identifier: MIT
"""bitnet.cpp's name for ``trit perplexity``: perplexity, and divergence from a reference."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[1:1] = ["perplexity"]
    runpy.run_path(str(Path(__file__).resolve().parent.parent), run_name="__main__")
