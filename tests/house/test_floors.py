# SPDX-License-Identifier: MIT
"""The rule of the house: a room imports only rooms of a lower floor. docs/architecture.md says what each room is."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {
    "base": 1,
    "gguf": 2,
    "models": 3,
    "engine": 3,
    "hub": 4,
    "convert": 4,
    "train": 4,
    "tune": 4,
    "run": 4,
    "batch": 5,
    "setup": 5,
    "measure": 5,
    "verify": 5,
    "inspect": 5,
    "library": 5,
    "cli": 6,
    "release": 6,
}
FRONT_DOORS = ("__main__.py", "setup_env.py", "run_inference.py", "run_inference_server.py")
# Nothing but scripts with bitnet.cpp's names.
SCRIPTS = {
    "__init__",
    "codegen_tl1",
    "codegen_tl2",
    "compare",
    "convert",
    "e2e_benchmark",
    "generate-dummy-bitnet-model",
    "quantize_embeddings",
    "test_perplexity",
}
LONGEST_SCRIPT = 14
# What runs before any package is installed, or must start fast.
STANDARD_LIBRARY = (
    *(f"trit.base.{path.stem}" for path in sorted((ROOT / "trit" / "base").glob("*.py")) if path.stem != "__init__"),
    *(
        f"trit.gguf.{name}"
        for name in ("header", "layouts", "identify", "parts", "loadable", "given", "embedding_types")
    ),
    *("trit.models.registry", "trit.models.shapes", "trit.models.source_note"),
    *("trit.engine.inference", "trit.engine.token_profile", "trit.engine.tuning_file", "trit.engine.kept_kernels"),
    *("trit.run.completion", "trit.run.chat", "trit.run.serve", "trit.run.profile", "trit.inspect.doctor", "trit.cli"),
    *("trit.engine.batching", "trit.engine.confinement", "trit.inspect.advisories"),
    *("trit.run.serving.plan", "trit.run.serving.supervise", "trit.run.serving.log"),
    *("trit.run.running", "trit.library.find", "trit.library.commands", "trit.setup.pipeline"),
)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and module of every import, also of those inside functions; ``from trit import x`` counts as trit.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}" if node.module == "trit" else str(node.module)


def faults(files: dict[str, str]) -> list[str]:
    """Imports that break the rule, of texts by their paths from the top folder."""
    found = []
    for name, text in files.items():
        parts = Path(name).parts
        room = Path(parts[1]).stem if parts[0] == "trit" and len(parts) > 1 else ""
        for line, module in imports(ast.parse(text)):
            words = module.split(".")
            if words[0] in ("utils", "tests", "benchmarks"):
                found.append(f"{name}:{line} imports {module}; trit/ stands by itself")
                continue
            other = words[1] if words[0] == "trit" else room
            if other != room and room in FLOORS and FLOORS.get(other, 0) >= FLOORS[room]:
                where = f"{room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})"
                found.append(f"{name}:{line}: {where}; move what both need to a lower floor")
    return found


def sources() -> dict[str, str]:
    """Everything that is not a test."""
    paths = [*sorted((ROOT / "trit").rglob("*.py")), *(ROOT / name for name in FRONT_DOORS)]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_every_room_imports_lower_floors_only() -> None:
    assert faults(sources()) == []


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in (ROOT / "trit").iterdir() if path.stem[0] != "_"}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trit/base/files.py", "from trit.gguf.header import read"),
        ("trit/engine/server.py", "def f():\n    from trit.models import shapes"),
        ("trit/gguf/types.py", "import trit.convert.matrices"),
        ("trit/hub/space.py", "from trit import cli"),
        ("trit/base/files.py", "from tests.support import tiers"),
    ],
)
def test_a_wrong_import_is_found(name: str, text: str) -> None:
    assert len(faults({name: text})) == 1
    assert faults({"trit/cli.py": "from trit.setup import pipeline", name: "import json"}) == []


def test_nobody_bends_the_search_path() -> None:
    tricks = ("sys." + "path", "except" + "hook")
    paths = [*(ROOT / "trit").rglob("*.py"), *(ROOT / "utils").glob("*.py"), *(ROOT / name for name in FRONT_DOORS)]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert not any(trick in text for trick in tricks), f"{path.relative_to(ROOT)} uses one of {tricks}"


def test_utils_holds_scripts_with_known_names_only() -> None:
    scripts = {path.stem: path for path in (ROOT / "utils").iterdir() if path.name != "__pycache__"}
    assert set(scripts) == SCRIPTS
    for path in scripts.values():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= LONGEST_SCRIPT, f"{path.name} has {len(lines)} lines: its work belongs in trit/"


@pytest.mark.parametrize("module", STANDARD_LIBRARY)
def test_needs_the_standard_library_only(module: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
