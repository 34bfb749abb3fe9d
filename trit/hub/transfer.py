# SPDX-License-Identifier: MIT
"""Download one file: carry on where an earlier try stopped, check the hash, rename when it is whole.

huggingface_hub deletes what it has of a file when it is stopped, so the transfer itself is done here, on its session
(redirects, proxies, tokens, offline mode) and with its errors; always by plain HTTP, which every mirror speaks.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import BinaryIO

from httpx import RemoteProtocolError, Response
from huggingface_hub import constants, get_session, try_to_load_from_cache
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from trit.base.errors import TritError, UserError
from trit.base.files import names_file, stand_in
from trit.base.progress import clock
from trit.hub.failures import not_a_hub, retrying
from trit.hub.listing import RemoteFile
from trit.models.source_note import FetchedFile

_BLOCK = 1 << 20
_REPORT_S = 1.0
# From here on a file in the Hub's cache is linked, not copied: weights, which nothing writes to.
_LINKED_BYTES = 64 << 20


class Progress:
    """Lines of how far all files together are, one a second.

    Args:
        total: bytes of all files.
    """

    def __init__(self, total: int):
        self.total = total
        self._done = 0
        self._fresh = 0
        self._start = self._shown = time.monotonic()

    def add(self, count: int, *, fresh: bool = True) -> None:
        """Count bytes; those that were there before are not fresh and say nothing about the speed."""
        self._done += count
        self._fresh += count if fresh else 0
        now = time.monotonic()
        if fresh and now - self._shown >= _REPORT_S:
            self._shown = now
            speed = self._fresh / (now - self._start)
            left = f", about {clock((self.total - self._done) / speed)} left" if speed > 0 else ""
            done, total = self._done / 1e9, self.total / 1e9
            print(f"downloaded {done:.2f} of {total:.2f} GB, {speed / 1e6:.1f} MB/s{left}", flush=True)


def partial_path(folder: Path, file: RemoteFile) -> Path:
    """Where a file is until it is whole; named after its hash, so that another version never carries on from it."""
    target = folder / file.name
    return target.with_name(f".{target.name}.{file.digest[:16]}.download")


def present_bytes(folder: Path, file: RemoteFile) -> int:
    """Bytes of a file that need not be downloaded any more."""
    for path in (folder / file.name, partial_path(folder, file)):
        if path.is_file():
            return min(path.stat().st_size, file.size)
    return 0


def fetch(file: RemoteFile, folder: Path, progress: Progress, *, ours: bool = True) -> FetchedFile:
    """Get one file into the folder, unless the right one is there.

    Args:
        file: what to get.
        folder: where to.
        progress: told of every byte.
        ours: whether another file of this name was downloaded by us and may be replaced.

    Raises:
        UserError: the user's own file of this name is in the way.
        HfHubHTTPError: the server refuses it.
        TransportError: the connection is lost for good.
        TritError: what came has another size or hash than the Hub says; it is deleted.
    """
    target = folder / file.name
    if target.is_file():
        if sha256 := checked(target, file):
            progress.add(file.size, fresh=False)
            return FetchedFile(file.size, sha256)
        if not ours:
            raise UserError(f"{target} was not downloaded by set-up and differs from the Hub's file; move it away")
    partial = partial_path(folder, file)
    for outdated in target.parent.glob(f".{escape(target.name)}.*.download"):
        if outdated != partial:
            outdated.unlink()
    in_one_piece = _download(file, partial, progress)
    print(f"checking {file.name}", flush=True)
    sha256 = checked(partial, file)
    if sha256 is None and not in_one_piece:
        print(
            f"{file.name}: its beginning, from an earlier answer, is of something else; fetching all of it", flush=True
        )
        partial.unlink()
        progress.add(-file.size, fresh=False)
        _download(file, partial, progress)
        sha256 = checked(partial, file)
    if sha256 is None:
        found = f"{partial.stat().st_size} bytes with another hash"
        partial.unlink()
        raise TritError(
            f"{file.name}: the download does not match the Hub's {_kind(file)} {file.digest} ({found}); "
            "the bad file is deleted, run this again"
        )
    partial.replace(target)
    return FetchedFile(file.size, sha256)


def fetch_head(file: RemoteFile, folder: Path, count: int) -> Path:
    """Have at least the first ``count`` bytes of a file, as the beginning of its download; where they are."""
    target, partial = folder / file.name, partial_path(folder, file)
    if target.is_file() and checked(target, file):
        return target
    count = min(count, file.size)
    if not partial.is_file() or partial.stat().st_size < count:
        _download(file, partial, Progress(count), stop=count)
    return partial


def checked(path: Path, file: RemoteFile) -> str | None:
    """The sha256 of a file if its content is the Hub's, else None."""
    if path.stat().st_size != file.size:
        return None
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            sha256.update(block)
            if _kind(file) == "git hash":
                sha1.update(block)
    same = file.digest in (sha256.hexdigest(), sha1.hexdigest())
    return sha256.hexdigest() if same else None


