# SPDX-License-Identifier: MIT
"""Write the documents' table of models from the registry: ``trit registry``; ``--check`` only compares."""

from __future__ import annotations

from collections.abc import Sequence

from trit.base.errors import EXIT_FAILED, EXIT_OK
from trit.base.flags import ArgumentParser
from trit.models.families import all_families
from trit.models.registry import registry
from trit.models.registry.tables import PAGE, write_page


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the table, or fail if ``--check`` finds it out of date."""
    parser = ArgumentParser(prog="trit registry", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the table is out of date")
    args = parser.parse_args(argv)
    converted = {name for family in all_families() for name in family.architectures}
    current = write_page(registry(), converted, check=args.check)
    print(f"{PAGE.name}: the table of models {'is' if current else 'was not'} up to date")
    return EXIT_FAILED if args.check and not current else EXIT_OK
