# SPDX-License-Identifier: MIT
"""Nodes without a barrier between them: the same bits on any number of threads, and fewer barriers than nodes."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from trit.base.places import engine_program
from trit.convert.from_random import OUTTYPES, generate
from trit.models.shapes import SHAPES

TOKENS, LAYERS = 32, 3
TEXT = "Mary moved to the garden. John went back to the office. Where is Mary? In the garden. " * 9
# Of one token: in a layer, where one behind every node would be 22 of bitnet-b1.58, and around the layers.
BARRIERS = {"bitnet-b1.58": 15, "bitnet": 14, "llama": 13}
AROUND = 5


@pytest.fixture(scope="module", params=BARRIERS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = replace(SHAPES["story"], architecture=request.param, layers=LAYERS, kv_heads=2)
    path = tmp_path_factory.mktemp("order") / f"{request.param}.gguf"
    generate("tiny", shape, OUTTYPES["i2_s"], "q8_0", path)
    return path


def perplexity(engine_bin: Path, model: Path, threads: int, batch: int, **env: str) -> bytes:
    (text := model.with_suffix(".txt")).write_text(TEXT)
    logits = model.with_suffix(".logits")
    flags = f"-c {TOKENS} -b {TOKENS} -ub {batch} --chunks 2 --no-warmup -t {threads}".split()
    command = [engine_program("llama-perplexity", engine_bin), "-m", model, "-f", text, *flags]
    command += ["--save-all-logits", logits]
    subprocess.run(command, capture_output=True, check=True, timeout=300, env={**os.environ, **env})
    return logits.read_bytes()


@pytest.mark.parametrize("packing", ["2_bits", "tl2"])
def test_threads_that_run_ahead_change_no_bit(engine_bin: Path, model: Path, packing: str) -> None:
    wanted = perplexity(engine_bin, model, 1, 1, TRIT_PACKING=packing)
    assert len(wanted) > TOKENS * 1000
    for threads in (2, 3, 8):
        assert perplexity(engine_bin, model, threads, 1, TRIT_PACKING=packing) == wanted


def test_barriers_that_are_left(engine_bin: Path, model: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    command = [
        engine_program("llama-completion", engine_bin),
        "-m",
        model,
        "-no-cnv",
        "-p",
        "Where is Mary?",
        "-n",
        "2",
    ]
    command += ["--temp", "0", "--ignore-eos", "--no-warmup", "-t", "2", "-c", "64"]
    env = {**os.environ, "TRIT_PROFILE": str(profile), "TRIT_PROFILE_SKIP": "0"}
    subprocess.run(command, capture_output=True, check=True, timeout=300, env=env)
    one = json.loads(profile.read_text())["regimes"]["one"]
    # A second graph may have been given fewer threads.
    assert one["graphs"] == 1
    assert one["parts"]["barrier"]["calls"] == LAYERS * BARRIERS[model.stem] + AROUND
