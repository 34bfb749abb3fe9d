# SPDX-License-Identifier: MIT
"""What this machine can do at most: int8 multiply-accumulates and reading memory, per tier and number of threads.

``trit roofline`` prints a table; the benchmarks compare their times with these limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from trit.base.errors import TritError
from trit.base.host import free_memory_bytes, last_level_cache_bytes
from trit.base.places import ENGINE_BIN, engine_binary
from trit.engine.program import json_lines

PROGRAM = "trit-roofline"
# Memory that is read: so many times the caches, at least so much, at most this part of what is free.
CACHE_TIMES = 4
LEAST_MEGABYTES = 256
FREE_PART = 4
# For each limit where they are measured again beside every run, because they drift.
BESIDE_SECONDS = 0.2
# Where the system does not tell.
UNKNOWN_CACHE = 64 << 20


@dataclass(frozen=True)
class Read:
    """One way of reading memory: pages ("huge" or "plain"), bytes of prefetch ahead, GB/s of every repetition."""

    pages: str
    ahead: int
    gbs: list[float]


@dataclass(frozen=True)
class Limit:
    """The two limits of a tier on a number of threads.

    Attributes:
        int8_gmacs: 10^9 multiply-accumulates per second, of every repetition.
        reads: every access pattern.
    """

    tier: str
    threads: int
    int8_gmacs: list[float]
    reads: list[Read] = field(default_factory=list)

    @property
    def read(self) -> Read:
        """The access pattern with the highest median."""
        return max(self.reads, key=lambda read: median(read.gbs))


@dataclass(frozen=True)
class Roofline:
    """A whole measurement.

    Attributes:
        packings: Per tier, the packings that it has kernels for.
    """

    compiler: str
    megabytes: int
    packings: dict[str, list[str]]
    limits: list[Limit]

    def of(self, tier: str, threads: int) -> Limit:
        """The limits of a tier on a number of threads; raises TritError if they were not measured."""
        for limit in self.limits:
            if (limit.tier, limit.threads) == (tier, threads):
                return limit
        raise TritError(f"{PROGRAM} did not measure {tier} on {threads} threads")


def thread_counts(most: int) -> list[int]:
    """1, 2, 4, ... and ``most``: every number up to 2, and few on large machines."""
    return sorted({1 << i for i in range(most.bit_length()) if 1 << i <= most} | {most})


def memory_megabytes(buffers: int = 1) -> int:
    """Megabytes for each of some buffers that no cache can hold, together at most a quarter of the free memory."""
    wanted = max(CACHE_TIMES * (last_level_cache_bytes() or UNKNOWN_CACHE) >> 20, LEAST_MEGABYTES)
    free = free_memory_bytes()
    return wanted if free is None else max(min(wanted, (free >> 20) // FREE_PART // buffers), 1)


def parse(objects: Sequence[Mapping[str, Any]]) -> Roofline:
    """The output of ``trit-roofline``; raises TritError if it is not whole."""
    try:
        (head,) = (line for line in objects if line["kind"] == "head")
        packings = {line["tier"]: list(line["packings"]) for line in objects if line["kind"] == "tier"}
        limits = {
            (line["tier"], line["threads"]): Limit(line["tier"], line["threads"], line["gmacs"])
            for line in objects
            if line["kind"] == "int8"
        }
        for line in objects:
            if line["kind"] == "read":
                limits[line["tier"], line["threads"]].reads.append(Read(line["pages"], line["ahead"], line["gbs"]))
        return Roofline(head["compiler"], head["megabytes"], packings, list(limits.values()))
    except (KeyError, TypeError, ValueError) as error:
        raise TritError(f"{PROGRAM} printed something else than expected ({error!r}); build it again") from error


def measure(
    threads: Sequence[int],
    *,
    tier: str = "all",
    seconds: float = 0.5,
    megabytes: int | None = None,
    bin_dir: Path = ENGINE_BIN,
    env: Mapping[str, str | None] | None = None,
    on_object: Callable[[dict[str, Any]], None] | None = None,
) -> Roofline:
    """Run ``trit-roofline``.

    Args:
        threads: Numbers of threads.
        tier: Name of a tier, "chosen" or "all".
        seconds: For each limit.
        megabytes: Size of each of the two buffers that are read; by default from the caches and the free memory.
        bin_dir: Folder of the compiled programs.
        env: Variables to set.
        on_object: Called with each line of output.
    """
    command = [str(engine_binary(PROGRAM, bin_dir)), "--tier", tier, "--threads", ",".join(map(str, threads))]
    command += ["--seconds", str(seconds), "--megabytes", str(megabytes or memory_megabytes(2))]
    return parse(json_lines(command, "measuring the machine's limits", env=env, on_object=on_object))
