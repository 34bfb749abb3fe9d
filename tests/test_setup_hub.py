# SPDX-License-Identifier: MIT
"""Downloading a model: which files, from a Hub that is a small server here, and what is said when it fails."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from utils.cli import CommandError, TritError, UserError
from utils.setup import hub, model
from utils.setup.context import Setup
from utils.setup.options import parse_options
from utils.setup.progress import StepLine

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "original/model.safetensors": b"the same again",
}
COMMIT = "c" * 40


class FakeHub(BaseHTTPRequestHandler):
    """A Hub with one model, org/model, at one commit."""

    asked: list[str]

    def respond(self) -> tuple[int, bytes, dict[str, str]]:
        path = self.path.split("?")[0]
        self.asked.append(path)
        api = "/api/models/org/model"
        if path in (f"{api}/revision/main", f"{api}/revision/{COMMIT}", api):
            siblings = [{"rfilename": name} for name in FILES]
            return 200, json.dumps({"id": "org/model", "sha": COMMIT, "siblings": siblings}).encode(), {}
        if path.startswith(f"{api}/tree/"):
            entries = [{"type": "file", "path": name, "size": len(data), "oid": "1"} for name, data in FILES.items()]
            return 200, json.dumps(entries).encode(), {}
        name = path.removeprefix(f"/org/model/resolve/{COMMIT}/")
        if name in FILES:
            return 200, FILES[name], {"ETag": hashlib.sha256(FILES[name]).hexdigest(), "X-Repo-Commit": COMMIT}
        return 404, b"{}", {"X-Error-Code": "RevisionNotFound" if path.startswith(api) else "RepoNotFound"}

    def do_GET(self) -> None:
        status, body, headers = self.respond()
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body)), "Content-Type": "application/json"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The paths that the fake Hub was asked for; set-up's own notes go into tmp_path."""
    paths: list[str] = []
    handler = type("Handler", (FakeHub,), {"asked": paths})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(model, "STAMPS", tmp_path / "stamps")
    yield paths
    server.shutdown()


def download(tmp_path: Path, repo: str) -> Setup:
    setup = Setup(parse_options(["-hr", repo, "-md", str(tmp_path / "models"), "-ld", str(tmp_path / "logs")]))
    setup.python = Path(sys.executable)
    with StepLine(1, 1, model.NAME, model.DEED) as line:
        line.done(model.run(setup, line))
    return setup


def test_download_once_of_what_is_needed(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup = download(tmp_path, "org/model")
    folder = tmp_path / "models" / "model"
    assert setup.model_dir == folder
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not any("pytorch_model.bin" in path for path in asked)
    asked.clear()
    download(tmp_path, "org/model")
    assert asked == [], "a second run needs no network"
    assert "org/model is there already" in capsys.readouterr().out
    (folder / "config.json").unlink()
    download(tmp_path, "org/model")
    assert (folder / "config.json").is_file()
    download(tmp_path, f"org/model@{COMMIT}")


def test_what_is_not_there_is_named(asked: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="org/model has no revision v9; check what follows the @"):
        download(tmp_path, "org/model@v9")
    with pytest.raises(UserError, match="org/nothing is not on the Hub, or is private"):
        download(tmp_path, "org/nothing")


def test_no_network(asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TritError, match=r"the Hub did not deliver org/model .*check the network") as error:
        download(tmp_path, "org/model")
    assert not isinstance(error.value, CommandError)


def test_wanted_files() -> None:
    both = ["README.md", "config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "x.gguf"]
    assert hub.wanted_files(both) == ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    assert hub.wanted_files(["ggml-model-i2_s.gguf", "other.gguf"]) == ["ggml-model-i2_s.gguf"]
    with pytest.raises(UserError, match="neither safetensors nor"):
        hub.wanted_files(["pytorch_model.bin", "original/model.safetensors"])


def test_main_prints_what_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub
    from huggingface_hub.hf_api import ModelInfo

    info = ModelInfo(id="org/model", sha=COMMIT, siblings=[{"rfilename": name} for name in FILES])
    calls: list[dict[str, object]] = []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, repo, revision: info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **options: calls.append(options))
    assert hub.main(["org/model", "--to", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["got config.json", "got model.safetensors", "got tokenizer.json"]
    assert calls[0]["revision"] == COMMIT

    def fail(self: object, repo: str, revision: str) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(TritError, match=r"did not deliver org/model \(connection refused\)"):
        hub.main(["org/model", "--to", str(tmp_path)])
