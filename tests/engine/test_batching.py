# SPDX-License-Identifier: MIT
"""Steps of a server: what is chosen for a model and a speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trit.base.errors import TritError
from trit.engine import batching
from trit.engine.batching import Batching, choose, multiply_rate, token_seconds
from trit.gguf.encoding_table import BY_NUMBER
from trit.gguf.header import RawHeader, RawTensor

TERNARY = next(iter(BY_NUMBER))
Q4_1 = 3
MODEL, RATE = Path("model.gguf"), 200e9
# 16 layers with 512 numbers of keys and as many values: 32 KiB of attention cache for each token, in half precision.
KEYS = {"block_count": 16, "embedding_length": 512, "attention.head_count": 8, "context_length": 4096}


def header(kind: int = TERNARY, file_bytes: int = 1 << 30, name: str = "llama", **keys: Any) -> RawHeader:
    """A model of 10^9 multiply-accumulates a token, and embeddings."""
    tensors = [RawTensor("token_embd.weight", (128000, 512), 14, 0, 0), RawTensor("blk.0.norm.weight", (512,), 0, 0, 0)]
    tensors += [RawTensor(f"blk.{i}.ffn_up.weight", (1000, 62500), kind, 0, 0) for i in range(16)]
    metadata = {"general.architecture": name} | {f"{name}.{key}": value for key, value in (KEYS | keys).items()}
    return RawHeader(metadata, {}, {}, {tensor.name: tensor for tensor in tensors}, 32, 0, file_bytes)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The model's headers, which a test may change."""
    facts: dict[str, Any] = {"headers": [header()]}
    monkeypatch.setattr(batching, "read_parts", lambda path, arrays: [(path, one) for one in facts["headers"]])
    for name in ("BATCH", "UBATCH"):
        monkeypatch.delenv(f"LLAMA_ARG_{name}", raising=False)
    return facts


def test_every_slot_has_its_own_cache() -> None:
    found = choose(MODEL, 8, RATE)
    assert found == Batching(16, 128)
    assert found.flags == ["--no-kv-unified", "-b", "128", "-ub", "128"]


@pytest.mark.parametrize(
    ("rate", "step", "batch"),
    [
        (None, 16, 128),
        (1e9, 8, 128),
        (70e9, 8, 128),
        (200e9, 16, 128),
        (400e9, 40, 320),
        (800e9, 80, 512),
        (1e14, 512, 512),
    ],
)
def test_a_step_takes_about_120_ms(rate: float | None, step: int, batch: int) -> None:
    assert choose(MODEL, 8, rate) == Batching(step, batch)


def test_the_engine_is_told_by_a_variable_that_may_be_set_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIT_STEP", raising=False)
    assert choose(MODEL, 8, RATE).environment == {"TRIT_STEP": "16"}
    monkeypatch.setenv("TRIT_STEP", "99")
    assert choose(MODEL, 8, RATE).environment == {"TRIT_STEP": "99"}


def test_work_of_a_token(machine: dict[str, Any]) -> None:
    assert token_seconds([header()], 1e9) == pytest.approx(1 / 0.8)
    assert token_seconds([header(), header()], 1e9) == pytest.approx(2 / 0.8)
    assert token_seconds([header(Q4_1)], 1e9) == pytest.approx(5 / 0.8), "llama.cpp's types are slower"
    assert token_seconds([header()], None) is None
    experts = header(expert_count=8, expert_used_count=2)
    experts.tensors["blk.0.ffn_up_exps.weight"] = RawTensor(
        "blk.0.ffn_up_exps.weight", (8, 500, 1000000), TERNARY, 0, 0
    )
    assert token_seconds([experts], 1e9) == pytest.approx(2 / 0.8), "two of eight experts"


def test_a_step_has_room_for_every_slot_and_its_guesses() -> None:
    assert choose(MODEL, 4, RATE, guesses=True).batch == 128
    assert choose(MODEL, 32, RATE, guesses=True).batch == 32 * 9 + 8
    assert choose(MODEL, 256, RATE).batch == 256 + 8


@pytest.mark.parametrize(
    "flags", [["-b", "512"], ["--ubatch-size", "64"], ["--embeddings"], ["--pooling", "mean"], ["--mmproj", "x.gguf"]]
)
def test_flags_that_need_larger_steps_or_name_them(flags: Sequence[str]) -> None:
    found = choose(MODEL, 8, RATE, engine_flags=flags)
    assert found.batch is None and "-b" not in found.flags


def test_an_embedding_model_reads_whole_texts(machine: dict[str, Any]) -> None:
    machine["headers"] = [header(pooling_type=1)]
    assert choose(MODEL, 8, RATE).batch is None


def test_what_the_user_gives_the_engine_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--no-kv-unified" not in choose(MODEL, 8, RATE, engine_flags=["-kvu"]).flags
    monkeypatch.setenv("LLAMA_ARG_UBATCH", "64")
    assert choose(MODEL, 8, RATE) == Batching(16, None)


def test_the_rate_of_what_the_program_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"kind": "head"}, {"kind": "product", "seconds": [0.002, 0.001, 0.004]}]
    monkeypatch.setattr(batching, "engine_binary", lambda name, folder: folder / name)
    monkeypatch.setattr(batching, "json_lines", lambda command, what: lines)
    assert multiply_rate(2, Path("bin")) == pytest.approx(32 * 2560 * 2560 / 0.002)
    del lines[1]
    assert multiply_rate(2, Path("bin")) is None, "left out on a machine that is too busy"

    def fail(command: Sequence[str], what: str) -> None:
        raise TritError("no")

    monkeypatch.setattr(batching, "json_lines", fail)
    assert multiply_rate(2, Path("bin")) is None


def test_this_machine_has_a_rate(engine_bin: Path) -> None:
    rate = multiply_rate(1, engine_bin)
    # A CPU of ten years ago and one of the next ten years; None: too busy to measure.
    assert rate is None or 1e8 < rate < 1e14
