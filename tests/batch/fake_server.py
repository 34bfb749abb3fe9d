# SPDX-License-Identifier: MIT
"""A server that answers with what it is asked, ends on "die", and on "once" if it is the first of its folder."""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MARK = Path(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        word = json.loads(asked)["word"]
        if word == "die" or (word == "once" and not MARK.exists()):
            MARK.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.send_response(200)
        self.send_header("Content-Length", str(len(asked)))
        # As the engine's server does behind so many answers.
        if word == "close":
            self.close_connection = True
        self.end_headers()
        self.wfile.write(asked)

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
