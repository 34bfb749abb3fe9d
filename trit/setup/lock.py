# SPDX-License-Identifier: MIT
"""One set-up at a time in a checkout.

The lock is the system's on an open file, so it cannot outlive its holders. Programs that set-up starts inherit it:
if set-up is killed outright, the next one waits until the last of them has noticed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from trit.base.errors import UserError
from trit.base.files import names_file
from trit.base.places import CACHE_DIR

_WAIT_S = 30.0


@contextmanager
def only_one() -> Iterator[tuple[int, ...]]:
    """Hold the lock; yields the descriptors that started programs should inherit.

    Raises:
        UserError: another set-up is running here.
    """
    CACHE_DIR.mkdir(parents=True, exist_ok=True)
    path = CACHE_DIR / "setup.lock"
    with path.open("a+", encoding="ascii") as file:
        deadline = time.monotonic() + _WAIT_S
        while not _take(file):
            file.seek(0)
            owner = file.read().strip()
            if _alive(owner):
                raise UserError(f"another set-up is at work in this folder (process {owner}); wait for it or stop it")
            # What a killed set-up left may be a daemon that will never end (a compiler cache): do not wait for ever.
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        with names_file(path):
            file.seek(0)
            file.truncate()
            # Past the file's buffer: what it cannot get rid of would fail once more when it is closed.
            os.write(file.fileno(), str(os.getpid()).encode())
        yield () if sys.platform == "win32" else (file.fileno(),)
        file.seek(0)
        file.truncate()


def _take(file: TextIO) -> bool:
    """Try to lock an open file."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # Far behind the text, so that others can read it.
            file.seek(1 << 20)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _alive(owner: str) -> bool:
    """Whether the process that noted its number still runs."""
    if not owner.isdigit() or sys.platform == "win32":
        return owner.isdigit()
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
