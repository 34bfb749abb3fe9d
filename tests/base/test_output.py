# SPDX-License-Identifier: MIT
"""What is printed and written where that is hard: encodings, closed streams, full disks, read-only folders."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trit.base.errors import UserError, explain, run_main
from trit.base.files import atomic_output, atomic_outputs, check_output, names_file
from trit.base.flags import hub_name
from trit.base.host import cgroup_memory, cgroup_quota, cgroup_stops
from trit.base.places import ROOT
from trit.base.processes import run
from trit.gguf.writer import output_paths

# Latin, Chinese, an emoji outside of the 16-bit letters, a byte of a file name that is no UTF-8, a line drawn.
WORDS = "caf\u00e9 \u6a21\u578b \U0001f600 \udcff \u2500"


def python(code: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from trit.base.errors import run_main\n"
    options["env"] = {**os.environ, **(options.get("env") or {})}  # type: ignore[dict-item]
    return subprocess.run(
        [sys.executable, "-c", start + code], capture_output="stdout" not in options, timeout=60, check=False, **options
    )  # type: ignore[call-overload]


PRINTS = f"""
import json
from trit.base.errors import UserError
def main(argv):
    print(json.dumps({{"text": {WORDS!a}}}, ensure_ascii=False))
    raise UserError({WORDS[:7]!a})
sys.exit(run_main(main))
"""


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "cp1251"},
        {"PYTHONIOENCODING": "utf-8"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_any_letter_can_be_printed(env: dict[str, str]) -> None:
    done = python(PRINTS, env=env)
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False), done.stderr
    # JSON stays JSON, and says the same.
    assert json.loads(done.stdout.decode(env.get("PYTHONIOENCODING", "ascii")))["text"] == WORDS


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(closed: str, tmp_path: Path) -> None:
    code = f"""
def main(argv):
    with open({str(tmp_path / "kept")!r}, "w") as file:
        print("seen"); print("told", file=sys.stderr); file.write(sys.stdin.read())
        sys.stdout.buffer.write(b"more")
    return 0
