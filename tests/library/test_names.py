# SPDX-License-Identifier: MIT
"""Which model a name means."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trit.base import places
from trit.base.errors import UnknownNameError, UserError
from trit.library.names import Wanted, is_path, of_name, resolve
from trit.models.registry import registry


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bitnet-2b-4t", "microsoft/BitNet-b1.58-2B-4T"),
        ("BitNet-b1.58-2B-4T", "microsoft/BitNet-b1.58-2B-4T"),
        ("microsoft/bitnet-B1.58-2b-4t@v1.0", "microsoft/BitNet-b1.58-2B-4T@v1.0"),
        ("org/model", "org/model"),
        ("org/model@refs/pr/1", "org/model@refs/pr/1"),
        ("org/model@main", "org/model"),
        ("https://huggingface.co/org/model/tree/v2", "org/model@v2"),
        ("https:/huggingface.co/org/model", "org/model"),
        ("mine", "org/Mine"),
        ("kept@v3", "org/kept@v3"),
    ],
)
def test_what_a_name_means(text: str, name: str) -> None:
    wanted = resolve(text, ["org/Mine", "org/kept@v1", "a/twice", "b/twice"])
    assert wanted is not None and wanted.name == name and of_name(name) == wanted


def test_the_bundled_model_has_a_name() -> None:
    assert resolve("trit-story-3m") is None and resolve("Trit-Story-3M") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bitnet-2b4t", "did you mean bitnet-2b-4t"),
        ("falcon3-10-instruct", "did you mean falcon3-10b-instruct"),
        ("trit-story", "did you mean trit-story-3m"),
        ("min", "did you mean Mine"),
        ("twice", "did you mean twice"),
        ("xyzzy", "give ORG/NAME of a model on the Hub, or a name that is shown by: trit list --known"),
        ("Where is Mary?", "no file, no folder and no model of this name"),
        ("a/b/c", "no model of this name"),
        ("", "no model of this name"),
        ("org/", "no model of this name"),
    ],
)
def test_a_name_that_there_is_not_tells_the_nearest(text: str, said: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        resolve(text, ["org/Mine", "a/twice", "b/twice"])
    assert said in str(error.value)


def test_short_names_are_those_that_are_shown() -> None:
    for model in registry().models:
        wanted = resolve(model.short)
        assert wanted is not None and wanted.source == model.repo and wanted.shown == model.short
    assert Wanted("microsoft/BitNet-b1.58-2B-4T", "v1").shown == "bitnet-2b-4t@v1"


def test_what_looks_like_a_path_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for text in ("m.gguf", "../m", "models/m", "a/b/c", str(tmp_path / "m"), "~/m"):
        assert is_path(Path(text)), text
    for text in ("bitnet-2b-4t", "org/model", "org/model@v1", "https://huggingface.co/org/model/tree/main"):
        assert not is_path(Path(text)), text


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the rule of XDG")
def test_where_models_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    for name in ("TRIT_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert places.home() == Path("/home/u/.cache/trit")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert places.home() == Path("/home/u/.cache/trit"), "the rule says that such a value is none"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert places.home() == Path("/cache/trit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIT_HOME", "here")
    assert places.home() == tmp_path / "here"
    monkeypatch.setenv("TRIT_HOME", "")
    assert places.home() == Path("/cache/trit")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("TRIT_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(places.Path, "home", nowhere)
    with pytest.raises(UserError, match="no home folder for models; name one in the variable TRIT_HOME"):
        places.home()
