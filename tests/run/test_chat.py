# SPDX-License-Identifier: MIT
"""The chat with an engine that does as told: what it is sent, what is shown, and what commands do."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.fake_chat import FakeChat
from tests.support.serving import wait_for_end
from tests.support.tiny_gguf import EMPTY
from trit.base.errors import run_main
from trit.base.places import ROOT
from trit.base.processes import dies_with_us
from trit.engine import inference
from trit.models.source_note import Manifest
from trit.run import chat as chats
from trit.run import chat_engine, completion, running
from trit.run.chat import meaning, unfinished, whole_message

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in listens on a UNIX socket")


class Told(NamedTuple):
    code: int
    out: str
    err: str


Talk = Callable[..., Told]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeChat:
    one = FakeChat(tmp_path)
    monkeypatch.setattr(completion, "engine_binary", lambda name: one.program)
    for name, value in one.environment.items():
        monkeypatch.setenv(name, value)
    return one


@pytest.fixture
def talk(fake: FakeChat, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Talk:
    """Run a chat whose lines come through a pipe."""

    def run(text: str | bytes, *flags: str, by_hand: bool = False) -> Told:
        data = text.encode() if isinstance(text, str) else text
        stdin = io.TextIOWrapper(io.BytesIO(data))
        stdin.isatty = lambda: by_hand  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", stdin)
        code = run_main(completion.main, ["-m", str(fake.model), "-cnv", *flags])
        return Told(code, *capfd.readouterr())

    return run


# Reading.


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], "one"),
        (["one\\", "two\\", "three"], "one\ntwo\nthree"),
        (["one\\"], "one\\"),
        (['"""one', " two\\", 'three"""'], "one\n two\\\nthree"),
        (['"""', "one", '"""'], "one"),
        (['"""one"""'], "one"),
        (['"""'], ""),
        (['say """ now'], 'say """ now'),
    ],
)
def test_messages_of_several_lines(lines: list[str], message: str) -> None:
    rest = iter(lines)

    def line(more: bool) -> str:
        assert more == (rest_is_begun := len(asked) > 0), rest_is_begun
        asked.append(more)
        try:
            return next(rest)
        except StopIteration:
            raise EOFError from None

    asked: list[bool] = []
    text = whole_message(line)
    assert meaning(text) == message
    assert list(rest) == []


@pytest.mark.parametrize(("text", "more"), [('"""', True), ('"""a', True), ('""""""', False), ('"""a\nb""" ', False)])
def test_what_quotation_marks_leave_open(text: str, more: bool) -> None:
    assert unfinished(text) == more


# What the engine gets, and what is printed.


def test_turns_go_to_the_engine_as_they_were_said(talk: Talk, fake: FakeChat) -> None:
    told = talk("one\n\n  \ntwo\\\nlines\n", "-p", 'Be\\n"kind"', "-n", "9", "-temp", "0", "--", "--foo")
    assert (told.code, told.out) == (0, "You said one.\nYou said two\nlines.\n")
    system, one = ("system", 'Be\n"kind"'), ("user", "one")
    assert fake.asked == [
        [system, one],
        [system, one, ("assistant", "You said one."), ("user", "two\nlines")],
    ]
    assert fake.arguments[:2] == ["-m", str(fake.model)] and "--foo" in fake.arguments
    assert (fake.value("-n"), fake.value("--temp"), fake.value("-np")) == ("9", "0.0", "1")
    assert told.err.splitlines()[0] == (
        f"chat with {fake.model}, by its own template; 2048 tokens of context (-c); /help shows commands, "
        "/exit or Ctrl-D leaves"
    )
    assert "warning: the kernels speak\n" in told.err and "and the engine" not in told.err
    keys = {note["key"] for note in fake.notes if "key" in note}
    assert len(keys) == 1 and len(keys.pop()) > 30, "nobody else's requests are answered"
    folder = Path(fake.value("--host")).parent
    assert not folder.exists(), "nothing stays"


