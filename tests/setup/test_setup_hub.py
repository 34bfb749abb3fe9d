# SPDX-License-Identifier: MIT
"""``setup_env.py -hr``: the model step with the real client in a process of its own, and what follows it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.foreign_files import rewrite
from tests.support.hub_server import COMMIT, Fault, HubServer, Repo
from tests.support.tiny_gguf import tiny_gguf
from trit.base.errors import CommandError, TritError, UserError
from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT, ROOT, gguf_path
from trit.base.progress import StepLine
from trit.gguf.header import read_raw_header
from trit.gguf.made import default_model
from trit.setup import answer, conversion, model
from trit.setup.context import Setup
from trit.setup.options import parse_options

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}", "pytorch_model.bin": b"pickle"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub that the environment points to, as a user's HF_ENDPOINT would."""
    with HubServer() as server:
        server.repos["org/model"] = Repo(dict(FILES))
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("TRIT_HUB_BACKOFF_S", "0.01")
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        # What these repositories hold is no model.
        monkeypatch.setattr(model, "inspect_model", lambda setup, line: None)
        yield server


def download(tmp_path: Path, repo: str, *flags: str) -> Setup:
    arguments = ["-hr", repo, "-md", str(tmp_path / "models"), "-ld", str(tmp_path / "logs"), *flags]
    setup = Setup(parse_options(arguments))
    setup.python = Path(sys.executable)
    with StepLine(1, 1, model.NAME, model.DEED) as line:
        line.done(model.run(setup, line))
    return setup


def test_download_once_of_what_is_needed(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.repos["org/model"].private = True
    hub.faults = [Fault("/storage/", cut=3), Fault("/api/models/", status=503)]
    setup = download(tmp_path, "org/model")
    folder = tmp_path / "models" / "model"
    assert setup.model_dir == folder and setup.known is None
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "trit-source.json"}
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert hub.ranges("/storage/") == [None, "bytes=3-"]
    hub.requests.clear()
    download(tmp_path, "org/model")
    assert hub.requests == [], "a second run needs no network"
    assert "org/model is there already" in capsys.readouterr().out
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    download(tmp_path, "org/model")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        download(tmp_path, "org/other")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (folder / "config.json").unlink()
    download(tmp_path, "org/model")
    assert (folder / "config.json").is_file()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_download_that_was_stopped_goes_on_from_its_last_byte(
    hub: HubServer, tmp_path: Path, number: signal.Signals
) -> None:
    weights = bytes(range(256)) * 4000
    hub.repos["org/model"].files["model.safetensors"] = weights
    hub.faults = [Fault("/storage/", cut=640_000, hang=True)]
    folder = tmp_path / "models" / "model"
    process = subprocess.Popen([sys.executable, "-m", "trit.hub", "org/model", "--to", str(folder)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size for path in folder.glob(".model.safetensors.*")) < 640_000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=30) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert not (folder / "model.safetensors").exists()
    hub.requests.clear()
    download(tmp_path, "org/model")
    assert hub.ranges("/storage/") == ["bytes=640000-"]
    assert (folder / "model.safetensors").read_bytes() == weights
    assert not list(folder.glob(".*"))


def test_failures_are_one_sentence(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="org/model has no revision v9; check what follows the @"):
        download(tmp_path, "org/model@v9")
    with pytest.raises(UserError, match=r"is private.*\(did you mean microsoft/BitNet-b1\.58-2B-4T.*\?\)"):
        download(tmp_path, "microsoft/BitNet-b158-2B-4T")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        TritError, match=r"the Hub at http://127.0.0.1:9 did not deliver org/model .*check the network"
    ) as error:
        download(tmp_path, "org/model")
    assert not isinstance(error.value, (CommandError, UserError))


