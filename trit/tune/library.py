# SPDX-License-Identifier: MIT
"""Compiles generated kernels into one shared library, for ``trit-tune --kernels``.

An object's name holds a digest of all that it depends on, so what is there need not be compiled again.
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from trit.base.errors import TritError
from trit.base.files import atomic_output
from trit.base.host import usable_cpus
from trit.base.places import ROOT
from trit.base.processes import end_group, telling_lines
from trit.tune.codegen import render
from trit.tune.recipe import Recipe, recipe
from trit.tune.variants import Variant

# Kernels ask whether the CPU has their instructions.
SUPPORT = ROOT / "src" / "kernels" / "cpu_features.cpp"
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Library:
    """What could be compiled.

    Attributes:
        path: the shared library; None if there is none.
        variants: its kernels.
        compiled: kernels that were compiled for this, and not found.
        note: why something is missing, in words; empty if nothing is.
    """

    path: Path | None = None
    variants: Sequence[Variant] = ()
    compiled: int = 0
    note: str = ""

    @property
    def sources(self) -> dict[str, str]:
        """Names of its kernels -> their C++."""
        return {variant.name: render(variant.configuration) for variant in self.variants}


def build_library(variants: Sequence[Variant], build_dir: Path, seconds: float) -> Library:
    """Compile variants as the engine's kernels were compiled; a compiler that fails is no error.

    Args:
        variants: the kernels, those to be compiled first at the front.
        build_dir: CMake's folder of the engine; the library goes into its folder ``variants``.
        seconds: after these no compiler is started; 0: only what is there already is used.

    Returns:
        The library, with as many of the variants as there are objects of.
    """
    if not variants:
        return Library()
    try:
        how = recipe(build_dir)
    except TritError as error:
        return Library(note=str(error))
    folder = build_dir.resolve() / "variants"  # compilers run in another folder
    sources = {variant.name: render(variant.configuration) for variant in variants}
    texts = {SUPPORT.stem: SUPPORT.read_text(encoding="utf-8"), **sources}
    objects = {name: folder / f"{name}-{_digest(how.key, text)}.o" for name, text in texts.items()}
    missing = {name: path for name, path in objects.items() if not path.is_file()}
    if missing and seconds > 0:
        _write_sources(folder, {name: texts[name] for name in missing})
    faults = _compile(how, missing, seconds) if missing else {}
    there = {name: path for name, path in objects.items() if path.is_file()}
    found = [variant for variant in variants if variant.name in there]
    note = ""
    if faults:
        failed = len(faults.keys() & sources.keys())
        note = f"{failed} of {len(sources)} do not compile ({next(iter(faults.values()))})"
    elif len(found) < len(sources):
        note = f"no time to compile {len(sources) - len(found)} of {len(sources)}"
    if not found or SUPPORT.stem not in there:
        return Library(note=note)
    path = folder / f"variants-{_digest(*sorted(path.name for path in there.values()))}{SUFFIX}"
    if not path.is_file():
        _remove_old(folder, objects)
        try:
            _link(how, [variant.name for variant in found], list(there.values()), path)
        except (OSError, TritError) as error:
            return Library(note=f"none links ({error})")
    return Library(path, found, sum(variant.name in missing for variant in found), note)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _write_sources(folder: Path, texts: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with atomic_output(folder / f"{name}.cpp") as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


@dataclass
class _Job:
    """A running compiler."""

    name: str
    process: subprocess.Popen[bytes]
    partial: Path
    output: IO[bytes]


def _compile(how: Recipe, objects: Mapping[str, Path], seconds: float) -> dict[str, str]:
    """Compile on all cores, in the given order; those that failed, with the compiler's own words."""
    waiting = deque(objects)
    running: list[_Job] = []
    faults: dict[str, str] = {}
    end = time.monotonic() + seconds
    try:
        while running or (waiting and time.monotonic() < end):
            while waiting and len(running) < usable_cpus() and time.monotonic() < end:
                name = waiting.popleft()
                try:
                    with _no_interruption():
                        running.append(_start(how, name, objects[name]))
                except OSError as error:
                    return {name: f"{how.command[0]} does not start: {error.strerror}"}
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                fault = _finish(job, objects[job.name])
                if fault:
                    faults[job.name] = fault
            time.sleep(POLL_SECONDS)
    finally:
        for job in running:
            end_group(job.process)
            _finish(job, objects[job.name])
    return faults


@contextmanager
def _no_interruption() -> Iterator[None]:
    """Hold Ctrl-C back: a program that is just being started would be lost, and go on without us."""
    came: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            raise KeyboardInterrupt


def _start(how: Recipe, name: str, path: Path) -> _Job:
    partial = path.with_suffix(".partial")
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _finish
    command = [*how.command, "-c", str(path.parent / f"{name}.cpp"), "-o", str(partial)]
    try:
        process = subprocess.Popen(
            command,
            cwd=how.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except OSError:
        output.close()
        raise
    return _Job(name, process, partial, output)


def _finish(job: _Job, path: Path) -> str:
    """Give the object its name; or what went wrong, in one line."""
    with job.output:
        if job.process.returncode == 0:
            job.partial.replace(path)
            return ""
        job.partial.unlink(missing_ok=True)
        job.output.seek(0)
        return _words(job.output.read(), job.process.returncode)


def _words(output: bytes, code: int) -> str:
    lines = output.decode("utf-8", "replace").splitlines()
    return telling_lines(lines)[0] if lines else f"exit code {code}"


def _link(how: Recipe, names: Sequence[str], objects: Sequence[Path], path: Path) -> None:
    """Make the library; raises TritError with the linker's words."""
    listed = path.with_suffix(".cpp")
    declared = "".join(f'extern "C" const trit_lookup_kernel trit_{name};\n' for name in names)
    pointers = "".join(f"    &trit_{name},\n" for name in names)
    array = f"const trit_lookup_kernel* const trit_variants[] = {{\n{pointers}    nullptr}};\n"
    exported = 'extern "C" TRIT_API const trit_lookup_kernel* const trit_variants[];\n'
    _write_sources(path.parent, {path.stem: f'#include "trit.h"\n{declared}{exported}{array}'})
    try:
        with atomic_output(path) as partial:
            command = [*how.command, "-shared", str(listed), *map(str, objects), "-o", str(partial)]
            done = subprocess.run(command, cwd=how.folder, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode != 0:
                raise TritError(_words(done.stdout + done.stderr, done.returncode))
    finally:
        listed.unlink(missing_ok=True)


def _remove_old(folder: Path, objects: Mapping[str, Path]) -> None:
    """Libraries of other kernels, and these kernels' objects of other sources, headers or flags."""
    old = {path for name in objects for path in folder.glob(f"{name}-*.o")} - set(objects.values())
    for path in [*old, *folder.glob(f"variants-*{SUFFIX}")]:
        with suppress(OSError):  # in use, on Windows
            path.unlink()
