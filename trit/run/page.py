# SPDX-License-Identifier: MIT
"""The chat page that the server shows at its address: ``--ui`` and ``--no-ui``. Standard library only."""

from __future__ import annotations

import argparse


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag; the page is on unless it is said otherwise."""
    parser.add_argument(
        "--ui",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="show the chat page at the server's address (default: %(default)s)",
    )


def engine_flags(args: argparse.Namespace) -> list[str]:
    """The engine's flags for it."""
    return [] if args.ui else ["--no-ui"]
