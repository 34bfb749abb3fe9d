# SPDX-License-Identifier: MIT
"""A model's file that is written to while it is served: told by every answer, instead of nonsense."""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from trit.engine.server import Server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be written to there")
QUESTION = {"prompt": "Where is Mary?", "n_predict": 4, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "Mary"}], "max_tokens": 2}


@pytest.fixture
def model(story_gguf: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(story_gguf, tmp_path / "served.gguf"))


@pytest.fixture
def server(engine_bin: Path, model: Path) -> Iterator[Server]:
    with Server(model, 1, slots=1) as running:
        assert running.post("/completion", QUESTION)["content"]
        yield running


def asked(server: Server, path: str, body: object = None) -> tuple[int, str]:
    """Status and sentence of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, str(json.loads(error.read())["error"]["message"])


def overwrite(model: Path) -> None:
    with model.open("rb+") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))


def grow(model: Path) -> None:
    with model.open("ab") as file:
        file.write(b"more")


def write_again(model: Path) -> None:
    data = model.read_bytes()
    model.write_bytes(data)


@pytest.mark.parametrize("change", [overwrite, grow, write_again])
def test_a_file_that_is_written_to_is_told(server: Server, model: Path, change: object) -> None:
    change(model)  # type: ignore[operator]
    for path, body in (
        ("/completion", QUESTION),
        ("/v1/chat/completions", CHAT),
        ("/health", None),
        ("/v1/models", None),
    ):
        status, said = asked(server, path, body)
        assert status == 503, path
        assert said.startswith("the model's file served.gguf was written to") and "start the server again" in said
        assert str(model.parent) not in said


def test_a_new_file_under_the_name_is_another(server: Server, model: Path, tmp_path: Path) -> None:
    before = asked(server, "/completion", QUESTION)
    other = tmp_path / "other"
    other.write_bytes(bytes(5000))
    other.rename(model)
    status, said = asked(server, "/completion", QUESTION)
    assert (status, json.loads(said)["content"]) == (200, json.loads(before[1])["content"])
    model.unlink()
    assert asked(server, "/health")[0] == 200


def test_looking_at_a_file_changes_nothing(server: Server, model: Path) -> None:
    model.chmod(0o600)
    os.link(model, model.with_name("linked.gguf"))
    assert model.read_bytes()[:4] == b"GGUF"
    assert asked(server, "/completion", QUESTION)[0] == 200


def test_a_copy_in_memory_is_none_of_its_business(engine_bin: Path, model: Path) -> None:
    with Server(model, 1, ["--load-mode", "none"], slots=1) as server:
        overwrite(model)
        assert asked(server, "/completion", QUESTION)[0] == 200
