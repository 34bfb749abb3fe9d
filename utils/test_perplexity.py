# SPDX-License-Identifier: MIT
"""Perplexity, divergence from a reference, and types of heads compared, with bitnet.cpp's flags.

Examples:
    python3 utils/test_perplexity.py                                      # the bundled model over the shipped stories
    python3 utils/test_perplexity.py -m MODEL.gguf -d wiki.test.raw --reference MODEL-f16.gguf
    python3 utils/test_perplexity.py -e                                   # what its head loses in each type
"""

from __future__ import annotations

import sys

from trit.base.errors import run_main
from trit.measure.perplexity.command import main

if __name__ == "__main__":
    sys.exit(run_main(main))
