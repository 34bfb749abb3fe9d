# SPDX-License-Identifier: MIT
"""Servers for the tests of real clients, and the requests and answers that those share."""

from __future__ import annotations

import importlib
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.real_chat import smollm2
from trit.engine.server import Server

NAME = "smollm2"
CONTEXT = 1024
QUESTION = "What is the capital of France?"
WEATHER = "What is the weather in Paris?"
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
PERSON = "Ann is 30 years old. Who is it?"


def package(name: str) -> Any:
    """A client of requirements-clients.txt; skips where it is not installed, or fails where it is promised to be."""
    if os.environ.get("TRIT_REQUIRE_CLIENTS") == "1":
        return importlib.import_module(name)
    return pytest.importorskip(name)


class Servers:
    """One server that chats and one that gives vectors, both started when they are first asked for.

    Attributes:
        model: the file that both load.
    """

    def __init__(self, stack: ExitStack) -> None:
        self.model: Path = smollm2()
        self._stack = stack
        self._running: dict[str, Server] = {}

    @property
    def chat(self) -> Server:
        return self._start("chat", "--alias", NAME, "--jinja", "--metrics", "-n", "200")

    @property
    def named(self) -> Server:
        """As behind a proxy: it answers the name llm.example, too."""
        return self._start("named", "--alias", NAME, "--jinja", "--allowed-hosts", "llm.example")

    @property
    def vectors(self) -> Server:
        return self._start("vectors", "--alias", NAME, "--embeddings", "--pooling", "mean")

    def _start(self, kind: str, *flags: str) -> Server:
        if kind not in self._running:
            self._running[kind] = self._stack.enter_context(Server(self.model, 2, flags, slots=2, context=CONTEXT))
        return self._running[kind]
