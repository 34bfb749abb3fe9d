# SPDX-License-Identifier: MIT
"""The command ``trit`` in processes of its own, with the engine that set-up made: conversion, Ctrl-C, two at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub_server import Fault, HubServer, Repo
from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT, ROOT, gguf_path
from trit.library.store import Store

TRIT = (sys.executable, "-m", "trit")
CHECKPOINT = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
STORED = "/storage/org/story/model.safetensors"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine_bin: Path, store: Store) -> Iterator[HubServer]:
    """A Hub with the bundled model as a checkpoint, for processes that the environment points to it."""
    with HubServer() as server:
        server.repos["org/story"] = Repo({name: (BUNDLED_MODEL / name).read_bytes() for name in CHECKPOINT})
        ready = gguf_path(BUNDLED_MODEL).read_bytes()
        server.repos["org/ready"] = Repo({"ready-i2_s.gguf": ready})
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("TRIT_HUB_BACKOFF_S", "0.01")
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        yield server


def trit(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TRIT, *words], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def start(*words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*TRIT, *words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)


def test_a_checkpoint_is_converted_and_answers(served: HubServer, store: Store, tmp_path: Path) -> None:
    """From a folder of another place: set-up's checkout is not where the command is given."""
    pulled = trit("pull", "org/story", "-q", "tl1", "--tune-seconds", "0", "--json")
    assert pulled.returncode == 0, pulled.stderr
    facts = json.loads(pulled.stdout)
    assert (facts["encoding"], list(facts["files"])) == ("tl1", ["ggml-model-tl1.gguf"])
    assert [line.split()[1] for line in pulled.stderr.splitlines()] == ["download", "check", "tuning", "conversion"]
    assert not store.work("org/story").exists(), "the checkpoint is not kept"
    answer = trit("run", "org/story", DEMO_PROMPT, "-n", "6", "-temp", "0")
    assert (answer.returncode, answer.stdout.strip()) == (0, "Mary is in the garden."), answer.stderr
    outfile = tmp_path / "again.gguf"
    assert trit("convert", "org/story", "--outtype", "i2_s", "--outfile", str(outfile)).returncode == 0
    assert outfile.stat().st_size > 1_000_000 and len(list(store.path(store.entries()[0]).parent.iterdir())) == 2
    assert json.loads(trit("inspect", "story", "--json", "--no-speed").stdout)["path"] == facts["path"]


