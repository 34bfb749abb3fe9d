# SPDX-License-Identifier: MIT
"""The engine's chat page: npm builds it from the pinned source, into one file that every build of the engine embeds.

What comes of it is in ``3rdparty/page``: the page, what pins it, and the notices of the packages that are in it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from trit.base.errors import CommandError, TritError, UserError
from trit.base.files import atomic_outputs
from trit.base.places import LOGS
from trit.base.processes import run
from trit.base.progress import StepLine
from trit.setup import engine
from trit.setup.context import Setup, sha256
from trit.setup.options import parse_options
from trit.setup.page import PAGE, PAGE_DIR, PAGE_LOCK

NOTICES = "NOTICES"
_UI = "tools/ui"
# Ours stand in their place and read them.
_CONFIGURATIONS = {"svelte.config.js": "svelte.upstream.js", "vite.config.ts": "vite.upstream.ts"}
# What is in the page without being one of its modules: styles, and the parts of the service worker.
_BESIDES = (
    *("katex", "tailwindcss", "@tailwindcss/forms", "@tailwindcss/typography", "tw-animate-css"),
    *("workbox-core", "workbox-expiration", "workbox-precaching", "workbox-routing", "workbox-strategies"),
)
# Some packages have the text alone.
_MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"
_LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice)(\W|$)", re.IGNORECASE)
# Nothing is loaded from another host or sent to one. Scripts are not restricted further: the page shows and runs what a
# model writes in frames without an origin, and those inherit this.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'none'"
)
_HEAD = '<meta charset="utf-8" />'
_SHOWN = 80


@dataclass(frozen=True)
class Package:
    """A package of npm whose code is in the page.

    Attributes:
        name: of the package.
        version: of it.
        licence: its SPDX name.
        text: its licence, whole.
    """

    name: str
    version: str
    licence: str
    text: str


def build_page() -> str:
    """Build the page and write the files of ``3rdparty/page``; one that comes out the same is left as it is.

    The build has a temporary folder of its own, outside of any repository: what git ignores, its tools ignore, too.
    700 MB of packages go there. It stays where something fails, to be looked at.

    Returns:
        What was done, in words.

    Raises:
        UserError: npm is not there.
        TritError: the engine's source could not be fetched, or npm failed; names the log.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("npm is not there; install Node.js 20.19 or newer, which brings it")
    setup = Setup(parse_options([]))
    lock = engine.read_lock()
    work = Path(tempfile.mkdtemp(prefix="trit-page-"))
    with StepLine(1, 3, "source", f"the page of llama.cpp {lock.commit}") as line:
        engine.unpack(engine.fetch(setup, line, lock), work, replace(lock, keep=(_UI,)))
        line.done(f"the page of llama.cpp {lock.commit}")
    source, dist = work / _UI, work / "dist"
    told = tree_digest(source)
    for file, other in _CONFIGURATIONS.items():
        (source / file).rename(source / other)
    for path in PAGE_DIR.glob("*.config.js"):
        shutil.copy(path, source)
    variables = {"LLAMA_UI_OUT_DIR": str(dist), "LLAMA_BUILD_NUMBER": lock.commit, "TRIT_PAGE_VERSION": lock.commit}
    for number, words in enumerate(("ci --no-audit --no-fund", "run build"), 2):
        with StepLine(number, 3, f"npm {words.split()[-1].strip('-')}", f"npm {words}") as line:
            _npm([npm, *words.split()], source, variables, line)
            line.done(f"npm {words}")
    finish(dist)
    said = write(dist, lock.commit, told, packages(source))
    shutil.rmtree(work)
    return said


def _npm(command: list[str], source: Path, variables: dict[str, str], line: StepLine) -> None:
    def show(text: str) -> None:
        line.update(text.strip()[:_SHOWN])

    try:
        run(command, " ".join(["npm", *command[1:]]), LOGS / "page.log", cwd=source, env=variables, on_line=show)
    except CommandError as error:
        raise TritError(f"{error}; it said: {error.tail[-1] if error.tail else 'nothing'}") from error


