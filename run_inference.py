# SPDX-License-Identifier: MIT
r"""Ask a model: ``python3 run_inference.py -p "Where is Mary?\nAnswer:" -n 6``; see trit/run/completion.py."""

import sys

from trit.base.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("trit.run.completion"))
