# SPDX-License-Identifier: MIT
"""The chat page in a browser, against the real server with a real chat model."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.browser import chromium
from tests.support.real_chat import smollm2
from trit.base.places import ROOT, engine_binary

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the browser is that of Linux's packages")
KEY = "a key of this test"
PHONE = {"width": 390, "height": 844}
# A loaded machine computes some tokens a second.
expect.set_options(timeout=60_000)


@dataclass
class Served:
    """A server that runs, and its address."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer; errors are answers, too."""
        request = urllib.request.Request(f"{self.address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()


@contextmanager
def serving(folder: Path, *command: str) -> Iterator[Served]:
    """Start a server on a free port, wait until it is ready, end it."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / f"server-{port}.log"
    words = [word.replace("PORT", str(port)) for word in command]
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file)
    served = Served(process, f"http://127.0.0.1:{port}", log)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            with suppress(OSError):
                if served.get("/health")[0] == 200:
                    break
            time.sleep(0.1)
        yield served
    finally:
        process.kill()
        process.wait()


def ours(model: Path, *more: str) -> list[str]:
    """The command of a server for one model."""
    script = str(ROOT / "run_inference_server.py")
    return [sys.executable, script, "-m", str(model), "--port", "PORT", "-temp", "0", "-n", "60", *more]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a context that is soon full."""
    with serving(tmp_path_factory.mktemp("page"), *ours(smollm2(), "-c", "512")) as served:
        yield served


@dataclass
class Watched:
    """A page, and what happens in it that nobody sees."""

    page: Page
    hosts: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)


@pytest.fixture
def look(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Opens an address in a fresh profile."""
    with ExitStack() as stack:

        def opened(address: str, **options: object) -> Watched:
            context: BrowserContext = browser.new_context(**options)  # type: ignore[arg-type]
            stack.callback(context.close)
            watched = Watched(context.new_page())
            context.on("request", lambda request: watched.hosts.add(urlsplit(request.url).netloc))
            watched.page.on("console", lambda message: watched.said.append(message.text))
            watched.page.on("pageerror", lambda error: watched.said.append(str(error)))
            watched.page.goto(address)
            return watched

        yield opened


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox").first.fill(text)
    page.get_by_role("button", name="Send").click()


def answer(page: Page, number: int = 0) -> str:
    """What an answer says so far."""
    return page.get_by_label("Assistant message with actions").nth(number).inner_text()


def wait_for_the_end(page: Page) -> None:
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_role("button", name="Stop", exact=True)).to_have_count(0)


def test_an_answer_is_streamed(server: Served, look: Callable[..., Watched]) -> None:
    watched = look(server.address)
    page = watched.page
    ask(page, "Count from one to twenty in words.")
    seen: set[str] = set()
    expect(page.get_by_label("Assistant message with actions")).to_be_visible()
    while page.get_by_role("button", name="Stop", exact=True).count():
        seen.add(answer(page))
        page.wait_for_timeout(50)
    wait_for_the_end(page)
    assert re.search(r"[1-9]\d tokens", answer(page)), "it is whole, and counted"
    assert len(seen) > 3, "it grew before it was whole"
    assert {host for host in watched.hosts if host} == {urlsplit(server.address).netloc}
    refused = [text for text in watched.said if "Content Security Policy" in text or "Refused" in text]
    assert not refused


def test_errors_are_told(engine_bin: Path, tmp_path: Path, look: Callable[..., Watched]) -> None:
    """One of the model: the prompt is longer than its context; and a server that is gone."""
    with serving(tmp_path, *ours(smollm2(), "-c", "512")) as served:
        page = look(served.address).page
        ask(page, "word " * 2000)
        dialog = page.get_by_role("alertdialog")
        expect(dialog).to_contain_text(re.compile("context", re.IGNORECASE))
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        served.process.kill()
        served.process.wait()
        ask(page, "Are you there?")
        expect(dialog).to_contain_text("check if the server is running")


def test_it_fits_a_phone(server: Served, look: Callable[..., Watched]) -> None:
    page = look(server.address, viewport=PHONE, is_mobile=True, has_touch=True).page

    def check() -> None:
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"]

    expect(page.get_by_role("textbox").first).to_be_visible()
    check()
    ask(page, f"Say this word: {'long' * 40}")
    expect(page.get_by_label("Assistant message with actions")).to_be_visible()
    check()
    page.get_by_role("button", name="Stop", exact=True).or_(page.get_by_role("button", name="Send")).click()
    page.goto(f"{server.address}/#/settings")
    page.wait_for_timeout(500)
    check()


def test_it_asks_for_the_key(engine_bin: Path, story_gguf: Path, tmp_path: Path, look: Callable[..., Watched]) -> None:
    """The page needs none to load, and everything else does."""
    with serving(tmp_path, *ours(story_gguf, "--", "--api-key", KEY)) as served:
        assert served.get("/", **{"Accept-Encoding": "gzip"})[0] == 200
        assert served.get("/props")[0] == 401
        page = look(served.address).page
        page.get_by_role("button", name="Enter API Key").click()
        typed = page.get_by_label("API Key", exact=True)
        typed.fill("another")
        page.get_by_role("button", name="Save & Retry").click()
        expect(page.get_by_text("Invalid API key - please check")).to_be_visible()
        typed.fill(KEY)
        expect(page.get_by_role("button", name="Save & Retry")).to_be_enabled()
        page.get_by_role("button", name="Save & Retry").click()
        expect(page.get_by_placeholder("Type a message")).to_be_visible()


def test_it_offers_the_models_of_a_router(
    engine_bin: Path, story_gguf: Path, tmp_path: Path, look: Callable[..., Watched]
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name in ("first", "second"):
        (models / f"{name}.gguf").symlink_to(story_gguf)
    flags = ["--models-dir", str(models), "--port", "PORT", "-c", "512", "-t", "1"]
    with serving(tmp_path, str(engine_binary("llama-server")), *flags) as served:
        page = look(served.address).page
        page.get_by_role("button", name=re.compile("select model|first|second", re.IGNORECASE)).first.click()
        page.get_by_role("option", name=re.compile("second", re.IGNORECASE)).first.click()
        ask(page, "Mary went to the garden. Where is Mary?")
        wait_for_the_end(page)
        expect(page.get_by_label("Assistant message with actions")).to_contain_text("second")
        told = json.loads(served.get("/models")[2])["data"]
        assert {model["id"] for model in told if model["status"]["value"] == "loaded"} == {"second"}


def test_no_ui_turns_it_off(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    with serving(tmp_path, *ours(story_gguf)) as served:
        status, headers, body = served.get("/", **{"Accept-Encoding": "gzip"})
        assert status == 200 and body[:2] == b"\x1f\x8b" and headers["Content-Encoding"] == "gzip"
        assert headers["X-Frame-Options"] == "DENY" and headers["X-Content-Type-Options"] == "nosniff"
        assert served.get("/", Host="rebound.example")[0] == 403
    with serving(tmp_path, *ours(story_gguf, "--no-ui")) as served:
        assert served.get("/", **{"Accept-Encoding": "gzip"})[0] == 404
