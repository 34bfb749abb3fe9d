# SPDX-License-Identifier: MIT
"""Kernels generated for a configuration of tiles: configurations, C++ templates, and what fills them in."""

from trit.tune.codegen.configuration import Lookup, Table
from trit.tune.codegen.render import VERSION, render, write

__all__ = ["VERSION", "Lookup", "Table", "render", "write"]