def test_defaults_and_other_sources_of_the_system_prompt(talk: Talk, fake: FakeChat, tmp_path: Path) -> None:
    assert talk("", "--verbose", "-c", "4000").err.splitlines()[-1] == "and the engine"
    assert (fake.value("-n"), fake.value("-c")) == ("-1", "4096")
    (tmp_path / "system").write_text("from a\\file\n")
    talk("x\n", "-f", str(tmp_path / "system"))
    assert fake.asked[-1][0] == ("system", "from a\\file")
    talk("x\n", "--system", "kind\\n")
    assert fake.asked[-1][0] == ("system", "kind\n")
    assert "--system stands beside -p or -f" in talk("x\n", "--system", "a", "-p", "b").err
    assert " ".join(inference.DRAFTS["ngram"]) not in " ".join(fake.arguments)
    talk("x\n", "--draft", "ngram")
    assert " ".join(inference.DRAFTS["ngram"]) in " ".join(fake.arguments)


def test_a_model_without_a_template(talk: Talk, fake: FakeChat) -> None:
    fake.model.write_bytes(EMPTY)
    told = talk("x\n")
    assert told.code == 2 and "has no chat template, so -cnv cannot be used with it" in told.err
    assert talk("x\n", "--", "--chat-template-kwargs", "{}").code == 2
    told = talk("x\n", "--", "--chat-template", "chatml")
    assert told.code == 0 and "by the template that you named" in told.err


def test_a_base_model_is_warned_of(talk: Talk, fake: FakeChat) -> None:
    for repo, warned in (("tiiuae/Falcon-E-3B-Base", True), ("tiiuae/Falcon-E-3B-Instruct", False), ("a/b", False)):
        Manifest(repo, "main", "c" * 40).write(fake.model.parent)
        assert ("note: Falcon-E-3B-Base is a base model" in talk("").err) == warned


def test_letters_that_come_in_parts_are_whole(talk: Talk) -> None:
    assert talk("unicode\n").out == "\u00fc\u4f60\u597d \U0001f469\u200d\U0001f4bb\n"
    assert talk("space\n").out == "text\n"
    assert talk("nothing\nx\n").out == "You said x.\n"


def test_a_pipe_gets_neither_thoughts_nor_changed_bytes(talk: Talk) -> None:
    assert talk("think\n").out == "You said think.\n"
    assert "\x1b[2J" in talk("codes\n").out


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("/what\nx\n", 2, "there is no command /what; /help shows those that are there"),
        ("/regen\n", 2, "there is no answer yet that could be given again"),
        ("refuse\nx\n", 2, "the engine refuses this: that cannot be"),
        ("late error\nx\n", 2, "the engine refuses this: numbers are not finite"),
        ("die\nx\n", 1, "the engine was ended by SIGKILL; probably for want of memory"),
        (b"\xff\xfe\n", 2, "a line of standard input is no UTF-8 text; save it as UTF-8"),
    ],
)
def test_what_is_wrong_ends_a_chat_that_nobody_types(talk: Talk, text: str | bytes, code: int, sentence: str) -> None:
    told = talk(text)
    assert (told.code, "You said x" in told.out) == (code, False)
    assert f"error: {sentence}" in told.err


def test_a_path_is_no_command(talk: Talk) -> None:
    assert talk("/etc/passwd says what?\n").out == "You said /etc/passwd says what?.\n"


