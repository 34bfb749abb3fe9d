# SPDX-License-Identifier: MIT
"""trit.measure.speed: what llama-bench is asked and says, what a token costs, how sure a ratio is; no speeds."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fake_engine import calls, fake_describe, fake_llama_bench, program
from trit.base.errors import TritError, UserError, run_main
from trit.base.places import BUNDLED_MODEL, engine_program
from trit.base.statistics import in_turns, median_interval, paired_ratio
from trit.convert.from_random import main as make_dummy
from trit.engine import cost, llama_bench
from trit.engine.cost import Step, steps
from trit.engine.llama_bench import Case
from trit.engine.roofline import Limit, Read
from trit.gguf.types import TensorEntry

LINE = {"n_prompt": 512, "n_gen": 0, "n_depth": 0, "n_threads": 2, "n_batch": 2048, "samples_ts": [90.5, 100]}


def test_names_of_tests() -> None:
    cases = [Case(512, 0), Case(0, 128), Case(0, 128, depth=2048), Case(16, 4, depth=8)]
    assert [case.name for case in cases] == ["pp512", "tg128", "tg128 @ d2048", "pp16+tg4 @ d8"]


def test_a_line_is_parsed() -> None:
    assert llama_bench.parse(LINE) == (Case(512, 0, 0, 2, 2048), [90.5, 100.0])


@pytest.mark.parametrize("change", [{"n_depth": None}, {"samples_ts": 3}, {"samples_ts": ["x"]}, {"n_threads": "two"}])
def test_broken_lines_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TritError, match="llama-bench printed something else"):
        llama_bench.parse({**LINE, **change})


@pytest.mark.parametrize("speeds", [[], [1.0, 0.0]])
def test_no_speed_is_refused(speeds: list[float]) -> None:
    with pytest.raises(TritError, match="printed no speeds for pp512"):
        llama_bench.parse({**LINE, "samples_ts": speeds})


class Witness:
    """Notes what an observer is told."""

    def __init__(self) -> None:
        self.open = False
        self.repetitions = 0
        self.heard: list[tuple[str, int, int]] = []

    def begin(self) -> None:
        assert not self.open, "a repetition starts while another one runs"
        self.open = True

    def end(self) -> None:
        self.repetitions += self.open
        self.open = False

    def finished(self, case: Case, speeds: Sequence[float]) -> None:
        assert not self.open
        self.heard.append((case.name, case.threads, self.repetitions))
        self.repetitions = 0


def test_few_calls_run_all_cases(tmp_path: Path) -> None:
    folder = fake_llama_bench(tmp_path, {"m.gguf": 10.0})
    text = [Case(0, 8, depth, threads, 64) for threads in (1, 2) for depth in (0, 32)]
    cases = [Case(16, 0, 0, 1, 64), Case(16, 0, 0, 2, 64), *text, Case(4, 4, 0, 2, 64), Case(4, 4, 0, 1, 64)]
    witness = Witness()
    model = tmp_path / "m.gguf"
    found = llama_bench.run(model, cases, repack=False, repetitions=2, bin_dir=folder, observers=[witness])
    assert list(found) == cases, "in the order that was asked for"
    assert all(speeds == [10 * case.threads, 11 * case.threads] for case, speeds in found.items())
    assert calls(folder) == [
        f"-m {model} --repack 0 -p 16 -n 8 -pg 4,4 -d 0 -b 64 -t 1,2 -r 2 -o jsonl --progress",
        f"-m {model} --repack 0 -p 0 -n 8 -d 32 -b 64 -t 1,2 -r 2 -o jsonl --progress",
    ]
    assert ("pp16", 2, 2) in witness.heard and ("tg8 @ d32", 1, 2) in witness.heard
    assert ("pp4+tg4", 1, 4) in witness.heard, "prompt and text are told one by one"
    assert len(witness.heard) == len(cases)


def test_a_model_that_fails_is_named(tmp_path: Path) -> None:
    program(tmp_path, "llama-bench", "import sys; sys.exit('llama_bench: error: failed to load model')")
    with pytest.raises(TritError, match=r"running llama-bench on .*bad\.gguf failed .*failed to load model"):
        llama_bench.run(tmp_path / "bad.gguf", [Case(1, 0)], bin_dir=tmp_path)
    program(tmp_path, "llama-bench", f"print('''{json.dumps(LINE)}''')")
    with pytest.raises(TritError, match=r"left out tg9 of .*bad\.gguf"):
        llama_bench.run(tmp_path / "bad.gguf", [Case(512, 0, threads=2), Case(0, 9)], repetitions=2, bin_dir=tmp_path)
    with pytest.raises(UserError, match="build it with"):
        llama_bench.run(tmp_path / "bad.gguf", [Case(1, 0)], bin_dir=tmp_path / "none")


def test_turns() -> None:
    assert list(in_turns("AB", 3)) == [(0, "A"), (0, "B"), (1, "B"), (1, "A"), (2, "A"), (2, "B")]


def test_intervals() -> None:
    assert median_interval([2.0] * 5) == (2, 2, 2)
    # Noise that both runs of a round meet goes away.
    noise = [1.0, 5.0, 0.1, 9.0, 3.0, 2.0]
    assert paired_ratio([3 * n for n in noise], [2 * n for n in noise]) == pytest.approx((1.5, 1.5, 1.5))
    median, low, high = paired_ratio([1, 2, 3, 4, 5, 6, 7], [1] * 7)
    assert median == 4 and 1 <= low <= 2 and 6 <= high <= 7
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])


def test_how_often_intervals_hold_the_median() -> None:
    """Of 300 samples of 10: what the docstring promises, less three standard deviations."""
    source = random.Random(7)
    samples = [[source.lognormvariate(0, 1) for _ in range(10)] for _ in range(300)]
    hits = sum(low <= 1 <= high for _, low, high in map(median_interval, samples))
    assert hits >= 300 * 0.93 - 3 * np.sqrt(300 * 0.93 * 0.07)


# Matrices of the story model's shape: 4 layers of width 256, 768 in the feed-forward part, 4 heads.
STORY_MACS = 4 * (4 * 256 * 256 + 3 * 256 * 768)
STORY_NORMS = 4 * (4 * (3 * 256 + 768) + 256)
STORY_KV = 4 * 2 * 256 * 2


@pytest.fixture(scope="module")
def story_vocabulary() -> int:
    return int(json.loads((BUNDLED_MODEL / "config.json").read_text())["vocab_size"])


def dummy(path: Path, encoding: str, head: str = "q8_0", *flags: str) -> cost.ModelFile:
    words = ["--shape", "story", "--outtype", encoding, "--head", head, "--outfile", str(path), *flags]
    assert run_main(make_dummy, words) == 0
    return cost.ModelFile.read(path)


def test_what_a_token_costs(tmp_path: Path, story_vocabulary: int) -> None:
    fake_describe(tmp_path)
    model = dummy(tmp_path / "m.gguf", "tq2_0")
    head = story_vocabulary * 256 * 34 // 32
    in_file = cost.of_model(model, {})
    assert in_file.layer_macs == STORY_MACS and in_file.head_macs == story_vocabulary * 256
    assert in_file.bytes_per_token == STORY_MACS * 66 // 256 + head + STORY_NORMS
    assert (in_file.kv_bytes, in_file.attention_macs) == (STORY_KV, 4 * 2 * 256)
    packed = cost.loaded(model, tmp_path)
    assert packed.bytes_per_token == STORY_MACS // 4 + head + STORY_NORMS
    assert model.parameters == STORY_MACS + story_vocabulary * 256 + STORY_NORMS // 4
    assert model.nbytes == in_file.bytes_per_token, "the embedding is the head"
    # Text behind 100 tokens: the first reads 101 of the cache, the last 104.
    text = packed.cost(Case(0, 4, depth=100))
    assert text.kv_bytes == STORY_KV * 102.5 and text.bytes == packed.bytes_per_token + text.kv_bytes
    assert text.macs == STORY_MACS + packed.head_macs and text.attention_macs == packed.attention_macs * 102.5
    # Two batches of 600: the layers are read four times, the head twice.
    prompt = packed.cost(Case(1200, 0, batch=600))
    weights = 4 * packed.layer_bytes + 2 * packed.head_bytes
    assert prompt.bytes * 1200 == pytest.approx(weights + STORY_KV * (512 + 600 + 1112 + 1200))
    assert prompt.macs * 1200 == 1200 * STORY_MACS + 2 * packed.head_macs
    assert prompt.attention_macs == packed.attention_macs * 600.5, "a token meets those before it and itself"


def test_steps() -> None:
    assert list(steps(Case(5, 2, depth=10, batch=3))) == [
        Step(3, 1, 13),
        Step(2, 1, 15),
        Step(1, 1, 16),
        Step(1, 1, 17),
    ]
    assert list(steps(Case(700, 0))) == [Step(512, 0, 512), Step(188, 1, 700)]


def test_scales_of_groups_are_read_too(tmp_path: Path) -> None:
    fake_describe(tmp_path)
    one = cost.loaded(dummy(tmp_path / "one.gguf", "q2_0"), tmp_path)
    many = cost.loaded(dummy(tmp_path / "many.gguf", "q2_0", "q8_0", "--block-scales"), tmp_path)
    assert one.layer_bytes == STORY_MACS // 4 + STORY_NORMS
    assert many.layer_bytes == one.layer_bytes + STORY_MACS // 64 * 2


def limit(gmacs: Sequence[float], gbs: Sequence[float]) -> Limit:
    return Limit("fast", 1, list(gmacs), [Read("huge", 0, list(gbs))])


def test_limits() -> None:
    costs = cost.ModelCost(
        layer_bytes=10**9, head_bytes=0, layer_macs=10**9, head_macs=0, kv_bytes=10**6, attention_macs=1, window=None
    )
    machine = limit([90.0, 100.0, 300.0], [1.0, 10.0, 90.0])
    # A prompt: 10^9 operations a token at 10^11; the weights are read once for all.
    assert costs.limit(Case(500, 0), machine) == (pytest.approx(100), "int8")
    # Text: 10^9 bytes at 10^10, and the attention cache of 1000 tokens as well.
    assert costs.limit(Case(0, 1), machine) == (pytest.approx(10, rel=1e-2), "read")
    assert costs.limit(Case(0, 1, depth=999), machine) == (pytest.approx(5), "read")
    # In batches of one token a prompt is bound as text is.
    assert costs.limit(Case(2, 0, batch=1), machine) == costs.limit(Case(0, 2), machine)
    # What the caches keep from step to step need not be read again.
    assert costs.limit(Case(0, 1), machine, cache_bytes=2 * 10**9) == (pytest.approx(100), "int8")
    windowed = cost.ModelCost(10**9, 0, 10**9, 0, 10**6, 1, 500)
    assert windowed.limit(Case(0, 1, depth=999), machine) == (pytest.approx(10 / 1.5), "read")


def model_file(numbers: dict[str, Any], **tensors: tuple[int, ...]) -> cost.ModelFile:
    path = Path("m.gguf")
    entries = {name: TensorEntry(name, shape, 1, 0, 2 * math.prod(shape)) for name, shape in tensors.items()}
    return cost.ModelFile(path, "llama", numbers, {name: (path, entry) for name, entry in entries.items()})


TINY = {"attention.head_count": 4, "block_count": 2, "embedding_length": 32}
TENSORS = {"token_embd.weight": (9, 32), "output.weight": (9, 32), "blk.0.attn_q.weight": (32, 32), "x": (5,)}


def test_costs_come_from_the_header_alone() -> None:
    costs = cost.of_model(model_file(TINY, **TENSORS), {})
    # An embedding beside a head gives one row; f16 is not packed.
    assert (costs.head_bytes, costs.layer_bytes) == (9 * 32 * 2, 2 * (32 * 32 + 5))
    assert (costs.head_macs, costs.layer_macs) == (9 * 32, 32 * 32)
    assert (costs.kv_bytes, costs.attention_macs) == (2 * 2 * 4 * 16, 2 * 4 * 16)
    more = {"attention.head_count_kv": [1, 2], "attention.key_length": 6, "attention.value_length": 4}
    costs = cost.of_model(model_file({**TINY, **more, "attention.sliding_window": 7}, **TENSORS), {})
    assert (costs.kv_bytes, costs.attention_macs, costs.window) == (2 * 10 * 3, 2 * 4 * 10, 7)


@pytest.mark.parametrize("key", cost.OTHER_COSTS)
def test_models_of_other_kinds_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=r"m\.gguf: the model .* measure without limits"):
        cost.of_model(model_file({**TINY, key: 8}, **TENSORS), {})
    assert cost.of_model(model_file({**TINY, key: 0}, **TENSORS), {}).kv_bytes


def test_no_language_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"m\.gguf: no language model with attention and a head"):
        cost.of_model(model_file(TINY, x=(5,)), {})
    with pytest.raises(UserError, match=r"m\.gguf: no language model with attention and a head"):
        cost.of_model(model_file({"block_count": 2}, **TENSORS), {})


@pytest.mark.parametrize("packing", ["2_bits", "tl2"])
def test_the_engine_counts_the_same(
    engine_bin: Path, story_gguf: Path, tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own counters (src/ggml/profile.h) against what is counted in the header."""
    profile = tmp_path / "profile.json"
    command = [
        engine_program("llama-completion", engine_bin),
        "-m",
        story_gguf,
        "-p",
        "Mary",
        "-n",
        "4",
        "-t",
        "1",
    ]
    env = {**os.environ, "TRIT_PACKING": packing, "TRIT_PROFILE": str(profile), "TRIT_PROFILE_SKIP": "1"}
    subprocess.run([*map(str, command), "-no-cnv", "--ignore-eos"], env=env, capture_output=True, check=True)
    text = json.loads(profile.read_text())["regimes"]["one"]
    engine = {
        name: (part["weight_bytes"] / text["graphs"], part["macs"] / text["graphs"])
        for name, part in text["parts"].items()
        if part["weight_bytes"]
    }
    monkeypatch.setenv("TRIT_PACKING", packing)
    costs = cost.loaded(cost.ModelFile.read(story_gguf), engine_bin)
    assert engine == {
        "ternary_one": (costs.layer_bytes - STORY_NORMS, costs.layer_macs),
        "head": (costs.head_bytes, costs.head_macs),
    }
