# SPDX-License-Identifier: MIT
"""The registry as tables: for the terminal (``setup_env.py --list-models``) and for docs/models.md."""

from __future__ import annotations

from collections.abc import Set
from itertools import groupby
from pathlib import Path

from trit.base.generated_section import write_section
from trit.base.places import ROOT
from trit.gguf.encoding_table import holding
from trit.models.registry import Model, Registry

PAGE = ROOT / "docs" / "models.md"
BEGIN = "<!-- models: written by `trit registry` -->"
END = "<!-- end of models -->"
_NOT_YET = "not yet"
# The one model that is not on the Hub.
_BUNDLED = (
    '| [trit-story-3m](../models/trit-story-3m) (bundled: answers "Where is X?" after a short story) | instruct '
    f"| ternary floats | {', '.join(holding())} | its answers are scored in the tests |"
)


def terminal_table(known: Registry, others: str = "--hf-repo ORG/NAME") -> str:
    """One line per model: name, kind, parameters, download, licence, repository; others: how they are asked for."""
    rows = [("NAME", "KIND", "PARAMETERS", "DOWNLOAD", "LICENCE", "REPOSITORY")]
    for model in known.models:
        sizes = _count(model.parameters), _size(model.download_bytes)
        rows.append((model.short, model.kind or "-", *sizes, model.licence or "-", model.repo))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"- means not known here. Any other repository works, too: {others}"])


def page_table(known: Registry, converted: Set[str]) -> str:
    """The page's table, between its two comments: models that share everything but their sizes are one row.

    Args:
        known: the models.
        converted: architectures that the converter has; the others are not there yet, whatever the registry says.
    """
    lines = ["| model | kind | storage | outputs | verified how |", "|---|---|---|---|---|", _BUNDLED]
    for _, group in groupby(known.models, key=lambda model: _facts(known, model)):
        models = list(group)
        model, family = models[0], known.families[models[0].family]
        verified = model.verified or (family.verified_gguf if model.ready_made else family.verified)
        outputs = ", ".join(known.outputs(model)) or ("as it is" if model.ready_made else _NOT_YET)
        if not model.ready_made and converted.isdisjoint(family.architectures):
            outputs = _NOT_YET
        verified = _NOT_YET if outputs == _NOT_YET else verified or _NOT_YET
        lines.append(f"| {_names(models)} | {model.kind or '-'} | {model.storage or '-'} | {outputs} | {verified} |")
    for family in known.families.values():
        if family.outputs and (architectures := [name for name in family.architectures if name in converted]):
            names = ", ".join(f"`{name}`" for name in architectures)
            made = f"{', '.join(family.storage)} | {', '.join(family.outputs)} | {family.verified or _NOT_YET}"
            lines.append(f"| any other {names} | | {made} |")
    return "\n".join(lines)


def write_page(known: Registry, converted: Set[str], path: Path = PAGE, *, check: bool = False) -> bool:
    """Bring the page's table up to date; whether it was so already. ``check`` only looks.

    Raises:
        UserError: the page lacks the comments that the table goes between.
    """
    return write_section(path, BEGIN, END, page_table(known, converted), check=check)


def _facts(known: Registry, model: Model) -> tuple[str, str | None, str | None, tuple[str, ...]]:
    return model.family, model.kind, model.storage, known.outputs(model)


def _names(models: list[Model]) -> str:
    return ", ".join(f"`{model.repo}`" for model in models)


def _count(parameters: int | None) -> str:
    return "-" if parameters is None else f"{parameters / 1e9:.2g}B"


def _size(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e9:.3g} GB"
