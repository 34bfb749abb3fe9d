# SPDX-License-Identifier: MIT
"""One command from nothing to an answer: ``python3 setup_env.py``; with ``--test`` the whole test suite instead.

Everything is in trit/setup/, one file a step.
"""

import sys

from trit.base.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("trit.setup.pipeline"))
