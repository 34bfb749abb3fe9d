# SPDX-License-Identifier: MIT
"""What is imported, what the requirement files name, and what the documents tell of packages, patches and version."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = next(path for path in Path(__file__).resolve().parents if (path / "pyproject.toml").is_file())
RUN, TRAIN, TEST = "requirements.in", "requirements-train.txt", "requirements-test.in"
RELEASE, CLIENTS, PARQUET = "requirements-release.in", "requirements-clients.in", "requirements-parquet.in"
FILES = (RUN, TRAIN, TEST, RELEASE, CLIENTS, PARQUET)
# What .ci/lock makes of five of them: also what their packages need in turn.
LOCKS = (
    *("requirements.txt", "requirements-test.txt", "requirements-release.txt", "requirements-clients.txt"),
    "requirements-parquet.txt",
)
_LOCKED = re.compile(r"[A-Za-z0-9][\w.-]*==[\w.]+( ; [^#]*?)?( --hash=sha256:[0-9a-f]{64})+")
# Folders with Python code; one that is not there (yet) has none.
CODE = ("utils", "trit", "benchmarks")
# Import names that are not the name of the package.
PACKAGE_OF = {
    "yaml": "PyYAML",
    "xdist": "pytest-xdist",
    "cyclonedx": "cyclonedx-python-lib",
    "packageurl": "cyclonedx-python-lib",
}
# Imported by code that says in one sentence what to install, so that running a model does not need it.
OPTIONAL = {"argcomplete", "matplotlib", "pyarrow"}
PATCHES = sorted(path.name for path in (ROOT / "3rdparty" / "patches").glob("*.patch"))


def normal(name: str) -> str:
    """The form in which package names are compared: ``PyYAML`` and ``pyyaml`` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(name: str) -> set[str]:
    """Packages that a requirement file names itself, files that it includes left out."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [re.match(r"[A-Za-z0-9][\w.-]*", line) for line in lines]
    return {normal(match.group()) for match in found if match}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node; ast.walk goes through every expression too, which takes five times as long."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield child
            yield from statements(child)


def imports(source: str) -> set[str]:
    """First parts of all absolute imports, also of those inside functions."""
    names: set[str] = set()
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def packages(source: str, own: Iterable[str]) -> set[str]:
    """Packages that a source imports: neither the standard library's nor our own."""
    foreign = imports(source) - set(sys.stdlib_module_names) - set(own)
    return {normal(PACKAGE_OF.get(name, name)) for name in foreign}


def imported(paths: Iterable[Path]) -> dict[str, str]:
    """Package -> one file that imports it."""
    tests = list((ROOT / "tests").rglob("*"))
    # Tests import each other by their bare names.
    own = {path.stem for path in [*ROOT.iterdir(), *tests] if path.suffix == ".py" or path.is_dir()}
    found: dict[str, str] = {}
    for path in sorted(paths):
        for package in packages(path.read_text(encoding="utf-8"), own):
            found.setdefault(package, path.relative_to(ROOT).as_posix())
    return found


