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
        ("-n 2147483648", "-n 2147483648: give a positive number of tokens"),
        ("-t 513", "-t 513: the engine runs at most 512 threads"),
        ("-c 2147483648", "-c 2147483648: give a positive number of tokens"),
        ("-temp nan", "-temp nan: give 0 for the likeliest tokens"),
        ("-temp -0.5", "-temp -0.5: give 0 for the likeliest tokens"),
        ("-temp inf", "-temp inf: give 0 for the likeliest tokens"),
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


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_a_prompt_without_an_end(engine: FakeEngine, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(engine, "-f", "/dev/zero") == 2
    assert capfd.readouterr().err == "error: -f /dev/zero has more than 64 MiB; give a shorter prompt\n"
