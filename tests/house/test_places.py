# SPDX-License-Identifier: MIT
"""What is added in one place is in all others that it needs; a failure names the place (CONTRIBUTING has the lists)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import foreign_files
from trit.gguf.codecs import CODECS
from trit.gguf.decode import _FOREIGN
from trit.gguf.layouts import FLAT_I2_S, LAYOUTS, TILED
from trit.models.families import all_families
from trit.models.registry import registry

ROOT = Path(__file__).resolve().parents[2]
FAMILY_TESTS = tuple(f"convert/test_convert_{name}.py" for name in ("families", "qwen3", "qwen35", "engine"))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_family_is_in_its_places() -> None:
    """A tiny checkpoint of its configuration, a test against transformers, a row of the registry."""
    known = {name for family in registry().families.values() for name in family.architectures}
    tests = "".join(text(f"tests/{name}") for name in FAMILY_TESTS)
    faults = []
    for family in all_families():
        name = type(family).__module__.rpartition(".")[2]
        if not (ROOT / "tests" / "support" / "tiny_checkpoints" / f"{name}.py").is_file():
            faults.append(f"tests/support/tiny_checkpoints/{name}.py is missing: a tiny checkpoint of this family")
        if f'"{name}"' not in tests and f"import {name}" not in tests and f", {name}" not in tests:
            faults.append(f"tests/convert/test_convert_families.py has no case of the family {name}")
        for lacking in sorted(set(family.architectures) - known):
            faults.append(f"trit/models/registry/models.json has no family with the architecture {lacking}")
    assert not faults, "\n".join(faults)


def test_every_layout_is_in_its_places() -> None:
    """A decoder, a scalar writer written from its description, bytes by hand, and its page."""
    page, by_hand = text("docs/formats.md"), {row[0] for row in foreign_files.VECTORS}
    on_paper = text("tests/gguf/test_foreign.py")
    faults = []
    for name in LAYOUTS:
        if name not in {*CODECS, *_FOREIGN, *TILED}:
            faults.append(f"trit/gguf/decode.py has no row {name} in _FOREIGN")
        if name != FLAT_I2_S:  # i2_s's bytes, whatever the rows
            if name not in foreign_files.WRITERS:
                faults.append(f"tests/support/foreign_files.py has no writer {name} in WRITERS")
            if name not in by_hand and f'"{name}"' not in on_paper:
                faults.append(f"tests/support/foreign_files.py has no bytes written by hand for {name} in VECTORS")
        if f"`{name}`" not in page:
            faults.append(f"docs/formats.md does not name `{name}`")
    assert not faults, "\n".join(faults)


def test_every_tier_is_in_its_places() -> None:
    page = text("docs/tiers.md")
    tiers = sorted(path.stem for path in (ROOT / "src" / "kernels" / "tiers").glob("*.cpp"))
    faults = [f"docs/tiers.md does not name `{name}`" for name in tiers if f"`{name}`" not in page]
    for name in tiers:
        if f"trit_tier_{name}" not in text(f"src/kernels/tiers/{name}.cpp"):
            faults.append(f"src/kernels/tiers/{name}.cpp does not define trit_tier_{name}")
    assert tiers and not faults, "\n".join(faults)


def test_every_preset_is_in_its_places() -> None:
    """And names kernels that are kept."""
    page = text("preset_kernels/README.md")
    kept = {path.stem for path in (ROOT / "preset_kernels").glob("*/*.cpp")}
    faults = []
    for path in sorted((ROOT / "preset_kernels" / "tuning").glob("*.json")):
        if path.stem not in page:
            faults.append(f"preset_kernels/README.md does not name {path.stem}")
        used = {
            shape["lookup"] for shape in json.loads(path.read_text(encoding="utf-8"))["shapes"] if "lookup" in shape
        }
        faults += [f"preset_kernels/ lacks {name}, which {path.name} names" for name in sorted(used - kept - {None})]
    assert not faults, "\n".join(faults)
