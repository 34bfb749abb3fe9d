# SPDX-License-Identifier: MIT
"""What both benchmarks share: flags, facts about the machine, statistics, and the two files of results."""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.cli import ROOT, UserError, atomic_output, capture
from utils.host import ENGINE_BIN, cpu_name, physical_cores, usable_cpus

RESULTS = ROOT / "benchmarks" / "results"
PLACES = ("--out", "--workdir")
LOCK = ROOT / "3rdparty" / "llama.cpp.lock.json"


def add_shared_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every benchmark."""
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--bin-dir", type=Path, default=ENGINE_BIN, help="compiled programs (default: build/bin)")


def whole_numbers(text: str) -> list[int]:
    """A list such as ``1,2``, sorted and without repetitions, for argparse."""
    try:
        numbers = sorted({int(word) for word in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers of 1 or more, separated by commas")
    return numbers


def joined(numbers: Sequence[int]) -> str:
    """The list as a flag's value."""
    return ",".join(map(str, numbers))


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a flag's value that is too small."""
    if value < least:
        raise UserError(f"{name} {value}: expected {least} or more")


def slug(name: str) -> str:
    """A name for files: ``AMD EPYC 9B14`` becomes ``amd-epyc-9b14``; what lawyers and marketing added is left out."""
    plain = re.sub(r"\((r|tm)\)|@.*|\bcpu\b|\bprocessor\b", " ", name.lower())
    return "-".join(re.findall(r"[a-z0-9]+", plain)) or "cpu"


def commit() -> str:
    """Our commit, with "-dirty" if files were changed since; "unknown" outside of a checkout."""
    code, output = capture(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=9", "--exclude=*"])
    return output.strip() if code == 0 else "unknown"


def engine_commit() -> str:
    """The engine's commit that this checkout pins."""
    try:
        return str(json.loads(LOCK.read_text(encoding="utf-8"))["commit"])[:9]
    except (OSError, ValueError, KeyError):
        return "unknown"


def telling(argv: Sequence[str]) -> list[str]:
    """The flags without those that only say where files are kept."""
    kept: list[str] = []
    skip = False
    for word in argv:
        if not skip and word.partition("=")[0] not in PLACES:
            kept.append(word)
        skip = not skip and word in PLACES
    return kept


def facts(module: str, argv: Sequence[str], compiler: str) -> dict[str, Any]:
    """Where, when, with what and how a benchmark ran."""
    return {
        "cpu": cpu_name(),
        "cores": physical_cores(),
        "logical_cpus": usable_cpus(),
        "compiler": compiler,
        "commit": commit(),
        "engine_commit": engine_commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": shlex.join([".venv/bin/python", "-m", module, *telling(argv)]),
    }


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the heading; columns after the first are aligned to the right."""
    rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))


def write(out: Path, kind: str, about: Mapping[str, Any], text: str, data: Mapping[str, Any]) -> list[Path]:
    """Write ``<cpu>-<kind>.md`` and ``.json`` into ``out``; returns both paths."""
    head = (
        f"# {kind.replace('-', ' ').capitalize()}: {about['cpu']}\n\n"
        f"{about['cores']} cores ({about['logical_cpus']} logical), {about['compiler']}, commit {about['commit']}, "
        f"llama.cpp {about['engine_commit']}, {about['date']}\n\n    {about['command']}\n\n"
    )
    contents = {"md": head + text.rstrip() + "\n", "json": json.dumps({"about": about, **data}, indent=1) + "\n"}
    paths = []
    for suffix, content in contents.items():
        path = out / f"{slug(about['cpu'])}-{kind}.{suffix}"
        try:
            with atomic_output(path) as partial:
                partial.write_text(content, encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); choose another folder with --out"
            ) from error
        paths.append(path)
    return paths
