# SPDX-License-Identifier: MIT
"""A Hub on 127.0.0.1 for tests: the part of the Hub's API that downloads use, and the ways in which it fails.

``/api/models/...`` lists a repository; ``/ORG/NAME/resolve/...`` serves small files and redirects large ones to another
server, as the Hub does to its storage. Every request is noted. A ``Fault`` makes the next matching requests go wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40
LARGE = (".safetensors", ".bin", ".gguf", ".model")


@dataclass
class Repo:
    """A model on the server.

    Attributes:
        files: name -> content.
        revisions: branch or tag -> commit; all have the same files.
        private: only for those with a good token.
        gated: its files only for those with access; "no access" refuses a good token, too.
        sizes: whether the listing tells sizes and hashes; some mirrors leave them out.
    """

    files: dict[str, bytes]
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    private: bool = False
    gated: str = ""
    sizes: bool = True


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests whose path contains ``where``.

    Attributes:
        where: part of the path; storage's paths begin with ``/storage/``.
        times: how often.
        status: answer with this status and no content.
        headers: with these headers.
        cut: close the connection after this many bytes of the content.
        content: send this instead of the file.
        no_ranges: send the whole file, whatever range is asked for.
        early: begin this many bytes before the range that is asked for, and say so.
        silent_cut: with ``cut``: no length is announced, so that the client cannot see that the end is missing.
        hang: with ``cut``: keep the connection open and say nothing more.
    """

    where: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    content: bytes | None = None
    no_ranges: bool = False
    early: int = 0
    silent_cut: bool = False
    hang: bool = False


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]


class HubServer:
    """The Hub and its storage, each on a port of its own; a context manager."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.token = "hf_good"
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        ports = [server.server_port for server in self._servers]
        # Of another name, because the client trusts every port of the Hub's own host.
        self.url, self.storage_url = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"

    def __enter__(self) -> HubServer:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def paths(self, part: str = "") -> list[str]:
        """Paths of the requests so far that contain ``part``."""
        return [request.path for request in self.requests if part in request.path]

    def ranges(self, part: str) -> list[str | None]:
        """The Range header of each request for ``part``."""
        return [request.headers.get("Range") for request in self.requests if part in request.path]

    def next_fault(self, path: str) -> Fault:
        """The fault for a request; one that does nothing if there is none."""
        for fault in self.faults:
            if fault.where in path and fault.times > 0:
                fault.times -= 1
                return fault
        return Fault(path)


def git_hash(content: bytes) -> str:
    """Git's sha1 of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(Request(self.command, self.path, dict(self.headers.items())))
        fault = self.hub.next_fault(self.path)
        if fault.status is not None:
            return self._send(fault.status, b"", dict(fault.headers))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self._model_info(match[1], match[2] or "main")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            return self._tree(match[1], match[2])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], match[2], match[3], fault)
        if match := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path):
            return self._content(self.hub.repos[match[1]].files[match[2]], {}, fault)
        return self._send(404, b"", {})

    do_HEAD = do_GET

    def _repo(self, name: str, revision: str, *, content: bool) -> tuple[Repo, str] | None:
        """A repository and a commit, or None after an answer that says why not."""
        given = self.headers.get("Authorization")
        good = given == f"Bearer {self.hub.token}"
        repo = self.hub.repos.get(name)
        if given and not good:
            self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repo is None or (repo.private and not good):
            # The Hub does not tell strangers whether a name exists.
            self._send(404 if good else 401, b"", {"X-Error-Code": "RepoNotFound"})
        elif content and repo.gated and (not good or repo.gated == "no access"):
            self._send(403 if good else 401, b"", {"X-Error-Code": "GatedRepo"})
        elif revision not in {*repo.revisions, *repo.revisions.values()}:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            return repo, repo.revisions.get(revision, revision)
        return None

    def _model_info(self, name: str, revision: str) -> None:
        found = self._repo(name, revision, content=False)
        if not found:
            return
        repo, commit = found
        siblings = []
        for file, content in repo.files.items():
            entry: dict[str, object] = {"rfilename": file}
            if repo.sizes and "blobs=" in self.path:
                entry |= {"size": len(content), "blobId": git_hash(content)}
                if file.endswith(LARGE):
                    sha256 = hashlib.sha256(content).hexdigest()
                    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n"
                    entry["blobId"] = git_hash(pointer.encode())
                    entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        body = json.dumps({"id": name, "sha": commit, "gated": repo.gated or False, "siblings": siblings})
        self._send(200, body.encode(), {"Content-Type": "application/json"})

    def _tree(self, name: str, revision: str) -> None:
        """What snapshot_download lists; the Hub would cut a long list into pages."""
        if found := self._repo(name, revision, content=False):
            files = found[0].files.items()
            entries = [{"type": "file", "path": file, "size": len(data), "oid": git_hash(data)} for file, data in files]
            self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file: str, fault: Fault) -> None:
        found = self._repo(name, revision, content=True)
        if not found:
            return
        repo, commit = found
        headers = {"X-Repo-Commit": commit}
        if file not in repo.files:
            return self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        content = repo.files[file]
        if file.endswith(LARGE):
            sha256 = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"'}
            return self._send(302, b"", {**headers, "Location": f"{self.hub.storage_url}/storage/{name}/{file}"})
        return self._content(content, {**headers, "ETag": f'"{git_hash(content)}"'}, fault)

    def _content(self, content: bytes, headers: dict[str, str], fault: Fault) -> None:
        content = content if fault.content is None else fault.content
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        status, part = 200, content
        if match and not fault.no_ranges:
            start = int(match[1]) - fault.early
            if start >= len(content):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            end = min(int(match[2] or len(content) - 1), len(content) - 1)
            status, part = 206, content[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(status, part, headers, fault)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], fault: Fault | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if fault and fault.silent_cut:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = fault.cut if fault else None
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            if fault and fault.hang:
                self.hub.closing.wait(60)

    def log_message(self, format: str, *args: object) -> None:
        pass
