# SPDX-License-Identifier: MIT
"""Editing a message in a terminal, by prompt_toolkit: several lines, and the messages of earlier chats."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from trit.base.files import atomic_output

_MOST_MESSAGES = 1000
_LONGEST = 1 << 16  # letters of a message that is kept


def editor(history: Path | None, commands: Sequence[str], unfinished: Callable[[str], bool]) -> Callable[[], str]:
    """A function that lets the user write a message; it raises EOFError at Ctrl-D and KeyboardInterrupt at Ctrl-C.

    Args:
        history: where messages are kept; None: nowhere beyond this chat.
        commands: what Tab completes.
        unfinished: whether Enter begins a new line behind this text.
    """
    # A terminal's answer about its cursor could come when nobody waits for it, and would be part of a message.
    os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if unfinished(buffer.text):
            buffer.insert_text("\n")
        elif buffer.text.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        FormattedText([("" if os.environ.get("NO_COLOR") else "bold fg:ansigreen", "> ")]),
        multiline=True,
        # What is copied out of a line that was too long for the window has nothing of ours in it.
        prompt_continuation=lambda width, line, wrapped: "" if wrapped else ". ",
        key_bindings=keys,
        history=PrivateHistory(history) if history else InMemoryHistory(),
        completer=_Commands(commands),
        complete_while_typing=False,
        reserve_space_for_menu=0,
    )
    return session.prompt


class _Commands(Completer):
    def __init__(self, commands: Sequence[str]) -> None:
        self._commands = commands

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The commands that begin like a message of one word."""
        text = document.text_before_cursor
        if text.startswith("/"):
            yield from (Completion(name, -len(text)) for name in self._commands if name.startswith(text))


class PrivateHistory(History):
    """Messages in a file that only this user reads, the newest 1000; where it cannot be written they are forgotten."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            path.chmod(0o600)
            self._forget_the_oldest()

    def load_history_strings(self) -> Iterable[str]:
        """The messages, the newest first."""
        with suppress(OSError):
            return list(FileHistory(self._path).load_history_strings())
        return []

    def store_string(self, string: str) -> None:
        """Add a message."""
        if len(string) <= _LONGEST:
            with suppress(OSError):
                FileHistory(self._path).store_string(string)

    def _forget_the_oldest(self) -> None:
        messages = list(self.load_history_strings())
        if len(messages) <= _MOST_MESSAGES:
            return
        with atomic_output(self._path) as partial:
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            kept = FileHistory(partial)
            for message in reversed(messages[:_MOST_MESSAGES]):
                kept.store_string(message)
