# SPDX-License-Identifier: MIT
"""Step 6: measure which kernels are fastest for this model on this machine, by ``python -m utils.tune``."""

from __future__ import annotations

from pathlib import Path

from utils.setup.context import BUILD_DIR, Setup
from utils.setup.progress import StepLine

NAME = "tuning"
DEED = "measuring which kernels are fastest here"


def run(setup: Setup, line: StepLine) -> str:
    """Tune for the model's shapes unless they are tuned already; with --use-pretuned, use the presets instead."""
    if setup.options.use_pretuned:
        (BUILD_DIR / "tuning.json").unlink(missing_ok=True)
        return "not measured: the presets of preset_kernels/ are used"
    seconds = setup.options.tune_seconds
    if seconds == 0:
        return "not measured (--tune-seconds 0)"
    assert setup.gguf is not None
    command: list[str | Path] = [setup.python, "-m", "utils.tune", "-m", setup.gguf, "--if-needed"]
    lines = setup.run(
        [*command, "--seconds", f"{seconds:g}"], "tuning", NAME, on_line=lambda text: line.update(text[:100])
    )
    told = [text for text in lines if text.startswith(("layer,", "up to date", "nothing to tune"))]
    return told[-1] if told else "done"
