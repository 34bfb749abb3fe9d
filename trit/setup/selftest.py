# SPDX-License-Identifier: MIT
"""Step 7: the kernels of this machine against the scalar ones."""

from __future__ import annotations

from trit.base.places import engine_program
from trit.base.progress import StepLine
from trit.setup.build import SELFTEST
from trit.setup.context import Setup

NAME = "self-test"
DEED = "comparing this machine's kernels with the scalar ones"


def run(setup: Setup, line: StepLine) -> str:
    """Run the compiled self-test; milliseconds, so it is never skipped."""
    lines = setup.run([engine_program(SELFTEST)], "the kernels' self-test", NAME)
    return f"kernels equal the scalar reference, {lines[-1]}"