sys.exit(run_main(main))
"""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from trit.base.errors import run_main\n{code}"
    (tmp_path / "code.py").write_text(start)
    done = subprocess.run(
        ["sh", "-c", f'printf in | "{sys.executable}" code.py {closed}'], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    # Nothing that was printed went into the file.
    assert (tmp_path / "kept").read_text() == ("" if "<&-" in closed else "in")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_output_is_a_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        done = python("sys.exit(run_main(lambda argv: print('x' * 9) or 0))", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == (
        b"error: standard output, or a file, cannot be written: the disk is full; free some space, run this again\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["run", "--help"], ["codegen", "tl1", "--help"]])
def test_help_and_versions_that_cannot_be_written(words: list[str]) -> None:
    command = [sys.executable, str(ROOT / "__main__.py"), *words]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1) and b"the disk is full" in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        done = subprocess.run(command, stdout=broken, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_called_so_with_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"

    def main(argv: object) -> int:
        with atomic_output(path):
            full()
        return 0

    assert run_main(main) == 1
    assert capsys.readouterr().err.startswith(f"error: {path} cannot be written: the disk is full (")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_gets_the_content_and_stays(linked: bool, tmp_path: Path) -> None:
    node = path = tmp_path / "pipe"
    os.mkfifo(node)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(node)
    before = sorted(tmp_path.iterdir())
    # Without a reader nothing is opened: neither the check, nor what fails, waits for one.
    check_output("--json", path)
    with pytest.raises(RuntimeError), atomic_output(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(node.read_bytes)
        with atomic_output(path) as partial:
            partial.write_bytes(b"whole\n" * 30000)  # more than a pipe holds
        assert read.result(timeout=10) == b"whole\n" * 30000
    assert node.is_fifo() and path.is_symlink() == linked
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(UserError, match=r": is a pipe, expected the name of a file; choose another$"):
        output_paths(path, 1, force=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root makes devices")
def test_a_device_stays_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "full"
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 7))
        path.open("wb").close()
    except OSError:
        pytest.skip("no devices can be made or opened here")

    def main(argv: object) -> int:
        with atomic_output(path) as partial:
            partial.write_text("content")
        return 0

    assert run_main(main) == 1
    assert capsys.readouterr().err.startswith(f"error: {path} cannot be written: the disk is full (")
    assert path.is_char_device() and list(tmp_path.iterdir()) == [path]


def test_the_log_of_a_program_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "step.log"
    monkeypatch.setattr("trit.base.processes.print", full, raising=False)
    assert run_main(lambda argv: len(run(["true"], "nothing", log))) == 1
    assert f"{log} cannot be written: the disk is full" in capsys.readouterr().err


def test_names_that_are_no_utf8_can_be_logged(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    assert run([sys.executable, "-c", "print('ran')", "\udcfe.gguf"], "naming", log) == ["ran"]
    assert "\\udcfe.gguf" in log.read_text(encoding="utf-8")


def test_what_cannot_be_read_is_not_called_what_is_written(tmp_path: Path) -> None:
    for name in ("missing", str(tmp_path / "missing")):
        with pytest.raises(FileNotFoundError) as caught, atomic_outputs([tmp_path / "out"]):
            Path(name).read_bytes()
        assert caught.value.filename == name
    with pytest.raises(OSError) as error, names_file(tmp_path / "out"):
        full()
    assert error.value.filename == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "x/y: Read-only file system; allow it, or name another place"),
        (errno.EACCES, "x/y: Permission denied; allow it, or name another place"),
        (errno.ENAMETOOLONG, "x/y: File name too long; mend that and run this again"),
    ],
)
def test_errors_of_files_are_one_sentence(number: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(number, os.strerror(number), "x/y")
    assert str(explain(error)) == words

    def main(argv: object) -> int:
        raise error

    assert run_main(main) == 1
    assert capsys.readouterr().err == f"error: {words}\n"


@pytest.mark.parametrize(
    ("lines", "where", "expected"),
    [
        ("7:cpu,cpuacct:/batch/job\n", "cpu/batch/job", 3),
        ("7:cpuacct,cpu:/batch/job\n", "cpu/batch", 3),
        ("7:memory:/batch/job\n2:cpu:/other\n", "cpu/batch/job", None),
        # In a container the path may be the host's: only the top is there.
        ("7:cpu,cpuacct:/docker/0123\n", "cpu", 3),
        ("7:cpu,cpuacct:/slice\n0::/slice\n", "cpu/slice", 3),
    ],
)
def test_groups_of_cgroup_v1(lines: str, where: str, expected: int | None, tmp_path: Path) -> None:
    (tmp_path / "self").write_text(lines)
    group = tmp_path / where
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("350000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    (group / "cpu.stat").write_text("nr_periods 9\nnr_throttled 4\n")
    assert cgroup_quota(tmp_path, tmp_path / "self") == expected
    assert cgroup_stops(tmp_path, tmp_path / "self") == (4 if expected else 0)


def test_memory_of_a_cgroup_v1_group(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("3:cpu:/\n4:memory:/user/job\n")
    for name, limit in (("user/job", 9223372036854771712), ("user", 2 << 30), ("", 8 << 30)):
        folder = tmp_path / "memory" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    assert cgroup_memory(tmp_path, tmp_path / "self") == 2 << 30


def test_addresses_on_the_hub_are_names() -> None:
    for address, name in {
        "https://hub.example/org/name": "org/name",
        "https://hub.example/org/name/": "org/name",
        "http:/hub.example/org/name-1.58/tree/main": "org/name-1.58",
        "https://hub.example/org/name/resolve/v2/a/model.gguf?download=true": "org/name@v2",
        "https://hub.example/org/name/blob/main/config.json#L3": "org/name",
        "org/name@v1": "org/name@v1",
        "/tmp/https/x.gguf": "/tmp/https/x.gguf",
    }.items():
        assert hub_name(address) == name
