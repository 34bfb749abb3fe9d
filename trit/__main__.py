# SPDX-License-Identifier: MIT
"""``python3 -m trit NAME``: the command ``trit NAME``, with any Python."""

import sys

from trit.cli import main

if __name__ == "__main__":
    sys.exit(main())
