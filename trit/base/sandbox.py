# SPDX-License-Identifier: MIT
"""Confining a program on Linux: which files it opens, which ports it listens on, how much memory it takes.

Landlock does the first two (docs.kernel.org/userspace-api/landlock.html); no library is needed for three system calls.
Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# System calls newer than 2019 have one number on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # a flag of the first: ask for the version of the interface
_BENEATH, _PORT = 1, 2  # kinds of rules
_NO_NEW_PRIVILEGES = 38  # prctl

# Rights over files, as bits of the kernel's interface.
_EXECUTE, _WRITE, _READ, _READ_FOLDER, _REMOVE_FILE = (1 << bit for bit in (0, 1, 2, 3, 5))
_MAKE_FILE, _MAKE_SOCKET, _TRUNCATE, _IOCTL = (1 << bit for bit in (8, 9, 14, 15))
_OF_A_FILE = _EXECUTE | _WRITE | _READ | _TRUNCATE | _IOCTL
_LOOK = _READ | _READ_FOLDER
_RUN = _LOOK | _EXECUTE
_CHANGE = _LOOK | _WRITE | _TRUNCATE | _MAKE_FILE | _REMOVE_FILE
_LISTEN = _READ_FOLDER | _MAKE_SOCKET | _REMOVE_FILE
# How many rights of files each version of the interface knows; the last is for it and all later ones.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
_NETWORK_SINCE, _NETWORK = 4, 0b11  # bind and connect by TCP
_LISTEN_AT = 0b1
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets and signals stay among the confined


@dataclass(frozen=True)
class Rules:
    """What a confined program may do; nothing else is left to it.

    Attributes:
        reads: files, and folders with all in them, that it may read; a path that is not there is passed over.
        runs: the same, and start programs or load libraries from.
        writes: the same as ``reads``, and change them; in folders it may make and remove files.
        devices: files that it may read, write and control.
        sockets: folders in which it may make and remove sockets.
        ports: TCP ports that it may listen on; None: TCP is left as it is.
        peers: TCP ports that it may listen on and connect to; it connects to no others.
        memory: most bytes that it may allocate, without what it maps from files (RLIMIT_DATA); None: no limit.
    """

    reads: Iterable[Path] = ()
    runs: Iterable[Path] = ()
    writes: Iterable[Path] = ()
    devices: Iterable[Path] = ()
    sockets: Iterable[Path] = ()
    ports: Iterable[int] | None = ()
    peers: Iterable[int] = ()
    memory: int | None = None


def landlock_version() -> int:
    """The version of the kernel's Landlock interface (ABI); 0 where there is none."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


class Sandbox:
    """Rules for a program that is about to start: made here, put on by :meth:`enter`.

    The kernel without Landlock leaves files and ports open; memory limit and privileges hold on every Linux.
    """

    def __init__(self, rules: Rules) -> None:
        """Prepare the rules, so that little is left to do between fork and exec.

        Raises:
            OSError: the kernel refuses a rule.
        """
        self._memory = rules.memory
        self._ruleset: int | None = None
        version = landlock_version()
        if version == 0:
            return
        self._handled = (1 << _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= version)]) - 1
        network = _NETWORK if version >= _NETWORK_SINCE and rules.ports is not None else 0
        scopes = _SCOPES if version >= _SCOPES_SINCE else 0
        asked = struct.pack("=QQQ", self._handled, network, scopes)
        self._ruleset = _checked(_libc().syscall(_CREATE_RULESET, asked, ctypes.c_size_t(len(asked)), 0))
        for paths, rights in (
            (rules.reads, _LOOK),
            (rules.runs, _RUN),
            (rules.writes, _CHANGE),
            (rules.devices, _READ | _WRITE | _IOCTL),
            (rules.sockets, _LISTEN),
        ):
            for path in paths:
                self._allow(path, rights)
        if network:
            for ports, allowed in ((rules.ports or (), _LISTEN_AT), (rules.peers, _NETWORK)):
                for port in ports:
                    self._add(_PORT, struct.pack("=QQ", allowed, port))

    def enter(self) -> None:
        """Confine this process, and what it starts, for good: call it in the child, or before another program.

        Raises:
            OSError: the kernel refuses.
        """
        if sys.platform == "win32":
            return
        import resource

        # A core file would hold prompts and keys.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self._memory is not None:
            most = resource.getrlimit(resource.RLIMIT_DATA)[1]
            limit = self._memory if most == resource.RLIM_INFINITY else min(self._memory, most)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        if not sys.platform.startswith("linux"):
            return
        zero = ctypes.c_ulong(0)
        _checked(_libc().prctl(_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero))
        if self._ruleset is not None:
            # Only here is this the process's own folder.
            self._allow(Path("/proc/self"), _LOOK)
            _checked(_libc().syscall(_RESTRICT_SELF, self._ruleset, 0))

    def _allow(self, path: Path, rights: int) -> None:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # what we cannot reach, it cannot either
        try:
            if not stat.S_ISDIR(os.fstat(place).st_mode):
                rights &= _OF_A_FILE
            self._add(_BENEATH, struct.pack("=Qi", rights & self._handled, place))
        finally:
            os.close(place)

    def _add(self, kind: int, rule: bytes) -> None:
        _checked(_libc().syscall(_ADD_RULE, self._ruleset, kind, rule, 0))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
