# SPDX-License-Identifier: MIT
"""Every link of the documents leads somewhere, and every file and module that they name is there."""

from __future__ import annotations

import functools
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = next(path for path in Path(__file__).resolve().parents if (path / "pyproject.toml").is_file())
# Words that stand for a name of the reader's choice; so do <tier> and the like.
PLACEHOLDERS = {"DIR", "FILE", "FOLDER", "MODEL", "NAME", "OTHER", "PATH", "STEM", "TEXT", "TIER", "TYPE"}
# What commands make, and folders of the reader's own.
MADE = re.compile(
    r"3rdparty/(llama\.cpp|cache)(/|$)|models/(?!trit-story-3m)|models/trit-story-3m/.*\.gguf$|deploy/trit_api_key$"
)
# Files of other projects, named beside the project.
THEIRS = {"bitnet.cpp", "ik_llama.cpp", "llama.cpp", "trit.cpp", "include/kernel_config.ini", "arm_neon.h"}
# Keys of a GGUF file's metadata; they look like modules.
KEYS = re.compile(r"trit\.(?:(?:source|converter|encoding)\.|padding$)")
# Written by commands; they say what was run on their day.
RECORDS = "benchmarks/results/"


@functools.cache
def tracked() -> tuple[str, ...]:
    """Paths of the files of this checkout, relative to its root; those that git ignores are left out."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout: which files belong to it is not known")
    return tuple(name for name in listing.stdout.splitlines() if (ROOT / name).is_file())


def pages() -> list[str]:
    """The documents."""
    return [name for name in tracked() if name.endswith(".md")]


def folders() -> set[str]:
    """The top-level folders."""
    return {name.split("/")[0] for name in tracked() if "/" in name}


def code_and_prose(text: str) -> tuple[str, str]:
    """Split Markdown into what is code (fenced, indented, between backticks), a piece a line, and the rest."""
    code: list[str] = []
    prose: list[str] = []
    fenced = False
    before = ""
    for line in text.splitlines():
        indented = line.startswith("    ") and (not before.strip() or before.startswith("    "))
        before = line
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or indented:
            code.append(line)
        else:
            prose.append(line)
    rest = "\n".join(prose)
    # Between backticks a span may go on in the next line.
    code += [span.replace("\n", " ") for _, span in re.findall(r"(?s)(`+)(.+?)\1", rest)]
    return "\n".join(code), re.sub(r"(?s)(`+)(.+?)\1", "", rest)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    seen: Counter[str] = Counter()
    names = set()
    outside = re.sub(r"(?ms)^```.*?^```", "", text)
    for heading in re.findall(r"(?m)^#{1,6} +(.*?)#* *$", outside):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip()
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return names | set(re.findall(r'<a (?:name|id)="([^"]+)"', text))


def links(text: str) -> list[str]:
    """Targets of links and pictures, those of the web left out."""
    prose = code_and_prose(text)[1]
    found = re.findall(
        r'\]\(([^()\s]+)(?:\s+"[^"]*")?\)|<(?:img|a|source)\b[^>]*?\b(?:src|href|srcset)="([^"]+)"', prose
    )
    found += [(target, "") for target in re.findall(r"(?m)^\[[^\]]+\]: +(\S+)", prose)]
    targets = [first or second for first, second in found]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def broken(page: str, text: str) -> Iterator[str]:
    """The links of a page that lead nowhere."""
    for target in links(text):
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists():
            yield f"{page}: no file for the link {target}"
        elif anchor and path.suffix == ".md" and anchor not in anchors(text if not name else path.read_text("utf-8")):
            yield f"{page}: no heading for the link {target}"


def spelled_out(word: str) -> list[str]:
    """``a-{b,c}`` is two words."""
    match = re.search(r"\{([^{}]*,[^{}]*)\}", word)
    if match is None:
        return [word]
    parts = [word[: match.start()] + part + word[match.end() :] for part in match.group(1).split(",")]
    return [result for part in parts for result in spelled_out(part)]


def named(text: str, page: str = "README.md") -> Iterator[str]:
    """Paths below a top-level folder or one beside the page, files of code and our modules that stand in it as code."""
    beside = Path(page).parent.as_posix() + "/"
    inside = {name.removeprefix(beside).split("/")[0] for name in tracked() if re.match(rf"{beside}[^/]+/", name)}
    near = "|".join(map(re.escape, sorted(inside))) or "(?!)"
    top = "|".join(map(re.escape, sorted(folders())))
    packages = "|".join(sorted({name.split("/")[0] for name in tracked() if name.endswith("/__init__.py")}))
    pattern = rf"(?:{top})/.*|(?:{packages})(?:\.\w+)+|[\w.-]+\.(?:py|cpp|h)"
    for word in re.split(r"[\s()\[\]\"'`|&;=,]+(?![^{}]*\})", code_and_prose(text)[0]):
        word = word.removeprefix("--").removesuffix("-->")  # the arrows of a picture
        bare = re.sub(r"(::.*|:\d+(-\d+)?)$", "", word.removeprefix("./").removeprefix("$PWD/")).rstrip(".:")
        placeholder = re.search(r"[<>$]|\.\.\.", bare) or PLACEHOLDERS & set(re.split(r"[/.]", bare))
        if placeholder:
            continue
        if re.fullmatch(pattern, bare):
            yield from spelled_out(bare)
        elif re.fullmatch(rf"(?:{near})/.*", bare):
            yield from (beside + name for name in spelled_out(bare))


def is_there(name: str) -> bool:
    """Whether a path, a pattern of paths, the bare name of a file or a module belongs to the repository."""
    if name in THEIRS or MADE.match(name) or KEYS.match(name):
        return True
    if "*" in name or "?" in name:
        return any(ROOT.glob(name))
    if "/" in name:  # kernels go by their names, without the ending
        return (ROOT / name).exists() or any((ROOT / name).parent.glob(f"{Path(name).name}.cpp"))
    if name.endswith((".py", ".cpp", ".h")):
        return any(path.rsplit("/", 1)[-1] == name for path in tracked())
    module = ROOT / name.replace(".", "/")
    if module.is_dir() or module.with_suffix(".py").is_file():
        return True
    # The last part may be a name inside a module.
    parent = module.parent.with_suffix(".py") if not module.parent.is_dir() else module.parent / "__init__.py"
    return parent.is_file() and re.search(rf"\b{module.name}\b", parent.read_text("utf-8")) is not None


def test_links_lead_somewhere() -> None:
    assert pages(), "no documents were found"
    faults = [fault for page in pages() for fault in broken(page, (ROOT / page).read_text("utf-8"))]
    assert not faults, "\n".join(faults)


def test_what_documents_name_is_there() -> None:
    texts = {page: (ROOT / page).read_text("utf-8") for page in pages() if not page.startswith(RECORDS)}
    words = {page: set(named(text, page)) for page, text in texts.items()}
    assert any("tests/house/test_repo.py" in found for found in words.values()), "no paths were found"
    faults = [f"{page}: {name} is not there" for page in words for name in sorted(words[page]) if not is_there(name)]
    assert not faults, "\n".join(faults)


def test_a_broken_link_is_found() -> None:
    text = "# One `two`: three\n[a](#one-two-three) [b](#four) [c](docs/nothing.md) `[d](docs/code.md)` [e](LICENSE)\n"
    assert list(broken("README.md", text)) == [
        "README.md: no heading for the link #four",
        "README.md: no file for the link docs/nothing.md",
    ]


def test_a_stale_name_is_found() -> None:
    text = (
        "`docs/gone.md`, `tests/{conftest,gone}.py`, `models/mine`, `tests/NAME.py`, src/prose.cpp, `gone.cpp`,\n"
        "`src/*/*.cpp`, `src/*.gone`\n\n    python3 -m tests.gone tests/conftest.py:12 $PWD/docs/decisions.md\n"
    )
    stale = [name for name in named(text) if not is_there(name)]
    assert sorted(stale) == ["docs/gone.md", "gone.cpp", "src/*.gone", "tests.gone", "tests/gone.py"]
    assert list(named("`patches/gone.patch`", "3rdparty/README.md")) == ["3rdparty/patches/gone.patch"]
