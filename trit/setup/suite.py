# SPDX-License-Identifier: MIT
"""``setup_env.py --test``: the whole test suite in the environment, with the coverage that pyproject.toml asks for."""

from __future__ import annotations

import os

from trit.base.host import usable_cpus
from trit.base.processes import call
from trit.setup.context import Setup

# Rooms run side by side, but one's tests stay in one process (tests/conftest.py), so more than this find no work.
_MOST_WORKERS = 4


def run_suite(setup: Setup) -> int:
    """Run pytest on our own terminal, a process for each core; its exit code, also if coverage falls short."""
    arguments = setup.options.pytest_args
    os.environ["TRIT_REQUIRE_ENGINE"] = "1"
    if not arguments:
        # A part of the suite cannot reach the coverage of the whole.
        workers = min(usable_cpus(), _MOST_WORKERS)
        arguments = ["--cov", "-n", str(workers)]
    return call([setup.python, "-m", "pytest", *arguments])
