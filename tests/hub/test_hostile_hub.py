# SPDX-License-Identifier: MIT
"""Answers that no Hub gives: a login page, a broken listing, another file. One sentence, and the next run is clean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import fake_hub
from trit.base.errors import TritError, UserError
from trit.hub.command import download
from trit.hub.failures import BACKOFF_VARIABLE
from trit.models.source_note import FILE_NAME

SEED = Path(__file__).parents[1] / "fuzz" / "seeds" / "whole"
FILES = {path.name: path.read_bytes() for path in SEED.iterdir()}
Hub = dict[str, fake_hub.Answer]


@pytest.fixture(autouse=True)
def no_naps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(BACKOFF_VARIABLE, "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def get(hub: Hub, folder: Path) -> None:
    with fake_hub.answering(hub):
        download(fake_hub.REPO, "main", str(folder), "i2_s", lambda note: None)


def refused(hub: Hub, folder: Path) -> str:
    """The sentence; afterwards a Hub in order gives every file as it is, and nothing else is left."""
    with pytest.raises(TritError) as caught:
        get(hub, folder)
    get(fake_hub.answers_for(FILES), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != FILE_NAME} == FILES
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return str(caught.value)


@pytest.mark.parametrize("page", fake_hub.PAGES)
def test_a_page_in_the_place_of_the_listing(page: bytes, tmp_path: Path) -> None:
    hub = fake_hub.answers_for(FILES)
    hub[fake_hub.LISTING].content = page
    said = refused(hub, tmp_path / "model")
    assert "is no Hub (" in said and "log in to the network" in said


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("page", [page for page in fake_hub.PAGES if page])
def test_a_page_in_the_place_of_a_file(page: bytes, name: str, tmp_path: Path) -> None:
    """With status 200, so that it could stay as the beginning of the file."""
    hub = fake_hub.answers_for(FILES)
    hub[name] = fake_hub.Answer(page)
    refused(hub, tmp_path / "model")


def test_a_page_leaves_what_was_there(tmp_path: Path) -> None:
    """The beginning of an earlier run is not lost to a login page."""
    hub = fake_hub.answers_for(FILES)
    hub["model.safetensors"].content = FILES["model.safetensors"][:1000]
    with pytest.raises(TritError):
        get(hub, tmp_path / "model")
    hub["model.safetensors"] = fake_hub.Answer(fake_hub.PAGES[1], ranges=False)
    with pytest.raises(UserError, match="is no Hub"):
        get(hub, tmp_path / "model")
    (partial,) = (tmp_path / "model").glob(".model.safetensors.*.download")
    assert partial.read_bytes() == FILES["model.safetensors"][:1000]


def test_a_beginning_of_something_else_is_fetched_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the same run: the bytes that were there did not come from this file."""
    hub = fake_hub.answers_for(FILES)
    hub["model.safetensors"].content = b"x" * 2000
    with pytest.raises(TritError):
        get(hub, tmp_path / "model")
    assert list((tmp_path / "model").glob(".model.safetensors.*.download"))
    get(fake_hub.answers_for(FILES), tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert "model.safetensors: its beginning, from an earlier answer, is of something else" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.update(sha=None),
        lambda info: info.update(sha="../../main"),
        lambda info: info.update(siblings={"a": 1}),
        lambda info: info.update(siblings=[None]),
        lambda info: info.update(siblings=[{"name": "config.json"}]),
        lambda info: info["siblings"][0].update(size=-1),
        lambda info: info["siblings"][0].update(size="12"),
        lambda info: info["siblings"][0].update(blobId="../../../tmp/x", lfs=None),
        lambda info: info["siblings"][0].update(blobId="a" * 39 + "/", lfs=None),
        lambda info: info["siblings"][0].update(lfs={"sha256": "b" * 63}),
        lambda info: info["siblings"][0].update(lfs=[1]),
    ],
)
def test_malformed_listings(change: Callable[[Any], object], tmp_path: Path) -> None:
    hub = fake_hub.answers_for(FILES)
    info = json.loads(hub[fake_hub.LISTING].content)
    change(info)
    hub[fake_hub.LISTING].content = json.dumps(info).encode()
    assert "is no Hub (" in refused(hub, tmp_path / "model")


def test_names_that_leave_the_folder_are_not_fetched(tmp_path: Path) -> None:
    hub = fake_hub.answers_for(FILES | {"../config.json": b"{}", "/etc/vocab.json": b"{}", "a\\..\\merges.txt": b"x"})
    with fake_hub.answering(hub) as requests:
        download(fake_hub.REPO, "main", str(tmp_path / "model"), "i2_s", lambda note: None)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {*FILES, FILE_NAME}
    assert not any("etc" in request.url.path or "merges" in request.url.path for request in requests)


def test_a_listing_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trit.hub.listing.MAX_LISTING_BYTES", 1 << 16)
    hub = fake_hub.answers_for(FILES)
    hub[fake_hub.LISTING].content += b" " * (1 << 17)
    with pytest.raises(UserError, match="has more than 65,536 bytes"):
        get(hub, tmp_path / "model")


@pytest.mark.parametrize(
    "config",
    ['{"hidden_size": 8, "head_dim": "abc", "num_attention_heads": 99999999}', "[" * 99_999, '{"head_dim": [1]}', "7"],
)
def test_absurd_configurations_are_left_to_the_converter(config: str, tmp_path: Path) -> None:
    files = FILES | {"config.json": config.encode()}
    get(fake_hub.answers_for(files), tmp_path / "model")
    assert (tmp_path / "model" / "config.json").read_text() == config


@pytest.mark.parametrize("name", ["../precious", "/precious", "x/../../precious"])
def test_a_note_that_names_files_elsewhere(name: str, tmp_path: Path) -> None:
    """Files that another revision has left are deleted: the note of a folder from elsewhere must not say which."""
    folder, precious = tmp_path / "model", tmp_path / "precious"
    folder.mkdir()
    precious.write_text("kept")
    entry = {"size": 4, "sha256": "0" * 64}
    note = {"repo": fake_hub.REPO, "revision": "main", "commit": "0" * 40, "complete": True, "files": {name: entry}}
    (folder / FILE_NAME).write_text(json.dumps(note))
    get(fake_hub.answers_for(FILES), folder)
    assert precious.read_text() == "kept"
