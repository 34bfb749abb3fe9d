# SPDX-License-Identifier: MIT
"""The engine's advisories against its pin, and what doctor says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trit.base.places import LOCK, ROOT
from trit.inspect import advisories, doctor
from trit.inspect.advisories import FILE, Advisory, Known, known

PIN = {"commit": "abc", "build": 5000, "date": "2026-03-01"}


def state(tmp_path: Path, kept: tuple[str, ...] = ("src",), **fields: object) -> str:
    return Advisory("CVE-1", "a fault", "request", "https://example.org", **fields).state(PIN, kept, tmp_path)  # type: ignore[arg-type]


def test_builds_and_days_are_compared_with_the_pin(tmp_path: Path) -> None:
    assert state(tmp_path, build=5000) == "mended"
    assert state(tmp_path, build=5001) == "open"
    assert state(tmp_path, before="2026-03-01") == "mended"
    assert state(tmp_path, before="2026-03-02") == "open"
    assert state(tmp_path, commit="123abc") == "open", "a commit alone says nothing of its place in the history"


def test_code_that_is_not_fetched_and_our_patches_count(tmp_path: Path) -> None:
    assert state(tmp_path, not_built="src/rpc") == "open", "its parent is kept"
    assert state(tmp_path, kept=("src/rpc/a.cpp",), not_built="src/rpc") == "open"
    assert state(tmp_path, kept=("src/rpc2",), not_built="src/rpc") == "not built"
    assert state(tmp_path, patch="x", only_with="--slots") == "only with --slots"
    (tmp_path / "0001-x.patch").touch()
    assert state(tmp_path, patch="x", only_with="--slots") == "mended by our patch"


def test_the_pin_of_the_advisories_is_that_of_the_engine() -> None:
    """Whoever moves the pin looks at the advisories again."""
    pin = json.loads(FILE.read_text(encoding="utf-8"))["pin"]
    assert pin["commit"] == json.loads(LOCK.read_text(encoding="utf-8"))["commit"]


def test_every_advisory_is_mended_or_out_of_reach() -> None:
    """Those that a patch of ours mends are doctor's to report where the patch is missing."""
    open_ones = {one for one, state in known().states.items() if state == "open"}
    assert {one.id for one in open_ones if not one.patch} == set()


def test_the_document_has_the_table() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    # What is mended by a patch alone differs with the patches that are there.
    for row, one in zip(known().table().splitlines()[2:], known().states, strict=True):
        cells = row.rsplit("|", 2)[0] if one.patch else row
        assert cells in text, f"docs/security.md lacks: {row}"


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (("mended", "not built"), "all 2"),
        (("mended", "only with --x"), "1 of 2; CVE-1 only with --x"),
        (("open", "mended"), "1 of 2; CVE-0 open"),
    ],
)
def test_doctor_names_what_is_left(monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], words: str) -> None:
    rows = {Advisory(f"CVE-{i}", "a", "b", "c"): one for i, one in enumerate(states)}
    monkeypatch.setattr(advisories, "known", lambda: Known(PIN, rows))
    found = {finding.name: finding for finding in [doctor._advisories(), doctor._sandbox()]}
    assert words in found["advisories"].found
    assert found["advisories"].well == ("open" not in states)
    assert "Landlock" in found["sandbox"].found
