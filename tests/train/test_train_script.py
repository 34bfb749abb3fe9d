# SPDX-License-Identifier: MIT
"""The training script on a tiny budget, and the command that scores a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from trit import cli
from trit.base import by_name
from trit.base.errors import EXIT_INTERRUPTED, EXIT_USAGE, TritError, run_main
from trit.base.places import BUNDLED_MODEL
from trit.engine.server import Server
from trit.gguf.made import default_model
from trit.train import score, train_story
from trit.train.batches import BatchMaker
from trit.train.checkpoint import load_checkpoint
from trit.train.model import Decoder, DecoderConfig
from trit.train.tokenizer import train_tokenizer

TINY = ["--steps", "2", "--batch", "1", "--threads", "1", "--dtype", "float32"]


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def run_training(seed: int, steps: int) -> list[train_story.State]:
    torch.manual_seed(seed)
    rng = Random(seed)
    tokenizer = train_tokenizer()
    model = Decoder(DecoderConfig(tokenizer.get_vocab_size(), 64, 128, 2, 2, 1)).train()
    model.init_weights()
    model.matmul_dtype = torch.float32
    plan = train_story.Plan(minutes=1, steps=steps, seconds_at_start=0)
    states = train_story.train(model, BatchMaker(tokenizer, rng, 8), plan, rng, "cpu")
    return [train_story.State(**vars(state)) for state in states]


def test_training_lowers_the_loss_and_repeats_by_seed() -> None:
    losses = [state.loss for state in run_training(seed=0, steps=60)]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    assert [state.loss for state in run_training(seed=0, steps=5)] == losses[:5]
    assert [state.loss for state in run_training(seed=1, steps=5)] != losses[:5]


def test_learning_rate_rises_stays_and_falls() -> None:
    rates = [train_story.learning_rate(step, step / 1000) for step in range(1000)]
    top = max(rates)
    assert rates[0] == pytest.approx(top / 50) and rates[49:600] == [top] * 551
    assert rates[800] == pytest.approx(0.51 * top) and rates[-1] == pytest.approx(0.02 * top, rel=0.2)


def test_longer_stories_come_with_competence(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every answer right from the start, lengths grow to the limit, one by one."""

    def all_right(model: Decoder, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return model.norm.weight.sum(), torch.zeros(())

    monkeypatch.setattr(train_story, "losses", all_right)
    longest = [state.longest for state in run_training(seed=0, steps=70)]
    assert longest[0] == 2 and sorted(longest) == longest and longest[-1] > 4
    assert {b - a for a, b in pairwise(longest)} <= {0, 1}


def test_script_writes_a_folder_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made"
    assert run_main(train_story.main, ["--out", str(folder), *TINY]) == 0
    assert "100%  step 2 " in capsys.readouterr().err
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.config.architectures == ["BitNetForCausalLM"] and theirs.dtype == torch.float32
    assert theirs.num_parameters() == sum(p.numel() for p in load_checkpoint(folder)[0].parameters())
    # And on from there, to master weights.
    more = tmp_path / "more"
    assert run_main(train_story.main, ["--out", str(more), "--init", str(folder), "--master-weights", *TINY]) == 0
    assert json.loads((more / "config.json").read_text())["quantization_config"]["quantization_mode"] == "online"


def test_interrupted_training_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Iterator[train_story.State]:
        yield train_story.State(step=1)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_story, "train", interrupted)
    assert run_main(train_story.main, ["--out", str(tmp_path / "made"), *TINY]) == EXIT_INTERRUPTED
    assert list(tmp_path.iterdir()) == []


def test_mistakes_of_the_user_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for main, arguments, words in (
        (train_story.main, ["--out", str(tmp_path)], "already there"),
        (train_story.main, ["--out", str(tmp_path / "x"), "--init", str(tmp_path / "y")], "has no config.json"),
        (train_story.main, ["--out", str(tmp_path / "x"), "--minutes", "0"], "--minutes"),
        (score.main, ["--model", str(tmp_path / "x")], "no checkpoint folder"),
        (score.main, ["--stories", "0"], "1 or more"),
        (score.main, ["--engine", "llama", "--model", str(tmp_path / "x.gguf")], "setup_env.py"),
    ):
        assert run_main(main, arguments) == EXIT_USAGE
        assert words in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_scores_in_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(score.main, ["--stories", "14", "--seed", "5", "--threads", "1"]) == 0
    output = capsys.readouterr().out
    assert "% of 14 held-out stories answered exactly (torch, trit-story-3m, seed 5, 1 to 14 sentences)" in output


def test_score_counts_wrong_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = " Nobody is in the void."
    monkeypatch.setattr(score, "torch_answers", lambda *_: lambda prompts: iter([wrong] * len(prompts)))
    assert run_main(score.main, ["--stories", "14", "--show", "1"]) == 0
    output = capsys.readouterr().out
    assert output.count("wrong: ") == 1 and "sentences: 1 0/1, 2 0/1" in output and "\n0.0 % of 14" in output


def test_engine_scores_its_own_file(engine_bin: Path, story_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engine", "llama", "--model", str(story_gguf), "--stories", "140", "--seed", "3", "--threads", "2"]
    assert run_main(score.main, arguments) == 0
    output = capsys.readouterr().out
    found = float(output.splitlines()[-1].split(" %")[0])
    assert found >= 98, output


def test_broken_model_file_is_told_in_one_sentence(engine_bin: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(TritError, match="llama-server did not start"), Server(broken, 1):
        pass


def test_bundled_folder_is_the_one_that_is_scored() -> None:
    assert score.parse_arguments([]).model == BUNDLED_MODEL
    assert score.parse_arguments(["--engine", "llama"]).model == default_model()


@pytest.mark.parametrize("engine", ["torch", "llama"])
def test_score_takes_names_and_wrong_flags_are_one_sentence(
    engine: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIT_HOME", str(tmp_path))
    monkeypatch.setattr(by_name, "_finders", [])
    assert cli.main(["score", "--engine", engine, "--model", "bitnet-2b4t"]) == EXIT_USAGE
    assert "no model of this name; did you mean bitnet-2b-4t" in capfd.readouterr().err
    for command in ("score", "train"):
        assert cli.main([command, "--no-such-flag"]) == EXIT_USAGE
        said = capfd.readouterr()
        assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
