# SPDX-License-Identifier: MIT
"""Write a random ternary model, with bitnet.cpp's flags; ``python -m trit.convert.from_random`` has more shapes.

Example: python utils/generate-dummy-bitnet-model.py models/trit-story-3m --outtype i2_s --model-size 125M
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trit.base.errors import run_main
from trit.convert import dummy_bitnet_flags


def main(argv: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    return dummy_bitnet_flags.main(argv)


if __name__ == "__main__":
    sys.exit(run_main(main))
