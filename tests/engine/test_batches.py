# SPDX-License-Identifier: MIT
"""A token's logits are the same bits whatever is computed beside it: README's promise, through the whole model."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from trit.base.places import BUNDLED_MODEL, engine_program
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS

TOKENS = 64


@pytest.mark.parametrize("head", ["q6_k", "q5_k", "q4_k", "q8_0", "f16", "q4_0"])
def test_logits_do_not_depend_on_the_batch(engine_bin: Path, tmp_path: Path, head: str) -> None:
    model, text = tmp_path / "m.gguf", tmp_path / "text.txt"
    convert(BUNDLED_MODEL, model, Options(ENCODINGS["i2_s"], head), progress=False)
    text.write_text("Mary moved to the garden. John went back to the office. Where is Mary? In the garden. " * 9)
    found = set()
    for batch, threads in ((1, 1), (7, 1), (8, 2), (TOKENS, 1)):
        logits = tmp_path / f"{batch}.bin"
        flags = f"-c {TOKENS} -b {TOKENS} -ub {batch} --chunks 2 -t {threads}".split()
        command = [engine_program("llama-perplexity", engine_bin), "-m", model, "-f", text, *flags]
        subprocess.run([*command, "--save-all-logits", logits], capture_output=True, check=True, timeout=300)
        found.add(logits.read_bytes())
    assert len(found) == 1 and len(next(iter(found))) > TOKENS * 1000
