# SPDX-License-Identifier: MIT
"""The documents: short, in short sentences, and true of the commands, flags and scripts that there are."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import test_floors, test_repo
from trit import cli
from trit.measure.committed import command as committed
from trit.measure.committed import summary
from trit.models.registry import command as registry

ROOT = next(path for path in Path(__file__).resolve().parents if (path / "pyproject.toml").is_file())
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "3rdparty/README.md", "preset_kernels/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "models" / "trit-story-3m" / "README.md",
]
MOST_WORDS, MOST_WORDS_OF_A_SENTENCE = 1500, 40
# What stands before set-up -> the module that has its flags.
FRONT_DOORS = {
    "setup_env.py": "trit.setup.options",
    "run_inference.py": "trit.run.completion",
    "run_inference_server.py": "trit.run.serve",
}


def code_of(text: str) -> list[str]:
    """The lines of code blocks, and what is between backticks."""
    fenced = re.findall(r"(?ms)^```.*?\n(.*?)^```", text)
    rest = re.sub(r"(?ms)^```.*?^```", "", text)
    lines = [line for block in [*fenced, *re.findall(r"(?m)^    .+$", rest)] for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", rest)


def sentences(text: str) -> list[str]:
    """The prose: no code blocks, tables, headings, comments and front matter."""
    plain = re.sub(r"(?ms)\A---.*?^---|^```.*?^```|<!--.*?-->", "", text)
    lines = ["" if re.match(r"    |\s*\||#", line) else line for line in plain.splitlines()]
    found = []
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", "\n".join(lines)):
        words = " ".join(re.sub(r"^\s*(?:[-*]|\d+\.) ", "", block).split())
        found += re.split(r"(?<=[.!?])\s", re.sub(r"\]\([^)]*\)", "]", words))
    return found


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Commands and front doors that a page shows, each with the rest of its line."""
    doors = "|".join(map(re.escape, FRONT_DOORS))
    trit = r"(?:\.venv/bin/|[\w./]*python3? -m )?trit (?P<command>[a-z][\w-]*)"
    pattern = rf"\s*(?:\$ )?(?:(?:[\w./]*python3? )?(?P<door>{doors})|{trit})(?P<rest>.*)"
    for line in code_of(text):
        for part in re.split(r"&&|\||;", line.partition("#")[0]):
            if match := re.match(pattern, part):
                yield match["door"] or match["command"], match["rest"]


def module_of(name: str, rest: str) -> str | None:
    """The module with a command's flags; None: there is no such command."""
    if name == "committed" and (part := re.match(r" ([a-z][\w-]*)", rest)):
        return f"trit.measure.committed.{committed.PARTS[part[1]][0]}" if part[1] in committed.PARTS else None
    if name in cli.COMMANDS:
        return cli.COMMANDS[name][0].partition(":")[0]
    return FRONT_DOORS.get(name)


@functools.cache
def looked_at(module: str) -> tuple[frozenset[str], frozenset[str]]:
    """Of a module's source: what it imports of ours, and the flags that it gives to a parser.

    Read and not imported, because some need torch.
    """
    place = ROOT / module.replace(".", "/")
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    names: set[str] = set()
    for source, inner in re.findall(r"(?m)^ *from (trit[\w.]*) import (\([^)]*\)|.*)", text):
        names |= {source, *(f"{source}.{name}" for name in re.findall(r"\w+", inner))}
    calls = re.findall(r'\badd(?:_argument)?\(\s*((?:"[^"]+",?\s*)+)', text)
    return frozenset(names), frozenset(re.findall(r'"(-[^"]+)"', " ".join(calls)))


def flags(module: str) -> frozenset[str]:
    """Every flag that a module, one that it imports, or one that those import, gives to a parser."""
    near = {module, *looked_at(module)[0]}
    far = near.union(*(looked_at(name)[0] for name in near))
    return frozenset().union(*(looked_at(name)[1] for name in far))


def faults_of_commands(page: str, text: str) -> Iterator[str]:
    """Commands and flags that there are not."""
    for name, rest in commands(text):
        module = module_of(name, rest)
        if module is None:
            yield f"{page}: there is no command {name}{rest.rstrip()}"
            continue
        for flag in re.findall(r"(?<=\s)(--?[a-zA-Z][\w-]*)", re.sub(r'"[^"]*"', "", rest.partition(" -- ")[0])):
            if flag not in flags(module) | {"--help", "--version"}:
                yield f"{page}: {name} has no flag {flag}"


