# SPDX-License-Identifier: MIT
"""One line per check: what, measured, bound, passed or not."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PASSED, FAILED, LEFT_OUT = "pass", "FAIL", "left out"
_WIDTH = 100


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was compared, such as ``weights`` or ``layer 2``.
        measured: What was found, in words with numbers.
        bound: What it had to be.
        status: ``pass``, ``FAIL`` or ``left out`` (there is nothing to compare; ``measured`` says why).
        values: The numbers, for ``--json``.
    """

    name: str
    measured: str
    bound: str
    status: str
    values: dict[str, Any] = field(default_factory=dict)


def judged(name: str, passed: bool, measured: str, bound: str, /, **values: Any) -> Check:
    """A check that was made."""
    return Check(name, measured, bound, PASSED if passed else FAILED, values)


def left_out(name: str, reason: str) -> Check:
    """A check for which this model has nothing to compare."""
    return Check(name, reason, "", LEFT_OUT)


def table(checks: Sequence[Check]) -> str:
    """The checks as lines of aligned columns."""
    rows = [("check", "result", "measured", "bound")]
    rows += [(check.name, check.status, check.measured, check.bound) for check in checks]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"{name:{widths[0]}}  {status:{widths[1]}}  {found}" for name, status, found, _ in rows[:1]]
    for name, status, measured, bound in rows[1:]:
        end = f" ({bound})" if bound else ""
        line = f"{name:{widths[0]}}  {status:{widths[1]}}  {measured}{end}"
        lines += textwrap.wrap(
            line, _WIDTH, subsequent_indent=" " * (sum(widths) + 4), break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(lines)


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as ``--json`` writes them."""
    return {"passed": all(check.status != FAILED for check in checks), "checks": [asdict(check) for check in checks]}
