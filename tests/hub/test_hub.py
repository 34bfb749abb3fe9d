# SPDX-License-Identifier: MIT
"""trit.hub with the real huggingface_hub client against a Hub on 127.0.0.1: what is fetched, resumed, refused."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from tests.support.hub_server import COMMIT, Fault, HubServer, Repo
from tests.support.tiny_gguf import tiny_gguf
from trit.base.errors import TritError, UserError
from trit.hub import space, transfer
from trit.hub.command import main
from trit.models.source_note import read_manifest

WEIGHTS = bytes(range(256)) * 1200
FILES = {
    ".gitattributes": b"*.safetensors filter=lfs",
    "README.md": b"# A model",
    "config.json": b'{"hidden_size": 64}',
    "tokenizer.json": b"{}",
    "tokenizer.model": b"sentencepiece",
    "tokenizer_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"not for us",
    "original/model.safetensors": b"the same again",
}
WANTED = {
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors",
}
STORED = "/storage/org/model/model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub with org/model; the client's settings point to it, and nobody has logged in."""
    with HubServer() as server:
        server.repos["org/model"] = Repo(dict(FILES))
        point_to(monkeypatch, server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield server


def point_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What HF_ENDPOINT does when the client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept, without sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model"


def fetch(folder: Path, repo: str = "org/model", *flags: str) -> None:
    assert main([repo, "--to", str(folder), *flags]) == 0


def present(folder: Path) -> set[str]:
    """Everything in the folder but the manifest; leftovers show up here."""
    return {path.name for path in folder.iterdir()} - {"trit-source.json"}


def test_only_what_is_needed_whole_and_noted(hub: HubServer, folder: Path) -> None:
    fetch(folder)
    assert present(folder) == WANTED
    assert all((folder / name).read_bytes() == FILES[name] for name in WANTED)
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.is_whole(folder)
    assert (manifest.repo, manifest.revision, manifest.commit, manifest.gguf) == ("org/model", "main", COMMIT, None)
    assert manifest.files["model.safetensors"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert hub.ranges(STORED) == [None]
    assert f"/org/model/resolve/{COMMIT}/config.json" in hub.paths()
    hub.requests.clear()
    fetch(folder)
    assert hub.paths("/resolve/") == [], "what is there and has the right hash is not fetched again"


def test_everything_that_the_converter_reads(hub: HubServer, folder: Path, tmp_path: Path, naps: list[float]) -> None:
    """With the pooling of an embedding model, which lies in a folder, and through every way that it may come."""
    from huggingface_hub import snapshot_download

    names = [f"{name}.json" for name in (
        "config", "generation_config", "tokenizer", "tokenizer_config", "added_tokens", "special_tokens_map", "vocab",
        "chat_template", "modules", "config_sentence_transformers", "1_Pooling/config",
    )]  # fmt: skip
    names += ["tokenizer.model", "merges.txt", "chat_template.jinja", "model.safetensors"]
    repo = hub.repos["org/model"] = Repo(dict.fromkeys(names, b"{}") | {"2_Dense/config.json": b"{}"})

    def files(place: Path) -> set[str]:
        found = (path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
        return set(found) - {"trit-source.json"}

    hub.faults = [Fault("1_Pooling/config.json", cut=1)]
    fetch(folder)
    assert files(folder) == set(names)
    snapshot_download("org/model", cache_dir=tmp_path / "cache", max_workers=1)
    hub.requests.clear()
    fetch(tmp_path / "cached")
    assert files(tmp_path / "cached") == set(names) and {path.rsplit("/", 1)[1] for path in hub.paths("/resolve/")} == {
        "config.json"
    }
    assert not hub.paths("1_Pooling"), "only config.json comes first, for the need of room"
    with pytest.MonkeyPatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        fetch(tmp_path / "offline")
    assert files(tmp_path / "offline") == set(names)
    del repo.files["modules.json"]
    repo.revisions["main"] = "d" * 40
    fetch(folder)
    assert files(folder) == set(names) - {"modules.json", "1_Pooling/config.json"}


def test_brackets_in_names_are_no_patterns(hub: HubServer, folder: Path) -> None:
    hub.repos["org/model"] = Repo({"m[1]-i2_s.gguf": tiny_gguf("i2_s")})
    folder.mkdir(parents=True)
    (folder / ".m[1]-i2_s.gguf.0123.download").write_bytes(b"of another version")
    (folder / ".m1-i2_s.gguf.0123.download").write_bytes(b"of another file")
    fetch(folder)
    assert present(folder) == {"m[1]-i2_s.gguf", ".m1-i2_s.gguf.0123.download"}


def test_a_file_cut_off_in_the_middle_goes_on_from_there(hub: HubServer, folder: Path, naps: list[float]) -> None:
    hub.faults = [Fault(STORED, cut=100_000), Fault(STORED, cut=50_000)]
    fetch(folder)
    assert hub.ranges(STORED) == [None, "bytes=100000-", "bytes=150000-"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert present(folder) == WANTED
    encodings = {request.headers["Accept-Encoding"] for request in hub.requests if "/storage/" in request.path}
    assert encodings == {"identity"}, "offsets count the bytes of the file, not those of a compressed stream"


def test_tries_are_counted_afresh_after_every_byte(hub: HubServer, folder: Path, naps: list[float]) -> None:
    """A line that breaks every few seconds delivers a large file all the same."""
    hub.faults = [Fault(STORED, times=9, cut=10_000)]
    fetch(folder)
    assert hub.ranges(STORED) == [None, *(f"bytes={done}0000-" for done in range(1, 10))]
    assert naps == [1] * 9
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_range_that_was_not_asked_for(hub: HubServer, folder: Path, naps: list[float]) -> None:
    hub.faults = [Fault(STORED, cut=70_000), Fault(STORED, early=1000)]
    with pytest.raises(TritError, match="asked for bytes from 70000, got them from 69000; check the proxy or mirror"):
        fetch(folder)
    hub.faults.clear()
    hub.requests.clear()
    fetch(folder)
    assert hub.ranges(STORED) == ["bytes=70000-"], "what came before is still good"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_cut_that_looks_like_an_end_is_noticed(hub: HubServer, folder: Path, naps: list[float]) -> None:
    hub.faults = [Fault(STORED, cut=100_000, silent_cut=True)]
    fetch(folder)
    assert hub.ranges(STORED) == [None, "bytes=100000-"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_the_next_run_goes_on_where_the_last_one_gave_up(hub: HubServer, folder: Path, naps: list[float]) -> None:
    hub.faults = [Fault(STORED, cut=70_000), Fault(STORED, times=99, status=503)]
    with pytest.raises(TritError, match=r"did not deliver org/model \(HTTP 503\); .* carries on where it was") as error:
        fetch(folder)
    assert not isinstance(error.value, UserError)
    assert not (folder / "model.safetensors").exists()
    (partial,) = folder.glob(".model.safetensors.*.download")
    inode = partial.stat().st_ino
    hub.faults.clear()
    hub.requests.clear()
    fetch(folder)
    assert hub.ranges(STORED) == ["bytes=70000-"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "model.safetensors").stat().st_ino == inode, "renamed, so that it is never there in part"
    assert present(folder) == WANTED


def test_a_half_file_of_another_version_is_not_continued(hub: HubServer, folder: Path, naps: list[float]) -> None:
    hub.faults = [Fault(STORED, cut=70_000), Fault(STORED, times=99, status=503)]
    with pytest.raises(TritError):
        fetch(folder)
    hub.faults.clear()
    hub.requests.clear()
    hub.repos["org/model"].files["model.safetensors"] = WEIGHTS[::-1]
    fetch(folder)
    assert hub.ranges(STORED) == [None]
    assert present(folder) == WANTED


def test_a_server_without_ranges_sends_the_whole_file_again(hub: HubServer, folder: Path, naps: list[float]) -> None:
    hub.faults = [Fault(STORED, cut=70_000), Fault(STORED, no_ranges=True)]
    fetch(folder)
    assert hub.ranges(STORED) == [None, "bytes=70000-"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_wrong_content_is_deleted_and_named(hub: HubServer, folder: Path, name: str) -> None:
    """By sha256 for large files, by git's hash for small ones."""
    damaged = b"?" + FILES[name][1:]
    hub.faults = [Fault(name, content=damaged), Fault(name, content=damaged)]
    with pytest.raises(TritError, match=rf"{name}: the download does not match the Hub's .*bad file is deleted"):
        fetch(folder)
    assert not [path for path in folder.iterdir() if name in path.name], "neither the file nor a part of it"
    hub.faults.clear()
    fetch(folder)
    assert (folder / name).read_bytes() == FILES[name]


def test_too_many_requests_waits_as_long_as_asked(hub: HubServer, folder: Path, naps: list[float]) -> None:
    hub.faults = [
        Fault("/api/models/", status=429, headers={"Retry-After": "7"}),
        Fault(STORED, status=429, headers={"Retry-After": "11"}),
    ]
    fetch(folder)
    assert naps == [7, 11]
    hub.faults = [Fault("/api/models/", times=99, status=429)]
    with pytest.raises(TritError, match=r"no more requests .*\(HTTP 429\); wait .* set HF_TOKEN"):
        fetch(folder)


def test_server_errors_are_tried_again_ever_later(hub: HubServer, folder: Path, naps: list[float]) -> None:
    hub.faults = [Fault("/api/models/", status=500), Fault("/api/models/", times=2, status=503)]
    fetch(folder)
    assert naps == [1, 2, 4]
    naps.clear()
    hub.faults = [Fault("/api/models/", times=99, status=500)]
    with pytest.raises(TritError, match="HTTP 500"):
        fetch(folder)
    assert naps == [1, 2, 4, 8], "five tries, then the user is told"
    naps.clear()
    hub.faults = [Fault(STORED, status=status) for status in (408, 502, 504)]
    (folder / "model.safetensors").unlink()
    fetch(folder)
    assert naps == [1, 2, 4]


def test_waits_no_longer_than_a_minute(hub: HubServer, folder: Path, naps: list[float]) -> None:
    hub.faults = [Fault(STORED, status=429, headers={"Retry-After": "86400"})]
    fetch(folder)
    assert naps == [60]


def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["org/model"].private = True
    with pytest.raises(UserError, match="org/model is not on the Hub, or is private: then set HF_TOKEN"):
        fetch(folder)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"the Hub refuses your token \(HTTP 401\)"):
        fetch(folder)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.requests.clear()
    fetch(folder)
    for request in hub.requests:
        sent = {key.lower(): value for key, value in request.headers.items()}.get("authorization")
        assert sent == (None if request.path.startswith("/storage/") else f"Bearer {hub.token}"), request.path


def test_gated_repositories(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos["org/model"].gated = "manual"
    with pytest.raises(
        UserError, match=r"org/model is gated: agree to its terms on http.*/org/model, then set HF_TOKEN"
    ):
        fetch(folder)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    fetch(folder)
    hub.repos["org/model"].gated = "no access"
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="org/model is gated and your token has no access"):
        fetch(folder)


def test_forbidden(hub: HubServer, folder: Path) -> None:
    hub.faults = [Fault("/api/models/", status=403)]
    with pytest.raises(UserError, match=r"forbids access to org/model \(HTTP 403\)"):
        fetch(folder)


def test_disabled_and_changed_while_it_is_read(hub: HubServer, folder: Path) -> None:
    disabled = {"X-Error-Message": "Access to this resource is disabled."}
    hub.faults = [Fault("/api/models/", status=403, headers=disabled)]
    with pytest.raises(UserError, match="org/model has been disabled on the Hub"):
        fetch(folder)
    hub.faults = [Fault("tokenizer.json", status=404, headers={"X-Error-Code": "EntryNotFound"})]
    with pytest.raises(UserError, match=r"org/model lost a file while it was read .*run this again"):
        fetch(folder)
    fetch(folder)


def test_what_is_not_there_is_named(hub: HubServer, folder: Path) -> None:
    with pytest.raises(UserError, match="org/nothing is not on the Hub"):
        fetch(folder, "org/nothing")
    with pytest.raises(UserError, match="org/model has no revision v9; check what follows the @"):
        fetch(folder, "org/model", "--revision", "v9")
    with pytest.raises(UserError, match="is no name of a repository"):
        fetch(folder, "org/mo--del")


def test_no_network(hub: HubServer, folder: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(TritError, match=r"the Hub at http://127.0.0.1:9 did not deliver org/model .*check the network"):
        fetch(folder)


def test_revisions_and_what_another_one_leaves_behind(hub: HubServer, folder: Path) -> None:
    repo = hub.repos["org/model"]
    repo.revisions |= {"v1.0": "1" * 40, "refs/pr/3": "3" * 40}
    fetch(folder, "org/model", "--revision", "v1.0")
    assert f"/org/model/resolve/{'1' * 40}/config.json" in hub.paths()
    repo.files |= {"config.json": b'{"new": 1}'}
    del repo.files["chat_template.jinja"]
    fetch(folder, "org/model", "--revision", "refs/pr/3")
    assert (folder / "config.json").read_bytes() == b'{"new": 1}'
    assert present(folder) == WANTED - {"chat_template.jinja"}
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.commit == "3" * 40


def test_an_update_that_was_stopped_is_noted(hub: HubServer, folder: Path, naps: list[float]) -> None:
    """What is there is not taken for whole, and what the new version lacks is deleted when it is."""
    fetch(folder)
    old = folder / "the old manifest"
    old.hardlink_to(folder / "trit-source.json")
    note = old.read_bytes()
    repo = hub.repos["org/model"]
    repo.files |= {"model.safetensors": WEIGHTS[::-1]}
    del repo.files["chat_template.jinja"]
    hub.faults = [Fault(STORED, times=99, status=503)]
    with pytest.raises(TritError):
        fetch(folder)
    assert old.read_bytes() == note, "replaced as a whole, never written into"
    old.unlink()
    manifest = read_manifest(folder)
    assert manifest is not None and not manifest.complete and not manifest.is_whole(folder)
    assert set(manifest.files) == WANTED
    hub.faults.clear()
    fetch(folder)
    assert present(folder) == WANTED - {"chat_template.jinja"}
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.is_whole(folder)


def test_a_folder_is_whole_while_its_files_have_their_sizes(hub: HubServer, folder: Path) -> None:
    fetch(folder)
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.is_whole(folder)
    (folder / "model.safetensors").write_bytes(WEIGHTS[:-1])
    assert not manifest.is_whole(folder)
    (folder / "model.safetensors").unlink()
    assert not manifest.is_whole(folder)


def test_files_of_the_user_are_not_replaced(hub: HubServer, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes(b"mine")
    (folder / "config.json").write_bytes(FILES["config.json"])
    with pytest.raises(UserError, match=r"tokenizer\.json was not downloaded by set-up and differs .*move it away"):
        fetch(folder)
    assert (folder / "tokenizer.json").read_bytes() == b"mine"
    (folder / "tokenizer.json").unlink()
    fetch(folder)
    hub.repos["other/model"] = Repo(dict(FILES))
    with pytest.raises(UserError, match=r"holds org/model; choose another folder for other/model"):
        fetch(folder, "other/model")


def test_a_mirror_that_tells_no_sizes(hub: HubServer, folder: Path) -> None:
    hub.repos["org/model"].sizes = False
    fetch(folder)
    assert present(folder) == WANTED
    assert {request.method for request in hub.requests if "resolve" in request.path} == {"HEAD", "GET"}
    hub.faults = [Fault("model.safetensors", times=9, content=b"?" * len(WEIGHTS))]
    (folder / "model.safetensors").unlink()
    with pytest.raises(TritError, match="does not match the Hub's sha256"):
        fetch(folder)


def test_the_hub_s_own_cache_saves_the_download(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(
        "org/model", allow_patterns=["*.safetensors", "*.json"], cache_dir=tmp_path / "cache", max_workers=1
    )
    hub.requests.clear()
    fetch(folder)
    assert hub.paths("model.safetensors") == []
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_large_files_of_the_cache_are_linked_and_small_ones_copied(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People edit a config.json; the cache must not change with it."""
    from huggingface_hub import snapshot_download

    assert transfer._LINKED_BYTES >= 1 << 20
    monkeypatch.setattr(transfer, "_LINKED_BYTES", len(WEIGHTS))
    snapshot = Path(snapshot_download("org/model", cache_dir=tmp_path / "cache", max_workers=1))
    fetch(folder)
    same = {name for name in WANTED if (folder / name).samefile(snapshot / name)}
    assert same == {"model.safetensors"}
    assert not any((folder / name).is_symlink() for name in WANTED), "emptying the cache must not empty the folder"


def test_the_cache_does_not_replace_files_of_the_user(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("org/model", cache_dir=tmp_path / "cache", max_workers=1)
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"tokenizer\.json was not downloaded by set-up"):
        fetch(folder)
    assert (folder / "tokenizer.json").read_bytes() == b"mine"


def test_offline(hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("org/model", cache_dir=tmp_path / "cache", max_workers=1)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch(folder)
    assert present(folder) == WANTED
    fetch(folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    fetch(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set, and neither .* nor the Hub's cache .* org/model@main"):
        fetch(folder)
    assert hub.requests == []


def test_offline_with_a_shard_missing(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder.mkdir(parents=True)
    shards = [f"model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text(
        f'{{"weight_map": {{"a": "{shards[0]}", "b": "{shards[1]}"}}}}'
    )
    (folder / shards[0]).touch()
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch(folder)
    (folder / shards[1]).touch()
    fetch(folder)
    (folder / "config.json").rename(folder / "configuration.json")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch(folder)
    (folder / "configuration.json").rename(folder / "config.json")
    (folder / "model.safetensors.index.json").write_text("{")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch(folder)


def test_offline_the_cache_gives_what_the_hub_would(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint, but of a repository that is there for its GGUF files those."""
    from huggingface_hub import snapshot_download

    for repo in ("org/model", "org/model-GGUF"):
        hub.repos[repo] = Repo({"m-i2_s.gguf": tiny_gguf("i2_s"), **FILES})
        snapshot_download(repo, cache_dir=tmp_path / "cache", max_workers=1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch(tmp_path / "1")
    fetch(tmp_path / "2", "org/model-GGUF")
    assert present(tmp_path / "1") == WANTED and present(tmp_path / "2") == {"m-i2_s.gguf"}


def test_progress_lines(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transfer, "_REPORT_S", 0.0)
    hub.repos["org/model"].files["model.safetensors"] = bytes(8_000_000)
    fetch(folder)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("downloaded")]
    assert all(
        re.fullmatch(r"downloaded [\d.]+ of [\d.]+ GB, [\d.]+ MB/s, about [\d.:]+( s)? left", line) for line in lines
    )
    assert any(line.startswith("downloaded 0.01 of 0.01 GB") for line in lines), lines


def test_a_damaged_file_in_the_hub_s_cache_is_downloaded(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot = Path(snapshot_download("org/model", cache_dir=tmp_path / "cache", max_workers=1))
    (snapshot / "model.safetensors").resolve().write_bytes(WEIGHTS[::-1])
    fetch(folder)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_disk_too_small(hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = sum(len(FILES[name]) for name in WANTED - {"config.json"})
    # Without shapes in config.json the GGUF may be as large as the weights.
    for free, fits in ((need + len(WEIGHTS) - 1, False), (need + len(WEIGHTS), True)):
        monkeypatch.setattr(space.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if fits:
            fetch(folder)
        else:
            text = r"needs 0\.6 MB of disk .*0\.3 MB to download and about 0\.3 MB for the GGUF.* has 0\.6 MB free"
            with pytest.raises(UserError, match=text):
                fetch(folder)
            assert not hub.paths("/storage/"), "nothing large was fetched"


def test_a_memory_too_small_is_a_warning(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(space, "free_memory_bytes", lambda: 200 << 20)
    fetch(folder)
    assert (
        "note: org/model needs about 0.3 GB of memory to run, this machine has 0.2 GB free" in capsys.readouterr().out
    )
    monkeypatch.setattr(space, "free_memory_bytes", lambda: 1 << 40)
    monkeypatch.setattr(space, "cgroup_memory", lambda: 100 << 20)
    fetch(folder)
    assert "this machine has 0.1 GB free" in capsys.readouterr().out, "a container's limit counts"
    monkeypatch.setattr(space, "cgroup_memory", lambda: None)
    fetch(folder)
    assert "note:" not in capsys.readouterr().out


def test_need_of_the_2b_model() -> None:
    """BitNet-b1.58-2B-4T as i2_s: 2.08e9 ternary weights and a tied q6_k embedding of 128,256 x 2560."""
    shapes = {"hidden_size": 2560, "intermediate_size": 6912, "vocab_size": 128256, "num_hidden_layers": 30}
    config = {**shapes, "num_attention_heads": 20, "num_key_value_heads": 5, "tie_word_embeddings": True}
    need = space.checkpoint_need(0, 0, config, "i2_s")
    matrices = 30 * (2 * 2560 * 2560 + 2 * 2560 * 640 + 3 * 2560 * 6912)
    assert need.gguf == matrices // 4 + 128256 * 2560 * 210 // 256
    assert need.memory - need.gguf == 2 * 30 * 640 * 2048 * 2 + (256 << 20)
    assert space.checkpoint_need(0, 0, config, "tq2_0").gguf - need.gguf == matrices * 66 // 256 - matrices // 4
    own_head = space.checkpoint_need(0, 0, {**config, "tie_word_embeddings": False}, "i2_s")
    assert own_head.gguf - need.gguf == 128256 * 2560 * 210 // 256
    wide = space.checkpoint_need(0, 0, {**config, "head_dim": 256}, "i2_s")
    assert wide.gguf - need.gguf == 30 * 2 * 2560 * 25 * 128 // 4, "heads twice as wide as hidden_size / heads"


def test_repositories_that_cannot_be_used(hub: HubServer, folder: Path) -> None:
    cases = {
        "org/text": ({"README.md": b""}, r"holds no weights"),
        "org/adapter": ({"adapter_model.safetensors": b"", "adapter_config.json": b""}, "holds an adapter"),
        "org/deep": ({"unet/model.safetensors": b""}, r"weights in folders only \(unet\)"),
        "org/quants": ({"m-Q4_K_M.gguf": b"", "m-f16.gguf": b""}, r"not ternary \(f16, q4_k_m; read here: i2_s"),
        "org/bare": ({"model.safetensors": b"x"}, "no config.json"),
    }
    for repo, (files, message) in cases.items():
        hub.repos[repo] = Repo(files)
        with pytest.raises(UserError, match=message):
            fetch(folder, repo)


def test_torch_s_files_only_without_safetensors(hub: HubServer, folder: Path) -> None:
    shards = {f"pytorch_model-0000{part}-of-00002.bin": b"part" for part in (1, 2)}
    files = {"config.json": b"{}", "pytorch_model.bin.index.json": b"{}", **shards, "training_args.bin": b"no"}
    hub.repos["org/model"] = Repo(files)
    fetch(folder)
    assert present(folder) == set(files) - {"training_args.bin"}
