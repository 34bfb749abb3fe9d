# SPDX-License-Identifier: MIT
"""What the tests of the front doors share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients import Servers
from tests.support.told_engine import FakeEngine
from trit.run import completion


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine(tmp_path)
    monkeypatch.setattr(completion, "engine_binary", lambda name: fake.program)
    monkeypatch.setenv("ENGINE_PLAN", str(fake.plan_file))
    return fake


@pytest.fixture(scope="session")
def chat_servers(engine_bin: Path) -> Iterator[Servers]:
    """Servers with a real chat model."""
    assert engine_bin.is_dir()
    with ExitStack() as stack:
        yield Servers(stack)
