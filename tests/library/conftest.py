# SPDX-License-Identifier: MIT
"""What the tests of models by name share: a Hub, a store of their own, and no engine unless a test wants it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.hub.test_hub import point_to
from tests.support.hub_server import HubServer, Repo
from tests.support.told_engine import FakeEngine
from trit.base import by_name
from trit.base.flags import call_flags
from trit.base.progress import StepLine
from trit.library import commands, find, pull
from trit.library.store import Store
from trit.run import completion


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """An empty store, where TRIT_HOME says; this checkout has no models."""
    monkeypatch.setenv("TRIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(by_name, "_finders", [])
    for module in (find, commands):
        monkeypatch.setattr(module, "MODELS_DIR", tmp_path / "no models")
    return Store()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store) -> Iterator[HubServer]:
    """A Hub that is asked in this process; what is pulled is not tuned for. test_pull_processes.py has the rest."""
    monkeypatch.setattr(pull, "engine_program", lambda name: tmp_path / "no engine")
    monkeypatch.setattr(pull, "call_tool", call_here)
    with HubServer() as server:
        server.repos["org/model"] = Repo({})
        point_to(monkeypatch, server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("TRIT_HUB_BACKOFF_S", "0.01")
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield server


def call_here(
    run: object, python: Path, line: StepLine, function: str, arguments: Mapping[str, Any], flags: Mapping[str, str]
) -> dict[str, Any]:
    """As trit.base.tool.call_tool, without the second that another Python takes to import everything."""
    module, _, name = function.partition(":")

    def tell(note: str) -> None:
        with redirect_stdout(sys.stderr):
            line.note(note)

    call_flags(flags)
    try:
        with redirect_stdout(StringIO()):
            result = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)), tell=tell)
    finally:
        call_flags({})
    found: dict[str, Any] = json.loads(json.dumps(result))
    return found


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEngine:
    """A program in the place of the engine that answers."""
    fake = FakeEngine(tmp_path)
    monkeypatch.setattr(completion, "engine_binary", lambda name: fake.program)
    monkeypatch.setattr(find, "engine_binary", lambda name: fake.program)
    monkeypatch.setenv("ENGINE_PLAN", str(fake.plan_file))
    return fake