def take_from_cache(repo: str, commit: str, file: RemoteFile, folder: Path) -> FetchedFile | None:
    """Use a file that the Hub's own cache has (from ``hf download`` or transformers), if it has the right one."""
    cached = try_to_load_from_cache(repo, file.name, revision=commit)
    if not isinstance(cached, str) or (folder / file.name).exists():
        return None
    place_copy(Path(cached), folder / file.name)
    if sha256 := checked(folder / file.name, file):
        return FetchedFile(file.size, sha256)
    (folder / file.name).unlink()
    return None


def place_copy(source: Path, target: Path) -> None:
    """Copy a file, or link it if it is large and the file system can."""
    source = source.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.cache.download")
    partial.unlink(missing_ok=True)
    if source.stat().st_size >= _LINKED_BYTES:
        with suppress(OSError):
            os.link(source, partial)
    if not partial.exists():
        shutil.copyfile(source, partial)
    partial.replace(target)


def _check_answer(file: RemoteFile, response: Response) -> None:
    """Raise UserError for an answer that cannot be the file: a page for a login, an error with status 200."""
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise not_a_hub(f"a web page came in the place of {file.name}")
    whole = response.headers.get("Content-Length" if response.status_code == 200 else "Content-Range", "")
    length = whole.rpartition("/")[2]
    if length.isdecimal() and int(length) != file.size and "Content-Encoding" not in response.headers:
        raise not_a_hub(f"{file.name} has {file.size} bytes there, and {length} came")


def _kind(file: RemoteFile) -> str:
    return "git hash" if len(file.digest) == 40 else "sha256"


def _download(file: RemoteFile, partial: Path, progress: Progress, stop: int | None = None) -> bool:
    """Append to the partial file until it is whole, or has ``stop`` bytes; whether one answer gave all of it."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    with names_file(partial), partial.open("ab") as out:
        progress.add(out.tell(), fresh=False)

        end = file.size if stop is None else stop
        in_one_piece = True

        def carry_on() -> None:
            nonlocal in_one_piece
            start = out.seek(0, os.SEEK_END)
            if start < end:
                with _opened(file, start, stop) as blocks:
                    in_one_piece = _write(blocks, out, start, end, progress) == 0
            else:
                in_one_piece = False

        retrying(carry_on, file.name, progress=lambda: out.seek(0, os.SEEK_END))
        out.flush()
        os.fsync(out.fileno())
    return in_one_piece


def _write(blocks: Iterator[tuple[int, bytes]], out: BinaryIO, start: int, end: int, progress: Progress) -> int:
    """Append blocks up to byte ``end``; the byte from which they are the answer's.

    Raises:
        RemoteProtocolError: they stop before, so that it is tried again.
    """
    for offset, block in blocks:
        if offset == 0 and (reason := stand_in(block)):
            raise not_a_hub(f"it {reason}")
        if offset == 0 and start > 0:
            # The server sent the whole file and not the range: begin anew.
            out.truncate(0)
            progress.add(-start, fresh=False)
            start = 0
        out.write(block)
        progress.add(len(block))
        if offset + len(block) >= end:
            break
    out.flush()
    if out.seek(0, os.SEEK_END) < end:
        raise RemoteProtocolError("the connection was closed too early")
    return start


@contextmanager
def _opened(file: RemoteFile, start: int, stop: int | None) -> Iterator[Iterator[tuple[int, bytes]]]:
    """The content from byte ``start`` on, as (offset, block) pairs.

    Raises:
        UserError: the answer is a page or of another length, so that nothing of it is kept.
        TritError: it is another range than was asked for.
    """
    url = file.url
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start or stop is not None:
        headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    timeout_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout_s) as response:
        hf_raise_for_status(response)
        _check_answer(file, response)
        match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        first = int(match[1]) if response.status_code == 206 and match else 0
        if first not in (0, start):
            raise TritError(f"{url}: asked for bytes from {start}, got them from {first}; check the proxy or mirror")

        def blocks() -> Iterator[tuple[int, bytes]]:
            offset = first
            for block in response.iter_raw():
                yield offset, block
                offset += len(block)

        yield blocks()
