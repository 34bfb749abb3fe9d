# SPDX-License-Identifier: MIT
"""Which model a name means. Standard library only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import UnknownNameError
from trit.base.flags import hub_name
from trit.base.places import BUNDLED_MODEL
from trit.models.registry import Model, registry

MAIN = "main"
# A revision is a branch, a tag, a commit or a pull request (refs/pr/1).
_NAME = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?:@([\w.-]+(?:/[\w.-]+)*))?")


@dataclass(frozen=True)
class Wanted:
    """A model that was asked for.

    Attributes:
        source: ``ORG/NAME`` on the Hub, or the absolute path of a checkpoint's folder.
        revision: branch, tag or commit; of a folder nothing.
    """

    source: str
    revision: str = MAIN

    @property
    def is_folder(self) -> bool:
        """Whether it is on this machine already, to be converted."""
        return not self.revision

    @property
    def name(self) -> str:
        """What it is kept under."""
        return self.source if self.revision in (MAIN, "") else f"{self.source}@{self.revision}"

    @property
    def checkout_name(self) -> str:
        """What its folder among the models of a checkout is called, in small letters."""
        return Path(self.source).name.lower()

    @property
    def known(self) -> Model | None:
        """What the registry says of it."""
        return None if self.is_folder else registry().find(self.source)

    @property
    def shown(self) -> str:
        """The shortest name that means it."""
        known = self.known
        short = known.short if known else self.source
        return short if self.revision in (MAIN, "") else f"{short}@{self.revision}"


def of_name(name: str) -> Wanted:
    """The model that is kept under a name."""
    if Path(name).is_absolute():
        return Wanted(name, "")
    source, _, revision = name.partition("@")
    return Wanted(source, revision or MAIN)


def is_path(path: Path) -> bool:
    """Whether somebody who wrote this meant a place in the file system, be there something or not."""
    text = str(path)
    if path.suffix == ".gguf" or path.is_absolute() or text.startswith((".", "~")) or "\\" in text:
        return True
    # org/name where there is a folder org; the address of a page has more slashes.
    return "/" in hub_name(text) and (path.parent.is_dir() or hub_name(text).partition("@")[0].count("/") > 1)


def resolve(text: str, kept: Iterable[str] = ()) -> Wanted | None:
    """The model of a name; None: the bundled one.

    Args:
        text: a name of the registry, short or whole, ``ORG/NAME`` or its address, or the last part of a name that is
            kept; behind an @ the revision.
        kept: names in the store.

    Raises:
        UnknownNameError: none of that; says which names are near.
    """
    match = _NAME.fullmatch(hub_name(text))
    name, revision = (match[1], match[2] or MAIN) if match else (text, MAIN)
    if name.lower() == BUNDLED_MODEL.name:
        return None
    if match and (known := registry().find(name)):
        return Wanted(known.repo, revision)
    if match and "/" in name:
        return Wanted(name, revision)
    ours = {of_name(each).source: each for each in kept}
    meant = {source for source in ours if Path(source).name.lower() == name.lower()}
    if match and len(meant) == 1:
        return Wanted(meant.pop(), revision)
    raise UnknownNameError(f"{text}: no file, no folder and no model of this name{did_you_mean(name, ours)}")


def did_you_mean(name: str, kept: Iterable[str] = ()) -> str:
    """What follows a sentence about a name that there is not: the nearest ones, or where all are shown."""
    shorts = [model.short for model in registry().models]
    whole = [model.name for model in registry().models]
    known = {each.lower(): each for each in [*whole, *shorts, BUNDLED_MODEL.name, *(Path(one).name for one in kept)]}
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(dict.fromkeys(known[each] for each in close))}?"
    return "; give ORG/NAME of a model on the Hub, or a name that is shown by: trit list --known"
