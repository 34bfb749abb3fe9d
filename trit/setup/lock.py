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

from trit.base.errors import UserError
from trit.base.files import names_file
from trit.base.lock import is_alive, take
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
        while not take(file):
            file.seek(0)
            owner = file.read().strip()
            if is_alive(owner):
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
