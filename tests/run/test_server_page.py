# SPDX-License-Identifier: MIT
"""docs/server.md: its snippets run, its tables are computed, its proxies hand tokens on, its dashboard asks for metrics
that there are."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import server_sizes
from tests.support.clients import Servers, package
from trit.base.places import ROOT

PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
DEPLOY = ROOT / "deploy"
SNIPPETS = re.findall(r"(?ms)^```(python|sh)\n(.*?)^```", PAGE)
ADDRESS = "127.0.0.1:8080"


def test_the_page_has_snippets_of_every_client() -> None:
    found = {re.findall(r"(?m)^(?:from|import|curl) ?(\w*)", code)[0] for _, code in SNIPPETS}
    assert {"openai", "anthropic", "langchain_openai", "litellm"} <= found and len(SNIPPETS) >= 6
    assert all(ADDRESS in code for _, code in SNIPPETS)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_run(number: int, chat_servers: Servers) -> None:
    language, code = SNIPPETS[number]
    for name in re.findall(r"(?m)^(?:from|import) (\w+)", code):
        package(name)
    command = [sys.executable, "-c"] if language == "python" else ["sh", "-c"]
    if language == "sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    code = code.replace(ADDRESS, chat_servers.chat.url.removeprefix("http://"))
    done = subprocess.run(
        [*command, code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        check=False,
    )
    assert done.returncode == 0 and len(done.stdout.strip()) > 5, done.stderr[-2000:]


def test_tables_of_sizes_are_computed() -> None:
    told, wanted = server_sizes.page()
    assert told == wanted, "run: python -m tests.support.server_sizes"


def test_the_dashboard_asks_for_metrics_that_there_are(chat_servers: Servers) -> None:
    with urllib.request.urlopen(f"{chat_servers.chat.url}/metrics", timeout=60) as response:
        there = set(re.findall(r"(?m)^# TYPE (\S+)", response.read().decode()))
    text = (DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8")
    asked = set(re.findall(r"llamacpp:\w+", text))
    assert len(asked) > 8 and asked <= there, asked - there
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    rows = re.search(r"\| panel \| .*?\n\n", PAGE, re.DOTALL)
    assert rows
    told = re.findall(r"(?m)^\| ([A-Z][^|]*) \|", rows[0])
    assert set(told) <= {panel["title"] for panel in panels}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "HOME": str(folder)})
    try:
        end = time.monotonic() + 30
        while True:
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def certificate(folder: Path) -> tuple[Path, Path]:
    openssl = program("openssl")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, "-subj", "/CN=llm.example", "-days", "2"], check=True, capture_output=True)
    return key, certificate


def nginx(folder: Path, port: int, upstream: str) -> list[str]:
    command = [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "errors")]
    key, chain = certificate(folder)
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for old, new in (
        (ADDRESS, upstream),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("/etc/ssl/certs/llm.example.pem", str(chain)),
        ("/etc/ssl/private/llm.example.key", str(key)),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root; " if os.geteuid() == 0 else ""
    top = f"{user}daemon off; pid {folder}/pid; events {{}} http {{ access_log off; {paths} {text} }}"
    (folder / "nginx.conf").write_text(top, encoding="utf-8")
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    return command


def caddy(folder: Path, port: int, upstream: str) -> list[str]:
    command = [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    text = (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    assert text.count("llm.example {") == text.count(ADDRESS) == 1
    text = text.replace("llm.example {", f"llm.example:{port} {{\n\ttls internal").replace(ADDRESS, upstream)
    head = "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n}\n"
    (folder / "Caddyfile").write_text(head + text, encoding="utf-8")
    return command


@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_a_proxy_hands_tokens_on_as_they_come(proxy: object, chat_servers: Servers, tmp_path: Path) -> None:
    curl = program("curl")
    port = free_port()
    command = proxy(tmp_path, port, chat_servers.named.url.removeprefix("http://"))  # type: ignore[operator]
    base = f"https://llm.example:{port}"
    ask = [curl, "-sSkN", "-m", "60", "--resolve", f"llm.example:{port}:127.0.0.1"]
    with running(command, port, tmp_path):
        asked = [{"role": "user", "content": "Count to twenty."}]
        body = {"messages": asked, "max_tokens": 20, "ignore_eos": True, "stream": True}
        stream = subprocess.Popen(
            [*ask, f"{base}/v1/chat/completions", "-d", json.dumps(body)], stdout=subprocess.PIPE, text=True
        )
        assert stream.stdout
        times = [time.monotonic() for line in stream.stdout if line.startswith("data: ")]
        assert stream.wait(timeout=60) == 0 and len(times) > 10
        # A proxy that keeps an answer back gives all of it at once.
        assert times[-1] - times[0] > 0.02
