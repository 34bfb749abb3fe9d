# SPDX-License-Identifier: MIT
"""Step 5: compile the engine with our kernels in it, for this machine, into ``build/bin``."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from pathlib import Path

from trit.base.errors import CommandError
from trit.base.host import total_memory_bytes, usable_cpus
from trit.base.places import BUILD_DIR, ENGINE_BIN, ENGINE_DIR, ROOT, STAMPS, engine_program
from trit.base.progress import StepLine, clock
from trit.engine import kept_kernels
from trit.setup import context
from trit.setup.context import Compiler, Setup, digest, files_digest

NAME = "build"
DEED = "compiling the engine and the kernels"

PROGRAMS = ("llama-completion", "llama-cli", "llama-server", "llama-bench", "llama-quantize", "llama-perplexity")
SELFTEST = "trit-selftest"
MEASURING = ("trit-roofline", "trit-bench", "trit-tune", "trit-describe", "trit-vocabulary")
_COUNT = re.compile(r"\[(\d+)/(\d+)\]")
# A compiler takes up to this much on the engine's largest files.
_JOB_BYTES = 1 << 30


def run(setup: Setup, line: StepLine) -> str:
    """Configure and compile unless sources, engine, compiler, CPU and options are those of the last good build."""
    assert setup.compiler is not None
    native = setup.options.native or needs_native_build()
    configure = configure_command(setup.python, setup.compiler, native)
    cpu = cpu_key() if native or not is_x86_64() else ""
    # Without the checkout's own path: what was built stays good where it is moved to.
    options = [word.replace(str(ROOT), "") for word in configure[1:]]
    wanted = digest(*options, setup.compiler.name, engine_key(), sources_key(), cpu)
    stamp_file = STAMPS / "build.json"
    configured = STAMPS / "configure.json"
    configure_key = digest(*configure, setup.compiler.name)
    stamp = context.read_stamp(stamp_file)
    current = stamp.get("key") == wanted and all(path.is_file() for path in programs())
    if current and not (setup.options.use_pretuned and kept_kernels.sources(BUILD_DIR)):
        if context.read_stamp(configured).get("key") != configure_key:
            line.update("configuring")
            # The folder was moved: what is compiled later (kernels that tuning finds) must not look in the old one.
            _configure(setup, configure, configure_key)
        return f"up to date in {ENGINE_BIN.relative_to(ROOT)}"
    if "wheel" in stamp and BUILD_DIR.exists():
        # What a wheel brought was not compiled by this build: nothing of it may be taken for that.
        shutil.rmtree(BUILD_DIR)
    # Kernels that tuning added were made and measured with what was built before.
    kept_kernels.drop(BUILD_DIR)
    stamp_file.unlink(missing_ok=True)
    line.update("configuring")
    try:
        _configure(setup, configure, configure_key)
        jobs = setup.options.jobs or default_jobs()
        command = [configure[0], "--build", str(BUILD_DIR), "--parallel", str(jobs)]
        seconds = _compile(setup, line, command)
    except CommandError as error:
        raise CommandError(f"{error}; {_hint(error.tail)}", error.tail, error.returncode) from error
    context.write_stamp(stamp_file, {"key": wanted})
    return f"compiled with {setup.compiler.name}, {jobs} jobs, {clock(seconds)}, into {ENGINE_BIN.relative_to(ROOT)}"


def _configure(setup: Setup, configure: list[str], key: str) -> None:
    """Set the build up; from nothing where options, compiler or place are others than in the last one.

    Only then a ccache is taken or left: one that appears later would make ninja compile everything again.
    """
    assert setup.compiler is not None
    stamp_file = STAMPS / "configure.json"
    stamp = context.read_stamp(stamp_file)
    launcher = stamp.get("launcher", "")
    # What CMake found out with another compiler or other options must not linger.
    fresh = stamp.get("key") != key or bool(launcher and not Path(launcher).is_file())
    if fresh:
        launcher = shutil.which("ccache") or ""
    launchers = [f"-DCMAKE_{language}_COMPILER_LAUNCHER={launcher}" for language in ("C", "CXX") if launcher]
    command = [*configure, *launchers, *(["--fresh"] if fresh else [])]
    setup.run(command, "configuring the build", NAME, env=setup.compiler.env)
    context.write_stamp(stamp_file, {"key": key, "launcher": launcher})


def configure_command(python: Path, compiler: Compiler, native: bool) -> list[str]:
    """The CMake call that sets the build up; cmake and ninja are those of the environment.

    ``native``: upstream's part for this CPU alone, not for every x86-64 CPU with AVX2.
    """
    defines = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_C_COMPILER": compiler.cc,
        "CMAKE_CXX_COMPILER": compiler.cxx,
        "CMAKE_MAKE_PROGRAM": environment_program(python, "ninja"),
        "TRIT_KERNELS_DIR": str(kept_kernels.folder(BUILD_DIR)),
        "TRIT_NATIVE": "ON" if native else "OFF",
        **compiler.defines,
    }
    options = [f"-D{key}={value}" for key, value in defines.items()]
    return [environment_program(python, "cmake"), "-S", str(ROOT), "-B", str(BUILD_DIR), "-G", "Ninja", *options]


def programs() -> list[Path]:
    """Every program that set-up promises, compiled or out of a wheel."""
    return [engine_program(name) for name in (*PROGRAMS, SELFTEST, *MEASURING)]


def environment_program(python: Path, name: str) -> str:
    """A program that pip put beside the environment's Python, else the one on the PATH."""
    suffix = ".exe" if os.name == "nt" else ""
    beside = python.parent / f"{name}{suffix}"
    return str(beside) if beside.is_file() else (shutil.which(name) or str(beside))


