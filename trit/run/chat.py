# SPDX-License-Identifier: MIT
"""A chat on a terminal: ``trit run NAME``, or ``run_inference.py -cnv``. docs/chat.md says how it behaves.

Turns are kept here and answered by an engine of our own (chat_engine.py). Standard library only; messages are edited
by prompt_toolkit where it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from trit.base.command import hand_over
from trit.base.errors import EXIT_OK, TritError, UserError, explain
from trit.base.files import atomic_output, check_input, check_output, refuse_node
from trit.base.places import home
from trit.base.processes import signals_end_us
from trit.engine import confinement, inference
from trit.models.registry import model_in
from trit.run import completion, running
from trit.run.chat_engine import ChatEngine, Ended

_MOST_BYTES = 64 << 20  # of a saved chat, or a file that is read
_QUOTES = '"""'
# Others that programs of this kind know.
_ALIASES = {"/quit": "/exit", "/bye": "/exit", "/?": "/help"}


def chat(args: argparse.Namespace, extra: list[str]) -> int:
    """Chat until the user leaves; the exit code.

    Args:
        args: of run_inference.py; its prompt is the system's.
        extra: flags for llama-server.

    Raises:
        UserError: no chat template where a chat was asked for, or a flag that makes no sense here.
    """
    for flag in ("json", "profile"):
        if getattr(args, flag):
            raise UserError(f"--{flag} is for one prompt; leave -cnv or --{flag} away")
    if args.prompt == "":
        raise UserError("-p '': the system prompt is empty; leave -p away")
    if args.system is not None and (args.prompt is not None or args.file is not None):
        raise UserError("--system stands beside -p or -f, which give a chat's system prompt, too; give one of them")
    templated = not inference.lacks_chat_template(args.model, extra)
    if not templated and not args.only_named:
        raise UserError(
            f"{args.model} has no chat template, so -cnv cannot be used with it; leave -cnv away, or "
            f"{inference.TEMPLATE_ADVICE}"
        )
    if not templated and args.system is not None:
        raise UserError(f"{args.model} has no chat template, so --system has no place in it; leave it away")
    by_hand = sys.stdin.isatty()
    edited = by_hand and sys.stdout.isatty() and (os.name == "nt" or os.environ.get("TERM", "") not in ("", "dumb"))
    if edited and find_spec("prompt_toolkit") is None:
        hand_over()
    system = args.system or args.prompt
    system = completion.read_file(args.file) if args.file else system and inference.unescape(system)
    _introduce(args, extra, templated)
    if args.n_predict is None:
        args.n_predict = completion.NO_LIMIT if templated else completion.ANSWER
    command = [*completion.engine_command("llama-server", args), "-np", "1", "--cache-ram", "0", "--no-warmup"]
    command += [*inference.DRAFTS[args.draft], *extra]
    # First of all: what ends us while the engine starts ends it, too.
    with signals_end_us(), ChatEngine(command, args.model, show=args.verbose) as engine:
        sandbox = confinement.prepare(args, engine.command)
        engine.start(sandbox)
        running.note("chat", args.model)
        # Now, while the model is loaded.
        read = _edited(args) if edited else _typed if by_hand else _read
        try:
            engine.wait()
        except Ended:
            code, log = engine.ended or (1, "")
            if sandbox and (met := sandbox.explain(log)):
                raise UserError(met) from None
            return completion.failed(args.model, code, log)
        return Chat(engine, args.model, system, templated, args.n_predict, by_hand, stats=args.verbose).run(read)


