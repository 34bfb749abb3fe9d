# SPDX-License-Identifier: MIT
"""Step 7: the kernels of this machine against the scalar ones."""

from __future__ import annotations

from utils.host import engine_program
from utils.setup.build import SELFTEST
from utils.setup.context import Setup
from utils.setup.progress import StepLine

NAME = "self-test"
DEED = "comparing this machine's kernels with the scalar ones"


def run(setup: Setup, line: StepLine) -> str:
    """Run the compiled self-test; milliseconds, so it is never skipped."""
    lines = setup.run([engine_program(SELFTEST)], "the kernels' self-test", NAME)
    return f"kernels equal the scalar reference, {lines[-1]}"
