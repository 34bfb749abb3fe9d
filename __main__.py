# SPDX-License-Identifier: MIT
"""``python3 PATH/OF/THIS/FOLDER NAME``: the command ``trit NAME``, from any folder. The scripts in utils/ use it."""

import sys

from trit.cli import main

if __name__ == "__main__":
    sys.exit(main())
