# SPDX-License-Identifier: MIT
"""`trit committed busy`: who runs beside what, and what its table says; never how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from trit.base.errors import UserError
from trit.engine.llama_bench import Case
from trit.measure.committed import busy


def test_fair_share() -> None:
    assert [busy.fair_share(2, beside, 2) for beside in (0, 1, 2, 4)] == [1.0, 2 / 3, 0.5, 1 / 3]
    assert busy.fair_share(2, 2, 8) == 1.0, "there are CPUs for all"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_programs_end_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(busy, "_BUSY", "import time; time.sleep(60)")
    monkeypatch.setattr(busy.subprocess, "Popen", lambda command: started.append(popen(command)) or started[-1])
    with pytest.raises(KeyboardInterrupt), busy.busy_programs(2):
        assert [one.poll() for one in started] == [None, None]
        raise KeyboardInterrupt
    assert [one.returncode for one in started] == [-9, -9]


def test_table_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    beside: list[int] = []
    running: list[int] = []

    class Programs:
        def __init__(self, count: int) -> None:
            self.count = count

        def __enter__(self) -> None:
            running.append(self.count)
            beside.append(self.count)

        def __exit__(self, *_: object) -> None:
            running.pop()

    def run(model: Path, cases: Sequence[Case], *, repetitions: int, bin_dir: Path) -> dict[Case, list[float]]:
        return {
            case: [{ours: 40.0, other: 30.0}[bin_dir] / (1 + running[-1]) ** (1 + (bin_dir == other))] for case in cases
        }

    monkeypatch.setattr(busy, "busy_programs", Programs)
    monkeypatch.setattr(busy.llama_bench, "run", run)
    monkeypatch.setattr(busy, "engine_binary", lambda name, folder: folder / name)
    monkeypatch.setattr(busy, "random_model", lambda *_: tmp_path / "model.gguf")
    monkeypatch.setattr(busy, "measure", lambda *_, **__: SimpleNamespace(compiler="gcc 1.2.3"))
    monkeypatch.setattr(busy, "usable_cpus", lambda: 2)
    flags = ["--bin-dir", str(ours), "--other", f"openmp={other}", "--beside", "0,3", "--rounds", "2", "-t", "2"]
    assert busy.main([*flags, "-o", str(tmp_path / "out")]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    rows = [[word.strip() for word in line if word.strip()] for line in lines][:3]
    assert rows == [
        ["programs", "this build", "openmp", "fair share", "this build, of it", "this build / openmp"],
        ["0", "40", "30", "100 %", "100 %", "1.33"],
        ["3", "10", "1.88", "40 %", "62 %", "5.33"],
    ]
    assert beside == [0, 0, 3, 3, 3, 3, 0, 0], "every other round backwards"
    (kept,) = (tmp_path / "out").glob("*-busy.json")
    tests = json.loads(kept.read_text())["tests"]
    assert {"build": "openmp", "beside": 3, "tokens_per_second": [1.875, 1.875]} in tests


@pytest.mark.parametrize("other", ["build", "=build", "this build=build"])
def test_a_name_of_its_own(other: str) -> None:
    with pytest.raises(UserError, match="expected NAME=DIR"):
        busy.main(["--other", other])
