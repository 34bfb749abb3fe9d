# SPDX-License-Identifier: MIT
"""How long a file takes to load, and how much memory the engine has in use then and at most.

``llama-bench`` says when it starts to load and when its first run begins; between loading and that run it waits for
``--delay``, which is when the memory is read, from ``/proc`` (Linux).
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trit.base.errors import TritError
from trit.base.places import ENGINE_BIN, engine_binary
from trit.base.processes import end_group, telling_lines
from trit.engine import confinement

PROGRAM = "llama-bench"
_DELAY_S = 1
# Memory is looked at so often: a prompt of a tiny model takes less, but its memory is that of loading.
_POLL_S = 0.005
_PIECE = 1 << 24


@dataclass(frozen=True)
class Loading:
    """One load.

    Attributes:
        seconds: from opening the file to a model and a context that are ready, packing included.
        resident_bytes: in use then, mapped pages of the file included; None where the system does not tell.
        peak_bytes: the most, until a prompt has been processed.
    """

    seconds: float
    resident_bytes: int | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Memory:
    """What /proc says of a process at a time: resident bytes, and the most that they were."""

    time: float
    resident: int
    peak: int


def read_memory(status: str, now: float) -> Memory | None:
    """From the text of /proc/PID/status; None if the process is ending and has no memory any more."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    try:
        return Memory(now, *(int(fields[key].split()[0]) << 10 for key in ("VmRSS", "VmHWM")))
    except KeyError:
        return None


def warm(path: Path) -> None:
    """Read the file once, so that it comes from memory when it is loaded (where memory can hold it)."""
    with path.open("rb", buffering=0) as file:
        while file.read(_PIECE):
            pass


def measure(model: Path, packed: bool, n_prompt: int, threads: int, bin_dir: Path = ENGINE_BIN) -> Loading:
    """Load a file that is in memory already, and process a prompt.

    Raises:
        TritError: the program failed or never began a run; says its last words.
    """
    command: list[str | Path] = [engine_binary(PROGRAM, bin_dir), "-m", model, "--repack", str(int(packed))]
    command += ["-p", str(n_prompt), "-n", "0", "-t", str(threads), "-r", "1", "--delay", str(_DELAY_S)]
    command += ["-o", "jsonl", "--no-warmup", "--progress"]
    warm(model)
    lines, memory = _watch(command)
    begun = next((at for at, line in lines if line.endswith(": starting")), None)
    ran = next((at for at, line in lines if ": prompt run" in line), None)
    if begun is None or ran is None:
        raise TritError(f"{PROGRAM} {model} did not say when it loaded and ran; a bug here or another engine")
    ready = ran - _DELAY_S
    waiting = [sample for sample in memory if ready < sample.time < ran]
    return Loading(
        max(0.0, ready - begun),
        waiting[-1].resident if waiting else None,
        max((sample.peak for sample in memory), default=None),
    )


def _watch(command: Sequence[str | Path]) -> tuple[list[tuple[float, str]], list[Memory]]:
    """Run a program; the lines that it says on stderr, with their times, and its memory all the while."""
    sandbox = confinement.of_tool(command)
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        preexec_fn=sandbox.enter if sandbox else None,
    )
    status = Path(f"/proc/{process.pid}/status")
    memory: list[Memory] = []
    done = threading.Event()

    def poll() -> None:
        while not done.wait(_POLL_S):
            try:
                sample = read_memory(status.read_text(), time.monotonic())
            except OSError:
                return
            if sample:
                memory.append(sample)

    watcher = threading.Thread(target=poll)
    watcher.start()
    try:
        assert process.stderr is not None
        lines = [(time.monotonic(), line.rstrip()) for line in process.stderr]
        code = process.wait()
    finally:
        done.set()
        watcher.join()
        if process.poll() is None:
            end_group(process)
    if code != 0:
        said = " | ".join(telling_lines([line for _, line in lines], 3))
        raise TritError(f"{PROGRAM} failed on {command[2]} (exit code {code}): {said}")
    return lines, memory
