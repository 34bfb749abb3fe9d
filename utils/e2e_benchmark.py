# SPDX-License-Identifier: MIT
"""bitnet.cpp's name for ``trit bench``: speed of a model: prefill and decode."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[1:1] = ["bench"]
    runpy.run_path(str(Path(__file__).resolve().parent.parent), run_name="__main__")
