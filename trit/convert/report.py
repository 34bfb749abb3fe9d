# SPDX-License-Identifier: MIT
"""What a conversion did, whatever it read: for callers, and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        paths: The files that it wrote.
        sources: Names of the files whose weights it read.
        embedding_type: Of embedding and head; None if the model has no embedding.
        kinds: What ternary matrices were read from -> how many.
        notes: What the user should know, a clause each.
        verified: What was checked by reading back.
        warnings: What will not work, a clause each.
    """

    paths: list[Path]
    sources: list[str]
    embedding_type: str | None
    kinds: dict[str, int]
    notes: list[str]
    verified: str
    warnings: list[str] = field(default_factory=list)

    def lines(self, outtype: str) -> Iterator[str]:
        """For people; ``outtype`` is the encoding that they asked for."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        size = sum(path.stat().st_size for path in self.paths)
        files = f" in {len(self.paths)} files" if len(self.paths) > 1 else ""
        embedding = f"; embedding {self.embedding_type}" if self.embedding_type else ""
        yield f"{self.paths[0]}: {size / 1e6:.1f} MB{files}; {outtype} from {kinds}{embedding}"
        more = f" to {self.sources[-1]}, {len(self.sources)} files" if len(self.sources) > 1 else ""
        yield f"weights read from {self.sources[0]}{more}"
        for note in self.notes:
            yield f"note: {note}"
        for warning in self.warnings:
            yield f"warning: {warning}"
        yield self.verified
