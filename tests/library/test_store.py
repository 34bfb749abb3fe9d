# SPDX-License-Identifier: MIT
"""The store: each file once, nothing half there, damage found, locks that end with who holds them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trit.base.errors import UserError, run_main
from trit.base.places import ROOT
from trit.library import store as store_module
from trit.library.store import Entry, Kept, Store, key_of, now, sha256_of


def keep(store: Store, name: str, **contents: bytes) -> Entry:
    """Keep files as a pull does; ``a__gguf`` is a.gguf."""
    work = store.work(name)
    work.mkdir(parents=True)
    files = {}
    for file, content in contents.items():
        path = work / file.replace("__", ".")
        path.write_bytes(content)
        files[path.name] = path
    kept = {file: Kept(path.stat().st_size, sha256_of(path), 0) for file, path in files.items()}
    with store.locked(name):
        return store.add(Entry(name, "c" * 40, "i2_s", None, now(), kept), files)


def files_of(store: Store) -> set[str]:
    """Everything in the store but locks."""
    found = (path.relative_to(store.folder) for path in store.folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.parts[0] != "locks"}


def change(path: Path, **status: int) -> None:
    """Change the last byte; what else is said of the file stays as it was."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, status.get("mtime_ns", before.st_mtime_ns)))


def test_a_file_is_kept_once_and_freed_with_its_last_name(store: Store) -> None:
    first = keep(store, "org/One", m__gguf=b"shared", x__gguf=b"own")
    second = keep(store, "org/Two@v1", other__gguf=b"shared")
    blobs = {path.name for path in (store.folder / "blobs").iterdir()}
    assert len(blobs) == 2 and not store.work("org/One").exists()
    assert store.path(first).read_bytes() == store.path(second).read_bytes() == b"shared"
    assert store.path(first).samefile(store.path(second)), "one file on the disk, of two names"
    assert [entry.name for entry in store.entries()] == ["org/One", "org/Two@v1"]
    assert first.size == 9 and store.read("ORG/one") == first, "the Hub tells no cases of letters apart"
    assert store.forget("org/One") == 3, "the file that nothing else needs"
    assert store.read("org/One") is None and store.path(second).read_bytes() == b"shared"
    assert store.forget("org/Two@v1") == 6
    assert files_of(store) == set()


def test_what_a_newer_version_lacks_goes(store: Store) -> None:
    keep(store, "org/m", a__gguf=b"1", b__gguf=b"2")
    entry = keep(store, "org/m", b__gguf=b"3")
    assert {path.name for path in store.path(entry).parent.iterdir()} == {"b.gguf"}
    assert store.path(entry).read_bytes() == b"3" and len(list((store.folder / "blobs").iterdir())) == 1


def test_a_start_sees_other_sizes_and_times_and_a_check_sees_every_byte(store: Store) -> None:
    entry = keep(store, "org/m", a__gguf=b"first", b__gguf=b"second")
    assert store.is_fresh(entry) and store.damaged(entry) == []
    change(store.path(entry, "b.gguf"))
    assert store.is_fresh(entry), "the same size and time: only reading it tells"
    assert store.damaged(entry) == ["b.gguf"]
    change(store.path(entry, "b.gguf"), mtime_ns=5)
    assert not store.is_fresh(entry) and store.damaged(entry) == [], "touched, and the same again"
    assert store.is_fresh(store.stamp(entry)) and store.is_fresh(store.read("org/m") or entry)
    store.path(entry, "a.gguf").unlink()
    assert not store.is_fresh(entry) and store.damaged(entry) == ["a.gguf"]


def test_a_damaged_blob_is_no_reason_to_drop_a_good_file(store: Store) -> None:
    entry = keep(store, "org/m", a__gguf=b"content")
    change(store.path(entry))
    again = keep(store, "org/m", a__gguf=b"content")
    assert store.path(again).read_bytes() == b"content" and store.damaged(again) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        {"files": {}},
        {"files": {"../a": {"size": 1, "sha256": "0" * 64, "mtime_ns": 1}}},
        {"files": {"a/b": {"size": 1, "sha256": "0" * 64, "mtime_ns": 1}}},
        {"files": {"a": {"size": 1, "sha256": "../../x", "mtime_ns": 1}}},
        {"files": {"a": {"size": 1}}},
        {"name": "org/other"},
        {"name": 5},
        {"more": 1},
    ],
)
def test_a_manifest_that_cannot_be_one_is_none(store: Store, content: bytes | dict[str, object]) -> None:
    keep(store, "org/m", a__gguf=b"1")
    path = store.folder / "manifests" / "org--m.json"
    if isinstance(content, dict):
        content = json.dumps({**json.loads(path.read_text()), **content}).encode()
    path.write_bytes(content)
    assert store.read("org/m") is None and store.entries() == []
    assert store.read("org/m") is None and keep(store, "org/m", a__gguf=b"1") == store.read("org/m")


def test_copies_where_there_are_no_links(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(store_module.os, "link", no_links)
    entry = keep(store, "org/m", a__gguf=b"content")
    assert store.path(entry).read_bytes() == b"content" and store.is_fresh(entry)


def test_a_full_disk_leaves_nothing_under_a_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "link", full)
        patch.setattr(shutil, "copyfile", full)
        assert run_main(lambda argv: keep(store, "org/m", a__gguf=b"content") and 0) == 1
    line = capsys.readouterr().err
    assert "a.gguf cannot be written: the disk is full" in line and line.count("\n") == 1
    assert store.read("org/m") is None and store.entries() == []
    shutil.rmtree(store.work("org/m"))
    assert store.damaged(keep(store, "org/m", a__gguf=b"content")) == []


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TRIT_HOME", str(tmp_path / "file"))
    store = Store()
    assert store.entries() == [] and store.read("org/m") is None, "reading needs nothing"
    with pytest.raises(UserError, match=r"no models can be kept here \(.*\); allow it, or name .* TRIT_HOME"):
        keep_nothing(store)


def keep_nothing(store: Store) -> None:
    with store.locked("org/m"):
        pytest.fail("there is no place for a lock")


def test_a_lock_ends_with_its_holder(store: Store) -> None:
    code = (
        "import time; from trit.library.store import Store\n"
        "with Store().locked('org/m'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"org/m is being fetched by process {other.pid}"), store.locked("org/m"):
            pass
        with store.locked("org/other"):
            pass
        told: list[str] = []

        def end(owner: str) -> None:
            told.append(owner)
            other.kill()

        with store.locked("org/m", end):
            assert told == [str(other.pid)]
    with store.locked("org/m"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
def test_a_file_system_without_locks_is_an_error_and_no_endless_wait(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    assert run_main(lambda argv: keep(store, "org/m", a__gguf=b"1") and 0) == 1
    assert "org--m.lock: No locks available" in capsys.readouterr().err


def test_keys_are_names_of_files_and_tell_names_apart() -> None:
    names = ["org/m", "org/m@v1", "org/m@refs/pr/1", "Org/n", "/data/org/m", "/other/org/m", "/data/Mod\u00e8le: 1"]
    keys = [key_of(name) for name in names]
    assert len(set(keys)) == len(names) and key_of("org/N") == key_of("ORG/n")
    assert all("/" not in key and ":" not in key and key != "store" for key in keys)