def table(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table behind a line that begins so, or that begins itself so."""
    text = "".join((ROOT / page).read_text(encoding="utf-8").partition(f"\n{heading}")[1:])
    rows = re.search(r"(?m)(?:^\|.*\n)+", text)
    assert rows, f"{page} has no table behind {heading}"
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[0].splitlines()[2:]]


def test_the_readme_is_short() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= MOST_WORDS, f"README.md has {len(words)} words, at most {MOST_WORDS} are wanted"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_sentences_are_short(page: Path) -> None:
    found = sentences(page.read_text(encoding="utf-8"))
    long = [sentence for sentence in found if len(sentence.split()) > MOST_WORDS_OF_A_SENTENCE]
    assert not long, "\n".join(long)


def test_commands_and_flags_that_are_shown_exist() -> None:
    shown = {name for page in PAGES for name, _ in commands(page.read_text(encoding="utf-8"))}
    assert shown > {"bench", "convert", "setup_env.py", "committed"}, "no commands were found"
    faults = [fault for page in PAGES for fault in faults_of_commands(page.name, page.read_text(encoding="utf-8"))]
    assert not faults, "\n".join(faults)


def test_scripts_that_are_named_exist() -> None:
    for page in PAGES:
        code = "\n".join(code_of(page.read_text(encoding="utf-8")))
        for name in re.findall(r"\butils/([\w-]+)\.py", code) + re.findall(r"-m utils\.([\w-]+)", code):
            assert name == "X" or (ROOT / "utils" / f"{name}.py").is_file(), f"{page.name}: no utils/{name}.py"


def test_the_table_of_commands_is_the_program_s() -> None:
    shown = {row[0].strip("`").removeprefix("trit "): row[1] for row in table("docs/flags.md", "## Commands")}
    assert shown == {name: deed for name, (_, deed) in cli.COMMANDS.items()}


def test_every_script_is_in_the_table_with_its_command() -> None:
    shown = {row[0].strip("`"): row[1].strip("`") for row in table("docs/flags.md", "Scripts with")}
    scripts = [path for path in (ROOT / "utils").glob("*.py") if path.name != "__init__.py"]
    called = {path: re.search(r"``(trit [\w-]+)``", path.read_text(encoding="utf-8")) for path in scripts}
    assert shown == {f"utils/{path.name}": match and match[1] for path, match in called.items()}


@pytest.mark.parametrize("door", FRONT_DOORS)
def test_the_front_doors_flags_are_all_in_the_table(door: str) -> None:
    heading = "## setup_env.py" if door == "setup_env.py" else "## run_inference.py"
    cells = " ".join(row[0] for row in table("docs/flags.md", heading))
    shown = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", cells + " --temperature --conversation"))
    wanted = flags(FRONT_DOORS[door])
    assert wanted <= shown, f"docs/flags.md lacks {wanted - shown}"


def test_the_floors_are_those_of_the_rule() -> None:
    """The table of docs/architecture.md has every room, in the place where the tests want it."""
    python = {row[1].strip("`"): int(row[0]) for row in table("docs/architecture.md", "## The floors")}
    wanted = {f"trit/{room}" + ".py" * (room == "cli"): floor for room, floor in test_floors.FLOORS.items()}
    assert {room: floor for room, floor in python.items() if room.startswith("trit/")} == wanted
    sources = {row[1].strip("`"): int(row[0]) for row in table("docs/architecture.md", "The C++ has")}
    rooms = {f"src/{room}": floor for room, floor in test_repo.FLOORS.items()}
    assert sources == {**rooms, "include/trit.h": 0}


def test_every_tier_has_its_row() -> None:
    shown = {name for row in table("docs/tiers.md", "| tier | needs") for name in re.findall(r"`(\w+)`", row[0])}
    assert shown == {path.stem for path in (ROOT / "src" / "kernels" / "tiers").glob("*.cpp")}


def test_generated_tables_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.main(["--check"]) == 0, "run: trit committed summary"
    assert registry.main(["--check"]) == 0, "run: trit registry"


def test_the_readme_shows_what_was_captured() -> None:
    captured = (ROOT / "docs" / "pictures" / "terminal.txt").read_text(encoding="utf-8").splitlines()
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Start")[2].partition("\n## ")[0]
    shown = [
        line for line in re.findall(r"(?m)^    (.+)$", blocks) if not line.startswith(("python3 ", "pip ", "trit "))
    ]
    assert len(shown) > 4 and set(shown) <= set(captured)


def test_faults_are_found() -> None:
    text = "`trit gone`\n\n    trit bench --gone -m A -- --theirs  # trit x\n    python3 setup_env.py -md A --nothing\n"
    assert sorted(faults_of_commands("a", text)) == [
        "a: bench has no flag --gone",
        "a: setup_env.py has no flag --nothing",
        "a: there is no command gone",
    ]
    words = " ".join(["word"] * 41)
    long = [
        found for found in sentences(f"# {words}\n\n- One. {words}.\n\n| {words} |\n\n    {words}\n") if "word" in found
    ]
    assert long == [f"{words}."]
