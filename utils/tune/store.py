# SPDX-License-Identifier: MIT
"""The file of what was found: written here, read by the engine (src/ggml_tuning.cpp) and by set-up."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from utils.cli import UserError, atomic_output
from utils.host import BUILD_DIR, cpu_name

FORMAT = 1  # src/ggml_tuning.cpp
TUNING_FILE = BUILD_DIR / "tuning.json"


@dataclass(frozen=True)
class Choice:
    """What a shape uses on a number of threads.

    Attributes:
        lookup: the look-up kernel for many tokens; None: the tier's own kernel.
        panels: of one call of it; 0 without one.
        least_tokens: fewer go to the tier's own kernel; 0 without one.
        gain: how much faster this is than the default, 0.25 for a quarter; 0 where it is the default.
    """

    n: int
    k: int
    threads: int
    lookup: str | None
    panels: int
    least_tokens: int
    gain: float


@dataclass(frozen=True)
class Tuning:
    """A whole file.

    Attributes:
        tier: the tier beside which the kernels stand.
        key: what the times depend on besides the shapes, see :func:`machine_key`.
        shapes: what was found.
    """

    tier: str
    key: str
    shapes: list[Choice]


def machine_key(program: Path) -> str:
    """Identity of this CPU and of the kernels in a measuring program: with another one, old choices mean nothing."""
    return hashlib.sha256(cpu_name().encode() + b"\0" + program.read_bytes()).hexdigest()[:16]


def merged(old: Tuning | None, new: Tuning) -> Tuning:
    """The new choices, and those of other shapes that were made on the same machine with the same kernels."""
    if old is None or (old.tier, old.key) != (new.tier, new.key):
        return new
    known = {(shape.n, shape.k, shape.threads) for shape in new.shapes}
    kept = [shape for shape in old.shapes if (shape.n, shape.k, shape.threads) not in known]
    return Tuning(new.tier, new.key, kept + new.shapes)


def save(path: Path, tuning: Tuning) -> None:
    """Write the file, whole or not at all."""
    content = {
        "format": FORMAT,
        "tier": tuning.tier,
        "cpu": cpu_name(),
        "key": tuning.key,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "shapes": [asdict(shape) for shape in tuning.shapes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Tuning:
    """Read a file.

    Raises:
        UserError: it is missing, not JSON, or of another format.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        return Tuning(content["tier"], content["key"], [Choice(**shape) for shape in content["shapes"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no tuning file ({error}); make it with: python3 -m utils.tune") from error
