# SPDX-License-Identifier: MIT
"""The notes of a release: its part of CHANGELOG.md."""

from __future__ import annotations

import re
from pathlib import Path

from trit.base.errors import UserError
from trit.base.places import ROOT


def notes(version: str, changelog: Path = ROOT / "CHANGELOG.md") -> str:
    """What stands below the version's heading.

    Raises:
        UserError: there is no such heading, or nothing below it.
    """
    text = changelog.read_text(encoding="utf-8")
    match = re.search(rf"^## {re.escape(version)}(?: [^\n]*)?$\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None or not match[1].strip():
        raise UserError(f"{changelog} has no lines for version {version}; add them below a heading: ## {version}")
    return match[1].strip() + "\n"
