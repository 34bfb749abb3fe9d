# SPDX-License-Identifier: MIT
"""The chat page that is committed, and the command that makes it; tests/run/test_chat_page.py opens it in a browser."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trit.base.errors import TritError, UserError
from trit.base.places import CACHE_DIR, LOCK
from trit.release import page
from trit.release.page import NOTICES, POLICY, Package, finish, notice, packages, tree_digest, write
from trit.setup import engine
from trit.setup.page import PAGE, PAGE_DIR, PAGE_LOCK, unpack_page

PINNED = json.loads((PAGE_DIR / PAGE_LOCK).read_text(encoding="utf-8"))
INDEX = '<html><head>\n\t\t<meta charset="utf-8" />\n</head></html>'
WORKER = 'precache([{url:"./",revision:"old"},{url:"bundle.js",revision:null}])'


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed page, unpacked as set-up does it."""
    tree = tmp_path_factory.mktemp("page")
    unpack_page(tree)
    return tree / "tools" / "ui" / "dist"


def test_it_is_of_the_pinned_source(tmp_path: Path) -> None:
    """Whoever moves the pin builds the page again."""
    assert PINNED["commit"] == json.loads(LOCK.read_text(encoding="utf-8"))["commit"]
    lock = engine.read_lock()
    sdist = CACHE_DIR / lock.sdist
    if not sdist.is_file():
        pytest.skip(f"{sdist} is not there (the engine came from --llama-cpp-dir)")
    engine.unpack(sdist, tmp_path, replace(lock, keep=("tools/ui",)))
    assert tree_digest(tmp_path / "tools" / "ui") == PINNED["source"]


def test_its_content_is_what_is_pinned(dist: Path) -> None:
    assert tree_digest(dist) == PINNED["content"]
    version = json.loads((dist / "_app" / "version.json").read_text(encoding="utf-8"))["version"]
    assert version == PINNED["commit"], "the time of day would differ in every build"


class _Addresses(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.policy = ""
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values.get("content") or ""
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def test_it_names_files_of_its_own_alone(dist: Path) -> None:
    told = _Addresses((dist / "index.html").read_text(encoding="utf-8"))
    assert told.policy == POLICY and len(told.found) > 5
    missing = [name for name in told.found if not (dist / name).is_file()]
    assert not missing
    listed = re.findall(r'\{url:"([^"]+)",revision:', (dist / "sw.js").read_text(encoding="utf-8"))
    assert len(listed) > 5 and all((dist / name).exists() for name in listed)


def test_its_policy_names_no_host() -> None:
    allowed = {word for part in POLICY.split(";") for word in part.split()[1:]}
    assert allowed <= {"'self'", "'none'", "data:", "blob:", "'unsafe-inline'", "'unsafe-eval'"}


def test_a_changed_page_is_a_new_one_for_the_service_worker(dist: Path) -> None:
    digest = hashlib.md5((dist / "index.html").read_bytes(), usedforsecurity=False).hexdigest()
    assert f'revision:"{digest}"' in (dist / "sw.js").read_text(encoding="utf-8")


def test_notices_hold_every_package_and_its_licence() -> None:
    text = (PAGE_DIR / NOTICES).read_text(encoding="utf-8")
    assert {"svelte", "@sveltejs/kit", "katex", "tailwindcss", "workbox-core", "decimal.js"} <= PINNED[
        "packages"
    ].keys()
    for name, (version, licence) in PINNED["packages"].items():
        assert f"{name} {version} ({licence})".replace("  ", " ") in text
        assert not re.search(r"\bA?GPL", licence), f"{name} is {licence}"


def test_a_damaged_page_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (PAGE, PAGE_LOCK):
        (tmp_path / name).write_bytes((PAGE_DIR / name).read_bytes())
    (tmp_path / PAGE).write_bytes(b"<html>")
    monkeypatch.setattr("trit.setup.page.PAGE_DIR", tmp_path)
    with pytest.raises(UserError, match=rf"{PAGE}: is not the file that {PAGE_LOCK} beside it pins; restore both"):
        unpack_page(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def made(folder: Path, index: str = INDEX, worker: str = WORKER) -> Path:
    """What npm would make."""
    folder.mkdir()
    (folder / "index.html").write_text(index)
    (folder / "sw.js").write_text(worker)
    return folder


def test_the_policy_goes_into_the_page(tmp_path: Path) -> None:
    folder = made(tmp_path / "dist")
    finish(folder)
    text = (folder / "index.html").read_text()
    assert _Addresses(text).policy == POLICY
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    assert (folder / "sw.js").read_text() == WORKER.replace("old", digest)


@pytest.mark.parametrize(("index", "worker"), [("<html></html>", WORKER), (INDEX, "precache([])")])
def test_another_form_of_page_is_an_error(index: str, worker: str, tmp_path: Path) -> None:
    with pytest.raises(TritError, match=r"0 times, expected it once; adapt trit/release/page\.py"):
        finish(made(tmp_path / "dist", index, worker))


def test_the_same_page_is_left_alone_and_another_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PAGE_DIR", tmp_path / "page")
    found = [Package("a", "1.0", "MIT", "Do."), Package("b", "2.0", "MIT", "Do."), Package("c", "3", "ISC", "")]
    folder = made(tmp_path / "dist")
    assert write(folder, "abc", "source", found).startswith("made: ")
    before = {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    assert before.keys() == {PAGE, PAGE_LOCK, NOTICES}
    assert write(folder, "abc", "source", found).endswith("came out the same, byte for byte")
    (tmp_path / "page" / PAGE).unlink()
    write(folder, "abc", "source", found)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    with tarfile.open(tmp_path / "page" / PAGE) as archive:
        assert [(member.name, member.mtime, member.uname) for member in archive] == [
            ("index.html", 0, ""),
            ("sw.js", 0, ""),
        ]
    (folder / "sw.js").write_text("other")
    assert write(folder, "abc", "source", found).startswith("made: ")


def test_packages_with_one_licence_text_stand_together() -> None:
    text = notice([Package("a", "1", "MIT", "Do."), Package("b", "2", "MIT", "Do."), Package("c", "", "ISC", "")])
    assert "a 1 (MIT)\nb 2 (MIT)\n" in text and text.count("Do.") == 1
    assert "c (ISC)" in text and "holds no text of its licence, ISC" in text


def test_a_package_without_a_licence_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_BESIDES", ())
    folder = tmp_path / "node_modules" / "@x" / "y"
    folder.mkdir(parents=True)
    (tmp_path / "src" / "lib" / "vendors" / "v").mkdir(parents=True)
    (tmp_path / "src" / "lib" / "vendors" / "v" / "LICENCE.md").write_text("Ours.\r\nAll.\r\n")
    (tmp_path / "trit-packages.json").write_text('["node_modules/@x/y"]')
    (folder / "package.json").write_text('{"name": "@x/y", "version": "1.2", "license": "MIT"}')
    (folder / "LICENSE.txt").write_text("Mine.")
    assert packages(tmp_path) == [Package("@x/y", "1.2", "MIT", "Mine."), Package("v", "", "MIT", "Ours.\nAll.")]
    (folder / "package.json").write_text('{"name": "@x/y", "version": "1.2"}')
    (folder / "LICENSE.txt").write_text(f"{page._MIT} and so on")
    assert packages(tmp_path)[0].licence == "MIT"
    (folder / "LICENSE.txt").write_text("Mine.")
    with pytest.raises(TritError, match="the package @x/y names no licence"):
        packages(tmp_path)


def test_without_npm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trit.release.page.shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"npm is not there; install Node\.js"):
        page.build_page()
