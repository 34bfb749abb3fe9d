# SPDX-License-Identifier: MIT
"""Last step: the model's first answer, through the same command that users type."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from trit.base.errors import TritError
from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT, ROOT, python_command
from trit.base.progress import StepLine
from trit.engine.inference import chat_template, is_embedding_model
from trit.gguf.made import default_model
from trit.setup.context import Setup
from trit.setup.model import shown

NAME = "answer"
DEED = "asking the model"

_OTHER_PROMPT = "The capital of France is"
_NEXT_STORY = "John moved to the office. Mary went to the garden. John moved to the kitchen. Where is John?\\nAnswer:"


def run(setup: Setup, line: StepLine) -> str:
    """Ask, and keep the answer and the speeds for :func:`report`."""
    assert setup.gguf is not None
    if (setup.known and setup.known.kind == "embedding") or is_embedding_model(setup.gguf):
        return "not asked: an embedding model gives vectors"
    prompt, count = (DEMO_PROMPT, 6) if setup.model_dir == BUNDLED_MODEL else (_OTHER_PROMPT, 24)
    command: list[str | Path] = [setup.python, ROOT / "run_inference.py", "-m", setup.gguf, "-p", prompt]
    lines = setup.run([*command, "-n", str(count), "-temp", "0", "--json"], "the first answer", NAME)
    results = [text for text in lines if text.startswith("{")]
    if not results:
        raise TritError(f"the first answer has no result; see {setup.log(NAME)}")
    result = json.loads(results[-1])
    setup.report = report(setup, prompt, result)
    return f"{result['generated_tokens']} tokens in {result['total_ms'] / 1000:.2f} s"


def report(setup: Setup, prompt: str, result: dict[str, object]) -> str:
    """What set-up ends with: prompt, answer, speed, and the next command to try."""
    speeds = [result["prompt_tokens_per_second"], result["generated_tokens_per_second"]]
    prompt_speed, answer_speed = [f"{speed:.0f} tokens/s" if isinstance(speed, float) else "-" for speed in speeds]
    return "\n".join(
        [
            "",
            f"prompt:  {prompt}",
            f"answer:  {str(result['text']).strip()}",
            f"speed:   prompt {prompt_speed}, answer {answer_speed}, {result['threads']} threads",
            "",
            "Now try your own:",
            f"  {python_command('run_inference.py')} {next_arguments(setup)}",
        ]
    )


def next_arguments(setup: Setup) -> str:
    """What to give ``run_inference.py`` next: another story, a chat if the model can, or another prompt."""
    assert setup.gguf is not None
    if setup.model_dir == BUNDLED_MODEL:
        # Without -m it is the file that was made last.
        model = "" if setup.gguf == default_model(setup.model_dir) else f"-m {shown(setup.gguf)} "
        return f'{model}-p "{_NEXT_STORY}" -n 6 -temp 0'
    continues = setup.known is not None and setup.known.kind == "base"
    if not continues and chat_template(setup.gguf):
        return f'-m {shlex.quote(shown(setup.gguf))} -p "You are a helpful assistant" -cnv'
    return f'-m {shlex.quote(shown(setup.gguf))} -p "Once upon a time" -n 64'