def test_known_models_go_by_their_short_names(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repos["1bitLLM/bitnet_b1_58-large"] = Repo(dict(FILES))
    setup = download(tmp_path, "BitNet_b1_58-large@main")
    assert setup.model_dir == tmp_path / "models" / "bitnet_b1_58-large"
    assert setup.known is not None and setup.known.kind == "base"
    line = "note: bitnet_b1_58-large is a base model: base models continue text, they do not answer"
    assert line in capsys.readouterr().out
    folder = str(setup.model_dir)
    again = Setup(parse_options(["-md", folder, "-ld", str(tmp_path / "logs")]))
    with StepLine(1, 1, model.NAME, model.DEED) as step:
        model.run(again, step)
    assert again.known == setup.known, "the folder says where it came from"
    with pytest.raises(UserError, match=r"or a known name; did you mean .*bitnet_b1_58-large"):
        model.check_options(Setup(parse_options(["-hr", "bitnet_b1_58-larg"])))
    for wrong in ("org/model/more", "org/", "org/model@", "a b/c"):
        with pytest.raises(UserError, match="expected ORG/NAME"):
            model.check_options(Setup(parse_options(["-hr", wrong])))


def test_next_command_for_a_base_and_an_embedding_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(parse_options([]))
    setup.gguf = tmp_path / "m.gguf"
    monkeypatch.setattr(answer, "chat_template", lambda path: "{{ messages }}")
    for kind, chats in (("base", False), ("instruct", True)):
        setup.known = SimpleNamespace(kind=kind)  # type: ignore[assignment]
        assert ("-cnv" in answer.next_arguments(setup)) == chats
    setup.known = SimpleNamespace(kind="embedding")  # type: ignore[assignment]
    with StepLine(1, 1, answer.NAME, answer.DEED) as line:
        assert "not asked" in answer.run(setup, line)
        line.done("")


def test_next_command_names_a_file_that_is_not_the_default() -> None:
    setup = Setup(parse_options([]))
    setup.model_dir = BUNDLED_MODEL
    setup.gguf = default_model()
    assert answer.next_arguments(setup).startswith('-p "')
    setup.gguf = gguf_path(BUNDLED_MODEL, "f16")
    assert answer.next_arguments(setup).startswith("-m models/trit-story-3m/ggml-model-f16.gguf -p ")


@pytest.mark.parametrize("form", ["gguf", "checkpoint", "foreign"])
def test_from_the_hub_to_an_answer(
    hub: HubServer, tmp_path: Path, story_gguf: Path, engine_bin: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """With the bundled model on the Hub: a GGUF with a name of its own, a checkpoint, another engine's GGUF."""
    if form == "checkpoint":
        files = {path.name: path.read_bytes() for path in BUNDLED_MODEL.iterdir() if path.suffix != ".gguf"}
    else:
        source = story_gguf if form == "gguf" else rewrite(story_gguf, tmp_path / "old.gguf", "q2_0_g128")
        files = {f"Story-{'I2_S' if form == 'gguf' else 'Q2_0'}.gguf": source.read_bytes(), "config.json": b"{}"}
    hub.repos["org/story"] = Repo(files)
    monkeypatch.setattr(conversion, "STAMPS", tmp_path / "stamps")
    setup = download(tmp_path, "org/story")
    setup.quant_type = "i2_s"  # what the tuning step might have found
    with StepLine(1, 1, conversion.NAME, conversion.DEED) as line:
        line.done(conversion.run(setup, line))
    names = {"gguf": "Story-I2_S.gguf", "checkpoint": "ggml-model-i2_s.gguf", "foreign": "ggml-model-q2_0.gguf"}
    assert setup.gguf == tmp_path / "models" / "story" / names[form]
    if form != "gguf":
        metadata = read_raw_header(setup.gguf).metadata
        assert (metadata["trit.source.repository"], metadata["trit.source.revision"]) == ("org/story", COMMIT)
    command = [sys.executable, "run_inference.py", "-m", str(setup.gguf), "-p", DEMO_PROMPT, "-n", "6", "-temp", "0"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "Mary is in the garden.", result.stderr
    with StepLine(1, 1, conversion.NAME, conversion.DEED) as line:
        assert conversion.run(setup, line).startswith("up to date" if form != "gguf" else str(setup.gguf))
        line.done("")


def test_which_gguf_of_a_folder_is_the_model(tmp_path: Path) -> None:
    def names(*files: str, quant_type: str | None = "i2_s") -> Path | None:
        folder = tmp_path / "-".join(files)
        folder.mkdir()
        for file in files:
            (folder / file).write_bytes(tiny_gguf("i2_s"))
        return model.ready_made(folder, quant_type)

    found = [
        names("a.gguf"),
        names("a.gguf", "ggml-model-i2_s.gguf"),
        names("b-00001-of-00002.gguf", "b-00002-of-00002.gguf"),
    ]
    assert [path.name if path else None for path in found] == [
        "a.gguf",
        "ggml-model-i2_s.gguf",
        "b-00001-of-00002.gguf",
    ]
    assert names("a.gguf", "b.gguf") is None, "not for us to choose"
    # Whatever "auto" made.
    auto = names("b.gguf", "ggml-model-tl2.gguf", quant_type=None)
    assert auto and auto.name == "ggml-model-tl2.gguf"
    assert names("c.gguf", "ggml-model-tl2.gguf") is None
    assert names("a.gguf", "config.json", "model.safetensors") is None, "a checkpoint is converted"