def default_jobs() -> int:
    """All usable CPUs, or fewer where memory is short."""
    cpus = usable_cpus()
    memory = total_memory_bytes()
    return max(1, min(cpus, memory // _JOB_BYTES)) if memory else cpus


def engine_key() -> str:
    """Identity of the engine's source tree."""
    return (ENGINE_DIR / "trit-engine.json").read_text(encoding="utf-8")


def sources_key() -> str:
    """Identity of our own C++ sources and CMake files."""
    folders = [ROOT / name for name in ("src", "include", "preset_kernels", "cmake")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return files_digest([ROOT / "CMakeLists.txt", *files])


def is_x86_64() -> bool:
    """Whether this Python runs on an x86-64 machine."""
    return platform.machine().lower() in {"x86_64", "amd64"}


def needs_native_build(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this is an x86-64 CPU without AVX2, FMA or F16C, for which the common build is too large."""
    if not is_x86_64() or not cpuinfo.is_file():
        return False
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return flags is not None and not {"avx2", "fma", "f16c", "bmi2"} <= set(flags[1].split())


def cpu_key() -> str:
    """Identity of this CPU: what is compiled for it need not run on another one."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        return digest(*[line for line in lines if line.startswith(("flags", "Features", "model name"))][:2])
    return f"{platform.machine()} {platform.processor()}"


def _compile(setup: Setup, line: StepLine, command: list[str]) -> float:
    """Run the build and show ninja's count with the time that is left; seconds taken."""
    assert setup.compiler is not None
    start = time.monotonic()

    def show(text: str) -> None:
        match = _COUNT.match(text)
        if match and match[1] != "0":
            finished, total = (int(group) for group in match.groups())
            left_s = (time.monotonic() - start) / finished * (total - finished)
            line.update(f"compiling {finished}/{total} ({100 * finished // total}%), about {clock(left_s)} left")

    # The user's own NINJA_STATUS may lack the count.
    env = {**setup.compiler.env, "NINJA_STATUS": "[%f/%t] "}
    setup.run(command, "compiling the engine", NAME, env=env, on_line=show)
    return time.monotonic() - start


def _hint(tail: list[str]) -> str:
    text = " ".join(tail).lower()
    if "no space left" in text:
        return "the disk is full: free some space and run this again"
    if "killed" in text:
        return "the compiler was killed, probably for want of memory: run this again with --jobs 1"
    return "run this again after mending it, it carries on where it stopped; --compiler picks another compiler"
