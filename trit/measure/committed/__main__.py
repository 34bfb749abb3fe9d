# SPDX-License-Identifier: MIT
"""``python3 -m trit.measure.committed``: the command ``trit committed``."""

import sys

from trit.base.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("trit.measure.committed.command"))
