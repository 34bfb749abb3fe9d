# SPDX-License-Identifier: MIT
"""The models of this user, shared by all checkouts. Standard library only.

Below ``store`` in :func:`trit.base.places.home`::

    blobs/sha256-...        each file once, by its content
    names/KEY/FILE          the same files by the names that the engine and people want: hard links
    manifests/KEY.json      what a name has; written last, so what it says is there
    work/KEY/               a download or conversion under way; the next one carries on
    checkpoints/KEY/        what a command such as `trit verify` has fetched to read it; not converted
    locks/KEY.lock          held while a name is filled, locks/store.lock while blobs come and go

A start compares sizes and times with the manifest and reads nothing else; ``damaged`` reads it all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from trit.base.errors import TritError, UserError
from trit.base.files import atomic_output, check_input, names_file, stays_inside
from trit.base.lock import take
from trit.base.places import home

_MOST_BYTES = 1 << 20  # of a manifest
_BLOCK = 1 << 20
_POLL_S = 0.2
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Kept:
    """A file of a model: bytes, hash of the content, and the time that it had when it was hashed."""

    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class Entry:
    """What a name has.

    Attributes:
        name: ``ORG/NAME``, ``ORG/NAME@REVISION``, or the path of a folder.
        commit: of the repository; of a folder a hash over what was in it.
        encoding: of most ternary weights.
        wanted: the encoding that was asked for; None: whatever is fastest, or there.
        fetched: when, in UTC.
        files: name -> file; the first is the model, or its first part.
    """

    name: str
    commit: str
    encoding: str
    wanted: str | None
    fetched: str
    files: Mapping[str, Kept]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def now() -> str:
    """The time for a manifest."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def key_of(name: str) -> str:
    """What a name is called in the store: a file's name everywhere, and one for all cases of letters."""
    if Path(name).is_absolute():
        plain = re.sub(r"[^\w.-]", "-", Path(name).name.lower())
        return f"@{plain}--{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return name.lower().replace("/", "--")


