# SPDX-License-Identifier: MIT
"""``setup_env.py --test``: the whole test suite in the environment, with the coverage that pyproject.toml asks for."""

from __future__ import annotations

import os

from trit.base.processes import call
from trit.setup.context import Setup


def run_suite(setup: Setup) -> int:
    """Run pytest on our own terminal; its exit code, or that of the coverage check after a whole passing run."""
    arguments = setup.options.pytest_args
    os.environ["TRIT_REQUIRE_ENGINE"] = "1"
    if arguments:
        # A part of the suite cannot reach the coverage of the whole.
        return call([setup.python, "-m", "pytest", *arguments])
    for command in (["erase"], ["run", "-m", "pytest"], ["combine", "--quiet"], ["report"]):
        code = call([setup.python, "-m", "coverage", *command])
        if code != 0:
            return code
    return 0
