# SPDX-License-Identifier: MIT
"""A step: measure which packing and kernels are fastest for this model on this machine, by ``python -m utils.tune``.

With ``-q auto`` it comes before the conversion and settles what to convert to, else after it.
"""

from __future__ import annotations

from pathlib import Path

from utils.cli import CommandError, UserError
from utils.setup.context import BUILD_DIR, Setup
from utils.setup.model import given_gguf
from utils.setup.progress import StepLine
from utils.tune.formats import format_of

NAME = "tuning"
DEED = "measuring which kernels are fastest here"


def run(setup: Setup, line: StepLine) -> str:
    """Tune for the model's shapes unless they are tuned already; with --use-pretuned, use the presets instead."""
    options = setup.options
    measures = options.tune_seconds > 0 and not options.use_pretuned
    if options.use_pretuned:
        (BUILD_DIR / "tuning.json").unlink(missing_ok=True)
    target = setup.gguf or given_gguf(setup) or setup.model_dir
    assert target is not None
    command: list[str | Path] = [setup.python, "-m", "utils.tune", "-m", target]
    command += ["--if-needed", "--seconds", f"{options.tune_seconds:g}"] if measures else ["--use-pretuned"]
    try:
        lines = setup.run(command, "tuning", NAME, on_line=lambda text: line.update(text[:100]))
    except CommandError as error:
        own = [text.removeprefix("error: ") for text in error.tail if text.startswith("error: ")]
        if own and error.returncode == UserError.exit_code:
            raise UserError(own[-1]) from error
        raise
    told = [text for text in lines if text.startswith(("auto: ", "nothing to tune"))]
    found = next((name for text in told if (name := format_of(text))), None)
    if setup.quant_type is None:
        # Nothing to tune: no ternary matrix, so there is nothing to choose either.
        setup.quant_type = found or "i2_s"
    summary = told[-1] if told else "done"
    return summary if measures else f"not measured: {summary}"
