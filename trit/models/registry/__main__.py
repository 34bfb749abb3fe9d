# SPDX-License-Identifier: MIT
"""``python3 -m trit.models.registry``: the command ``trit registry``."""

import sys

from trit.base.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("trit.models.registry.command"))
