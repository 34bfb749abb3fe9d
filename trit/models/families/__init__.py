# SPDX-License-Identifier: MIT
"""Model families: every module of this folder that defines ``FAMILY`` is one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from trit.base.errors import UserError
from trit.models.families.base import Family


def all_families() -> list[Family]:
    """One instance per family file, in the order of their names."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return [module.FAMILY for module in modules if hasattr(module, "FAMILY")]


def find_family(config: Mapping[str, Any]) -> Family:
    """The family that ``architectures`` of config.json names.

    Raises:
        UserError: no family knows it; names the architectures found and supported.
    """
    found: list[str] = config.get("architectures") or []
    families = all_families()
    for family in families:
        if set(found) & set(family.architectures):
            return family
    supported = ", ".join(name for family in families for name in family.architectures)
    raise UserError(
        f"config.json: architecture {', '.join(found) or 'missing'} is not supported; supported: {supported}"
    )
