# SPDX-License-Identifier: MIT
"""What works in this checkout, and what to do about the rest. Standard library only, so that it works before set-up."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from trit import __version__
from trit.base.command import environment_python
from trit.base.errors import EXIT_FAILED, EXIT_OK
from trit.base.flags import ArgumentParser
from trit.base.host import cpu_name, free_memory_bytes, physical_cores
from trit.base.places import BUILD_DIR, ENGINE_DIR, LOCK, ROOT, VENV, engine_program, python_command
from trit.base.processes import capture
from trit.base.sandbox import landlock_version
from trit.gguf.made import default_model
from trit.inspect import advisories

# What a running set-up has built.
PROGRAMS = ("llama-completion", "llama-cli", "llama-server", "llama-bench", "llama-quantize", "llama-perplexity")
# Import names of what converting needs; what training needs is reported, never asked for.
PACKAGES = ("gguf", "huggingface_hub", "numpy", "safetensors", "tokenizers", "tqdm")
TRAINING = ("torch", "transformers")
_SELFTEST_S = 300


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: what was looked at.
        well: whether it works.
        found: what was found, in words.
        advice: what to do about it; empty where nothing is wrong.
    """

    name: str
    well: bool
    found: str
    advice: str = ""


def findings() -> Iterator[Finding]:
    """Everything that was looked at, in the order in which set-up makes it."""
    setup = python_command("setup_env.py")
    memory = free_memory_bytes()
    free = f", {memory / 1e9:.1f} GB of memory free" if memory else ""
    yield Finding("machine", True, f"{cpu_name()}, {physical_cores()} cores{free}")
    yield Finding("trit", True, f"version {__version__} in {ROOT}")
    yield _environment(setup)
    commit = json.loads(LOCK.read_text(encoding="utf-8"))["commit"]
    there = (ENGINE_DIR / "CMakeLists.txt").is_file()
    yield Finding(
        "engine source", there, f"llama.cpp {commit}" if there else f"{ENGINE_DIR} is missing", "" if there else setup
    )
    yield _advisories()
    missing = [name for name in PROGRAMS if not engine_program(name).is_file()]
    yield Finding(
        "engine", not missing, f"{', '.join(missing)} missing" if missing else "built", setup if missing else ""
    )
    yield _kernels(setup)
    yield _sandbox()
    tuned = (BUILD_DIR / "tuning.json").is_file()
    yield Finding("tuning", True, "measured on this machine" if tuned else "a preset's; `trit tune` measures")
    model = default_model()
    yield Finding(
        "model",
        model.is_file(),
        str(model) if model.is_file() else f"{model} is missing",
        "" if model.is_file() else setup,
    )


def _advisories() -> Finding:
    known = advisories.known()
    return Finding("advisories", not known.open, f"{known.sentence()}; docs/security.md has the table")


def _sandbox() -> Finding:
    version = landlock_version()
    found = f"Landlock, version {version}: the server is confined" if version else "no Landlock: nothing is confined"
    return Finding("sandbox", True, found)


def _environment(setup: str) -> Finding:
    python = f"Python {platform.python_version()} in {sys.prefix}"
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if not lacking:
        more = [name for name in TRAINING if importlib.util.find_spec(name)]
        return Finding("environment", True, f"{python}{', with ' + ' and '.join(more) if more else ''}")
    if environment_python().is_file():
        return Finding("environment", True, f"{python} lacks {', '.join(lacking)}; commands run in {VENV} instead")
    return Finding("environment", False, f"{python} lacks {', '.join(lacking)}", setup)


def _kernels(setup: str) -> Finding:
    program = engine_program("trit-selftest")
    if not program.is_file():
        return Finding("kernels", False, f"{program} is missing", setup)
    code, output = capture([program], timeout_s=_SELFTEST_S)
    lines = output.strip().splitlines()
    if code != 0:
        wrong = next((line for line in lines if "FAILED" in line), f"exit code {code}")
        return Finding("kernels", False, wrong, f"{setup} --clean")
    tier = next((line.removeprefix("chosen: ") for line in lines if line.startswith("chosen: ")), "unknown")
    return Finding("kernels", True, f"equal to the scalar reference; tier {tier}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; 1 if something does not work."""
    parser = ArgumentParser(prog="trit doctor", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(argv)
    found = []
    for finding in findings():
        found.append(finding)
        if not args.json:
            mark = "ok " if finding.well else "NO "
            advice = f"; run: {finding.advice}" if finding.advice else ""
            print(f"{mark} {finding.name:14} {finding.found}{advice}", flush=True)
    well = all(finding.well for finding in found)
    if args.json:
        print(json.dumps({"well": well, "findings": [asdict(finding) for finding in found]}))
    return EXIT_OK if well else EXIT_FAILED
