# SPDX-License-Identifier: MIT
"""bitnet.cpp's name for ``trit codegen-tl1``: write TL1 kernels, with bitnet.cpp's flags."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[1:1] = ["codegen-tl1"]
    runpy.run_path(str(Path(__file__).resolve().parent.parent), run_name="__main__")
