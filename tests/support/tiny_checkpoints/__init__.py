# SPDX-License-Identifier: MIT
"""Tiny random checkpoints with the exact configuration keys of real models, for tests and ``trit.verify``.

Every module of this folder that defines ``FAMILY`` is one family (see :class:`TinyFamily`); :func:`all_families` finds
them by a walk. What they share: ``storage`` (the ways in which ternary weights are stored), ``vocabularies`` (real
tokenizers, from the engine's source). Needs torch and transformers (``requirements-train.txt``).

    python -m tests.support.tiny_checkpoints --list
    python -m tests.support.tiny_checkpoints --family bitnet --variant BitNet-b1.58-2B-4T \
        --storage packed-autobitlinear --outdir models/tiny
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from trit.base.errors import UserError


class TinyFamily(Protocol):
    """What a family's module has."""

    FAMILY: str
    """Its name, the name of the module."""

    STORAGE: tuple[str, ...]
    """The storage kinds that it can write."""

    VARIANTS: tuple[str, ...]
    """Real models whose configuration keys it copies at tiny width."""

    def make(self, directory: Path, variant: str, storage: str, seed: int = 0) -> None:
        """Write a whole Hugging Face folder: configuration, weights, tokenizer, chat template.

        Args:
            directory: Where to; made if it is not there.
            variant: One of ``VARIANTS``.
            storage: One of ``STORAGE``.
            seed: Of the random weights; the same seed gives the same files.
        """


def all_families() -> list[TinyFamily]:
    """Every family's module, in the order of their names."""
    names = [info.name for info in pkgutil.iter_modules(__path__) if info.name != "__main__"]
    modules = (importlib.import_module(f"{__name__}.{name}") for name in names)
    return [cast(TinyFamily, module) for module in modules if hasattr(module, "FAMILY")]


def find_family(name: str) -> TinyFamily:
    """The family of that name.

    Raises:
        UserError: there is none; names those that there are.
    """
    families = {family.FAMILY: family for family in all_families()}
    if name not in families:
        raise UserError(f"--family {name}: unknown; there is {', '.join(families)}")
    return families[name]


def all_cases() -> list[tuple[TinyFamily, str, str]]:
    """Every (family, variant, storage)."""
    return [
        (family, variant, storage)
        for family in all_families()
        for variant in family.VARIANTS
        for storage in family.STORAGE
    ]