def test_an_engine_that_does_not_start(
    talk: Talk, fake: FakeChat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_CHAT_BROKEN", "1")
    told = talk("x\n")
    assert told.code == 1 and "error: the engine ended with exit code 1: no such architecture" in told.err
    fake.program.write_text("#!/there/is/none\n")
    assert "does not start (No such file or directory); build it again" in talk("x\n").err


# A context that is full.


def test_the_oldest_turns_are_left_out_of_a_full_context(
    talk: Talk, fake: FakeChat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_CHAT_CONTEXT", "400")
    texts = [letter * 40 for letter in "abcd"]
    told = talk("\n".join([*texts, f"/save {tmp_path / 'all'}", "/regen"]) + "\n", "-p", "S")
    assert told.code == 0
    users = [[text[0] for role, text in messages if role == "user"] for messages in fake.asked]
    assert users == [["a"], ["a", "b"], ["a", "b", "c"], ["c", "d"], ["c", "d"]]
    assert all(messages[0] == ("system", "S") for messages in fake.asked)
    assert told.err.count("[the context of 400 tokens is full: from here on the model does not see the oldest 2 ") == 1
    saved = json.loads((tmp_path / "all").read_text())["messages"]
    assert [message["content"][0] for message in saved if message["role"] == "user"] == list("abcd")


def test_a_message_that_does_not_fit_is_refused_with_both_numbers(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CHAT_CONTEXT", "100")
    told = talk("x" * 101 + "\n")
    assert (
        told.code == 2
        and "error: the message has 101 tokens with what stands around it, the context has 100" in told.err
    )
    assert talk("x" * 99 + "\n").code == 0


def test_an_answer_that_was_cut_is_said_to_be(talk: Talk) -> None:
    assert "[cut after 7 tokens; -n sets another number]" in talk("cut\n", "-n", "7").err
    for flags in ((), ("-n", "7")):
        assert "[cut: the context of 1000 tokens is full; -c sets a larger one]" in talk("full\n", *flags).err
    assert "[cut" not in talk("x\n").err


# Commands.


def test_commands_that_change_the_turns(talk: Talk, fake: FakeChat) -> None:
    told = talk("a\n/clear\nb\n/regen\n/system Be brief\nc\n/system\n/system -\n/system\n", "-p", "S")
    assert told.code == 0
    assert fake.asked == [
        [("system", "S"), ("user", "a")],
        [("system", "S"), ("user", "b")],
        [("system", "S"), ("user", "b")],
        [("system", "Be brief"), ("user", "b"), ("assistant", "You said b."), ("user", "c")],
    ]
    notes = [line for line in told.err.splitlines() if line.startswith("[")]
    assert notes == [
        "[all turns are forgotten; the system prompt stays]",
        *["[system prompt: Be brief]"] * 2,
        *["[there is no system prompt]"] * 2,
    ]


def test_a_chat_is_saved_and_goes_on(talk: Talk, fake: FakeChat, tmp_path: Path) -> None:
    file = tmp_path / "my chat"
    assert talk(f"a\n/save '{file}'\nb\n/save '{file}'\n", "-p", "\u00dc").code == 0
    told = talk(f'x\n/load "{file}"\n/regen\nc\n', "-p", "gone")
    assert told.code == 0 and "[4 messages of " in told.err
    before = [("system", "\u00dc"), ("user", "a"), ("assistant", "You said a."), ("user", "b")]
    assert fake.asked[-2:] == [before, [*before, ("assistant", "You said b."), ("user", "c")]]
    assert "\u00dc" in file.read_text(encoding="utf-8")


def test_what_cannot_be_saved_or_loaded(talk: Talk, tmp_path: Path) -> None:
    """Somebody who types is told, and goes on."""
    other = tmp_path / "notes.txt"
    other.write_text("notes")
    lines = {
        "/save": "/save: name one file",
        "/save 'a": "quotation marks come in pairs",
        f"/save {tmp_path}/no/where": f"there is no folder {tmp_path}/no",
        f"/save {tmp_path}/new": "/save: nothing was said yet",
        f"/load {tmp_path}/none": f"{tmp_path}/none",
        "/load /dev/zero": "/dev/zero",
        "/save /dev/full": "/dev/full: is a device, expected the name of a file; choose another",
        f"/load {other}": f"/load {other}: is no saved chat; give a file that /save has written",
        "a": "",
        f"/save {tmp_path}/{'n' * 300}": "File name too long",
        f"/save {other}": f"/save {other}: is there and is no saved chat; choose another name",
    }
    told = talk("\n".join(lines) + "\n", by_hand=True)
    assert told.code == 0 and "You said a." in told.out
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(lines) - 1
    for error, wanted in zip(errors, filter(None, lines.values()), strict=True):
        assert wanted in error
    assert other.read_text() == "notes" and list(tmp_path.glob("new*")) == []


@pytest.mark.parametrize(
    "content",
    ["[]", '{"messages": 3}', '{"messages": [{"role": "user", "content": "x"}]}', "[" * 99999, '{"messages": [{}]}'],
)
def test_what_is_no_saved_chat(tmp_path: Path, content: str) -> None:
    (tmp_path / "file").write_text(content)
    assert chats._saved_turns(tmp_path / "file") is None


def test_files_are_read_into_the_next_message(talk: Talk, fake: FakeChat, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"text of {name}\n")
    assert talk(f"/read {tmp_path}/?.txt\nWhat is it?\nAnd?\n").code == 0
    first = f"File {tmp_path}/a.txt:\ntext of a.txt\n\nFile {tmp_path}/b.txt:\ntext of b.txt\n\nWhat is it?"
    assert fake.asked[0] == [("user", first)] and fake.asked[1][-1] == ("user", "And?")
    (tmp_path / "a.txt").write_bytes(b"\xff")
    errors = talk(f"/read\n/read {tmp_path}/c.txt\n/read {tmp_path}/a.txt\n", by_hand=True).err
    for sentence in (
        "/read: name a file, or several",
        "/c.txt cannot be read: No such file",
        "/a.txt is not utf-8 text",
    ):
        assert sentence in errors


def test_help_names_every_command_and_stats_shows_speeds(talk: Talk) -> None:
    told = talk("/help\n/?\n/stats\nx\n/stats\ny\n/bye\nz\n")
    assert all(told.err.count(f"  {name} ") == 2 for name in chats._COMMANDS)
    assert told.err.count("[3 tokens, 7.5 tokens/s; read 5 tokens, 9.0 tokens/s; knew 2]") == 1
    assert "z" not in told.out
    assert "tokens/s; read" in talk("x\n", "--verbose").err


# The engine's process.


def gone(pid: int) -> bool:
    return not wait_for_end([pid], 20)


def test_the_chat_is_known_while_it_runs(
    talk: Talk, fake: FakeChat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found: list[running.Running] = []
    monkeypatch.setattr(chats.Chat, "_clear", lambda session, rest: None)
    monkeypatch.setitem(
        chats._COMMANDS, "/clear", chats._Command(lambda session, rest: found.extend(running.running()), "", "")
    )
    assert talk("/clear\n").code == 0
    (one,) = [one for one in found if one.model == str(fake.model)]
    assert (one.kind, one.pid) == ("chat", os.getpid())
    assert gone(fake.pids[-1])


def test_without_unix_sockets_it_is_a_port_of_this_machine(
    fake: FakeChat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(chat_engine, "_LONGEST_SOCKET", 3)
    with chat_engine.ChatEngine(["x"], fake.model, show=False) as engine:
        host = engine.command[engine.command.index("--host") + 1]
        assert host == "127.0.0.1" and int(engine.command[engine.command.index("--port") + 1]) > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a call of Linux")
def test_a_program_dies_with_us(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    code = (
        "import subprocess, sys, os, signal\n"
        "from trit.base.processes import dies_with_us\n"
        "child = subprocess.Popen(['sleep', '60'], preexec_fn=dies_with_us(), start_new_session=True)\n"
        f"open({str(started)!r}, 'w').write(str(child.pid))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert gone(int(started.read_text()))
    assert callable(dies_with_us())


# Messages of earlier chats.


def test_history_is_private_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line_editor = pytest.importorskip("trit.run.line_editor")
    path = tmp_path / "new" / "chat-history"
    monkeypatch.setattr(line_editor, "_MOST_MESSAGES", 3)
    monkeypatch.setattr(line_editor, "_LONGEST", 10)

    def mode() -> int:
        return stat.S_IMODE(path.stat().st_mode)

    def kept() -> list[str]:
        return list(line_editor.PrivateHistory(path).load_history_strings())

    before = os.umask(0)
    try:
        history = line_editor.PrivateHistory(path)
        assert mode() == 0o600
        for text in ("one", "two\nlines", "x" * 11, "thr\u00e9e", "four", "five"):
            history.store_string(text)
        path.chmod(0o644)
        assert kept() == ["five", "four", "thr\u00e9e"] and mode() == 0o600
    finally:
        os.umask(before)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_bytes(b"\xff\xfe\x00 no history\n+\xff\n")
    assert kept() == ["\ufffd"]
    path.unlink()
    path.mkdir()
    history = line_editor.PrivateHistory(path)
    history.store_string("lost")
    assert list(history.load_history_strings()) == []
