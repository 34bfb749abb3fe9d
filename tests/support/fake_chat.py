# SPDX-License-Identifier: MIT
"""A stand-in for the engine of a chat: it answers on the socket that it is given, and notes what it was asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.support.tiny_gguf import tiny_model

# What it answers depends on the last message. A token is a letter here.
PROGRAM = r"""#!PYTHON
import http.server, json, os, signal, socketserver, sys, time

NOTES = os.environ["FAKE_CHAT_NOTES"]
CONTEXT = int(os.environ.get("FAKE_CHAT_CONTEXT", "1000"))
ANSWERS = {
    "unicode": ["\u00fc\u4f60", "\u597d \U0001f469\u200d\U0001f4bb"],
    "codes": ["a\x1b[2Jb\x07c\r\nd\u009be"],
    "space": ["\n ", " text"],
    "nothing": [],
}


def note(**what):
    with open(NOTES, "a") as file:
        file.write(json.dumps(what) + "\n")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "socket"

    def log_message(self, *words):
        pass

    def do_GET(self):
        self.reply({"default_generation_settings": {"n_ctx": CONTEXT}})

    def reply(self, body, code=200):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        note(path=self.path, key=self.headers["Authorization"], **body)
        messages = body.get("messages") or [{"content": body["prompt"]}]
        length = sum(len(message["content"]) for message in messages)
        if self.path.endswith("input_tokens"):
            return self.reply({"input_tokens": length})
        self.last = messages[-1]["content"]
        if self.last == "refuse":
            return self.reply({"error": {"message": "that cannot be", "type": "invalid_request_error"}}, 400)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        chats = self.path != "/completion"
        try:
            if self.last == "think":
                for part in ("let me", " see"):
                    self.event({"choices": [{"delta": {"reasoning_content": part}}]})
            for part in self.parts():
                self.event({"choices": [{"delta": {"content": part}}]} if chats else {"content": part})
            cut = self.last in ("cut", "full")
            count = 128 if self.last == "cut" else 3
            if self.last == "late error":
                return self.event({"error": {"message": "numbers are not finite", "type": "server_error"}})
            timings = {"predicted_n": 3, "predicted_per_second": 7.5, "cache_n": 2}
            timings |= {"prompt_n": 5, "prompt_per_second": 9}
            if chats:
                self.event({"choices": [{"delta": {}, "finish_reason": "length" if cut else "stop"}]})
                self.event({"choices": [], "usage": {"completion_tokens": count}, "timings": timings})
                self.send("data: [DONE]\n\n")
            else:
                end = {"stop_type": "limit" if cut else "eos", "tokens_predicted": count}
                self.event({"content": "", "stop": True, "timings": timings, **end})
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            note(gone=self.last)
            self.close_connection = True

    def parts(self):
        if self.last == "die":
            self.event({"choices": [{"delta": {"content": "I am"}}]})
            os.kill(os.getpid(), signal.SIGKILL)
        if self.last == "for ever":
            number = 0
            while True:
                yield f"word{number} "
                number += 1
                time.sleep(0.01)
        yield from ANSWERS.get(self.last, ["You said ", self.last, "."])

    def event(self, what):
        self.send("data: " + json.dumps(what) + "\n\n")

    def send(self, text):
        data = text.encode()
        # In two pieces, which split letters.
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            self.wfile.flush()


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # who asks may have left before the answer; nothing is printed of that


note(arguments=sys.argv[1:], pid=os.getpid())
if os.environ.get("FAKE_CHAT_BROKEN"):
    sys.exit("0.00.000.100 E no such architecture")
sys.stderr.write("warning: the kernels speak\nand the engine\n")
sys.stderr.flush()
Server(sys.argv[sys.argv.index("--host") + 1], Handler).serve_forever()
"""


class FakeChat:
    """The program, a model with a chat template for it, and what it noted."""

    def __init__(self, folder: Path):
        self.program = folder / "engine"
        self.program.write_text(PROGRAM.replace("PYTHON", sys.executable, 1))
        self.program.chmod(0o755)
        self.model = tiny_model(folder / "chat.gguf", tokenizer__chat_template="{{ messages }}")
        self.notes_file = folder / "notes"
        self.environment = {"FAKE_CHAT_NOTES": str(self.notes_file)}

    @property
    def notes(self) -> list[dict[str, Any]]:
        lines = self.notes_file.read_text(encoding="utf-8").splitlines() if self.notes_file.exists() else []
        return [json.loads(line) for line in lines]

    @property
    def arguments(self) -> list[str]:
        """With which it was started last."""
        return list([note["arguments"] for note in self.notes if "arguments" in note][-1])

    def value(self, flag: str) -> str:
        return self.arguments[self.arguments.index(flag) + 1]

    @property
    def pids(self) -> list[int]:
        return [int(note["pid"]) for note in self.notes if "pid" in note]

    @property
    def asked(self) -> list[list[tuple[str, str]]]:
        """Role and content of the messages of each chat request."""
        return [
            [(message["role"], message["content"]) for message in note["messages"]]
            for note in self.notes
            if note.get("stream") and "messages" in note
        ]