def test_a_folder_is_converted_into_the_store_and_again_when_it_changes(
    served: HubServer, store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in CHECKPOINT:
        (folder / name).write_bytes((BUNDLED_MODEL / name).read_bytes())
    # Without it the model is asked about nobody.
    template = "{% for m in messages %}Mary went to the garden. {{ m['content'] }} {% endfor %}Where is Mary?\nAnswer:"
    (folder / "chat_template.jinja").write_text(template)
    assert trit("pull", str(folder), "--tune-seconds", "0").returncode == 0
    first = store.read(str(folder))
    assert first is not None and {path.name for path in folder.iterdir()} == {*CHECKPOINT, "chat_template.jinja"}
    answer = trit("run", str(folder), "John went to the hall.", "-temp", "0")
    assert (answer.returncode, answer.stdout) == (0, "Mary is in the garden.\n"), answer.stderr
    assert json.loads(trit("pull", str(folder), "--json").stdout)["fetched_now"] is False
    (folder / "model.safetensors").touch()
    assert json.loads(trit("pull", str(folder), "--tune-seconds", "0", "--json").stdout)["fetched_now"] is True
    again = store.read(str(folder))
    assert again is not None and again.files.keys() == first.files.keys() and again.commit != first.commit


def test_of_two_pulls_of_one_name_the_second_waits(served: HubServer, store: Store) -> None:
    served.faults = [Fault("/storage/", cut=100_000, hang=True)]
    first = start("pull", "org/ready", "--tune-seconds", "0")
    _until(lambda: _downloaded(store, "org/ready") >= 100_000)
    second = start("pull", "org/ready", "--tune-seconds", "0", "--json")
    assert second.stderr is not None
    assert f"process {first.pid} is fetching org/ready: waiting for it" in second.stderr.readline()
    assert second.poll() is None
    # Killed outright, so that nothing of it tidies up; its download ends, too, as soon as it has something to say.
    first.kill()
    served.closing.set()
    out, err = second.communicate(timeout=120)
    first.communicate(timeout=60)
    assert second.returncode == 0, err
    assert json.loads(out)["fetched_now"] is True
    entry = store.read("org/ready")
    assert entry is not None and store.damaged(entry) == []
    assert len([name for name in served.ranges("/storage/") if name is None]) <= 1, "it carried on"


def test_two_at_once_fetch_once(served: HubServer, store: Store) -> None:
    both = [start("pull", "org/ready", "--tune-seconds", "0", "--json") for _ in range(2)]
    said = [one.communicate(timeout=180) for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert sorted(json.loads(out)["fetched_now"] for out, _ in said) == [False, True]
    assert len(list((store.folder / "blobs").iterdir())) == 1


def test_ctrl_c_in_the_middle_and_again(served: HubServer, store: Store) -> None:
    served.faults = [Fault(STORED, cut=200_000, hang=True)]
    running = start("run", "org/story", DEMO_PROMPT, "-n", "6", "-temp", "0")
    _until(lambda: _downloaded(store, "org/story") >= 200_000)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert "stopped; give the same command again and it carries on where it was" in err and "Traceback" not in err
    assert store.entries() == []
    served.requests.clear()
    again = trit("pull", "org/story", "-q", "i2_s", "--tune-seconds", "0")
    assert again.returncode == 0, again.stderr
    assert served.ranges(STORED) == ["bytes=200000-"]
    entry = store.read("org/story")
    assert entry is not None and store.damaged(entry) == [] and not store.work("org/story").exists()


def test_a_server_is_shown_and_its_model_stays(served: HubServer, store: Store) -> None:
    assert trit("pull", "org/ready", "--tune-seconds", "0").returncode == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start("serve", "org/ready", "--port", str(port), "-t", "1")
    try:
        _until(lambda: bool(json.loads(trit("ps", "--json").stdout)))
        (shown,) = json.loads(trit("ps", "--json").stdout)
        assert (shown["pid"], shown["kind"], shown["name"]) == (server.pid, "server", "org/ready")
        assert shown["address"] == f"127.0.0.1:{port}"
        table = trit("ps").stdout.splitlines()
        assert table[0].split() == ["PROCESS", "KIND", "MODEL", "ADDRESS", "MEMORY", "SINCE"] and len(table) == 2
        refused = trit("rm", "org/ready")
        assert refused.returncode == 2 and f"in use by process {server.pid}, a server; end that first" in refused.stderr
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert json.loads(trit("ps", "--json").stdout) == []
    assert trit("rm", "org/ready").returncode == 0 and store.entries() == []


def test_a_file_needs_no_package(engine_bin: Path, store: Store) -> None:
    """Neither numpy nor the Hub's client is imported where the model is at hand."""
    code = (
        "import sys; from trit import cli; from trit.run import completion\n"
        "completion.engine_command = lambda *given: sys.exit(print(sorted({name.partition('.')[0] for name in "
        "sys.modules} & {'numpy', 'huggingface_hub', 'gguf', 'httpx', 'yaml', 'tqdm'})))\n"
        f"cli.main(['run', {str(gguf_path(BUNDLED_MODEL))!r}, 'x'])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def _downloaded(store: Store, name: str) -> int:
    return sum(path.stat().st_size for path in store.work(name).glob(".*.download"))


def _until(true: object, seconds: float = 120) -> None:
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


assert os.name == "posix" or pytest.skip("signals", allow_module_level=True)
