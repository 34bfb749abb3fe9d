# SPDX-License-Identifier: MIT
"""A disk that is full, and one that cannot be written: real ones, in memory, where this system lets us mount them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.library.test_pull import trit
from tests.support.foreign_files import write_gguf
from tests.support.hub_server import HubServer, Repo
from tests.support.tiny_gguf import KEYS, tiny_gguf
from tests.support.told_engine import FakeEngine
from trit.gguf.encodings import ENCODINGS
from trit.library.store import Store

Mount = Callable[..., None]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mount]:
    """Mount the store's folder with options of mount; again with others."""
    folder = tmp_path / "home"
    folder.mkdir()
    mounted = False

    def mount(options: str) -> None:
        nonlocal mounted
        again = "remount," if mounted else ""
        command = ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this system lets nobody mount a tmpfs here")
        mounted = True

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def large(hub: HubServer, tmp_path: Path) -> bytes:
    """org/model has more bytes than a small disk."""
    row, rows, columns = ENCODINGS["i2_s"], 32768, 256
    matrix = ("blk.0.attn_q.weight", (columns, rows), row.ggml_type, bytes(row.nbytes(rows, columns)))
    content = write_gguf(tmp_path / "large.gguf", KEYS, [matrix]).read_bytes()
    hub.repos["org/model"] = Repo({"Model-i2_s.gguf": content})
    return content


def test_a_disk_that_fills_up_leaves_no_model_and_the_next_pull_carries_on(
    hub: HubServer,
    large: bytes,
    store: Store,
    disk: Mount,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    disk("size=1m")
    said = trit(capfd, "pull", "org/model")
    assert said.code == 2 and "of disk" in said.err and store.entries() == [], "known before anything comes"
    with monkeypatch.context() as patch:
        # Somebody else fills it while the download runs.
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 40))
        said = trit(capfd, "pull", "org/model")
    (line,) = [line for line in said.err.splitlines() if line.startswith("error:")]
    assert said.code == 1 and "Model-i2_s.gguf" in line and "cannot be written: the disk is full" in line
    assert "network" not in line, "the Hub has done nothing wrong"
    assert store.entries() == [] and not list((store.folder / "names").glob("*"))
    disk("size=8m")
    hub.requests.clear()
    assert trit(capfd, "pull", "org/model").code == 0
    assert str(hub.ranges("/storage/")[0]).startswith("bytes=") and hub.ranges("/storage/")[0] != "bytes=0-"
    entry = store.read("org/model")
    assert entry is not None and store.path(entry).read_bytes() == large and store.damaged(entry) == []


def test_a_store_that_cannot_be_written_is_read(
    hub: HubServer, store: Store, disk: Mount, engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    disk("size=8m")
    hub.repos["org/model"] = Repo({"Model-i2_s.gguf": tiny_gguf("i2_s")})
    assert trit(capfd, "pull", "org/model").code == 0
    disk("ro")
    assert trit(capfd, "run", "org/model", "x") == (0, "An answer.\n", "")
    assert trit(capfd, "list").code == trit(capfd, "show", "org/model", "--check").code == trit(capfd, "ps").code == 0
    for words in (("pull", "org/model"), ("rm", "org/model"), ("run", "org/other", "x")):
        said = trit(capfd, *words)
        assert said.code == 2 and said.err.count("\n") == 1, said.err
        assert "no models can be kept here (Read-only file system); allow it, or name another folder" in said.err