def rows(path: Path) -> list[list[str]]:
    """Cells of the rows of all tables of a Markdown file, without heads."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not set(row[0]) <= set("-: ")]


def words(cell: str) -> set[str]:
    """The names in a cell; of a link its text."""
    return {normal(word) for word in re.findall(r"[\w.-]*\w", re.sub(r"\]\([^)]*\)", "]", cell))}


def test_code_imports_what_requirements_name() -> None:
    paths = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")] + list(ROOT.glob("*.py"))
    found = imported(paths)
    assert "numpy" in found, "no imports were found"
    allowed = required(RUN) | required(TRAIN) | OPTIONAL
    missing = {
        name: path
        for name, path in found.items()
        if name not in allowed | (required(RELEASE) if path.startswith("trit/release/") else set())
    }
    assert not missing, f"imported and named neither in {RUN} nor in {TRAIN}: {missing}"


def test_tests_import_what_requirements_name() -> None:
    allowed = set().union(*map(required, FILES))
    found = imported((ROOT / "tests").rglob("*.py"))
    missing = {name: path for name, path in found.items() if name not in allowed}
    assert not missing, f"imported by tests and named in none of {', '.join(FILES)}: {missing}"


def test_a_package_is_named_in_one_requirement_file() -> None:
    for one, other in combinations(FILES, 2):
        assert not required(one) & required(other), f"{one} and {other} name the same package"
    assert required(TEST) | required(PARQUET) >= OPTIONAL


def test_an_import_that_nothing_names_is_found() -> None:
    source = "import os\nimport utils.cli\ndef f():\n    import yaml\n    from Left_Pad.x import y\nfrom . import z\n"
    assert packages(source, {"utils"}) == {"pyyaml", "left-pad"}


@pytest.mark.parametrize("file", LOCKS)
def test_every_package_is_locked_by_version_and_hash(file: str) -> None:
    lines = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines
    loose = [line[:60] for line in lines if not _LOCKED.fullmatch(line)]
    assert not loose, f"{file}: no version or hash, or an address: {loose}; run .ci/lock"


@pytest.mark.parametrize("file", LOCKS)
def test_the_locks_hold_what_the_inputs_ask_for(file: str) -> None:
    asked = (ROOT / file).with_suffix(".in").read_text(encoding="utf-8").splitlines()
    locked = (ROOT / file).read_text(encoding="utf-8").splitlines()
    versions = [re.match(r"([\w.-]+)==([\w.]+)", line) for line in locked]
    for line in filter(None, (re.match(r"([A-Za-z0-9][\w.-]*)(?:\[\w+\])?(.*)", line) for line in asked)):
        name, bounds = normal(line[1]), SpecifierSet(line[2])
        found = [match[2] for match in versions if match and normal(match[1]) == name]
        assert found and all(version in bounds for version in found), f"{file}: {name} {found}; run .ci/lock"


@pytest.mark.parametrize("file", [*FILES, *LOCKS])
def test_third_party_names_every_package_with_its_licence(file: str) -> None:
    licences = {name: row[1] for row in rows(ROOT / "THIRD_PARTY.md") for name in words(row[0])}
    missing = sorted(name for name in required(file) if not licences.get(name))
    assert not missing, f"THIRD_PARTY.md has no licence of {missing}, which {file} names"


@pytest.mark.parametrize("file", [*FILES, *LOCKS])
def test_third_party_names_no_package_that_is_gone(file: str) -> None:
    told = set().union(*(words(row[0]) for row in rows(ROOT / "THIRD_PARTY.md") if f"`{file}`" in row[-1]))
    assert told <= required(file), f"THIRD_PARTY.md: {sorted(told - required(file))} is no longer in {file}"


@pytest.mark.parametrize("page", ["THIRD_PARTY.md", "3rdparty/README.md"])
def test_every_patch_is_told(page: str) -> None:
    names = [row[0].strip("`") for row in rows(ROOT / page) if re.match(r"`?\d{4}-", row[0])]
    assert [f"{name.removesuffix('.patch')}.patch" for name in names] == PATCHES


def test_patches_have_the_number_of_lines_that_the_table_says() -> None:
    for name, _, lines in (row for row in rows(ROOT / "3rdparty" / "README.md") if row[0][:4].isdigit()):
        text = (ROOT / "3rdparty" / "patches" / f"{name}.patch").read_text(encoding="utf-8")
        changed = len(re.findall(r"^[+-](?![+-]{2} )", text, re.MULTILINE))
        assert int(lines) == changed, f"3rdparty/README.md: {name} changes {changed} lines"


def test_the_version_is_the_same_everywhere() -> None:
    patterns = {
        "trit/__init__.py": r'(?m)^__version__ = "([^"]+)"$',
        "CITATION.cff": r"(?m)^version: (\S+)$",
        "CHANGELOG.md": r"(?m)^## (\d\S*)",
    }
    found = {name: re.search(pattern, (ROOT / name).read_text(encoding="utf-8")) for name, pattern in patterns.items()}
    versions = {name: match.group(1) for name, match in found.items() if match}
    assert versions.keys() == found.keys() and len(set(versions.values())) == 1, f"the versions differ: {versions}"


def test_the_compiler_zig_has_one_version() -> None:
    """Set-up and releases take it from the lock."""
    version = re.search(r"(?m)^ziglang==([\d.]+)$", (ROOT / "requirements-release.in").read_text())
    assert version
    files = [*ROOT.glob("docs/*.md"), *ROOT.glob(".github/**/*.yml"), *ROOT.glob("trit/**/*.py"), ROOT / "README.md"]
    asked = {path.name: re.findall(r"ziglang *([<>=!~]+ *[\d.]+)", path.read_text(encoding="utf-8")) for path in files}
    assert {bound for bounds in asked.values() for bound in bounds} <= {f"=={version[1]}"}
