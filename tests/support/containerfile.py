# SPDX-License-Identifier: MIT
"""The instructions of a Containerfile, stage by stage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass
class Stage:
    """One image: what it starts from, and what is done to it.

    Attributes:
        base: an image's name, or an earlier stage's; variables are filled in.
        name: behind AS; empty for the last one.
        steps: instructions in their order: word and the rest of the line.
    """

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, word: str) -> str:
        """The rest of the last instruction of a kind; the earlier ones do not count."""
        return next(rest for kind, rest in reversed(self.steps) if kind == word)


def instructions(text: str) -> list[tuple[str, str]]:
    """Words and the rest of their lines; comments are gone, lines that go on are joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def stages(text: str, arguments: dict[str, str] | None = None) -> list[Stage]:
    """The stages of a Containerfile; ``arguments`` are those of ``--build-arg``."""
    found: list[Stage] = []
    values: dict[str, str] = {}
    for word, rest in instructions(text):
        if word == "ARG" and not found:
            name, _, default = rest.partition("=")
            values[name] = (arguments or {}).get(name, default)
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], base), name))
        else:
            found[-1].steps.append((word, rest))
    return found
