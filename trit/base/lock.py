# SPDX-License-Identifier: MIT
"""Locks of the system on open files: they cannot outlive who holds them. Standard library only."""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

# What systems say of a lock that somebody has.
_TAKEN = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def take(file: TextIO) -> bool:
    """Try to lock an open file for us alone; whether that was done.

    Raises:
        OSError: there are no locks here, so that waiting for one would not end.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            # Far behind the text, so that others can read it.
            file.seek(1 << 20)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        return False
    return True


def is_alive(owner: str) -> bool:
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
