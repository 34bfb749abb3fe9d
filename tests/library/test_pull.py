# SPDX-License-Identifier: MIT
"""trit pull and trit run NAME against a Hub on 127.0.0.1: first use, second start, damage, what is refused."""

from __future__ import annotations

import json
import shutil
import socket
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.library.test_store import change, files_of
from tests.support.hub_server import COMMIT, Fault, HubServer, Repo
from tests.support.tiny_gguf import EMPTY, tiny_gguf, tiny_model
from tests.support.told_engine import FakeEngine
from trit import cli
from trit.base import by_name
from trit.library import pull as pulling
from trit.library.find import find
from trit.library.store import Store

Said = namedtuple("Said", "code out err")


def trit(capfd: pytest.CaptureFixture[str], *words: str) -> Said:
    """The command, in this process; find is what the commands ask from then on."""
    capfd.readouterr()
    code = cli.main(list(words))
    return Said(code, *capfd.readouterr())


@pytest.fixture
def ready(hub: HubServer) -> bytes:
    """org/model is a GGUF that is used as it is."""
    content = tiny_gguf("i2_s")
    hub.repos["org/model"] = Repo({"Model-i2_s.gguf": content})
    return content


def test_the_first_use_fetches_and_the_second_starts_at_once(
    hub: HubServer, ready: bytes, store: Store, engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    said = trit(capfd, "run", "org/model", "Who?", "-n", "4")
    assert (said.code, said.out) == (0, "An answer.\n"), "progress is no part of the answer"
    assert "[1] download" in said.err
    assert engine.value("-p") == "Who?" and engine.value("-n") == "4"
    model = Path(engine.value("-m"))
    assert model.read_bytes() == ready and model.name == "Model-i2_s.gguf" and model.is_relative_to(store.folder)
    entry = store.read("org/model")
    assert entry is not None and (entry.encoding, entry.commit) == ("i2_s", COMMIT)
    hub.requests.clear()
    assert trit(capfd, "run", "org/model", "Who?") == (0, "An answer.\n", "")
    assert trit(capfd, "run", "-m", "org/model", "-p", "Who?") == (0, "An answer.\n", ""), "behind -m, too"
    assert trit(capfd, "run", "-n", "3", "MODEL", "Who?") == (0, "An answer.\n", ""), "the last part is enough"
    assert hub.requests == []


def test_a_pull_is_checked_and_brought_up_to_date(
    hub: HubServer, ready: bytes, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    assert trit(capfd, "pull", "org/model").out == "org/model is here: 0.0 MB, i2_s\n"
    hub.requests.clear()
    assert trit(capfd, "pull", "org/model").out == "org/model is up to date: 0.0 MB, i2_s\n"
    assert hub.paths("/resolve/") == []
    other = tiny_gguf("tq2_0")
    hub.repos["org/model"] = Repo({"Model-tq2_0.gguf": other}, revisions={"main": "d" * 40})
    said = json.loads(trit(capfd, "pull", "org/model", "--json").out)
    assert (said["fetched_now"], said["commit"], said["encoding"]) == (True, "d" * 40, "tq2_0")
    assert Path(said["path"]).read_bytes() == other
    assert len(list((store.folder / "blobs").iterdir())) == 1, "what only the old commit needed is gone"


def test_damage_is_found_and_fetched_again(
    hub: HubServer, ready: bytes, store: Store, engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    trit(capfd, "pull", "org/model")
    entry = store.read("org/model")
    assert entry is not None and trit(capfd, "show", "org/model", "--check").code == 0
    change(store.path(entry))
    said = trit(capfd, "show", "org/model", "--check")
    assert said.code == 1 and "Model-i2_s.gguf of org/model is damaged; fetch it again with: trit pull" in said.err
    assert json.loads(trit(capfd, "show", "org/model", "--check", "--json").out)["damaged"] == ["Model-i2_s.gguf"]
    said = trit(capfd, "pull", "org/model")
    assert "note: Model-i2_s.gguf of org/model is damaged, or was changed: it is fetched again" in said.err
    assert store.path(entry).read_bytes() == ready


def test_a_start_notices_a_file_that_was_changed(
    hub: HubServer, ready: bytes, store: Store, engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    trit(capfd, "pull", "org/model")
    entry = store.read("org/model")
    assert entry is not None
    path = store.path(entry)
    path.touch()
    hub.requests.clear()
    assert trit(capfd, "run", "org/model", "x").code == 0 and hub.requests == [], "only its time is another"
    with path.open("ab") as file:
        file.write(b"more")
    assert trit(capfd, "run", "org/model", "x").code == 0
    assert hub.paths("/storage/") and path.read_bytes() == ready


def test_names_share_files_until_the_last_goes(
    hub: HubServer, ready: bytes, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.repos["org/copy"] = Repo({"copy-i2_s.gguf": ready})
    trit(capfd, "pull", "org/model", "org/copy")
    listed = json.loads(trit(capfd, "list", "--json").out)
    assert [one["name"] for one in listed] == ["org/copy", "org/model"] and all(one["used"] for one in listed)
    assert json.loads(trit(capfd, "rm", "org/model", "--json").out) == [{"name": "org/model", "freed_bytes": 0}]
    said = trit(capfd, "rm", "model")
    assert said.code == 2 and "model: no file, no folder and no model of this name; give ORG/NAME" in said.err
    said = trit(capfd, "rm", "org/model")
    assert said.code == 2 and "org/model is not here, so there is nothing to delete" in said.err
    assert json.loads(trit(capfd, "rm", "copy", "--json").out)[0]["freed_bytes"] == len(ready)
    assert files_of(store) == set()


def test_a_download_that_failed_goes_on_from_its_last_byte(
    hub: HubServer, ready: bytes, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    # The first 4 answers carry on by themselves; the pull gives up at the fifth that brings nothing.
    hub.faults = [Fault("/storage/", cut=1000), Fault("/storage/", status=503, times=5)]
    said = trit(capfd, "pull", "org/model")
    assert said.code == 1 and "check the network and run this again, it carries on where it was" in said.err
    assert store.read("org/model") is None and "NAME" in trit(capfd, "list").out
    hub.requests.clear()
    assert trit(capfd, "pull", "org/model").code == 0
    assert str(hub.ranges("/storage/")[0]).startswith("bytes=1000-")
    assert not store.work("org/model").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "org/nosuch", "x"), "org/nosuch is not on the Hub"),
        (("pull", "org/model@v9"), "org/model has no revision v9; check what follows the @"),
        (("pull", "microsoft/bitnet-2b-4"), "did you mean"),
    ],
)
def test_what_the_hub_does_not_have(
    words: tuple[str, ...], said: str, hub: HubServer, engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    found = trit(capfd, *words)
    assert found.code == 2 and said in found.err
    assert sum(line.startswith("error:") for line in found.err.splitlines()) == 1 and "Traceback" not in found.err


def test_a_disk_without_room_names_our_own_setting(
    hub: HubServer, ready: bytes, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5000))
    found = trit(capfd, "pull", "org/model")
    assert found.code == 2 and "needs 0.0 MB of disk" in found.err
    assert "choose another folder with TRIT_HOME" in found.err and "--model-dir" not in found.err


def test_paths_are_left_alone_and_names_are_mistyped(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.gguf").write_bytes(EMPTY)
    (tmp_path / "folder").mkdir()
    for text in ("m.gguf", "nosuch.gguf", "folder", "../nosuch"):
        assert find(Path(text)) == Path(text)
    assert trit(capfd, "run", "m.gguf", "x") == (0, "An answer.\n", "")
    found = trit(capfd, "run", "nosuch.gguf", "x")
    assert found.code == 2 and "the model nosuch.gguf is not there" in found.err
    found = trit(capfd, "run", "bitnet-2b4t", "x")
    assert found.code == 2 and "did you mean bitnet-2b-4t" in found.err
    found = trit(capfd, "bench", "trit-stori-3m")
    assert found.code == 2 and "did you mean trit-story-3m?" in found.err
    (tmp_path / "bitnet-2b-4t").mkdir()
    monkeypatch.setattr("trit.library.find.pull", lambda *given: pytest.fail("not for a test"))
    monkeypatch.setattr("trit.library.find.in_checkout", lambda wanted: tmp_path / "m.gguf")
    assert find(Path("bitnet-2b-4t")) == tmp_path / "m.gguf", "a folder of other things is no model"


def test_a_message_goes_into_the_model_s_template_and_a_prompt_does_not(
    store: Store, tmp_path: Path, engine: FakeEngine, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(tiny_model(tmp_path / "chat.gguf", tokenizer__chat_template="{{ messages }}"))
    assert trit(capfd, "run", model, "Hello", "-temp", "0").out == "An answer.\n"
    assert (
        {"-cnv", "-st", "--jinja"} <= set(engine.arguments)
        and engine.value("-n") == "-1"
        and engine.value("-p") == "Hello"
    )
    assert trit(capfd, "run", model, "-p", "Hello").code == 0
    assert "-no-cnv" in engine.arguments and "-st" not in engine.arguments and engine.value("-n") == "128"
    assert trit(capfd, "run", str(engine.model), "Hello").code == 0
    assert "-no-cnv" in engine.arguments, "a model without a template continues the text"
    assert trit(capfd, "run", "-m", model, "Hello").code == 0 and "-st" in engine.arguments
    assert trit(capfd, "run", model, "Hello", "--system", "Be\\nkind").code == 0 and engine.value("-sys") == "Be\nkind"
    found = trit(capfd, "run", str(engine.model), "Hello", "--system", "Be kind")
    assert found.code == 2 and "has no chat template; put the text in front of the prompt" in found.err
    found = trit(capfd, "run", model, "Hello", "world")
    assert found.code == 2 and "'world' stands alone; a prompt goes behind -p, in quotation marks" in found.err
    found = trit(capfd, "run", model, "Hello", "-p", "world")
    assert found.code == 2 and "'Hello' stands alone beside -p or -f" in found.err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    began: list[bool] = []
    monkeypatch.setattr("trit.run.chat.chat", lambda args, extra: began.append(args.only_named) or 0)
    assert trit(capfd, "run", model).code == 0
    assert trit(capfd, "run", model, "-cnv").code == 0
    assert began == [True, False], "nothing to say: a chat"


def test_wrong_flags_are_told_before_anything_is_fetched(
    hub: HubServer, ready: bytes, engine: FakeEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, said in (
            (("run", "org/model", "x", "-n", "4096"), "-n 4096: the context has 2048 tokens"),
            (("run", "org/model", "x", "--draft", "ngram"), "--draft ngram is for chats and the server"),
            (("run", "org/model", "x", "-temp", "-1"), "-temp -1: expected 0 to 1000"),
            (("serve", "org/model", "--port", port), f"cannot listen on 127.0.0.1:{port}"),
            (("serve", "org/model", "--host", "0.0.0.0", "--port", "1234"), "lets everyone on the network use"),
            (("serve", "org/model", "--parallel", "0"), "--parallel 0: expected 1 to 256"),
            (("pull", "org/model", "-q", "q4_k"), "-q: invalid choice: 'q4_k'"),
            (("bench", "org/model", "--json", "/"), "--json /: is a folder"),
            (("tune", "org/model", "--out", "/"), "--out /: is a folder"),
        ):
            found = trit(capfd, *words)
            assert found.code == 2 and said in found.err and found.err.count("\n") == 1, found.err
    assert hub.requests == []


def test_tables_are_for_people(hub: HubServer, ready: bytes, store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    trit(capfd, "pull", "org/model")
    head, row = trit(capfd, "list").out.splitlines()
    assert head.split() == ["NAME", "SIZE", "ENCODING", "SOURCE", "USED"]
    assert row.split() == ["org/model", "0.0", "MB", "i2_s", "org/model", "now"]
    shown = trit(capfd, "show", "org/model", "--check").out
    entry = store.read("org/model")
    assert entry is not None and str(store.path(entry)) in shown and COMMIT in shown
    assert entry.files["Model-i2_s.gguf"].sha256 in shown and "all files are as they were fetched" in shown
    known = trit(capfd, "list", "--known").out
    assert "bitnet-2b-4t " in known and known.endswith("works, too: trit pull ORG/NAME\n")
    found = trit(capfd, "show", "bitnet-2b-4t")
    assert found.code == 2 and "bitnet-2b-4t is not here; fetch it with: trit pull bitnet-2b-4t" in found.err
    assert "is deleted, 0.0 MB are free again" in trit(capfd, "rm", "org/model").out


def test_a_name_is_for_the_command_and_not_for_the_front_doors(hub: HubServer, ready: bytes) -> None:
    assert by_name.model_file(Path("org/model")) == Path("org/model")
    by_name.find_with(lambda path: Path("found"), lambda path: path, lambda path: None)
    assert by_name.model_file(Path("org/model")) == Path("found")
    assert by_name.named_file(Path(__file__)) == Path(__file__)


def test_which_encoding_a_file_has(tmp_path: Path) -> None:
    for name in ("i2_s", "tq2_0", "f16"):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(tiny_gguf(name))
        assert pulling.encoding_of(path) == name
    path.write_bytes(EMPTY)
    assert pulling.encoding_of(path) == "f32"
