# SPDX-License-Identifier: MIT
"""Write TL2 kernels, with bitnet.cpp's flags; ``python -m trit.tune.codegen tl2`` has all of ours.

Example: python utils/codegen_tl2.py --model bitnet_b1_58-3B --BM 160,320,320 --BK 96,96,96 --bm 32,32,32
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trit.base.errors import run_main
from trit.tune.codegen import bitnet_flags


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    return bitnet_flags.main("tl2", argv)


if __name__ == "__main__":
    sys.exit(run_main(main))
