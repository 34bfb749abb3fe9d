# SPDX-License-Identifier: MIT
"""The file of what was found: written here, read by the engine (src/ggml_tuning.cpp) and by set-up."""

from __future__ import annotations

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
        cpu: the CPU's own name.
        shapes: what was found.
    """

    tier: str
    cpu: str
    shapes: list[Choice]


def save(path: Path, tier: str, shapes: list[Choice], model: str) -> None:
    """Write the file, whole or not at all; ``model`` says what was tuned for."""
    content = {
        "format": FORMAT,
        "tier": tier,
        "cpu": cpu_name(),
        "model": model,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "shapes": [asdict(shape) for shape in shapes],
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
        return Tuning(content["tier"], content["cpu"], [Choice(**shape) for shape in content["shapes"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no tuning file ({error}); make it with: python3 -m utils.tune") from error
