# SPDX-License-Identifier: MIT
"""Run a function of ours in the environment's Python, which has the packages; its output goes to the step's log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.base.progress import StepLine
from trit.base.tool import call_tool
from trit.setup.context import Setup


def tool(
    setup: Setup,
    line: StepLine,
    log: str,
    what: str,
    function: str,
    arguments: Mapping[str, Any],
    flags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """:func:`trit.base.tool.call_tool` in the environment of set-up: its arguments, result and errors.

    Args:
        setup: whose environment it is.
        line: as there.
        log: name of the log that gets the output.
        what: the deed in words, for the error message.
        function: as there.
        arguments: as there.
        flags: as there.
    """
    return call_tool(
        lambda command, show: setup.run(command, what, log, on_line=show),
        setup.python,
        line,
        function,
        arguments,
        flags,
    )
