# SPDX-License-Identifier: MIT
"""What the benchmarks and utils.compare share: flags, facts about the machine, and the two files of results."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.base.files import atomic_output
from trit.base.places import ENGINE_BIN, ROOT
from trit.base.provenance import facts as shared_facts

RESULTS = ROOT / "benchmarks" / "results"
PLACES = ("-o", "--out", "--workdir")


def add_shared_flags(parser: argparse.ArgumentParser, out: Path = RESULTS) -> None:
    """The flags of every benchmark; out: where results go."""
    where = out.relative_to(ROOT) if out.is_absolute() else out
    parser.add_argument("-o", "--out", type=Path, default=out, help=f"folder of the results (default: {where})")
    parser.add_argument("--bin-dir", type=Path, default=ENGINE_BIN, help="compiled programs (default: build/bin)")


def slug(name: str) -> str:
    """A name for files: ``AMD EPYC 9B14`` becomes ``amd-epyc-9b14``; what lawyers and marketing added is left out."""
    plain = re.sub(r"\((r|tm)\)|@.*|\bcpu\b|\bprocessor\b", " ", name.lower())
    return "-".join(re.findall(r"[a-z0-9]+", plain)) or "cpu"


def telling(argv: Sequence[str]) -> list[str]:
    """The flags without those that only say where files are kept."""
    kept: list[str] = []
    skip = False
    for word in argv:
        if not skip and word.partition("=")[0] not in PLACES:
            kept.append(word)
        skip = not skip and word in PLACES
    return kept


def facts(command: str, argv: Sequence[str], compiler: str) -> dict[str, Any]:
    """Where, when, with what and how a benchmark ran; command: what follows ``python -m``."""
    return shared_facts([".venv/bin/python", "-m", *command.split(), *telling(argv)], compiler)


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
