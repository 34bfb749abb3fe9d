# SPDX-License-Identifier: MIT
"""bitnet.cpp's name for ``trit compare``: the same weights in several formats, side by side."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[1:1] = ["compare"]
    runpy.run_path(str(Path(__file__).resolve().parent.parent), run_name="__main__")
