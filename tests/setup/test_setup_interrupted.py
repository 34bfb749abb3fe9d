# SPDX-License-Identifier: MIT
"""Set-up stopped in the middle of each step, politely and not, and run again; two at once; a full disk."""

from __future__ import annotations

import itertools
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.fake_checkout import Checkout, make_checkout
from tests.support.tiny_gguf import EMPTY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and resource limits of POSIX")


@pytest.fixture
def checkout(tmp_path: Path, plain_venv: Path) -> Checkout:
    return make_checkout(tmp_path, plain_venv)


class SlowIndex:
    """A package index over HTTP that sends half of each file and then waits, until it is told to hurry."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.waiting = threading.Event()
        self.hurry = threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rstrip("/").rsplit("/", 1)[-1]
                if name.endswith(".tar.gz"):
                    body = (index.folder / name).read_bytes()
                else:
                    body = "".join(f'<a href="/files/{path.name}">{path.name}</a>' for path in index.folder.iterdir())
                    body = body.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html" if not name.endswith(".gz") else "application/gzip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if name.endswith(".tar.gz"):
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    index.waiting.set()
                    if not index.hurry.wait(60):
                        return
                    body = body[len(body) // 2 :]
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def settings(self) -> dict[str, str]:
        """pip's settings for it; nothing cached, no second try."""
        url = f"http://127.0.0.1:{self.server.server_port}/simple"
        return {"PIP_INDEX_URL": url, "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}


@pytest.fixture
def slow_index(checkout: Checkout) -> Iterator[SlowIndex]:
    checkout.forget_downloads()
    index = SlowIndex(checkout.index)
    del checkout.env["PIP_NO_INDEX"], checkout.env["PIP_FIND_LINKS"]
    checkout.env |= index.settings()
    yield index
    index.hurry.set()
    index.server.shutdown()


def stop(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Stop set-up by a signal; its output."""
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    assert process.returncode == expected[number], output
    if number == signal.SIGINT:
        assert "carries on where it was" in output
        assert "Traceback" not in output
    return output


def finish(checkout: Checkout) -> str:
    """The run after an interrupted one goes through and leaves nothing behind."""
    result = checkout.run()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "answer:  a fake answer" in result.stdout
    assert (checkout.engine / "src" / "engine.c").read_text() == "int patched_engine;\n"
    assert checkout.gguf.read_bytes() == EMPTY + b"i2_sNone"
    assert checkout.leftovers() == []
    return result.stdout


SIGNALS = [signal.SIGINT, signal.SIGKILL]


@pytest.mark.parametrize(
    ("step", "number"),
    [*itertools.product(["build", "tuning", "conversion", "answer"], SIGNALS), ("build", signal.SIGTERM)],
    ids=str,
)
def test_stopped_in_a_step(checkout: Checkout, step: str, number: signal.Signals) -> None:
    checkout.hold_at(step)
    process = checkout.start()
    checkout.wait_until_held(process)
    stop(process, number)
    assert checkout.gguf.exists() == (step == "answer"), "no half GGUF under its final name"
    stamps = {path.name.split("-")[0] for path in (checkout.root / "3rdparty" / "cache" / "stamps").glob("*.json")}
    assert ("build.json" in stamps) == (step != "build")
    checkout.release()
    output = finish(checkout)
    done_before = {"build": 2, "tuning": 3, "conversion": 3, "answer": 4}
    assert output.count("up to date") == done_before[step]


@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_stopped_while_downloading(checkout: Checkout, slow_index: SlowIndex, number: signal.Signals) -> None:
    process = checkout.start()
    assert slow_index.waiting.wait(60)
    stop(process, number)
    assert not list((checkout.root / "3rdparty" / "cache").glob("*.tar.gz"))
    assert not checkout.engine.exists()
    slow_index.hurry.set()
    finish(checkout)


@pytest.mark.engine
def test_killed_while_making_the_environment(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path, None)
    process = checkout.start("--no-run")
    pip = checkout.root / ".venv" / "lib"
    while not list(pip.glob("python*/site-packages/pip")):
        assert process.poll() is None
    stop(process, signal.SIGKILL)
    finish(checkout)


def test_killed_pip_is_not_trusted(checkout: Checkout) -> None:
    """A pip that was killed may have left a package that looks whole: the next one installs it again."""
    assert checkout.run("--no-run").returncode == 0
    stamp = checkout.root / ".venv" / "trit-setup.json"
    stamp.write_text('{"unfinished": "requirements.txt"}')
    assert checkout.run("--no-run").returncode == 0
    assert "--force-reinstall" in (checkout.root / "logs" / "tools.log").read_text()
    assert "unfinished" not in stamp.read_text()


def test_leftovers_of_a_killed_engine_step_are_removed(checkout: Checkout) -> None:
    partial = checkout.engine.with_name("llama.cpp.partial")
    partial.mkdir()
    (partial / "half").touch()
    (checkout.root / "3rdparty" / "cache" / "abc.partial").mkdir()
    # Killed between the two renames: the old tree is out of its place, the new one not yet in it.
    checkout.engine.with_name("llama.cpp.old.partial").mkdir()
    stamps = checkout.root / "3rdparty" / "cache" / "stamps"
    stamps.mkdir()
    (stamps / ".build.json.77.partial").touch()
    checkout.gguf.with_name(f".{checkout.gguf.name}.77.partial").touch()
    finish(checkout)


def test_two_at_once(checkout: Checkout) -> None:
    checkout.hold_at("build")
    first = checkout.start()
    checkout.wait_until_held(first)
    second = checkout.run()
    assert second.returncode == 2
    assert re.search(rf"another set-up is at work in this folder \(process {first.pid}\)", second.stderr)
    stop(first, signal.SIGINT)
    checkout.release()
    finish(checkout)


def test_full_disk(checkout: Checkout) -> None:
    """Files may grow to a few bytes only: writes fail as on a full disk, and nothing false is left."""
    checkout.forget_downloads()
    big = checkout.index / "fake_engine-1.0.tar.gz"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (big.stat().st_size // 2, resource.RLIM_INFINITY))

    result = subprocess.run(
        checkout.command(),
        cwd=checkout.root,
        env=checkout.env,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
        timeout=120,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not checkout.engine.exists()
    assert not list((checkout.root / "3rdparty" / "cache").glob("*.tar.gz"))
    finish(checkout)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_really_full_disk(tmp_path: Path, plain_venv: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this system lets nobody mount a tmpfs here")
    try:
        checkout = make_checkout(disk, plain_venv)
        filler = disk / "filler"
        filler.write_bytes(b"")
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        result = checkout.run()
        assert result.returncode == 1, result.stdout + result.stderr
        assert f"{disk}/" in result.stderr and "cannot be written: the disk is full" in result.stderr
        assert "free some space" in result.stderr and result.stderr.count("\n") == 1
        filler.unlink()
        finish(checkout)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