def _introduce(args: argparse.Namespace, extra: Sequence[str], templated: bool) -> None:
    """Say what comes, and what not to expect of the model."""
    if (known := model_in(args.model.parent)) and (advice := known.advice()):
        print(f"note: {advice}", file=sys.stderr)
    context = f"{args.ctx_size} tokens of context (-c)" if args.ctx_size else "context as in training"
    leave = "/help shows commands, /exit or Ctrl-D leaves"
    if templated:
        named = inference.TEMPLATE_FLAGS & set(extra)
        whose = "the template that you named" if named else "its own template"
        print(f"chat with {args.model}, by {whose}; {context}; {leave}", file=sys.stderr)
    else:
        print(
            f"note: {args.words[0]} has no chat template, so it cannot chat: each text that you give is continued by "
            f"itself; or {inference.TEMPLATE_ADVICE}",
            file=sys.stderr,
        )
        print(f"continue texts with {args.model}; {context}; {leave}", file=sys.stderr)
    inference.note_if_busy(args.threads)
    sys.stderr.flush()


# How messages are read.


def unfinished(text: str) -> bool:
    '''Whether a message goes on in the next line: it began with """, and none has ended it yet.'''
    return text.startswith(_QUOTES) and not (len(text) >= 2 * len(_QUOTES) and text.rstrip().endswith(_QUOTES))


def meaning(text: str) -> str:
    '''A message without the """ around it.'''
    if text.startswith(_QUOTES):
        return text.removeprefix(_QUOTES).rstrip().removesuffix(_QUOTES).strip("\n")
    return text


def whole_message(line: Callable[[bool], str]) -> str:
    r'''A message of several lines: after a backslash at the end of one, or up to the closing """.

    Args:
        line: gives the next line, and is told whether it carries a message on.

    Raises:
        EOFError: there is none.
    '''
    text = line(False)
    with suppress(EOFError):
        while (quoted := unfinished(text)) or text.endswith("\\"):
            text = (text if quoted else text.removesuffix("\\")) + "\n" + line(True)
    return text


def _edited(args: argparse.Namespace) -> Callable[[], str]:
    """Reading by prompt_toolkit; without it by what Python has."""
    try:
        from trit.run.line_editor import editor
    except ImportError:
        return _typed
    return editor(None if args.no_history else home() / "chat-history", list(_COMMANDS), unfinished)


def _typed() -> str:
    with suppress(ImportError):
        import readline  # noqa: F401  # input() edits lines with it
    try:
        return whole_message(lambda more: input(". " if more else "> "))
    except UnicodeDecodeError as error:
        raise UserError(f"what was typed is no {error.encoding} text; set the terminal to UTF-8") from None


def _read() -> str:
    """From a file or a pipe."""

    def line(more: bool) -> str:
        raw = sys.stdin.buffer.readline()
        if not raw:
            raise EOFError
        try:
            return raw.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise UserError("a line of standard input is no UTF-8 text; save it as UTF-8") from None

    return whole_message(line)