def sha256_of(path: Path) -> str:
    """The hash of a file."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


class Store:
    """The folder with everything in it; nothing is made before something is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home() / "store"

    def work(self, name: str) -> Path:
        """Where a name's download is under way."""
        return self.folder / "work" / key_of(name)

    def checkpoint(self, name: str) -> Path:
        """Where a name's checkpoint is, if one was asked for."""
        return self.folder / "checkpoints" / key_of(name)

    def log(self, name: str) -> Path:
        """What the steps of filling a name have printed."""
        return self.folder / "logs" / f"{key_of(name)}.log"

    def path(self, entry: Entry, file: str | None = None) -> Path:
        """Where a file of a model is; without a name: the model's."""
        return self._view(entry.name) / (file or next(iter(entry.files)))

    def read(self, name: str) -> Entry | None:
        """What is kept under a name; None: nothing, or what cannot be read."""
        return _read(self._manifest(name))

    def entries(self) -> list[Entry]:
        """Everything that is kept, by name."""
        found = map(_read, (self.folder / "manifests").glob("*.json"))
        return sorted((entry for entry in found if entry), key=lambda entry: entry.name.lower())

    def is_fresh(self, entry: Entry) -> bool:
        """Whether every file is there with the size and time that it had: quick, so each start asks it."""
        for name, kept in entry.files.items():
            try:
                status = self.path(entry, name).stat()
            except OSError:
                return False
            if (status.st_size, status.st_mtime_ns) != (kept.size, kept.mtime_ns):
                return False
        return True

    def damaged(self, entry: Entry) -> list[str]:
        """The files whose content is not what it was; all of them are read."""
        bad = []
        for name, kept in entry.files.items():
            path = self.path(entry, name)
            if not path.is_file() or path.stat().st_size != kept.size or sha256_of(path) != kept.sha256:
                bad.append(name)
        return bad

    def used(self, entry: Entry) -> datetime:
        """When a model was last asked for."""
        return datetime.fromtimestamp(self._manifest(entry.name).stat().st_mtime, timezone.utc)

    def touch(self, entry: Entry) -> None:
        """Note that it is used now; a store that cannot be written stays as it is."""
        with suppress(OSError):
            os.utime(self._manifest(entry.name))

    def stamp(self, entry: Entry) -> Entry:
        """Note the times that the files have now: they were read and are right."""
        times = {name: self.path(entry, name).stat().st_mtime_ns for name in entry.files}
        files = {name: Kept(kept.size, kept.sha256, times[name]) for name, kept in entry.files.items()}
        return self._write(Entry(entry.name, entry.commit, entry.encoding, entry.wanted, entry.fetched, files))

    @contextmanager
    def locked(self, name: str, wait: Callable[[str], None] | None = None) -> Iterator[tuple[int, ...]]:
        """Hold the lock of a name; yields the descriptors that started programs should inherit.

        Args:
            name: whose.
            wait: told once who has it, before we wait; None: do not wait.

        Raises:
            UserError: somebody has it and we do not wait, or nothing can be written here.
        """
        path = self.folder / "locks" / f"{key_of(name)}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="ascii")
        except OSError as error:
            raise UserError(
                f"{self.folder}: no models can be kept here ({error.strerror}); allow it, or name another folder in "
                "the variable TRIT_HOME"
            ) from error
        with file:
            told = False
            # Only around taking it: what fails while it is held has a name of its own.
            with names_file(path):
                while not take(file):
                    file.seek(0)
                    owner = file.read().strip() or "another"
                    if wait is None:
                        raise UserError(f"{name} is being fetched by process {owner}; wait for it or stop it")
                    if not told:
                        wait(owner)
                        told = True
                    time.sleep(_POLL_S)
                file.seek(0)
                file.truncate()
                os.write(file.fileno(), str(os.getpid()).encode())
            try:
                yield () if os.name == "nt" else (file.fileno(),)
            finally:
                with suppress(OSError):
                    file.truncate(0)

    def add(self, entry: Entry, files: Mapping[str, Path]) -> Entry:
        """Take files over, which are moved here, and keep them under the entry's name; the entry with their times.

        Args:
            entry: what they are; the name's lock is held.
            files: name -> where it is now, of every file of the entry.
        """
        view = self._view(entry.name)
        with self.locked(_STORE, lambda owner: None):
            for name, kept in entry.files.items():
                blob = self._blob(kept.sha256)
                blob.parent.mkdir(parents=True, exist_ok=True)
                if blob.is_file() and blob.stat().st_size == kept.size and sha256_of(blob) == kept.sha256:
                    files[name].unlink()
                else:
                    files[name].replace(blob)
                view.mkdir(parents=True, exist_ok=True)
                _link(blob, view / name)
            added = self.stamp(entry)
            for other in view.iterdir():
                if other.name not in entry.files:
                    other.unlink()
            self._collect()
        shutil.rmtree(self.work(entry.name), ignore_errors=True)
        return added

    def forget(self, name: str) -> int:
        """Delete a name, what is under way for it, and the files that no other name needs; the bytes that are free now.

        The name's lock is held.
        """
        folders = (self.work(name), self.checkpoint(name))
        freed = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
        with self.locked(_STORE, lambda owner: None):
            self._manifest(name).unlink(missing_ok=True)
            for folder in (self._view(name), *folders):
                try:
                    shutil.rmtree(folder)
                except FileNotFoundError:
                    pass
                except OSError as error:
                    raise TritError(f"{error.filename}: cannot be deleted ({error.strerror}); is it in use?") from error
            self.log(name).unlink(missing_ok=True)
            return freed + self._collect()

    def _collect(self) -> int:
        """Delete the blobs that no manifest names; their bytes. The store's lock is held."""
        needed = {self._blob(file.sha256) for entry in self.entries() for file in entry.files.values()}
        freed = 0
        for blob in (self.folder / "blobs").glob("*"):
            if blob not in needed:
                freed += blob.stat().st_size
                blob.unlink()
        return freed

    def _write(self, entry: Entry) -> Entry:
        with atomic_output(self._manifest(entry.name)) as partial:
            partial.write_text(json.dumps(asdict(entry), indent=1) + "\n", encoding="utf-8")
        return entry

    def _manifest(self, name: str) -> Path:
        return self.folder / "manifests" / f"{key_of(name)}.json"

    def _view(self, name: str) -> Path:
        return self.folder / "names" / key_of(name)

    def _blob(self, sha256: str) -> Path:
        return self.folder / "blobs" / f"sha256-{sha256}"


# No model's key: each has two parts.
_STORE = "store"


def _link(blob: Path, path: Path) -> None:
    """Give a file another name; a copy where the file system has no links."""
    with atomic_output(path) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(blob, partial)
        except OSError:
            shutil.copyfile(blob, partial)


def _read(path: Path) -> Entry | None:
    """A manifest; None if there is none, or if it cannot be one."""
    try:
        check_input(path, _MOST_BYTES)
        values = json.loads(path.read_text(encoding="utf-8"))
        files = {name: Kept(**file) for name, file in values.pop("files").items()}
        entry = Entry(**values, files=files)
        texts = (entry.name, entry.commit, entry.encoding, entry.fetched)
        good = all(isinstance(text, str) for text in texts) and f"{key_of(entry.name)}.json" == path.name
        sound = all(stays_inside(name) and "/" not in name and _SHA256.fullmatch(f.sha256) for name, f in files.items())
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return entry if files and good and sound else None
