# SPDX-License-Identifier: MIT
"""A Hub without a network: answers of a repository, as they are or as tests change them, given to huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from tests.support.hub_server import COMMIT, LARGE, git_hash

REPO, LISTING = "org/model", "(listing)"
# What comes instead of an answer where a network wants a login, a proxy has its say, or an address is wrong.
PAGES = (
    b"",
    b"<!DOCTYPE html>\n<html><head><title>Hotel Wi-Fi</title></head></html>",
    b"\xef\xbb\xbf  <HTML><BODY>Please accept the terms</BODY></HTML>",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    b"Invalid username or password.",
    b"{}",
    b"[]",
    b"null",
    b"[" * 200_000,
    b"x" * 100_000,
)
ODD_HEADERS: tuple[Mapping[str, str], ...] = (
    {"Content-Type": "text/html; charset=utf-8"},
    {"Content-Length": "5"},
    {"Content-Length": "x"},
    {"Content-Range": "bytes 0-3/4"},
    {"Content-Range": "bytes 18446744073709551616-1/2"},
    {"Content-Encoding": "gzip"},
    {"Location": "http://["},
    {"Location": "https://hub.invalid/"},
    {"Retry-After": "0"},
    {"ETag": '"../../x"'},
)


@dataclass
class Answer:
    """One answer: status, headers, content, and whether a range of it can be asked for."""

    content: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    ranges: bool = True


def answers_for(files: Mapping[str, bytes]) -> dict[str, Answer]:
    """The answers of a Hub in order: the listing, and every file by its name."""
    siblings = []
    for name, content in files.items():
        entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_hash(content)}
        if name.endswith(LARGE):
            entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        siblings.append(entry)
    listing = json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode()
    return {LISTING: Answer(listing), **{name: Answer(content) for name, content in files.items()}}


@contextmanager
def answering(hub: Mapping[str, Answer]) -> Iterator[list[httpx.Request]]:
    """Let huggingface_hub get these answers; the requests are noted."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        name = LISTING if request.url.path.startswith("/api/") else request.url.path.rpartition("/")[2]
        found = hub.get(name, Answer(b"Entry not found", 404))
        content, status, headers = found.content, found.status, dict(found.headers)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if match and found.ranges and status == 200:
            first, last = int(match[1]), int(match[2] or len(content) - 1)
            if first >= len(content):
                return httpx.Response(416, request=request)
            headers.setdefault("Content-Range", f"bytes {first}-{min(last, len(content) - 1)}/{len(content)}")
            content, status = content[first : last + 1], 206
        return httpx.Response(status, headers=headers, stream=_Pieces(content), request=request)

    set_client_factory(
        lambda: httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True, trust_env=False)
    )
    try:
        yield requests
    finally:
        set_client_factory(default_client_factory)


class _Pieces(httpx.SyncByteStream):
    """Content whose length no header tells, as storage servers send it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
