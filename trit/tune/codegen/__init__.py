# SPDX-License-Identifier: MIT
"""Kernels generated for a configuration of tiles: the rules of configurations, and their C++."""

from trit.tune.codegen.configuration import Lookup, Table
from trit.tune.codegen.render import VERSION, render, write

__all__ = ["VERSION", "Lookup", "Table", "render", "write"]
