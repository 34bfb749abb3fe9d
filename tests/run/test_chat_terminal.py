# SPDX-License-Identifier: MIT
"""The chat in a terminal: keys, signals, the window, what is kept; the engine does as told."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fake_chat import FakeChat
from trit.base.places import DEMO_PROMPT, ROOT
from trit.engine.inference import unescape

pytest.importorskip("pty", reason="a terminal of a POSIX system")
from tests.run.test_chat import gone
from tests.support.terminal import Terminal
from tests.support.tiny_gguf import tiny_model

DRIVER = """
import sys
from pathlib import Path
from trit.base.errors import run_main
from trit.run import completion
completion.engine_binary = lambda name: Path(sys.argv[1])
if sys.argv[2] == "plain":
    sys.modules["prompt_toolkit"] = None
sys.exit(run_main(completion.command if sys.argv[2] == "by name" else completion.main, sys.argv[3:]))
"""


@pytest.fixture
def fake(tmp_path: Path) -> FakeChat:
    return FakeChat(tmp_path)


@contextmanager
def chat(fake: FakeChat, *flags: str, how: str = "edited", columns: int = 80, **env: str) -> Iterator[Terminal]:
    """A chat that waits for its first message."""
    command = [sys.executable, "-c", DRIVER, str(fake.program), how]
    command += [str(fake.model)] if how == "by name" else ["-m", str(fake.model), "-cnv"]
    variables = {**fake.environment, "PYTHONPATH": str(ROOT), "TRIT_HOME": str(fake.program.parent / "home"), **env}
    with Terminal([*command, *flags], variables, columns=columns) as terminal:
        terminal.ready() if how != "plain" else terminal.wait("> ")
        yield terminal


def test_questions_and_answers(fake: FakeChat) -> None:
    with chat(fake) as terminal:
        terminal.send("Hello\r")
        terminal.wait("You said Hello.")
        terminal.ready()
        # Alt+Enter, and a backslash at the end of a line; then quotation marks.
        terminal.send("one\x1b\rtwo\\\rthree\r")
        terminal.wait("You said one\r\ntwo\r\nthree.")
        terminal.ready()
        terminal.send('"""a\rb\\\r"""\r')
        terminal.wait("You said a\r\nb\\.")
        terminal.ready()
        terminal.send("/exit\r")
        assert terminal.end() == 0
    assert [messages[-1][1] for messages in fake.asked] == ["Hello", "one\ntwo\nthree", "a\nb\\"]
    assert gone(fake.pids[-1])


def test_lines_that_are_pasted_are_one_message(fake: FakeChat) -> None:
    with chat(fake) as terminal:
        terminal.send("\x1b[200~#define A \\\n  1\n/exit\nend\x1b[201~")
        terminal.send("\r")
        terminal.wait("end.")
        terminal.ready()
        terminal.send("\x04")
        assert terminal.end() == 0
    assert fake.asked[0][-1] == ("user", "#define A \\\n  1\n/exit\nend")


def test_ctrl_c_stops_the_answer_and_not_the_chat(fake: FakeChat) -> None:
    with chat(fake) as terminal:
        terminal.send("for ever\r")
        terminal.wait("word5 ")
        terminal.send("\x03\x03\x03")
        terminal.wait("[stopped]")
        terminal.ready()
        terminal.send("next\r")
        terminal.wait("You said next.")
        terminal.ready()
        terminal.send("half a message\x03")
        terminal.wait("[/exit or Ctrl-D leaves]")
        terminal.ready()
        terminal.send("\x04")
        assert terminal.end() == 0
    assert {"gone": "for ever"} in fake.notes, "the engine computes nothing for nobody"
    first, stopped, last = fake.asked[-1]
    assert first == ("user", "for ever") and stopped[1].startswith("word0 word1") and last == ("user", "next")


def test_commands(fake: FakeChat, tmp_path: Path) -> None:
    with chat(fake, "-p", "S") as terminal:
        for line, answer in (
            ("one", "You said one."),
            ("/regen", "You said one."),
            ("/system", "[system prompt: S]"),
            ("/stats", "[speeds are shown"),
            ("two", "[3 tokens, 7.5 tokens/s;"),
            (f"/save {tmp_path}/c.json", "4 messages"),
            ("/clear", "[all turns are forgotten"),
            (f"/load {tmp_path}/c.json", "[4 messages"),
            ("/nothing", "error: there is no command /nothing"),
        ):
            terminal.send(f"{line}\r")
            terminal.wait(answer)
            terminal.ready()
        terminal.send("/he\t")
        terminal.wait("/help")
        terminal.send("\r")
        terminal.wait("  /exit")
        terminal.ready()
        terminal.send("/exit\r")
        assert terminal.end() == 0
    assert len(json.loads((tmp_path / "c.json").read_text())["messages"]) == 5


def test_messages_of_earlier_chats_come_with_the_arrow(fake: FakeChat, tmp_path: Path) -> None:
    kept = tmp_path / "home" / "chat-history"
    up = "\x1b[A"
    for flags, keys, wanted in (((), "first", "first"), ((), up, "first"), (("--no-history",), f"{up}?", "?")):
        with chat(fake, *flags) as terminal:
            terminal.send(f"{keys}\r")
            terminal.wait(f"You said {wanted}.")
            terminal.ready()
            terminal.send("\x04")
            assert terminal.end() == 0
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text().count("+first") == 1 and "?" not in kept.read_text()


def test_a_terminal_gets_no_codes_of_the_model_s(fake: FakeChat) -> None:
    with chat(fake) as terminal:
        terminal.send("codes\r")
        terminal.wait("a[2Jbc\r\nde")
        terminal.ready()
        terminal.send("unicode\r")
        terminal.wait("\u00fc\u4f60\u597d \U0001f469\u200d\U0001f4bb")
        terminal.ready()
        terminal.send("\u00fc\u597d\r")
        terminal.wait("You said \u00fc\u597d.")
        terminal.ready()
        terminal.send("think\r")
        terminal.wait(
            "\x1b[2m[thinking]\r\nlet me\x1b[0m\x1b[2m see\x1b[0m\x1b[2m\r\n[answer]\r\n\x1b[0mYou said think."
        )


def test_without_colours(fake: FakeChat) -> None:
    with chat(fake, NO_COLOR="1") as terminal:
        for line, answer in (("think", "[answer]\r\nYou said think."), ("/clear", "[all turns are forgotten]")):
            terminal.send(f"{line}\r")
            terminal.wait(answer)
            terminal.ready()
    assert "[2m" not in terminal.seen and ";1m" not in terminal.seen and "[32" not in terminal.seen


def test_the_window_changes_while_somebody_types(fake: FakeChat) -> None:
    text = " ".join(f"word{number}" for number in range(20))
    with chat(fake, columns=80) as terminal:
        terminal.send(text[:60])
        terminal.wait("word9")
        terminal.resize(30)
        os.kill(terminal.pid, signal.SIGWINCH)
        terminal.send(text[60:] + "\r")
        terminal.wait(f"You said {text}.")
        terminal.resize(100)
        terminal.ready()
        terminal.send("\x04")
        assert terminal.end() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("message", ["", "for ever\r"])
def test_the_engine_ends_with_the_chat(fake: FakeChat, number: signal.Signals, message: str) -> None:
    if number == signal.SIGKILL and not sys.platform.startswith("linux"):
        pytest.skip("the engine itself looks after this there")
    with chat(fake) as terminal:
        if message:
            terminal.send(message)
            terminal.wait("word3 ")
        os.kill(terminal.pid, number)
        assert terminal.end() == (-9 if number == signal.SIGKILL else 128 + number)
    assert gone(fake.pids[-1])


def test_an_engine_that_is_killed_starts_again_with_all_turns(fake: FakeChat) -> None:
    with chat(fake) as terminal:
        terminal.send("one\r")
        terminal.wait("You said one.")
        terminal.ready()
        os.kill(fake.pids[-1], signal.SIGKILL)
        assert gone(fake.pids[-1])
        terminal.send("two\r")
        terminal.wait("[the engine has ended; it starts again]")
        terminal.wait("You said two.")
        terminal.ready()
        terminal.send("die\r")
        terminal.wait("error: the engine was ended by SIGKILL")
        terminal.ready()
        terminal.send("three\r")
        terminal.wait("You said three.")
    assert len(fake.pids) == 3
    assert [text for role, text in fake.asked[-1] if role == "user"] == ["one", "two", "die", "three"]


def test_ctrl_c_while_the_model_is_loaded_ends_it(fake: FakeChat, tmp_path: Path) -> None:
    slow, started = tmp_path / "slow", tmp_path / "pid"
    slow.write_text(f"#!/bin/sh\necho $$ > {started}.part; mv {started}.part {started}; exec sleep 60\n")
    slow.chmod(0o755)
    command = [sys.executable, "-c", DRIVER, str(slow), "edited", "-m", str(fake.model), "-cnv"]
    with Terminal(command, {"PYTHONPATH": str(ROOT), "TRIT_HOME": str(tmp_path)}) as terminal:
        terminal.wait("/help shows commands")
        while not started.exists():
            time.sleep(0.02)
        terminal.send("\x03")
        assert terminal.end() == 130
        assert terminal.seen.rstrip().endswith("interrupted") and "Traceback" not in terminal.seen
    assert gone(int(started.read_text()))


def test_without_prompt_toolkit_lines_are_read_by_python(fake: FakeChat) -> None:
    with chat(fake, how="plain") as terminal:
        terminal.send("one\\\r")
        terminal.wait(". ")
        terminal.send("two\r")
        terminal.wait("You said one\r\ntwo.")
        terminal.wait("> ")
        terminal.send("for ever\r")
        terminal.wait("word5 ")
        terminal.send("\x03")
        terminal.wait("[stopped]")
        terminal.wait("> ")
        # Between its prompt and its wait for keys Python's readline keeps a signal until the next one: type on.
        terminal.send_until("\x03", "[/exit or Ctrl-D leaves]")
        terminal.wait("> ")
        terminal.send("\x04")
        assert terminal.end() == 0
    assert "Traceback" not in terminal.seen


def test_a_model_without_a_template_continues_texts(fake: FakeChat) -> None:
    tiny_model(fake.model)
    with chat(fake, how="by name") as terminal:
        assert f"note: {fake.model} has no chat template, so it cannot chat: each text" in terminal.seen
        terminal.send("one\r")
        terminal.wait("You said one.")
        terminal.ready()
        terminal.send("/system x\r")
        terminal.wait("error: this model has no chat template, so a system prompt has no place")
        terminal.ready()
        terminal.send("cut\r")
        terminal.wait("[cut after 128 tokens")
        terminal.ready()
        terminal.send("/regen\r")
        terminal.wait("You said cut.")
        terminal.ready()
        terminal.send("\x04")
        assert terminal.end() == 0
    prompts = [note["prompt"] for note in fake.notes if "prompt" in note]
    assert prompts == ["one", "cut", "cut"] and fake.value("-n") == "128"


# From here on with the compiled engine, and the bundled model, which has no template.


def test_a_base_model_continues_as_it_does_for_one_prompt(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    assert engine_bin.is_dir()
    home = {"TRIT_HOME": str(tmp_path)}
    story = unescape(DEMO_PROMPT).partition("\n")[0]
    command = [sys.executable, ROOT / "run_inference.py", "-m", story_gguf, "-temp", "0", "-n", "12"]
    once = subprocess.run([*command, "-p", story], capture_output=True, text=True, check=True).stdout
    refused = subprocess.run([*command, "-cnv"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "has no chat template, so -cnv cannot be used with it" in refused.stderr
    command = [sys.executable, "-m", "trit", "run", story_gguf, "-temp", "0", "-n", "12", "--sandbox"]
    with Terminal(command, {**home, "PYTHONPATH": str(ROOT)}) as terminal:
        terminal.ready()
        assert f"note: {story_gguf} has no chat template, so it cannot chat" in terminal.seen
        terminal.send(f"{story}\r")
        terminal.wait(once.strip().replace("\n", "\r\n"))
        terminal.ready()
        terminal.send("\x04")
        assert terminal.end() == 0


def test_the_engine_itself_notices_our_end_where_no_signal_tells_it(
    engine_bin: Path, story_gguf: Path, tmp_path: Path
) -> None:
    """And it listens on a port, as where there are no UNIX sockets."""
    assert engine_bin.is_dir()
    started = tmp_path / "pid"
    code = f"""
import os, signal
from pathlib import Path
from trit.base.places import engine_binary
from trit.run import chat_engine
chat_engine._TIED_BY_SIGNAL, chat_engine._LONGEST_SOCKET = False, 3
command = [str(engine_binary("llama-server")), "-m", {str(story_gguf)!r}, "-c", "256", "-t", "1"]
engine = chat_engine.ChatEngine(command, Path({str(story_gguf)!r}), show=False)
engine.start(None)
engine.wait()
assert engine.ask("/props")["default_generation_settings"]["n_ctx"] == 256
engine._key = "another"
try:
    engine.ask("/props")
except chat_engine.Refused as error:
    Path({str(started)!r}).write_text(f"{{engine.pid}} {{error}}")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    pid, _, error = started.read_text().partition(" ")
    assert error == "the engine refuses this: Invalid API Key"
    assert gone(int(pid))
