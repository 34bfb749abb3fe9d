# SPDX-License-Identifier: MIT
"""The shared ways of failing, of writing files and of running programs; the facts about the machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from trit.base import command, host, processes, progress
from trit.base.command import check_environment, run_command, tell_engine_variables
from trit.base.errors import CommandError, TritError, UserError, run_main
from trit.base.files import atomic_output
from trit.base.places import ROOT

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (TritError("it broke; mend it"), 1, "error: it broke; mend it\n"),
        (UserError("wrong flag; use another"), 2, "error: wrong flag; use another\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
)
def test_exit_codes(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str] | None) -> int:
        raise error

    assert run_main(main) == code
    assert capsys.readouterr().err == said
    assert run_main(lambda argv: 7, []) == 7


def test_reader_that_goes_away_is_no_traceback() -> None:
    code = "from trit.base.errors import run_main\nrun_main(lambda argv: [print('line') for _ in range(100000)] and 0)"
    command = f'{PYTHON} -c "{code}" | head -1'
    result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("line\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("script", ["setup_env.py", "run_inference.py", "run_inference_server.py"])
def test_ctrl_c_while_modules_are_imported(script: str, tmp_path: Path) -> None:
    """The standard library's shlex, which every script imports, is one that takes a minute."""
    (tmp_path / "shlex.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    command = [PYTHON, str(ROOT / script), "--help"]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, ("", "\ninterrupted\n"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TRIT_ATTENTION", "no", "TRIT_ATTENTION=no: expected off"),
        ("TRIT_TEIR", "avx2", "TRIT_TEIR: there is no such variable; TRIT_TIER may be meant"),
        ("TRIT_PACKINGS", "tl1", "TRIT_PACKINGS: there is no such variable; TRIT_PACKING may be meant"),
        ("TRIT_ATTENTION", "off", None),
        ("TRIT_TIER", "avx2", None),
        ("TRIT_REQUIRE_ARM", "1", None),
        ("TRIT_TEST_SEED", "7", None),
    ],
)
def test_variables(name: str, value: str, said: str | None) -> None:
    if said is None:
        check_environment({name: value, "TEIR": "x"})
        return
    with pytest.raises(UserError) as error:
        check_environment({name: value})
    assert str(error.value).startswith(said)


