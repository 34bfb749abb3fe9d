# SPDX-License-Identifier: MIT
"""Numbers and files that cannot be right are refused before the engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.told_engine import FakeEngine, run
from trit.engine import inference


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("-n 2147483648", "-n 2147483648: expected 1 to 2147483647, or -1, or -2"),
        ("-n 0", "-n 0: expected 1 or more, or -1, or -2"),
        ("-n 1_0", "-n 1_0: expected a whole number, 1 or more, or -1"),
        ("-t 513", "-t 513: expected 1 to 512"),
        ("-t 0", "-t 0: expected 1 to 512"),
        ("-t \u0661", "-t \u0661: expected a whole number"),
        ("-c 2147483648", "-c 2147483648: expected 2 to 2147483647, or 0"),
        ("-c 1", "-c 1: expected 2 or more, or 0"),
        ("-c 4096 -n 4096", "-n 4096: the context has 4096 tokens for prompt and answer together"),
        ("-c 500 -n 512", "-n 512: the context has 512 tokens"),
        ("-temp nan", "-temp nan: expected 0 to 1000"),
        ("-temp -0.5", "-temp -0.5: expected 0 to 1000"),
        ("-temp inf", "-temp inf: expected 0 to 1000"),
        ("--seed -2", "--seed -2: expected 0 to 4294967295, or -1"),
        ("--seed 4294967296", "--seed 4294967296: expected 0 to"),
        ("--top-k -1", "--top-k -1: expected 0 or more"),
        ("--top-p 1.01", "--top-p 1.01: expected 0 to 1"),
        ("--repeat-penalty 0.0", "--repeat-penalty 0.0: expected more than 0, up to 1000"),
        ("--repeat-penalty -1", "--repeat-penalty -1: expected more than 0"),
        ("-- -m b.gguf", "-- -m: the model goes in front of --"),
        ("-- --model=b.gguf", "-- --model: the model goes in front of --"),
        ("-- -hf a/b", "-- -hf: the model goes in front of --"),
        ("-- --lora no.gguf", "--lora no.gguf: is not there"),
        ("-- --lora-scaled no.gguf:0.5", "--lora-scaled no.gguf:0.5: is not there"),
        ("-- -ub 65 -b 64", "-ub 65: is a part of -b, which is 64"),
        ("-- --ubatch-size 4096", "-ub 4096: is a part of -b, which is 2048"),
    ],
)
def test_numbers_that_cannot_be_right(
    engine: FakeEngine, flags: str, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(engine, "-p", "x", *flags.split()) == 2
    assert capfd.readouterr().err.startswith(f"error: {sentence}")


def test_a_context_that_the_memory_cannot_hold_is_refused(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inference, "attention_bytes", lambda metadata, context: 2 * 1000)
    monkeypatch.setattr(inference, "free_memory_bytes", lambda: 1_000_000)
    assert run(engine, "-p", "x", "-c", "1024") == 2
    assert capfd.readouterr().err == (
        "error: -c 1024: the attention cache takes 0.0 GB, but 0.0 GB of memory are free; give at most -c 768\n"
    )
    assert run(engine, "-p", "x", "-c", "768") == 0


@pytest.mark.parametrize(
    "flags",
    [
        "-n 1",
        "-n -1",
        "-n -2",
        "-t 512",
        "-c 0 -n 9999",
        "-c 2 -n 1",
        "-n 9999 -- --context-shift",
        "--seed -1",
        "--seed 4294967295",
    ],
)
def test_numbers_at_the_ends_of_their_ranges(engine: FakeEngine, flags: str) -> None:
    assert run(engine, "-p", "x", *flags.split()) == 0


@pytest.mark.parametrize("flags", [["-m", ""], ["-f", ""], ["-f", "."], ["-p", ""], ["-m", "/dev/null"]])
def test_places_that_cannot_be_right(engine: FakeEngine, flags: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    given = flags if "-m" not in flags else ["-p", "x", *flags]
    assert run(engine, *given) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_the_engine_s_own_answer_to_a_flag_is_passed_on(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    engine.plan(stderr="libgomp: Invalid value\nnoise\nerror: invalid argument: --odd\n", code=2)
    assert run(engine, "-p", "x", "--", "--odd") == 2
    assert capfd.readouterr().err == "libgomp: Invalid value\nerror: invalid argument: --odd\n"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_prompt_without_an_end(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(engine, "-f", "/dev/zero") == 2
    assert capfd.readouterr().err == "error: -f /dev/zero has more than 64 MiB; give a shorter prompt\n"
