# SPDX-License-Identifier: MIT
"""Input files that are what they are taken for; output files that are whole or not there. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from trit.base.errors import UserError

# What git leaves in the place of a large file where Git LFS is not installed.
_LFS_POINTER = b"version https://git-lfs"
_LFS_SIZE = re.compile(rb"^size (\d+)$", re.MULTILINE)
# What a server that wants a login, or has not the file, sends in its place. Comments may stand in front.
_PAGE = re.compile(
    rb"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body|title|meta|script)\b", re.DOTALL | re.IGNORECASE
)
_ERROR_PAGE = re.compile(rb"\s*<\?xml[^>]*>\s*<Error>")
_HEAD_BYTES = 1 << 10
_MOST_LETTERS = 255
_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def stand_in(head: bytes, pages: bool = True) -> str | None:
    """What stands in the place of a file, by its first bytes; None if it may be the file itself.

    Args:
        head: The first bytes, 1024 are enough.
        pages: Whether a web page cannot be meant.
    """
    head = head.removeprefix(b"\xef\xbb\xbf")
    if head.startswith(_LFS_POINTER):
        size = _LFS_SIZE.search(head)
        itself = f"the file of {int(size[1]):,} bytes" if size and len(size[1]) < 16 else "the file"
        return f"is a Git LFS pointer to {itself}; git lfs pull gets the file itself"
    if pages and (_PAGE.match(head) or _ERROR_PAGE.match(head)):
        return (
            "is a web page, not the file; download the file itself (on the Hub its address has /resolve/, not /blob/)"
        )
    return None


def stays_inside(name: object) -> bool:
    """Whether a relative path from somebody else's list stays in its folder and can be a file's name everywhere."""
    if not isinstance(name, str) or not 0 < len(name) <= _MOST_LETTERS or not name.isprintable():
        return False
    return not set(name) & set('\\:*?"<>|') and all(part not in {"", ".", ".."} for part in name.split("/"))


def check_input(path: Path, most_bytes: int | None = None, content: bool = True) -> None:
    """Refuse what is not the file that it is taken for, in front of every reader: nothing here can hang or be large.

    Args:
        path: Of the file.
        most_bytes: What such a file has at most; None: any size.
        content: Whether to look at the first bytes; a text for people may be empty or a page.

    Raises:
        UserError: it is not there, a folder, pipe or device, unreadable, empty, too large, a Git LFS pointer or a web
            page in the place of the file; names it.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = next((name for test, name in _KINDS if test(status.st_mode)), "a device")
            raise UserError(f"{path}: is {kind}, expected a file; put the file itself there")
        if most_bytes is not None and status.st_size > most_bytes:
            raise UserError(
                f"{path}: has {status.st_size:,} bytes, expected at most {most_bytes:,}; download the file again"
            )
        if not content:
            return
        if status.st_size == 0:
            raise UserError(f"{path}: is empty; download or make the file again")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise UserError(f"{path}: is not there; check the name") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if reason := stand_in(head):
        raise UserError(f"{path}: {reason}")


def is_node(path: Path) -> bool:
    """Whether a pipe, a device or a socket is there, or a link to one: it is written into, never replaced."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def refuse_node(path: Path) -> None:
    """For a file that is written out of order and read back.

    Raises:
        UserError: a pipe, a device or a socket is there.
    """
    if is_node(path):
        kind = next((name for test, name in _KINDS if test(path.stat().st_mode)), "a device")
        raise UserError(f"{path}: is {kind}, expected the name of a file; choose another")


def check_output(flag: str, path: Path | None, *, in_folder: bool = False) -> None:
    """To be asked before anything is measured or made.

    Args:
        flag: That named the place.
        path: Of the file; None: none is to be written.
        in_folder: The flag names the file's folder, which is made if need be. A file's own name may be mistyped.

    Raises:
        UserError: nothing can be written there.
    """
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{flag} {path}: is a folder; name a file")
    if is_node(path):
        if not os.access(path, os.W_OK):
            raise UserError(f"{flag} {path}: cannot be written (Permission denied); choose another place")
        return
    folder = path.absolute().parent
    if not in_folder and not folder.exists():
        raise UserError(f"{flag} {path}: there is no folder {path.parent}; make it, or choose another place")
    try:
        while not folder.exists():
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be written ({error.strerror}); choose another place") from error


@contextmanager
def names_file(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Around what writes a file: an OSError without a name (a full disk), or with the temporary one, gets its name."""
    try:
        yield
    except OSError as error:
        if error.filename is None or (partial and error.filename == str(partial)):
            error.filename = str(path)
        raise


@contextmanager
def atomic_outputs(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a temporary path beside each path; fsync and rename them all on success, delete them on any failure.

    A reader therefore sees the old file or the whole new one, never a part of it. The first path gets its file last:
    where it is, the others are. A pipe or device stays, and gets the whole content at the end.
    """
    nodes = {path for path in paths if is_node(path)}
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    spool = tempfile.mkdtemp() if nodes else ""
    partials = [
        (Path(spool) if path in nodes else path.parent) / f".{path.name}.{os.getpid()}.partial" for path in paths
    ]
    try:
        with names_file(paths[0], partials[0]):
            yield partials
            for partial in partials:
                with partial.open("rb+") as file:
                    os.fsync(file.fileno())
            for partial, path in reversed(list(zip(partials, paths, strict=True))):
                if path in nodes:
                    with partial.open("rb") as content, path.open("wb") as node:
                        shutil.copyfileobj(content, node)
                else:
                    partial.replace(path)
    finally:
        for partial in partials:
            # A folder that cannot be written has none.
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        if nodes:
            shutil.rmtree(spool, ignore_errors=True)


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """:func:`atomic_outputs` for one file."""
    with atomic_outputs([path]) as (partial,):
        yield partial


def sync_folder(folder: Path) -> None:
    """Let names that files were given last a loss of power; does nothing where the system cannot (Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