def finish(dist: Path) -> None:
    """Write the policy into the page, and its new hash into the list of what the service worker keeps.

    Raises:
        TritError: one of them has no place for it.
    """
    index, worker = dist / "index.html", dist / "sw.js"
    text = index.read_text(encoding="utf-8")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />'
    text = _once(index, text, re.escape(_HEAD), f"{_HEAD}\n\t\t{policy}")
    index.write_text(text, encoding="utf-8", newline="\n")
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    known = r'(\{url:"(?:\./|index\.html)",revision:)"[^"]*"'
    script = _once(worker, worker.read_text(encoding="utf-8"), known, rf'\g<1>"{digest}"')
    worker.write_text(script, encoding="utf-8", newline="\n")


def _once(path: Path, text: str, pattern: str, new: str) -> str:
    changed, count = re.subn(pattern, new, text)
    if count != 1:
        raise TritError(f"{path}: has {pattern} {count} times, expected it once; adapt trit/release/page.py")
    return changed


def packages(source: Path) -> list[Package]:
    """The packages that are in a page, and what was copied into its source, from the list that its build wrote.

    Raises:
        TritError: one of them does not say how it is licensed.
    """
    folders = json.loads((source / "trit-packages.json").read_text(encoding="utf-8"))
    found = [_package(source / name) for name in sorted({*folders, *(f"node_modules/{name}" for name in _BESIDES)})]
    for folder in sorted((source / "src" / "lib" / "vendors").iterdir()):
        if folder.is_dir():
            found.append(Package(folder.name, "", "MIT", _licence_text(folder)))
    for package in found:
        if not package.licence:
            raise TritError(f"the package {package.name} names no licence; say which one in trit/release/page.py")
    return found


def _package(folder: Path) -> Package:
    about = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    text = _licence_text(folder)
    licence = about.get("license") or ("MIT" if _MIT in " ".join(text.split()) else "")
    return Package(about["name"], about["version"], str(licence), text)


def _licence_text(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file() and _LICENCE_FILE.match(path.name))
    texts = [path.read_text(encoding="utf-8", errors="replace").strip() for path in files]
    return "\n\n".join(texts)


def tree_digest(folder: Path) -> str:
    """The SHA-256 over names and contents of a folder's files."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return total.hexdigest()


def write(dist: Path, commit: str, source: str, found: list[Package]) -> str:
    """Write the page, what pins it and the notices, all of them or none.

    Args:
        dist: what npm made.
        commit: the engine's.
        source: digest of what it was made from.
        found: the packages in it.

    Returns:
        What was done, in words.
    """
    page, lock, notices = (PAGE_DIR / name for name in (PAGE, PAGE_LOCK, NOTICES))
    content = tree_digest(dist)
    before = json.loads(lock.read_text(encoding="utf-8")) if lock.is_file() else {}
    if page.is_file() and (before.get("content"), before.get("source")) == (content, source):
        return f"{page}: came out the same, byte for byte"
    with atomic_outputs([page, lock, notices]) as (new_page, new_lock, new_notices):
        pack(dist, new_page)
        pinned = {
            "commit": commit,
            "source": source,
            "content": content,
            "sha256": sha256(new_page),
            "packages": {package.name: [package.version, package.licence] for package in found},
        }
        new_lock.write_text(json.dumps(pinned, indent=1) + "\n", encoding="utf-8", newline="\n")
        new_notices.write_text(notice(found), encoding="utf-8", newline="\n")
    return f"made: {page} ({page.stat().st_size / 1e6:.1f} MB, {len(found)} packages)"


def pack(folder: Path, target: Path) -> None:
    """A folder's files as one compressed file, the same bytes for the same files."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(member, file)


def notice(found: list[Package]) -> str:
    """The licences of the packages; those with the same text stand together."""
    texts: dict[str, list[str]] = {}
    for package in found:
        text = package.text or f"The package holds no text of its licence, {package.licence}."
        texts.setdefault(text, []).append(f"{package.name} {package.version} ({package.licence})".replace("  ", " "))
    head = "The chat page is made of llama.cpp's (MIT; its licence is in llama.cpp's LICENSE) and of these packages."
    parts = [f"{'=' * 80}\n{chr(10).join(names)}\n{'-' * 80}\n{text}\n" for text, names in texts.items()]
    return "\n".join([head, *parts])
