# SPDX-License-Identifier: MIT
"""The public advisories of the engine, and which of them its pin leaves open. Standard library only.

``3rdparty/advisories.json`` has them, and the build and date of the pinned commit. docs/security.md shows the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trit.base.places import LOCK, ROOT

FILE = ROOT / "3rdparty" / "advisories.json"
PATCHES = ROOT / "3rdparty" / "patches"


@dataclass(frozen=True)
class Advisory:
    """One advisory; of what mends it, an empty field is one that nothing public names.

    Attributes:
        id: its CVE number.
        what: the fault.
        reach: what an attacker needs to send.
        source: page that says so.
        advisory: the number that the finder or the project gave it.
        commit: upstream's commit that mends it.
        build: the first of upstream's numbered builds without it.
        before: a day on which it was mended, where no build is named.
        patch: the name of our own patch that mends it, without its number.
        not_built: a folder of the engine with the faulty code, which we do not fetch.
        only_with: a flag of the engine without which the fault is out of reach.
    """

    id: str
    what: str
    reach: str
    source: str
    advisory: str = ""
    commit: str = ""
    build: int = 0
    before: str = ""
    patch: str = ""
    not_built: str = ""
    only_with: str = ""

    def state(self, pin: Mapping[str, Any], kept: Sequence[str], patches: Path = PATCHES) -> str:
        """Where it stands: "mended", "mended by our patch", "not built", "only with FLAG" or "open".

        Args:
            pin: build and date of the engine.
            kept: the paths of the engine that we fetch.
            patches: folder of our patches.
        """
        if (self.build and pin["build"] >= self.build) or (self.before and pin["date"] >= self.before):
            return "mended"
        if self.not_built and not any(_holds(path, self.not_built) for path in kept):
            return "not built"
        if self.patch and any(patches.glob(f"*-{self.patch}.patch")):
            return "mended by our patch"
        return f"only with {self.only_with}" if self.only_with else "open"


def _holds(path: str, folder: str) -> bool:
    return f"{folder}/".startswith(f"{path}/") or path.startswith(f"{folder}/")


@dataclass(frozen=True)
class Known:
    """All advisories, and where each stands."""

    pin: Mapping[str, Any]
    states: Mapping[Advisory, str]

    def table(self) -> str:
        """The table of docs/security.md."""
        rows = ["| advisory | what | sent as | mended upstream by | here |", "|---|---|---|---|---|"]
        for one, state in self.states.items():
            build = f"b{one.build}" if one.build else f"before {one.before}" if one.before else ""
            commit = f"{one.commit} ({build})" if one.commit else f"{build}, commit not named" if build else "not found"
            own = f" ({one.patch})" if "patch" in state else ""
            name = f"[{one.id}]({one.source}){f', {one.advisory}' if one.advisory else ''}"
            rows.append(f"| {name} | {one.what} | {one.reach} | {commit} | {state}{own} |")
        return "\n".join(rows)

    def sentence(self) -> str:
        """The line of ``trit doctor``."""
        left = [f"{one.id} {state}" for one, state in self.states.items() if state.startswith(("only", "open"))]
        count = len(self.states)
        share = f"{count - len(left)} of {count}; {', '.join(left)}" if left else f"all {count}"
        return f"mended in the pinned engine, or not built: {share}"

    @property
    def open(self) -> list[str]:
        """Names of those that nothing stands against."""
        return [one.id for one, state in self.states.items() if state == "open"]


def known(file: Path = FILE, lock: Path = LOCK, patches: Path = PATCHES) -> Known:
    """Read the advisories and compare them with the pin."""
    data = json.loads(file.read_text(encoding="utf-8"))
    kept = json.loads(lock.read_text(encoding="utf-8"))["keep"]
    advisories = [Advisory(**row) for row in data["advisories"]]
    return Known(data["pin"], {one: one.state(data["pin"], kept, patches) for one in advisories})
