# SPDX-License-Identifier: MIT
"""trit.hub and repositories with ready-made GGUF files: which one is fetched, and what is refused unfetched."""

# The fixtures come from test_hub.py: to ruff their names are imported, unused, and defined again as arguments.
# ruff: noqa: F401, F811

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from tests.hub.test_hub import FILES, WANTED, fetch, folder, hub, present
from tests.support.foreign_files import Key, write_gguf
from tests.support.hub_server import HubServer, Repo
from tests.support.tiny_gguf import tiny_gguf
from trit.base.errors import UserError
from trit.hub import space
from trit.hub.choice import ready_models
from trit.models.source_note import read_manifest


def test_a_ready_made_gguf_is_used_as_it_is(hub: HubServer, folder: Path) -> None:
    model = tiny_gguf("i2_s")
    files = {"config.json": b"{}", "Model-Q8_0.gguf": b"no", "Model-I2_S.gguf": model, "Model-TQ2_0.gguf": b"no"}
    hub.repos["org/model"] = Repo(files)
    fetch(folder)
    assert present(folder) == {"Model-I2_S.gguf"}
    assert (folder / "Model-I2_S.gguf").read_bytes() == model
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.gguf == "Model-I2_S.gguf"


def test_which_gguf(hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The encoding that -q names, else the best there is; by content where the name says nothing or lies."""
    contents = {name: tiny_gguf(name) for name in ("i2_s", "tq2_0", "q2_0")}
    hub.repos["org/model-GGUF"] = Repo({"a-tq2_0.gguf": contents["tq2_0"], "a.q2_0.gguf": contents["q2_0"], **FILES})
    fetch(tmp_path / "1", "org/model-GGUF", "--quant-type", "q2_0")
    assert present(tmp_path / "1") == {"a.q2_0.gguf"}
    assert "note:" not in capsys.readouterr().out
    fetch(tmp_path / "2", "org/model-GGUF")
    assert present(tmp_path / "2") == {"a-tq2_0.gguf"}
    assert "ready-made as tq2_0, so it is used as that and not made i2_s" in capsys.readouterr().out
    hub.repos["org/model-GGUF"] = Repo({"model.gguf": contents["q2_0"]})
    fetch(tmp_path / "3", "org/model-GGUF")
    assert present(tmp_path / "3") == {"model.gguf"}
    hub.repos["org/model-GGUF"] = Repo({"a-i2_s.gguf": tiny_gguf("f16"), "a-q2_0.gguf": contents["q2_0"]})
    fetch(tmp_path / "4", "org/model-GGUF")
    assert present(tmp_path / "4") == {"a-q2_0.gguf"}
    hub.repos["org/model-GGUF"] = Repo({"a-i2_s.gguf": b"<html>", **FILES})
    fetch(tmp_path / "5", "org/model-GGUF")
    assert present(tmp_path / "5") == WANTED, "a checkpoint is better than a broken GGUF"


def test_a_split_gguf(hub: HubServer, folder: Path) -> None:
    names = [f"big-i2_s-0000{part}-of-00002.gguf" for part in (1, 2)]
    hub.repos["org/model"] = Repo({name: tiny_gguf("i2_s") for name in names})
    fetch(folder)
    assert present(folder) == set(names)
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.gguf == names[0]


def test_a_split_gguf_that_is_not_whole(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"big-i2_s-0000{part}-of-00003.gguf" for part in (1, 3)]
    hub.repos["org/model"] = Repo({name: tiny_gguf("i2_s") for name in names})
    with pytest.raises(UserError, match="org/model holds only some parts of a split GGUF model"):
        fetch(folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in names:
        (folder / name).write_bytes(tiny_gguf("i2_s"))
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch(folder)
    (folder / names[0].replace("00001", "00002")).write_bytes(tiny_gguf("i2_s"))
    fetch(folder)


def test_a_model_both_whole_and_split(hub: HubServer, folder: Path) -> None:
    names = ["big-i2_s.gguf", *(f"big-i2_s-0000{part}-of-00002.gguf" for part in (1, 2))]
    hub.repos["org/model"] = Repo({name: tiny_gguf("i2_s") for name in names})
    fetch(folder)
    assert present(folder) in ({names[0]}, set(names[1:]))


def test_a_gguf_that_became_another_is_looked_at_anew(hub: HubServer, folder: Path) -> None:
    """The file of the last download says nothing about the one that is there now."""
    name, new = "B-Q2_0.gguf", tiny_gguf("q2_0")
    hub.repos["org/model-gguf"] = Repo({name: tiny_gguf("q2_0", bytes_per_128=34)})
    fetch(folder, "org/model-gguf")
    hub.repos["org/model-gguf"].files[name] = new
    fetch(folder, "org/model-gguf")
    assert present(folder) == {name} and (folder / name).read_bytes() == new


def test_a_gguf_of_another_engine_is_fetched_to_be_converted(hub: HubServer, folder: Path) -> None:
    """Ternary-Bonsai's published files: type 42 with groups of 128 in 34 bytes, not 64 in 18."""
    old, new = tiny_gguf("q2_0", bytes_per_128=34), tiny_gguf("q2_0")
    hub.repos["org/model-gguf"] = Repo({"B-Q2_0.gguf": old, "B-F16.gguf": b"no", "B-Q2_0_g64.gguf": new})
    fetch(folder, "org/model-gguf")
    assert present(folder) == {"B-Q2_0_g64.gguf"}, "better one that loads as it is"
    shutil.rmtree(folder)
    hub.repos["org/model-gguf"] = Repo({"B-Q2_0.gguf": old, "B-F16.gguf": b"no"})
    fetch(folder, "org/model-gguf")
    assert present(folder) == {"B-Q2_0.gguf"}
    shutil.rmtree(folder)
    hub.repos["org/model-gguf"] = Repo({"B-Q2_0.gguf": old, **FILES})
    fetch(folder, "org/model-gguf")
    assert present(folder) == WANTED, "a checkpoint is the better thing to convert"


@pytest.mark.parametrize("loads", [True, False])
def test_room_for_the_conversion_of_a_gguf(
    loads: bool, hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a foreign file there will be two. (This one is so small that looking into it is all of its download.)"""
    content = tiny_gguf("q2_0", bytes_per_128=None if loads else 34)
    hub.repos["org/model"] = Repo({"B-Q2_0.gguf": content})
    need = len(content) if loads else len(content) * 9 // 7
    for free in (need - 1, need):
        monkeypatch.setattr(space.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if free < need:
            with pytest.raises(UserError, match=r"org/model needs .* of disk"):
                fetch(folder)
        else:
            fetch(folder)


def test_ggufs_that_are_known_and_cannot_be_used(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    """Refused by their first megabytes: their tiles are in no file, their weights are rotated."""
    architecture: Key = ("general.architecture", 8, None, "bitnet-b1.58")
    tiled = ("blk.0.attn_q.weight", (128, 256), 38, bytes(128 * 256 // 4 + 32))
    rotated = ("blk.0.attn_q.weight", (64, 256), 142, bytes(64 * 256 // 128 * 34))
    for keys, tensor, reason in (
        ([architecture], tiled, r"blk\.0\.attn_q\.weight is bitnet_tl1, whose tile sizes are in a kernel_config"),
        ([architecture, ("prism.hadamard.version", 4, None, 1)], rotated, "its weights are rotated"),
    ):
        content = write_gguf(tmp_path / "m.gguf", keys, [tensor]).read_bytes()
        hub.repos["org/model"] = Repo({"m.gguf": content})
        with pytest.raises(UserError, match=rf"no GGUF file that can be used: m\.gguf: {reason}"):
            fetch(folder)
        assert present(folder) == set()


def test_layouts_that_nothing_reads_are_refused_before_the_download(hub: HubServer, folder: Path) -> None:
    hub.repos["org/model-gguf"] = Repo({"B-Q2_0.gguf": tiny_gguf("q2_0", bytes_per_128=40)})
    with pytest.raises(
        UserError, match=r"no GGUF file that can be used: B-Q2_0\.gguf: blk\.0\.attn_q\.weight has type 42"
    ):
        fetch(folder, "org/model-gguf")
    assert present(folder) == set()


def test_the_beginning_of_a_gguf_is_not_fetched_twice(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header is longer than the first look here, so that it takes a second one."""
    from trit.hub import gguf_head

    monkeypatch.setattr(gguf_head, "_HEADS", (100, 2048))
    model = tiny_gguf("i2_s")
    hub.repos["org/model"] = Repo({"m-i2_s.gguf": model})
    fetch(folder)
    assert hub.ranges("/storage/") == ["bytes=0-99", "bytes=100-2047", "bytes=2048-"]
    assert (folder / "m-i2_s.gguf").read_bytes() == model


@pytest.mark.parametrize(
    ("model", "kinds", "first"),
    [
        ("Ternary-Bonsai-27B", "F16 PQ2_0 Q2_0 Q2_g64 dspark-Q4_1 dspark-bf16 mmproj-BF16 mmproj-Q8_0", "Q2_0"),
        ("Ternary-Bonsai-2-27B", "F16 PQ2_0 PTQ1_0 mmproj-Q8_0", "PQ2_0"),
    ],
)
def test_the_model_is_chosen_from_what_is_beside_it(model: str, kinds: str, first: str) -> None:
    """Not its drafter, nor its vision tower; the names are those of the published repositories."""
    found = ready_models([f"{model}-{kind}.gguf" for kind in kinds.split()], "i2_s")
    assert found[0].files == (f"{model}-{first}.gguf",)
    assert not any("mmproj" in file or "dspark" in file for one in found for file in one.files)


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["bitcpm4-3b-bf16.gguf", "bitcpm4-3b-tq2_0.gguf"], "bitcpm4-3b-tq2_0.gguf"),
        (["Hy-MT1.5-1.8B-Q4_K_M.gguf", "Hy-MT1.5-1.8B-STQ1_0.gguf"], "Hy-MT1.5-1.8B-STQ1_0.gguf"),
        (["Hy-MT2-1.8B-1.25Bit.gguf"], "Hy-MT2-1.8B-1.25Bit.gguf"),
        (["Bonsai-8B-Q1_0.gguf", "Bonsai-8B-f16.gguf"], "Bonsai-8B-Q1_0.gguf"),
        (["Both-Q1_0.gguf", "Both-Q2_0.gguf"], "Both-Q2_0.gguf"),
    ],
)
def test_which_file_of_a_repository_is_the_model(names: list[str], first: str) -> None:
    assert ready_models(names, "i2_s")[0].files == (first,)
