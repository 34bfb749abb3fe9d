# SPDX-License-Identifier: MIT
"""Serve a model over HTTP: ``python3 run_inference_server.py``; see trit/run/serve.py."""

import sys

from trit.base.command import run_command

if __name__ == "__main__":
    sys.exit(run_command("trit.run.serve"))
