# SPDX-License-Identifier: MIT
"""A step: measure which packing and kernels are fastest for this model on this machine, by ``trit tune``.

With ``-q auto`` it comes before the conversion and settles what to convert to, else after it.
"""

from __future__ import annotations

from pathlib import Path

from trit.base.errors import CommandError, UserError
from trit.base.places import BUILD_DIR
from trit.base.progress import StepLine
from trit.gguf.encoding_table import DEFAULT
from trit.setup.context import Setup
from trit.setup.conversion import check_given
from trit.setup.model import given_gguf
from trit.tune.formats import WORD, format_of

NAME = "tuning"
DEED = "measuring which kernels are fastest here"


def run(setup: Setup, line: StepLine) -> str:
    """Tune for the model's shapes unless they are tuned already; with --use-pretuned, use the presets instead."""
    options = setup.options
    if options.use_pretuned:
        (BUILD_DIR / "tuning.json").unlink(missing_ok=True)
    target = setup.gguf or given_gguf(setup) or setup.model_dir
    assert target is not None
    if setup.gguf is None and target.is_file():
        # What cannot be used is refused before anything is measured for it.
        check_given(target)
    command: list[str | Path] = [setup.python, "-m", "trit.tune", "-m", target]
    command += ["--use-pretuned"] if options.use_pretuned else ["--if-needed", "--seconds", f"{options.tune_seconds:g}"]
    try:
        lines = setup.run(command, "tuning", NAME, on_line=lambda text: line.update(text[:100]))
    except CommandError as error:
        own = [text.removeprefix("error: ") for text in error.tail if text.startswith("error: ")]
        if own and error.returncode == UserError.exit_code:
            raise UserError(own[-1]) from error
        raise
    told = [text for text in lines if text.startswith((WORD, "nothing to tune"))]
    summary = told[-1] if told else "done"
    if setup.quant_type is None:
        # Nothing to tune: no ternary matrix, so there is nothing to choose either.
        setup.quant_type = format_of(summary) or DEFAULT
        return summary
    return summary.replace(WORD, "fastest here: ", 1)
