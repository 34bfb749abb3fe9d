# SPDX-License-Identifier: MIT
"""Where, when, with what and how something was measured: a figure without that says nothing."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Sequence
from typing import Any

from trit.base.host import cpu_name, physical_cores, usable_cpus
from trit.base.places import LOCK, ROOT
from trit.base.processes import capture


def commit() -> str:
    """Our commit, with "-dirty" if files were changed since; "unknown" outside of a checkout."""
    code, output = capture(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=9", "--exclude=*"])
    return output.strip() if code == 0 else "unknown"


def engine_commit() -> str:
    """The engine's commit that this checkout pins."""
    try:
        return str(json.loads(LOCK.read_text(encoding="utf-8"))["commit"])[:9]
    except (OSError, ValueError, KeyError):
        return "unknown"


def facts(command: Sequence[str], compiler: str | None = None) -> dict[str, Any]:
    """What goes with every result.

    Args:
        command: that repeats it, in this checkout.
        compiler: of the kernels; None: not known.
    """
    return {
        "cpu": cpu_name(),
        "cores": physical_cores(),
        "logical_cpus": usable_cpus(),
        **({"compiler": compiler} if compiler else {}),
        "commit": commit(),
        "engine_commit": engine_commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": shlex.join(command),
    }
