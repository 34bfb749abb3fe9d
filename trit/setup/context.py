# SPDX-License-Identifier: MIT
"""What the steps of set-up share: the options, the places, the environment's Python, stamps of finished work."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trit.base import processes
from trit.base.files import atomic_output
from trit.base.places import ROOT
from trit.models.registry import Model

AUTO = "auto"  # the quantisation type that is found by measuring


@dataclass(frozen=True)
class Options:
    """The command line of ``setup_env.py``, parsed."""

    hf_repo: str | None
    model_dir: Path | None
    log_dir: Path
    quant_type: str
    quant_embd: str | None
    use_pretuned: bool
    tune_seconds: float
    compiler: str
    wheel: Path | None
    llama_cpp_dir: Path | None
    native: bool
    jobs: int | None
    clean: bool
    test: bool
    no_run: bool
    list_models: bool
    pytest_args: list[str]


@dataclass(frozen=True)
class Compiler:
    """A C and C++ compiler pair and what CMake has to be told to use it.

    Attributes:
        name: family and version for people: ``gcc 12.2.0``.
        cc: C compiler.
        cxx: C++ compiler.
        defines: further CMake variables.
        env: variables that CMake and ninja need (MSVC's INCLUDE, LIB and PATH).
    """

    name: str
    cc: str
    cxx: str
    defines: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Setup:
    """One run of set-up; later steps use what earlier ones found.

    Attributes:
        options: the command line.
        python: the environment's Python; ours until the tools step has run.
        compiler: found by the tools step; None with --wheel.
        model_dir: folder of the model, found by the model step.
        known: what the registry says about the model, None if it is not in it.
        quant_type: encoding of the ternary weights; None until the tuning step has found what "auto" is here.
        fitting: encodings that hold the weights of a checkpoint, the one to take first; empty for a GGUF.
        gguf: the converted model, from the conversion step.
        keep_open: descriptors that started programs inherit (the lock).
        started_logs: logs that this run has begun; the others are of earlier runs, whose steps are skipped now.
        report: what set-up prints at its end.
    """

    options: Options
    python: Path = Path(sys.executable)
    compiler: Compiler | None = None
    model_dir: Path | None = None
    known: Model | None = None
    quant_type: str | None = None
    fitting: tuple[str, ...] = ()
    gguf: Path | None = None
    keep_open: tuple[int, ...] = ()
    started_logs: set[str] = field(default_factory=set)
    report: str = ""

    def __post_init__(self) -> None:
        """A type that was named is settled."""
        if self.options.quant_type != AUTO:
            self.quant_type = self.options.quant_type

    def log(self, name: str) -> Path:
        """Log file of a step."""
        return self.options.log_dir / f"{name}.log"

    def run(
        self,
        command: Sequence[str | Path],
        what: str,
        log: str,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Run a program into a step's log, in this checkout unless said otherwise; see trit.base.processes.run."""
        if log not in self.started_logs:
            self.started_logs.add(log)
            self.log(log).unlink(missing_ok=True)
        return processes.run(
            command, what, self.log(log), cwd=cwd or ROOT, env=env, on_line=on_line, keep_open=self.keep_open
        )


def digest(*parts: object) -> str:
    """A short hash over values that print the same whenever they are the same."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:20]


def files_digest(paths: Iterable[Path]) -> str:
    """A hash over the names and the contents of files."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:20]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        total = hashlib.sha256()
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def read_stamp(path: Path) -> dict[str, str]:
    """What a finished step noted; empty if there is no such note or it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_stamp(path: Path, content: Mapping[str, str]) -> None:
    """Note a finished step, whole or not at all."""
    with atomic_output(path) as partial:
        partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
