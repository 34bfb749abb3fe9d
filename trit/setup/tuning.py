# SPDX-License-Identifier: MIT
"""A step: measure which packing and kernels are fastest for this model on this machine, by ``trit tune``.

With ``-q auto`` it comes before the conversion and settles what to convert to, else after it.
"""

from __future__ import annotations

from trit.base.places import BUILD_DIR
from trit.base.progress import StepLine
from trit.gguf.encoding_table import DEFAULT
from trit.gguf.given import check_given
from trit.setup.context import Setup
from trit.setup.model import given_gguf
from trit.setup.tool import tool
from trit.tune.formats import Verdict

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
    arguments = ["-m", str(target)]
    arguments += (
        ["--use-pretuned"] if options.use_pretuned else ["--if-needed", "--seconds", f"{options.tune_seconds:g}"]
    )
    verdict = Verdict(**tool(setup, line, NAME, "tuning", "trit.tune.command:for_setup", {"arguments": arguments}))
    if setup.quant_type is None:
        # Without a ternary matrix there is nothing to choose either.
        fastest = verdict.format or DEFAULT
        setup.quant_type = fastest if fastest in (setup.fitting or [fastest]) else setup.fitting[0]
        if setup.quant_type != fastest:
            return f"auto: {setup.quant_type}, as {fastest} does not hold these matrices"
        return verdict.line
    return f"fastest here: {verdict.text}" if verdict.format else verdict.text
