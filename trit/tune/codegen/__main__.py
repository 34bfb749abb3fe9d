# SPDX-License-Identifier: MIT
"""``python3 -m trit.tune.codegen``: the command ``trit codegen``."""

import sys

from trit.base.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("trit.tune.codegen.command"))
