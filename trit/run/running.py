# SPDX-License-Identifier: MIT
"""Which servers and chats of ours are running: a small file for each, by its process. Standard library only.

A process is known by its number and the moment when it began, so a file that outlived its process says nothing.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from trit.base.errors import TritError
from trit.base.files import atomic_output
from trit.base.places import home
from trit.base.processes import capture


@dataclass(frozen=True)
class Running:
    """A program of ours.

    Attributes:
        pid: number of its process.
        began: what tells it from another process of this number.
        kind: "server" or "chat".
        model: path of the GGUF file.
        address: where a server listens; None for a chat.
        since: when it was started, in UTC.
        more: paths of the other models that a server has.
    """

    pid: int
    began: str
    kind: str
    model: str
    address: str | None
    since: str
    more: tuple[str, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """Paths of all models."""
        return (self.model, *self.more)

    @property
    def memory(self) -> int | None:
        """Bytes of memory that it and what it started have now, mapped weights included; None: nobody tells."""
        known = processes()
        ours = {self.pid}
        # A child has a larger number than its parent only until numbers begin anew.
        while found := {pid for pid, (parent, _) in known.items() if parent in ours and pid not in ours}:
            ours |= found
        sizes = [known[pid][1] for pid in ours if pid in known]
        return sum(sizes) << 10 if sizes else None


def processes() -> dict[int, tuple[int, int]]:
    """Number of each process -> that of its parent, and KiB that it has; empty where the system does not tell."""
    found: dict[int, tuple[int, int]] = {}
    if sys.platform.startswith("linux"):
        for path in Path("/proc").glob("[0-9]*/status"):
            with suppress(OSError):
                fields = dict(_FIELD.findall(path.read_text(encoding="utf-8", errors="replace")))
                found[int(path.parent.name)] = (int(fields["PPid"]), int(fields.get("VmRSS", 0)))
    elif os.name != "nt":
        rows = [line.split() for line in capture(["ps", "-A", "-o", "pid=,ppid=,rss="])[1].splitlines()]
        found = {int(row[0]): (int(row[1]), int(row[2])) for row in rows if len(row) == 3 and "".join(row).isdigit()}
    return found


_FIELD = re.compile(r"^(PPid|VmRSS):\s+(\d+)", re.MULTILINE)


def began(pid: int) -> str | None:
    """When a process began, as text that is the same as long as it runs; None if there is none."""
    moment = ""
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            # Behind the name, which may hold anything: the state, then numbers; a zombie runs no more.
            words = stat.rpartition(")")[2].split()
            moment = "" if words[0] in "ZX" else f"{boot}/{words[19]}"
    elif os.name == "nt":
        moment = _began_on_windows(pid)
    else:
        code, output = capture(["ps", "-o", "lstart=", "-p", str(pid)])
        moment = output.strip() if code == 0 else ""
    return moment or None


def note(kind: str, model: Path, address: str | None = None, more: Sequence[Path] = ()) -> None:
    """Note that this very process is a server or a chat from here on; where that cannot be written, nobody knows it."""
    with suppress(OSError, TritError):
        running()  # files of earlier ones go
        since = datetime.now(timezone.utc).isoformat(timespec="seconds")
        paths = [str(path.absolute()) for path in (model, *more)]
        mine = Running(os.getpid(), began(os.getpid()) or "", kind, paths[0], address, since, tuple(paths[1:]))
        with atomic_output(_folder() / f"{mine.pid}.json") as partial:
            partial.write_text(json.dumps(asdict(mine)) + "\n", encoding="utf-8")


def running() -> list[Running]:
    """What runs now, the oldest first; the files of the others are deleted."""
    found = []
    for path in _folder().glob("*.json"):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            one = Running(**{**told, "more": tuple(told.get("more", ()))})
            alive = began(int(one.pid)) == one.began
        except (OSError, ValueError, TypeError, AttributeError):
            alive = False
        if alive:
            found.append(one)
        else:
            with suppress(OSError):
                path.unlink()
    return sorted(found, key=lambda one: (one.since, one.pid))


def _folder() -> Path:
    return home() / "running"


def _began_on_windows(pid: int) -> str:
    """The creation time of a process; empty if it has ended."""
    import ctypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined, unused-ignore]
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return ""
    try:
        times = [ctypes.c_uint64() for _ in range(4)]  # created, ended, kernel, user
        known = kernel.GetProcessTimes(handle, *map(ctypes.byref, times))
        return str(times[0].value) if known and not times[1].value else ""
    finally:
        kernel.CloseHandle(handle)
