# SPDX-License-Identifier: MIT
"""Runs the engine's llama-bench: which tests, on how many threads, with which context, and every repetition's speed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trit.base.errors import TritError, UserError
from trit.base.places import ENGINE_BIN, engine_binary
from trit.engine import confinement
from trit.engine.program import LOG, json_lines

PROGRAM = "llama-bench"
BATCH = 2048  # llama-bench's own default

# What it says on stderr when a repetition starts; anything else that it says comes before one or after one.
_STARTS = re.compile(r"llama-bench: benchmark \d+/\d+: (prompt|generation) run \d+/\d+$")


@dataclass(frozen=True, order=True)
class Case:
    """One test of llama-bench.

    Attributes:
        n_prompt: Tokens of a prompt, read in batches.
        n_gen: Tokens generated one by one, behind the prompt if there is one.
        depth: Tokens that the context holds before.
        threads: On which it runs.
        batch: Most tokens of a prompt that the engine gets at once.
    """

    n_prompt: int
    n_gen: int
    depth: int = 0
    threads: int = 1
    batch: int = BATCH

    @property
    def name(self) -> str:
        """As llama-bench writes it: ``pp512``, ``tg128``, ``tg128 @ d2048``."""
        parts = [f"pp{self.n_prompt}"] * (self.n_prompt > 0) + [f"tg{self.n_gen}"] * (self.n_gen > 0)
        return "+".join(parts) + (f" @ d{self.depth}" if self.depth else "")

    @property
    def in_words(self) -> str:
        """Such as ``pp512, 2 threads``."""
        return f"{self.name}, {self.threads} thread{'s' * (self.threads > 1)}"


class Observer:
    """Is told what happens while it happens, to measure something beside the time; does nothing of its own."""

    def begin(self) -> None:
        """A repetition starts now (or its second part, in a test with prompt and generated text)."""

    def end(self) -> None:
        """It is over; is also called where none has begun."""

    def finished(self, case: Case, speeds: Sequence[float]) -> None:
        """All repetitions of this test are over; tokens per second of each."""


def parse(line: Mapping[str, Any]) -> tuple[Case, list[float]]:
    """Tokens per second of each repetition, from one object of ``llama-bench -o jsonl``."""
    try:
        numbers = (line[key] for key in ("n_prompt", "n_gen", "n_depth", "n_threads", "n_batch"))
        case, speeds = Case(*map(int, numbers)), [float(speed) for speed in line["samples_ts"]]
    except (KeyError, TypeError, ValueError) as error:
        raise TritError(f"{PROGRAM} printed something else than expected ({error!r}); see {LOG}") from error
    if not speeds or min(speeds) <= 0:
        raise TritError(f"{PROGRAM} printed no speeds for {case.name}; see {LOG}")
    return case, speeds


def calls(cases: Sequence[Case]) -> list[list[Case]]:
    """The cases in as few calls of llama-bench as it takes: one call runs every test with every number of threads."""
    tests: dict[tuple[int, int, int], list[Case]] = {}
    for case in dict.fromkeys(cases):
        tests.setdefault((case.depth, case.batch, case.threads), []).append(case)
    alike: dict[tuple[object, ...], list[Case]] = {}
    for (depth, batch, _), group in tests.items():
        sizes = frozenset((case.n_prompt, case.n_gen) for case in group)
        alike.setdefault((depth, batch, sizes), []).extend(group)
    return list(alike.values())


def _flags(cases: Sequence[Case]) -> list[str]:
    """The flags of one call of :func:`calls`."""

    def joined(numbers: Sequence[int]) -> str:
        return ",".join(map(str, dict.fromkeys(numbers))) or "0"

    flags = ["-p", joined([case.n_prompt for case in cases if not case.n_gen])]
    flags += ["-n", joined([case.n_gen for case in cases if not case.n_prompt])]
    for prompt, generated in dict.fromkeys((case.n_prompt, case.n_gen) for case in cases):
        if prompt and generated:
            flags += ["-pg", f"{prompt},{generated}"]
    flags += ["-d", str(cases[0].depth), "-b", str(cases[0].batch)]
    return [*flags, "-t", joined([case.threads for case in cases])]


@contextmanager
def _without_comma(model: Path) -> Iterator[Path]:
    """The file by a path that llama-bench takes for one: to it, a comma parts two models.

    Absolute: programs are started in another folder than ours.

    Raises:
        UserError: the system lets nobody make links.
    """
    model = model.absolute()
    if "," not in str(model):
        yield model
        return
    with TemporaryDirectory(prefix="trit-bench-") as name:
        if "," in name:
            raise UserError(f"{name}: {PROGRAM} takes no path with a comma; set TMPDIR to a folder without one")
        # All of them: the other parts of a split model are found by their names.
        for file in model.parent.glob("*.gguf"):
            try:
                Path(name, file.name.replace(",", "_")).symlink_to(file)
            except OSError as error:
                raise UserError(f"{model}: {PROGRAM} takes no path with a comma; rename it") from error
        yield Path(name, model.name.replace(",", "_"))


def run(
    model: Path,
    cases: Sequence[Case],
    *,
    repack: bool = True,
    repetitions: int = 1,
    bin_dir: Path = ENGINE_BIN,
    env: Mapping[str, str | None] | None = None,
    observers: Sequence[Observer] = (),
) -> dict[Case, list[float]]:
    """Measure the cases; every test is warmed up by llama-bench first.

    Args:
        model: GGUF file.
        cases: In any order.
        repack: Whether ternary weights are packed when they are loaded.
        repetitions: Of each case, one after the other.
        bin_dir: Folder of the compiled programs.
        env: Variables to set.
        observers: Told, in this order, when repetitions start and end.

    Returns:
        Case -> tokens per second of each repetition, in the order of ``cases``.

    Raises:
        TritError: llama-bench failed or left out a case; names the file.
    """
    found: dict[Case, list[float]] = {}

    def say(line: str) -> None:
        for observer in observers:
            observer.end()
        for observer in observers if _STARTS.match(line) else ():
            observer.begin()

    def take(line: Mapping[str, Any]) -> None:
        for observer in observers:
            observer.end()
        case, speeds = parse(line)
        found[case] = speeds
        for observer in observers:
            observer.finished(case, speeds)

    with _without_comma(model) as path:
        for group in calls(cases):
            command = [str(engine_binary(PROGRAM, bin_dir)), "-m", str(path), "--repack", str(int(repack))]
            command += _flags(group)
            command += ["-r", str(repetitions), "-o", "jsonl", "--progress"]
            sandbox = confinement.of_tool(command, env)
            what = f"running {PROGRAM} on {model}"
            json_lines(command, what, env=env, on_object=take, on_text=say, sandbox=sandbox)
    missing = [case.name for case in cases if len(found.get(case, [])) != repetitions]
    if missing:
        raise TritError(f"{PROGRAM} left out {', '.join(missing)} of {model}; see {LOG}")
    return {case: found[case] for case in dict.fromkeys(cases)}
