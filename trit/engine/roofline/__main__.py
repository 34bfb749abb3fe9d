# SPDX-License-Identifier: MIT
"""``python3 -m trit.engine.roofline``: the command ``trit roofline``."""

import sys

from trit.base.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("trit.measure.roofline"))
