# SPDX-License-Identifier: MIT
"""bitnet.cpp's name for ``trit heads``: types of embedding and output head compared."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[1:1] = ["heads"]
    runpy.run_path(str(Path(__file__).resolve().parent.parent), run_name="__main__")
