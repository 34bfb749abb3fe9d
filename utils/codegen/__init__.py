# SPDX-License-Identifier: MIT
"""Kernels generated for a configuration of tiles: the rules of configurations, and their C++."""

from utils.codegen.configuration import Lookup, Table
from utils.codegen.render import VERSION, render, write

__all__ = ["VERSION", "Lookup", "Table", "render", "write"]
