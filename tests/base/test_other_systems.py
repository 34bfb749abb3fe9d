# SPDX-License-Identifier: MIT
"""The commands where Python is as on macOS and on Windows: nothing is imported or called that is absent there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.test_commands import LIGHT
from tests.support.other_system import SYSTEMS
from tests.support.serving import serving, wait_for_end
from trit.base import host
from trit.base.places import BUNDLED_MODEL, DEMO_PROMPT, ROOT, gguf_path

ANSWER = "Mary is in the garden"
# Of a Mac with 8 GB; what vm_stat prints behind these lines is left out.
VM_STAT = """\
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            180000.
Pages inactive:                          170000.
Pages speculative:                         2000.
Pages throttled:                              0.
Pages wired down:                        100000.
"""
FREE = (10000 + 170000 + 2000) * 16384


def test_free_memory_of_a_mac() -> None:
    assert host._darwin_free(VM_STAT) == FREE
    for said in ("", VM_STAT.replace("page size", "size"), VM_STAT.replace("Pages inactive", "Pages lazy")):
        assert host._darwin_free(said) is None


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import fcntl", "ModuleNotFoundError"),
        ("import signal; signal.SIGKILL", "AttributeError"),
        ("import os; os.sched_getaffinity(0)", "AttributeError"),
        ("import subprocess; subprocess.run(['true'], preexec_fn=print)", "ValueError: preexec_fn is not supported"),
        ("from pathlib import Path; Path('/proc/self/status').read_text()", "FileNotFoundError"),
    ],
)
def test_what_is_absent_is_noticed(code: str, complaint: str) -> None:
    start = f"from tests.support.other_system import become; become('windows'); {code}"
    done = subprocess.run([sys.executable, "-c", start], cwd=ROOT, capture_output=True, text=True, check=False)
    assert complaint in done.stderr


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def there(
    system: str, *words: str, folder: Path, said: str | None = None, imports: bool = False
) -> subprocess.CompletedProcess[str]:
    """``trit WORDS`` as on a system."""
    if system == "macos":
        for name, text in {"vm_stat": VM_STAT, "sysctl": "2\n"}.items():
            (folder / name).write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
            (folder / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "TRIT_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "tests.support.other_system", *(["--imports"] if imports else []), system, *words]
    return subprocess.run(
        command, cwd=ROOT, env=env, input=said, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems are made of Linux here")
class TestCommands:
    """They need the engine: its programs are asked, and to import all packages takes seconds."""

    @pytest.fixture(autouse=True)
    def _built(self, engine_bin: Path) -> None:
        assert engine_bin.is_dir()

    def test_every_module_and_every_help(self, system: str, tmp_path: Path) -> None:
        done = there(system, *LIGHT, folder=tmp_path, imports=True)
        assert done.returncode == 0, done.stderr
        for name in LIGHT:
            assert f"usage: trit {name}" in done.stdout
        assert {"trit.base.sandbox", "trit.run.serving.supervise", "trit.hub.transfer"} <= set(done.stdout.split())

    def test_doctor_knows_the_machine(self, system: str, tmp_path: Path) -> None:
        done = there(system, "doctor", folder=tmp_path)
        free, total = (f"{FREE / 1e9:.1f}", "") if system == "macos" else ("3.0", "8.0")
        assert f"memory         {free} GB free of {total}" in done.stdout, done.stderr
        assert "threads        2 by default" in done.stdout and "equal to the scalar reference" in done.stdout

    def test_it_answers(self, system: str, tmp_path: Path) -> None:
        done = there(system, "run", "-p", DEMO_PROMPT, "-n", "6", "-temp", "0", folder=tmp_path)
        assert done.returncode == 0 and ANSWER in done.stdout, done.stderr

    def test_it_chats(self, system: str, tmp_path: Path) -> None:
        """On Windows by TCP; on neither does a signal tie the engine to us."""
        flags = ["-n", "6", "-temp", "0", "-cnv", "--", "--no-jinja", "--chat-template", "llama3"]
        model = str(gguf_path(BUNDLED_MODEL))
        done = there(system, "run", "-m", model, *flags, folder=tmp_path, said="Where is Mary?\n")
        assert done.returncode == 0 and "cut after 6 tokens" in done.stdout + done.stderr, done.stderr

    def test_it_serves_and_ends(self, system: str, tmp_path: Path) -> None:
        start = (ROOT / "tests" / "support" / "other_system.py", system, "serve")
        with serving(tmp_path, "-m", gguf_path(BUNDLED_MODEL), "--grace", "1", start=start) as server:
            engine = server.engine
            body = {"prompt": DEMO_PROMPT.replace("\\n", "\n"), "max_tokens": 6, "temperature": 0}
            status, answer = server.ask("POST", "/v1/completions", body)
            assert status == 200 and ANSWER in answer["choices"][0]["text"]
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(timeout=30) == 130
        assert not wait_for_end([engine])