@dataclass
class Chat:
    """The turns of a chat, and what is done with them.

    Attributes:
        engine: answers.
        model: its file.
        system: the system prompt.
        templated: whether turns become a prompt by a chat template; else each message is a text to continue.
        most: tokens of an answer, -1 or -2: no limit.
        by_hand: somebody types: Ctrl-C and mistakes do not end the chat.
        stats: whether speeds are shown after each answer.
        turns: messages of user and assistant in turn, as the engine's API has them.
        left_out: how many of the first turns the engine is no longer sent.
    """

    engine: ChatEngine
    model: Path
    system: str | None
    templated: bool
    most: int
    by_hand: bool
    stats: bool = False
    turns: list[dict[str, str]] = field(default_factory=list)
    left_out: int = 0
    _files: str = ""  # what /read has read for the next message
    _stoppable: bool = False

    def __post_init__(self) -> None:
        self.context = int(self.engine.ask("/props")["default_generation_settings"]["n_ctx"])
        self._colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        self._shown = sys.stdout.isatty()

    def run(self, read: Callable[[], str]) -> int:
        """Read messages and commands until the user leaves; the exit code."""
        before = signal.signal(signal.SIGINT, self._on_interrupt) if self.by_hand else None
        try:
            while True:
                try:
                    self._stoppable = True
                    text = read()
                    if text.strip():
                        self._take(text)
                except EOFError:
                    if self._shown and read is _typed:
                        print()
                    return EXIT_OK
                except KeyboardInterrupt:
                    if not self.by_hand:
                        raise
                    self._note("/exit or Ctrl-D leaves", before="\n" if read is _typed else "")
                except TritError as error:
                    if not self.by_hand:
                        raise
                    print(f"error: {error}", file=sys.stderr)
                except OSError as error:
                    # Without a name it is the terminal's, which is gone.
                    if not self.by_hand or error.filename is None:
                        raise
                    print(f"error: {explain(error)}", file=sys.stderr)
        finally:
            if before is not None:
                signal.signal(signal.SIGINT, before)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """The first Ctrl-C stops what runs; those of an impatient finger do nothing more."""
        if self._stoppable:
            self._stoppable = False
            raise KeyboardInterrupt

    def _take(self, text: str) -> None:
        """Do what a message or a command says."""
        name, _, rest = text.strip().partition(" ")
        if name.startswith("/") and "/" not in name[1:] and "\n" not in name:
            name = _ALIASES.get(name, name)
            if name not in _COMMANDS:
                raise UserError(f"there is no command {name}; /help shows those that are there")
            _COMMANDS[name].deed(self, rest.strip())
        else:
            self.say(meaning(text))

    def say(self, text: str) -> None:
        """Add a message and print the answer to it."""
        # What a terminal or a file has that is no text becomes a question mark.
        self.turns.append({"role": "user", "content": (self._files + text).encode("utf-8", "replace").decode()})
        self._files = ""
        self._answer()

    def _answer(self, before: str | None = None) -> None:
        """Answer the last message; before: the answer that it has had."""
        said, stopped = "", False
        last: dict[str, Any] = {}
        try:
            self._revive()
            self._make_room()
            with closing(self._events()) as events:
                for part, facts in events:
                    last = facts
                    self._print(part if said.strip() else part.lstrip())
                    said += part
        except KeyboardInterrupt:
            if not self.by_hand:
                raise
            stopped = True
        finally:
            if said or before is not None:
                self.turns.append({"role": "assistant", "content": said or before or ""})
            else:
                self.turns.pop()
            if said or stopped:
                self._print("" if said.endswith("\n") else "\n")
        if stopped:
            self._note("stopped" if said else "stopped before the first word")
        elif why := self._cut(last):
            self._note(why)
        if self.stats and (times := last.get("timings")):
            self._note(
                f"{times['predicted_n']} tokens, {times['predicted_per_second']:.1f} tokens/s; read "
                f"{times['prompt_n']} tokens, {times['prompt_per_second']:.1f} tokens/s; knew {times['cache_n']}"
            )
        if self._shown and self.by_hand:
            print()

    def _events(self) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """Parts of the answer as they come, each with what the engine says beside it."""
        if not self.templated:
            for event in self.engine.stream("/completion", {"prompt": self.turns[-1]["content"], "stream": True}):
                yield event["content"], event
            return
        body = {"messages": self._messages(), "stream": True, "stream_options": {"include_usage": True}}
        facts: dict[str, Any] = {}
        thinks = False
        for event in self.engine.stream("/v1/chat/completions", body):
            choice: dict[str, Any] = next(iter(event["choices"]), {})
            facts |= {"timings": event.get("timings"), "usage": event.get("usage")}
            facts |= {"finish_reason": choice.get("finish_reason") or facts.get("finish_reason")}
            delta = choice.get("delta", {})
            if (thought := delta.get("reasoning_content")) and self._shown:
                # Thoughts are shown, and are no part of what is said.
                self._print(thought if thinks else f"[thinking]\n{thought.lstrip()}", dim=True)
                thinks = True
            content = delta.get("content") or ""
            if content and thinks:
                self._print("\n[answer]\n", dim=True)
                thinks = False
            yield content, facts

    def _messages(self) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.turns[self.left_out :]]

    def _make_room(self) -> None:
        """Leave the oldest turns out where message and answer would not fit the context beside them.

        Raises:
            UserError: the message alone does not fit.
        """
        if not self.templated:
            return
        wanted = min(self.most, self.context // 4) if self.most > 0 else self.context // 4
        used = self._count()
        alone = len(self.turns) - 1
        if used + wanted > self.context and self.left_out < alone:
            before = self.left_out
            # Half of it: what is left out changes the beginning, and all that remains is read anew.
            while used > self.context // 2 and self.left_out < alone:
                self.left_out += 2
                used = self._count()
            count = (self.left_out - before) // 2
            self._note(
                f"the context of {self.context} tokens is full: from here on the model does not see the oldest "
                f"{count} {'question and answer' if count == 1 else 'questions and answers'}; -c sets a larger one"
            )
        if used >= self.context:
            raise UserError(
                f"the message has {used} tokens with what stands around it, the context has {self.context}; give a "
                "shorter one, or start with a larger -c"
            )

    def _count(self) -> int:
        """Tokens of the prompt that the turns become."""
        return int(self.engine.ask("/v1/chat/completions/input_tokens", {"messages": self._messages()})["input_tokens"])

    def _cut(self, last: dict[str, Any]) -> str:
        """Why an answer ended before the model ended it; empty if it did not."""
        if self.templated:
            usage = last.get("usage") or {}
            cut, count = last.get("finish_reason") == "length", usage.get("completion_tokens", 0)
        else:
            cut, count = last.get("stop_type") == "limit", last.get("tokens_predicted", 0)
        if cut and 0 < self.most <= count:
            return f"cut after {self.most} tokens; -n sets another number"
        return f"cut: the context of {self.context} tokens is full; -c sets a larger one" if cut else ""

    def _revive(self) -> None:
        """An engine that has ended is started again, with the turns that it had."""
        if self.engine.ended:
            self._note("the engine has ended; it starts again")
            self.engine.start_again()
            running.note("chat", self.model)

    def _print(self, text: str, *, dim: bool = False) -> None:
        """Part of an answer; a terminal gets nothing that it would act on."""
        if self._shown:
            text = "".join(letter for letter in text if letter.isprintable() or letter not in _CONTROLS)
        if dim and not os.environ.get("NO_COLOR"):
            text = f"\x1b[2m{text}\x1b[0m"
        sys.stdout.write(text)
        sys.stdout.flush()

    def _note(self, text: str, before: str = "") -> None:
        line = f"[{text}]"
        print(before + (f"\x1b[2m{line}\x1b[0m" if self._colours else line), file=sys.stderr, flush=True)

    # The commands.

    def _help(self, rest: str) -> None:
        """This list."""
        width = max(len(f"{name} {one.takes}") for name, one in _COMMANDS.items())
        for name, one in _COMMANDS.items():
            print(f"  {f'{name} {one.takes}':{width}}  {one.meaning}", file=sys.stderr)
        print(
            '  Several lines: Alt+Enter, a backslash at the end of a line, or """ before and after them.\n'
            "  Ctrl-C stops an answer, Ctrl-D leaves.",
            file=sys.stderr,
        )

    def _clear(self, rest: str) -> None:
        self.turns, self.left_out, self._files = [], 0, ""
        self._note("all turns are forgotten" + ("; the system prompt stays" if self.system else ""))

    def _set_system(self, rest: str) -> None:
        if not self.templated:
            raise UserError("this model has no chat template, so a system prompt has no place")
        if rest:
            self.system = None if rest == "-" else meaning(rest)
        self._note(f"system prompt: {self.system}" if self.system else "there is no system prompt")

    def _regenerate(self, rest: str) -> None:
        if not self.turns:
            raise UserError("there is no answer yet that could be given again")
        self._answer(self.turns.pop()["content"])

    def _read_files(self, rest: str) -> None:
        names = [name for word in _words(rest) for name in sorted(glob(word)) or [word]]  # noqa: PTH207 (absolute patterns, too)
        if not names:
            raise UserError("/read: name a file, or several; * stands for anything")
        for name in names:
            text = completion.read_file(name, "/read")
            self._files += f"File {name}:\n{text}\n\n"
            self._note(f"{name} goes in front of the next message, {len(text)} letters")

    def _save(self, rest: str) -> None:
        path = _one_file("/save", rest)
        check_output("/save", path)
        refuse_node(path)
        if not self.turns:
            raise UserError("/save: nothing was said yet")
        if path.exists() and _saved_turns(path) is None:
            raise UserError(f"/save {path}: is there and is no saved chat; choose another name")
        everything = [*self._messages()[: 1 if self.system else 0], *self.turns]
        with atomic_output(path) as partial:
            text = json.dumps({"model": self.model.name, "messages": everything}, ensure_ascii=False, indent=1)
            partial.write_text(text + "\n", encoding="utf-8")
        self._note(f"{path} has the chat, {len(self.turns)} messages; /load reads it")

    def _load(self, rest: str) -> None:
        path = _one_file("/load", rest)
        check_input(path)
        messages = _saved_turns(path)
        if messages is None:
            raise UserError(f"/load {path}: is no saved chat; give a file that /save has written")
        system = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
        self.turns, self.left_out, self.system = messages[1 if system is not None else 0 :], 0, system
        self._note(f"{len(self.turns)} messages of {path}, which go on here")

    def _leave(self, rest: str) -> None:
        raise EOFError

    def _toggle_stats(self, rest: str) -> None:
        self.stats = not self.stats
        self._note("speeds are shown after each answer" if self.stats else "speeds are no longer shown")


# What moves a terminal's cursor, or does worse; the end of a line and the tabulator are text.
_CONTROLS = frozenset(map(chr, [*range(32), 127, *range(128, 160)])) - {"\n", "\t"}


@dataclass(frozen=True)
class _Command:
    deed: Callable[[Chat, str], None]
    takes: str
    meaning: str


_COMMANDS = {
    "/help": _Command(Chat._help, "", "this list"),
    "/clear": _Command(Chat._clear, "", "forget all turns, and keep the system prompt"),
    "/system": _Command(Chat._set_system, "[TEXT]", "show the system prompt, or set another; -: none"),
    "/regen": _Command(Chat._regenerate, "", "answer the last message again"),
    "/read": _Command(Chat._read_files, "FILE...", "put files of text in front of the next message"),
    "/save": _Command(Chat._save, "FILE", "write the chat to a file"),
    "/load": _Command(Chat._load, "FILE", "go on with a chat that was saved"),
    "/stats": _Command(Chat._toggle_stats, "", "show speeds after each answer, or no longer"),
    "/exit": _Command(Chat._leave, "", "leave"),
}


def _words(text: str) -> list[str]:
    try:
        return [
            str(Path(word).expanduser()) for word in shlex.split(text.replace("\\", "/") if os.name == "nt" else text)
        ]
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{text}: {error}; quotation marks come in pairs") from None


def _one_file(command: str, rest: str) -> Path:
    words = _words(rest)
    if len(words) != 1:
        raise UserError(f"{command}: name one file; quotation marks go around a name with spaces")
    return Path(words[0])


def _saved_turns(path: Path) -> list[dict[str, str]] | None:
    """The messages of a saved chat: user and assistant in turn, a system prompt in front; None if it is none."""
    if path.stat().st_size > _MOST_BYTES:
        return None
    try:
        messages = json.loads(path.read_bytes())["messages"]
        found = [{"role": str(one["role"]), "content": str(one["content"])} for one in messages]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    turns = found[1:] if found and found[0]["role"] == "system" else found
    roles = [one["role"] for one in turns]
    return found if roles == ["user", "assistant"] * (len(roles) // 2) else None
