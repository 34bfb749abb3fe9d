# SPDX-License-Identifier: MIT
"""Every command that takes a model takes it by name; what needs a checkpoint fetches that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.library.test_pull import Said, trit
from tests.support.hub_server import HubServer, Repo
from tests.support.tiny_gguf import tiny_gguf
from trit.base.errors import UserError
from trit.cli import COMMANDS
from trit.library.find import find_checkpoint
from trit.library.store import Store

# Nearly the name of a known model, in each place where a command takes one.
NAME = "bitnet-2b4t"
TAKES = {
    "run": (["NAME", "Who?"], ["-m", "NAME", "-p", "Who?"]),
    "serve": (["NAME"], ["-m", "NAME"]),
    "pull": (["NAME"],),
    "show": (["NAME"],),
    "rm": (["NAME"],),
    "convert": (["NAME"],),
    "inspect": (["NAME"],),
    "bench": (["NAME", "--bin-dir", "BIN"], ["-m", "NAME", "--bin-dir", "BIN"], ["--baseline", "NAME", "-m", "GGUF"]),
    "compare": (["NAME"], ["-m", "NAME"]),
    "perplexity": (["NAME"], ["-m", "NAME"], ["-m", "GGUF", "--reference", "NAME"]),
    "profile": (["NAME"], ["-m", "NAME"], ["NAME", "Who?"]),
    "drafts": (["NAME"], ["-m", "NAME"]),
    "tune": (["NAME"], ["-m", "NAME"]),
    "verify": (["NAME"], ["FOLDER", "NAME"]),
    "batch": (["prompts.jsonl", "--out", "answers", "-m", "NAME"],),
    "dummy": (["--shape", "story", "--outfile", "OUT", "--vocab", "NAME"],),
    "heads": (["-i", "NAME", "--no-bench"],),
}
# Its place is tests/train: it imports torch.
ELSEWHERE = {"score"}
# They look at no model, write one, or take bitnet.cpp's flags and folders alone.
NONE = {
    *("list", "ps", "roofline", "doctor", "download", "train", "dummy-bitnet"),
    *("codegen", "codegen-tl1", "codegen-tl2", "committed", "registry", "held-out", "golden"),
}


def test_every_command_is_in_a_table() -> None:
    assert COMMANDS.keys() == {*TAKES, *ELSEWHERE, *NONE}, "say here whether a new command takes a model, and how"


@pytest.mark.parametrize(
    ("command", "words"), [(command, words) for command, ways in TAKES.items() for words in ways], ids=str
)
def test_a_wrong_name_tells_the_nearest(
    command: str,
    words: list[str],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    bin_dir, gguf = tmp_path / "bin", tmp_path / "model.gguf"
    bin_dir.mkdir()
    (bin_dir / "llama-bench").write_text("")
    gguf.write_bytes(tiny_gguf("i2_s"))
    Path("prompts.jsonl").write_text('{"prompt": "Who?"}\n')
    means = {"NAME": NAME, "BIN": str(bin_dir), "GGUF": str(gguf), "FOLDER": str(tmp_path), "OUT": "out.gguf"}
    given = [means.get(word, word) for word in words]
    if command == "bench" and "--bin-dir" not in given:
        given += ["--bin-dir", str(bin_dir)]
    said: Said = trit(capfd, command, *given)
    assert said.code == 2, said
    assert f"error: {NAME}: no file, no folder and no model of this name; did you mean bitnet-2b-4t" in said.err
    assert not Path("out.gguf").exists() and not Path("answers").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("serve", "org/model", NAME),
        ("serve", "org/model", f"mine={NAME}"),
        ("perplexity", "-m", "org/model", NAME),
        ("bench", "org/model", "--baseline", NAME, "--bin-dir", "BIN"),
        ("verify", NAME, "org/model"),
    ],
    ids=" ".join,
)
def test_a_wrong_name_is_told_before_another_is_fetched(
    words: tuple[str, ...], hub: HubServer, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "llama-bench").write_text("")
    hub.repos["org/model"] = Repo({"Model-i2_s.gguf": tiny_gguf("i2_s"), "config.json": b"{}"})
    said = trit(capfd, *[str(tmp_path) if word == "BIN" else word for word in words])
    assert said.code == 2 and "did you mean bitnet-2b-4t" in said.err
    assert hub.requests == []


def test_a_checkpoint_is_fetched_once_listed_and_deleted(
    hub: HubServer, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    content = {"config.json": b'{"hidden_size": 64}', "tokenizer.json": b"{}", "model.safetensors": b"weights"}
    hub.repos["org/model"] = Repo(content)
    folder = find_checkpoint(Path("org/model"))
    assert folder == store.checkpoint("org/model")
    assert {name: (folder / name).read_bytes() for name in content} == content
    hub.requests.clear()
    assert find_checkpoint(Path("org/model")) == folder and hub.requests == [], "the second time nothing is asked"
    listed = json.loads(trit(capfd, "list", "--json").out)
    assert [(one["source"], one["encoding"], one["path"]) for one in listed] == [
        ("org/model", "checkpoint", str(folder))
    ]
    (freed,) = json.loads(trit(capfd, "rm", "org/model", "--json").out)
    assert freed["freed_bytes"] >= listed[0]["bytes"] > 0 and not folder.exists()


def test_a_repository_without_a_checkpoint_is_told(hub: HubServer, store: Store) -> None:
    hub.repos["org/model"] = Repo({"Model-i2_s.gguf": tiny_gguf("i2_s")})
    with pytest.raises(UserError, match="org/model has a GGUF file and no checkpoint"):
        find_checkpoint(Path("org/model"))
    assert not store.checkpoint("org/model").exists()


def test_a_path_stays_a_path(store: Store, tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path / "none") == tmp_path / "none"
