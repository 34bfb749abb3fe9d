# SPDX-License-Identifier: MIT
"""``python3 -m trit.release wheel``: see docs/releasing.md."""

import sys

from trit.base.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("trit.release.command"))
