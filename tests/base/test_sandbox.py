# SPDX-License-Identifier: MIT
"""What a confined child can and cannot do."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from trit.base import sandbox
from trit.base.errors import TritError
from trit.base.processes import become
from trit.base.sandbox import Rules, Sandbox, landlock_version

pytestmark = pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")
# Where Python and the programs of the tests are.
PROGRAMS = [Path(name) for name in ("/bin", "/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix, "/etc/ld.so.cache")]

Child = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def child() -> Child:
    def run(code: str, *arguments: object, **rules: object) -> subprocess.CompletedProcess[str]:
        confined = Sandbox(Rules(**{"runs": PROGRAMS, **rules}))  # type: ignore[arg-type]
        command = [sys.executable, "-I", "-S", "-c", f"import os, socket, sys\n{code}", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, preexec_fn=confined.enter, check=False)

    return run


def test_only_named_files_are_read(child: Child, tmp_path: Path) -> None:
    named, other, folder = tmp_path / "weights", tmp_path / "secret", tmp_path / "parts"
    folder.mkdir()
    for path in (named, other, folder / "one"):
        path.write_text("text of " + path.name)
    read = "print(open(sys.argv[1]).read())"
    assert child(read, named, reads=[named]).stdout == "text of weights\n"
    assert child(read, folder / "one", reads=[folder]).stdout == "text of one\n"
    assert "PermissionError" in child(read, other, reads=[named]).stderr
    assert "PermissionError" in child(read, "/etc/passwd", reads=[named]).stderr
    assert "PermissionError" in child("os.listdir(sys.argv[1])", tmp_path, reads=[named]).stderr


def test_a_link_opens_what_it_leads_to_and_no_more(child: Child, tmp_path: Path) -> None:
    target, link, trap = tmp_path / "blob", tmp_path / "model", tmp_path / "trap"
    target.write_text("blob")
    link.symlink_to(target)
    assert child("print(open(sys.argv[1]).read())", link, reads=[link]).stdout == "blob\n"
    trap.symlink_to("/etc/passwd")
    assert "PermissionError" in child("open(sys.argv[1])", trap, reads=[link]).stderr


@pytest.mark.parametrize(
    "deed",
    [
        "open(sys.argv[1], 'a')",
        "os.truncate(sys.argv[1], 0)",
        "os.unlink(sys.argv[1])",
        "os.rename(sys.argv[1], sys.argv[1] + '2')",
        "open(sys.argv[1] + '2', 'w')",
        "os.mkdir(sys.argv[1] + '2')",
        "os.symlink('/etc', sys.argv[1] + '2')",
    ],
)
def test_nothing_is_written_where_only_reading_is_allowed(child: Child, tmp_path: Path, deed: str) -> None:
    path = tmp_path / "log"
    path.write_text("kept")
    done = child(deed, path, reads=[tmp_path])
    assert "PermissionError" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["log"]
    assert path.read_text() == "kept"


def test_named_files_and_folders_are_written(child: Child, tmp_path: Path) -> None:
    log, slots = tmp_path / "log", tmp_path / "slots"
    log.touch()
    slots.mkdir()
    deed = "open(sys.argv[1], 'w').write('a'); open(sys.argv[2] + '/0.bin', 'w').write('b')"
    assert child(deed, log, slots, writes=[log, slots]).stderr == ""
    assert (log.read_text(), (slots / "0.bin").read_text()) == ("a", "b")


def test_programs_start_only_from_where_they_may(child: Child, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/true").resolve().read_bytes())
    program.chmod(0o755)
    start = "os.execv(sys.argv[1], sys.argv[1:])"
    assert child(start, program, runs=[*PROGRAMS, program]).returncode == 0
    assert "PermissionError" in child(start, program, reads=[program]).stderr


def test_no_privileges_are_gained_and_no_core_is_left(child: Child) -> None:
    done = child("import resource; print(open('/proc/self/status').read(), resource.getrlimit(resource.RLIMIT_CORE))")
    assert "NoNewPrivs:\t1" in done.stdout
    assert done.stdout.endswith("(0, 0)\n")
    assert "PermissionError" in child("open('/proc/1/cmdline')").stderr


@pytest.mark.skipif(landlock_version() < 4, reason="ports need version 4 of Landlock")
def test_only_the_named_port_is_listened_on_and_none_connected_to(child: Child) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        there = server.getsockname()[1]
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        listen = "socket.create_server(('127.0.0.1', int(sys.argv[1])))"
        assert child(listen, free, ports=[free]).stderr == ""
        assert "PermissionError" in child(listen, free, ports=[there]).stderr
        assert child(listen, free, ports=None).stderr == ""
        connect = "socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
        assert "PermissionError" in child(connect, there).stderr
        assert child(connect, there, peers=[there]).stderr == ""
        assert "PermissionError" in child(connect, there, peers=[free], ports=[there]).stderr
        # Any free port is asked for as port 0, and then has to be one of those.
        assert child("socket.create_server(('127.0.0.1', 0))", ports=[0]).stderr == ""


def test_memory_ends_at_the_limit_and_mapped_files_do_not_count(child: Child, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    with weights.open("wb") as file:
        file.truncate(1 << 30)
    mapped = "import mmap; mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ)"
    limits: dict[str, object] = {"runs": PROGRAMS, "reads": [weights], "memory": 256 << 20}
    assert child(mapped, weights, **limits).stderr == ""
    assert "MemoryError" in child("bytearray(300 << 20)", **limits).stderr


def test_a_sandbox_that_cannot_be_entered_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Sandbox) -> None:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))

    monkeypatch.setattr(Sandbox, "enter", refuse)
    with pytest.raises(TritError, match=r"refuses to confine /bin/true \(.*\); give --no-sandbox"):
        become(["/bin/true"], Sandbox(Rules()))


@pytest.mark.parametrize("version", range(1, landlock_version() + 1))
def test_older_kernels_confine_as_far_as_they_know(
    child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(sandbox, "landlock_version", lambda: version)
    named = tmp_path / "named"
    named.write_text("text")
    read = "print(open(sys.argv[1]).read())"
    assert child(read, named, reads=[named]).stdout == "text\n"
    assert "PermissionError" in child(read, "/etc/passwd", reads=[named]).stderr
    assert "PermissionError" in child("open(sys.argv[1], 'a')", named, reads=[named]).stderr
    listens = child("socket.create_server(('127.0.0.1', 0))").stderr
    assert ("PermissionError" in listens) == (version >= 4)


def test_a_kernel_without_landlock_still_limits_memory(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "landlock_version", lambda: 0)
    assert "NoNewPrivs:\t1" in child("print(open('/proc/self/status').read())").stdout
    assert "MemoryError" in child("bytearray(300 << 20)", memory=256 << 20).stderr


def test_what_is_not_there_is_passed_over(child: Child, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert child("print('runs')", reads=[gone], writes=[gone / "below"], sockets=[gone]).stdout == "runs\n"