def test_atomic_output(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    with pytest.raises(RuntimeError), atomic_output(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    with atomic_output(target) as partial:
        partial.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_run_logs_and_reports_lines(tmp_path: Path) -> None:
    log, seen = tmp_path / "logs" / "x.log", []
    code = (
        "import os, sys; print('one'); print('two', file=sys.stderr); print(os.environ.get('A'), os.environ.get('B'))"
    )
    os.environ["B"] = "gone"
    lines = processes.run([PYTHON, "-u", "-c", code], "trying", log, env={"A": "a", "B": None}, on_line=seen.append)
    del os.environ["B"]
    assert lines == seen == ["one", "two", "a None"]
    text = log.read_text()
    assert text.startswith("$ ") and text.endswith("one\ntwo\na None\n")
    processes.run([PYTHON, "-c", "print('three')"], "trying", log)
    assert log.read_text().startswith(text), "a log is appended to"


def test_run_tells_what_matters_of_a_failure(tmp_path: Path) -> None:
    noise = "[print('note', i) for i in range(100)]"
    code = f"{noise}; print('a.cpp:1: error: ' + 'x' * 500); {noise}; raise SystemExit(3)"
    with pytest.raises(CommandError, match=r"compiling failed \(exit code 3\); its whole log is .*x.log") as error:
        processes.run([PYTHON, "-c", code], "compiling", tmp_path / "x.log")
    assert error.value.returncode == 3
    assert len(error.value.tail) == 1 and error.value.tail[0].startswith("a.cpp:1: error: xxx")
    assert len(error.value.tail[0]) < 300
    with pytest.raises(CommandError) as error:
        processes.run([PYTHON, "-c", f"{noise}; raise SystemExit(1)"], "compiling", tmp_path / "x.log")
    assert error.value.tail == [f"note {i}" for i in range(80, 100)]
    with pytest.raises(CommandError, match="no/such/program does not start"):
        processes.run(["no/such/program"], "trying", tmp_path / "x.log")


def test_run_ends_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a grandchild that ignores Ctrl-C."""
    monkeypatch.setattr(processes, "_GRACE_S", 0.5)
    child = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print(os.getpid(), subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.extend(int(word) for word in line.split())
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        processes.run([PYTHON, "-c", child], "waiting", tmp_path / "x.log", on_line=stop)
    assert time.monotonic() - start < 20
    assert len(pids) == 2
    if sys.platform == "linux":
        # A killed process goes when the kernel comes to it.
        end = time.monotonic() + 10
        while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
            assert time.monotonic() < end
            time.sleep(0.01)


def test_capture() -> None:
    assert processes.capture([PYTHON, "-c", "import sys; print('a'); sys.exit(4)"]) == (4, "a\n")
    assert processes.capture(["no/such/program"])[0] == 127
    assert processes.capture([PYTHON, "-c", "import time; time.sleep(9)"], timeout_s=0.2)[0] == 127


def test_call_has_our_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert processes.call([PYTHON, "-c", "import sys; print('seen'); sys.exit(6)"]) == 6
    assert capfd.readouterr().out == "seen\n"


def test_call_ends_its_program_when_it_is_ended(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from trit.base import processes; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9));"
        f"processes.call([{PYTHON!r}, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'])"
    )
    process = subprocess.Popen([PYTHON, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 9
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX replaces the process, Windows cannot")
def test_become_takes_our_place() -> None:
    inner = "import os, sys; print(os.getpid()); sys.exit(5)"
    code = "import os; from trit.base.processes import become; print(os.getpid()); "
    code += f"become([{PYTHON!r}, '-c', {inner!r}])"
    result = subprocess.run([PYTHON, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 5
    first, second = result.stdout.split()
    assert first == second


def make_topology(folder: Path, cores: Sequence[tuple[int, int]]) -> Path:
    for cpu, (package, core) in enumerate(cores):
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "core_id").write_text(f"{core}\n")
    return folder


def test_hyper_threads_share_a_core(tmp_path: Path) -> None:
    folder = make_topology(tmp_path, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1), (1, 0), (1, 1)])
    assert host._linux_physical({0, 1, 2, 3, 4, 5, 6, 7}, folder) == 4
    assert host._linux_physical({0, 4}, folder) == 1
    assert host._linux_physical({0, 99}, folder) is None


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000", "cpu.max": "800000 100000"}, 4),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_container_quota(limits: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    group = tmp_path / "self"
    group.write_text("1:cpu:/x\n0::/a/b\n")
    assert host.cgroup_quota(tmp_path, group) == expected
    assert host.cgroup_quota(tmp_path, tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"memory.max": "max"}, None),
        ({"memory.max": "max", "a/memory.max": "2147483648", "a/b/memory.max": "4294967296"}, 2 << 30),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({"memory/memory.limit_in_bytes": "1073741824"}, 1 << 30),
    ],
)
def test_container_memory(limits: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    group = tmp_path / "self"
    group.write_text("1:cpu:/x\n0::/a/b\n")
    assert host.cgroup_memory(tmp_path, group) == expected
    assert host.cgroup_memory(tmp_path, tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"a/memory.max": "max", "a/memory.current": "5", "a/memory.stat": "anon 1"}, None),
        ({"a/memory.max": "900", "a/memory.current": "500", "a/memory.stat": "anon 1\ninactive_file 30\n"}, 430),
        # The group around it is fuller, and the top has no limit of its own.
        (
            {
                **{"a/b/memory.max": "900", "a/b/memory.current": "100", "a/b/memory.stat": "inactive_file 10"},
                **{"a/memory.max": "950", "a/memory.current": "940", "a/memory.stat": "inactive_file 20"},
                "memory.stat": "inactive_file 7",
            },
            30,
        ),
        (
            {
                **{"memory/memory.limit_in_bytes": "700", "memory/memory.usage_in_bytes": "800"},
                "memory/memory.stat": "inactive_file 3\ntotal_inactive_file 50",
            },
            0,
        ),
    ],
)
def test_what_a_container_has_left(files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    group = tmp_path / "self"
    group.write_text("4:memory:/\n0::/a/b\n")
    assert host.cgroup_free_memory(tmp_path, group) == expected
    assert host.cgroup_free_memory(tmp_path, tmp_path / "nothing") is None


def test_what_can_be_used_is_the_lesser(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, left, expected in ((5, 3, 3), (5, 9, 5), (None, 9, 9), (5, None, 5), (None, None, None)):
        monkeypatch.setattr(host, "free_memory_bytes", lambda free=free: free)
        monkeypatch.setattr(host, "cgroup_free_memory", lambda left=left: left)
        assert host.usable_memory_bytes() == expected


def test_counts_respect_affinity_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= host.physical_cores() <= host.usable_cpus() <= (os.cpu_count() or 1)
    monkeypatch.setattr(host, "_allowed_cpus", lambda: set(range(16)))
    monkeypatch.setattr(host, "_performance_cpus", lambda allowed: allowed)
    monkeypatch.setattr(host, "_linux_physical", lambda allowed: 8)
    monkeypatch.setattr(host, "cgroup_quota", lambda: None)
    monkeypatch.setattr(sys, "platform", "linux")
    assert (host.physical_cores(), host.usable_cpus()) == (8, 16)
    monkeypatch.setattr(host, "cgroup_quota", lambda: 3)
    assert (host.physical_cores(), host.usable_cpus()) == (3, 3)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(host, "capture", lambda command: (0, "6\n") if "hw.perflevel0" in command[2] else (1, ""))
    monkeypatch.setattr(host, "cgroup_quota", lambda: None)
    assert host.physical_cores() == 6


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1:01"), (600, "10:00")])
def test_clock(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text


def test_progress_on_a_terminal_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(progress, "_REDRAW_S", 0.02)
    with progress.StepLine(1, 2, "build", "compiling") as line:
        line.note("stays")
        line.update("compiling 3/9")
        time.sleep(0.1)
        line.done("compiled")
    output = capsys.readouterr().out
    assert "compiling 3/9" in output
    assert "\r\033[Knote: stays\n" in output, "a note is a line of its own"
    assert output.endswith("compiled\n") and output.count("\n") == 2
    with pytest.raises(KeyboardInterrupt), progress.StepLine(2, 2, "model", "finding"):
        raise KeyboardInterrupt
    assert capsys.readouterr().out.endswith("stopped\n")


def test_progress_elsewhere_is_sparse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TritError), progress.StepLine(1, 2, "build", "compiling") as line:
        line.update("compiling 1/9")
        monkeypatch.setattr(progress, "_SPARSE_S", 0.0)
        line.update("compiling 2/9")
        raise TritError("no")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[1/2] build      ...") and lines[0].endswith("compiling 2/9")
    assert lines[1].endswith("failed")


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize(
    "module", ["utils.convert", "trit.inspect", "trit.measure.committed", "utils.generate-dummy-bitnet-model"]
)
def test_a_python_without_packages_hands_over_or_says_what_to_do(module: str, tmp_path: Path, plain_venv: Path) -> None:
    # Copies: through a link they would find the checkout's .venv.
    for package in ("utils", "trit"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "__main__.py", tmp_path)
    bare = plain_venv / "bin" / "python"
    command = [bare, "-m", module, "--help"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    alone = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert alone.returncode == 2 and alone.stdout == ""
    assert alone.stderr.count("\n") == 1 and alone.stderr.startswith("error: this Python has no package ")
    assert "python3 setup_env.py" in alone.stderr

    (tmp_path / ".venv").symlink_to(sys.prefix)
    handed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (handed.returncode, handed.stderr) == (0, "") and handed.stdout.startswith("usage: ")


@pytest.mark.parametrize(
    ("package", "told"),
    [
        ("numpy", "python3 setup_env.py"),
        ("torch.nn", "python3 -m pip install -r requirements-train.txt"),
        ("lief", "-m pip install -r requirements-release.txt"),
    ],
)
def test_a_missing_package_is_told_with_the_file_that_has_it(
    package: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "hand_over", lambda: None)
    with pytest.raises(UserError, match=f"no package {package.partition('.')[0]}; .*: .*{re.escape(told)}$"):
        command._hand_over(ModuleNotFoundError(name=package))


def test_variables_of_the_engine_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    tell_engine_variables({"PATH": "/bin", "LLAMA_API_KEY": "x", "LLAMA_ARGS": "1"})
    assert capsys.readouterr().err == ""
    tell_engine_variables({"LLAMA_ARG_TOP_K": "3"})
    assert capsys.readouterr().err == "note: LLAMA_ARG_TOP_K is set: the engine takes it where no flag says otherwise\n"
    tell_engine_variables({f"LLAMA_ARG_{letter}": "3" for letter in "GFEDCBA"})
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("note: LLAMA_ARG_A, LLAMA_ARG_B, ") and "LLAMA_ARG_G" not in err
    code = subprocess.run(
        [sys.executable, str(ROOT / "__main__.py"), "registry", "--nonsense"],
        env={**os.environ, "LLAMA_ARG_SEED": "5"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert code.returncode == 2 and "LLAMA_ARG_SEED is set" in code.stderr


def test_a_package_that_does_not_load_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "explains.py").write_text(
        "try:\n    raise ImportError('libwanted.so.3: cannot open')\n"
        "except ImportError as error:\n    raise ImportError('IMPORTANT:\\n\\nplease read') from error\n"
    )
    (tmp_path / "a_command.py").write_text("import explains\n")
    (tmp_path / "ours.py").write_text("from trit.base.errors import nothing_like_it\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run_command("a_command", []) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "does not load: libwanted.so.3: cannot open; install" in said
    with pytest.raises(ImportError, match="nothing_like_it"):  # a fault of ours
        run_command("ours", [])
