# SPDX-License-Identifier: MIT
"""CONTRIBUTING's recipes, followed in a copy: what is added works, and whoever forgets a place is told which."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.kernel_build import build_kernels

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("trit", "tests", "docs", "src", "include", "preset_kernels")
Edit = Callable[[str], str]


@dataclass(frozen=True)
class Place:
    """One place of a recipe: a file, and what becomes of its text ("" if it is new)."""

    path: str
    edit: Edit


def before(mark: str, new: str) -> Edit:
    """Put text in front of the first occurrence of a mark."""

    def edit(text: str) -> str:
        assert mark in text, f"the recipe looks for {mark!r}"
        return text.replace(mark, new + mark, 1)

    return edit


def behind(new: str) -> Edit:
    """Put text at the end."""
    return lambda text: text + new


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the recipes touch, without what is made."""
    root = tmp_path_factory.mktemp("recipes") / "original"
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "seeds"))
    for name in ("pyproject.toml", "CMakeLists.txt"):
        shutil.copy(ROOT / name, root)
    return root


def follow(original: Path, folder: Path, places: list[Place]) -> Path:
    """A copy with these places changed."""
    root = folder / "copy"
    shutil.copytree(original, root)
    for place in places:
        path = root / place.path
        path.write_text(place.edit(path.read_text(encoding="utf-8") if path.is_file() else ""), encoding="utf-8")
    return root


def python(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)


def check_places(root: Path, *tests: str) -> str:
    """What the consistency tests say; empty if they pass."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/house/test_places.py", "-k", " or ".join(tests)]
    done = python(root, *words)
    assert "passed" in done.stdout or "failed" in done.stdout, done.stdout + done.stderr
    return "" if done.returncode == 0 else done.stdout


FAMILY = '''# SPDX-License-Identifier: MIT
"""A copy of LLaMA's family, to see that a family is found."""

from trit.models.families.llama import Llama


class Dummy(Llama):
    """See the module's description."""

    architectures = ("DummyForCausalLM",)


FAMILY = Dummy()
'''
TINY = '''# SPDX-License-Identifier: MIT
"""LLaMA's tiny checkpoint under the dummy's name."""

import json

from tests.support.tiny_checkpoints import llama

FAMILY, STORAGE, VARIANTS = "dummy", llama.STORAGE, llama.VARIANTS


def make(directory, variant, storage, seed=0):
    llama.make(directory, variant, storage, seed)
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["DummyForCausalLM"]}))
'''


def _register(text: str) -> str:
    content = json.loads(text)
    content["families"]["dummy"] = {**content["families"]["llama"], "architectures": ["DummyForCausalLM"]}
    return json.dumps(content, indent=1) + "\n"


def _written_by_hand(text: str) -> str:
    text = before('    "q2_0": (42, q2_0),', '    "dummy": (199, q2_0),\n')(text)
    return before(
        '    ("q2_0", 1, 64,', '    ("dummy", 1, 64, HALF + "54" + "55" * 14 + "95", {(0, 0): -1, (0, 63): 1}),\n'
    )(text)


FAMILY_PLACES = [
    Place("trit/models/families/dummy.py", behind(FAMILY)),
    Place("trit/models/registry/models.json", _register),
    Place("tests/support/tiny_checkpoints/dummy.py", behind(TINY)),
    Place("tests/convert/test_convert_families.py", before("CASES: list", 'FAMILIES["dummy"] = llama\n')),
]
LAYOUT_PLACES = [
    Place(
        "trit/gguf/layouts.py",
        before(
            "        # Its number and its n * k / 4 bytes of codes",
            '        Layout("dummy", (199,), "nobody", 64, _blocks(64, 18), "group of 64", False, "q2_0"),\n',
        ),
    ),
    Place("trit/gguf/decode.py", before('    "pq2_0": ', '    "dummy": grouped(64, 18, 0, neighbours),\n')),
    Place("tests/support/foreign_files.py", _written_by_hand),
    Place("docs/formats.md", behind("\nThe layout `dummy` has the bytes of q2_0.\n")),
]


def _as_tier(text: str) -> str:
    assert not text
    source = (ROOT / "src" / "kernels" / "tiers" / "avx2.cpp").read_text(encoding="utf-8")
    return source.replace('trit_absent_tier("avx2"', 'trit_absent_tier("dummy"').replace(
        "trit_tier_avx2", "trit_tier_dummy"
    )


TIER_PLACES = [
    Place("src/kernels/tiers/dummy.cpp", _as_tier),
    Place("docs/tiers.md", behind("\nThe tier `dummy` is a copy of `avx2`.\n")),
]
PRESET = {"format": 2, "tier": "avx2", "cpu": "nobody's", "key": "", "date": "2026-01-01", "shapes": [], "layers": []}
PRESET_PLACES = [
    Place("preset_kernels/tuning/dummy.json", lambda text: json.dumps(PRESET)),
    Place("preset_kernels/README.md", behind("\nThe preset `dummy` is of no CPU.\n")),
]
RECIPES = {"family": FAMILY_PLACES, "layout": LAYOUT_PLACES, "tier": TIER_PLACES, "preset": PRESET_PLACES}


@pytest.mark.compiles
@pytest.mark.parametrize("name", RECIPES)
def test_who_follows_the_recipe_is_told_nothing(name: str, original: Path, tmp_path: Path) -> None:
    assert check_places(follow(original, tmp_path, RECIPES[name]), name) == ""


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("name", "forgotten"),
    [(name, place.path) for name, places in RECIPES.items() for place in places[1:]],
)
def test_who_forgets_a_place_is_told_which(name: str, forgotten: str, original: Path, tmp_path: Path) -> None:
    said = check_places(follow(original, tmp_path, [p for p in RECIPES[name] if p.path != forgotten]), name)
    assert forgotten in said and "dummy" in said.lower(), said[-2000:]


def test_a_new_layout_is_read_by_every_tool(original: Path, tmp_path: Path) -> None:
    """The tests that walk the tables take it up by themselves."""
    root = follow(original, tmp_path, LAYOUT_PLACES)
    done = python(root, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gguf/test_foreign.py", "-k", "dummy")
    assert done.returncode == 0 and re.search(r"[1-9]\d* passed", done.stdout), done.stdout[-3000:]


@pytest.mark.torch
@pytest.mark.engine
def test_a_new_family_converts(original: Path, tmp_path: Path) -> None:
    """The vocabulary of its tiny checkpoint comes with the engine's source."""
    root = follow(original, tmp_path, FAMILY_PLACES)
    (root / "3rdparty").symlink_to(ROOT / "3rdparty")
    code = (
        "from pathlib import Path; from tests.support.tiny_checkpoints import find_family; "
        "from trit.convert.command import main; folder = Path('tiny'); family = find_family('dummy'); "
        "family.make(folder, family.VARIANTS[0], family.STORAGE[0]); main([str(folder)])"
    )
    done = python(root, "-c", code)
    assert done.returncode == 0 and (root / "tiny" / "ggml-model-i2_s.gguf").is_file(), done.stderr[-3000:]


@pytest.mark.compiles
def test_a_new_tier_is_compared_with_the_scalar_one(original: Path, tmp_path: Path) -> None:
    root = follow(original, tmp_path, TIER_PLACES)
    build = build_kernels(root / "build", None, targets=("trit-selftest",), source=root)
    done = subprocess.run([build / "bin" / "trit-selftest"], capture_output=True, text=True)
    said = next(line for line in done.stdout.splitlines() if line.startswith("dummy "))
    assert "equal to the scalar reference" in said or "not on this CPU" in said, done.stdout
