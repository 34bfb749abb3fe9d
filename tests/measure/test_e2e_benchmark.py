# SPDX-License-Identifier: MIT
"""utils/e2e_benchmark.py: what it runs, in which order, what it says; and that it works. No speeds."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_engine import (
    GBS,
    GMACS,
    as_json,
    calls,
    fake_describe,
    fake_llama_bench,
    fake_powercap,
    fake_roofline,
    program,
)
from trit.base.errors import EXIT_INTERRUPTED, run_main
from trit.base.host import physical_cores
from trit.base.places import ROOT
from trit.convert.from_random import main as make_dummy
from trit.engine import cost
from trit.measure import rounds
from trit.measure.speed import command, energy, machine
from trit.measure.variants import labelled

SCRIPT = ROOT / "utils" / "e2e_benchmark.py"
# Noise of another order than what is compared: only runs of the same round may be divided.
NOISE = (1.0, 7.0, 0.3, 2.0, 90.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two random models."""
    folder = tmp_path_factory.mktemp("models")
    for name, encoding in (("ours", "i2_s"), ("rival", "tq2_0")):
        flags = ["--shape", "story", "--head", "q8_0", "--outtype", encoding, "--outfile", str(folder / f"{name}.gguf")]
        assert run_main(make_dummy, flags) == 0
    return folder


@pytest.fixture
def fake_bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins; a machine that nobody else uses, with two cores."""
    monkeypatch.setattr(machine.Watch, "snapshot", lambda self: None)
    monkeypatch.setattr(machine, "LOOK_SECONDS", 0)
    monkeypatch.setattr(command, "physical_cores", lambda: 2)
    monkeypatch.setattr(rounds, "last_level_cache_bytes", lambda: 0)
    monkeypatch.setattr(command, "last_level_cache_bytes", lambda: 0)
    folder = tmp_path / "bin"
    folder.mkdir()
    fake_roofline(folder)
    fake_describe(folder)
    return fake_llama_bench(folder, {"ours": 30.0, "rival": 20.0}, NOISE)


def run(fake_bin: Path, *words: str | Path) -> int:
    return run_main(command.main, ["--bin-dir", str(fake_bin), *map(str, words)])


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the table that has this word in its heading."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|") and heading in line)
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def test_defaults_are_those_of_the_bundled_model() -> None:
    args = command._parser().parse_args([])
    cases = command._cases(args)
    assert [(case.name, case.threads, case.batch) for case in cases] == [
        ("pp512", physical_cores(), 2048),
        ("tg128", physical_cores(), 2048),
    ]
    assert args.model is None and args.repetitions == 5


def test_one_model(models: Path, fake_bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = models / "ours.gguf"
    assert (
        run(fake_bin, "-m", ours, "-p", "16", "-n", "4,8", "-t", "1,2", "-r", "2", "-b", "64", "--depth", "0,32") == 0
    )
    assert calls(fake_bin) == [
        f"-m {ours} --repack 1 -p 16 -n 4,8 -d 0 -b 64 -t 1,2 -r 2 -o jsonl --progress",
        f"-m {ours} --repack 1 -p 0 -n 4,8 -d 32 -b 64 -t 1,2 -r 2 -o jsonl --progress",
    ]
    said = capsys.readouterr()
    table = rows(said.out, "t/s")
    tests = ["pp16", "tg4", "tg4 @ d32", "tg8", "tg8 @ d32"]
    assert [row[3:5] for row in table] == [[threads, test] for threads in "12" for test in tests]
    assert table[0] == ["ours.gguf", "1.36 MiB", "3.93 M", "1", "pp16", "31.50 \u00b1 2.12", "31.50"]
    assert said.out.count("\n|") == len(table) + 1, "no table that was not asked for"
    assert said.err.splitlines()[0] == "[1/10] ours.gguf: pp16, 1 thread: 31.50 tokens/s"
    assert "warning" not in said.err


def test_models_take_turns(models: Path, fake_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, rival = models / "ours.gguf", models / "rival.gguf"
    files = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv"]
    assert run(fake_bin, "-m", ours, "--baseline", rival, "-p", "16", "-n", "0", "-t", "1", *files) == 0
    asked = [Path(call.split()[1]).stem for call in calls(fake_bin)]
    assert asked == ["ours", "rival", "rival", "ours", "ours", "rival", "rival", "ours", "ours", "rival"]
    assert all(" -r 1 " in call for call in calls(fake_bin))
    assert rows(capsys.readouterr().out, "interval") == [["rival.gguf", "1", "pp16", "1.500", "1.500 to 1.500"]]
    found: Any = as_json(tmp_path / "out.json")
    first, second = found["tests"]
    assert first["tokens_per_second"] == [30 * noise for noise in NOISE] and first["ratio"] is None
    assert second["tokens_per_second"] == [20 * noise for noise in NOISE]
    assert second["ratio"] == pytest.approx({"median": 1.5, "low": 1.5, "high": 1.5})
    assert {"cpu", "cores", "commit", "engine_commit", "date", "command"} <= set(found["about"])
    assert found["about"]["models"] == {"ours.gguf": str(ours), "rival.gguf": str(rival)}
    with (tmp_path / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["model"] for line in lines] == ["ours.gguf", "rival.gguf"]
    assert float(lines[1]["ratio_median"]) == pytest.approx(1.5) and lines[0]["ratio_median"] == ""
    assert float(lines[0]["median"]) == 60


def test_few_rounds_have_no_ratio(models: Path, fake_bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, rival = models / "ours.gguf", models / "rival.gguf"
    assert run(fake_bin, "-m", ours, "--baseline", rival, "-p", "16", "-n", "0", "-t", "1", "-r", "4") == 0
    said = capsys.readouterr()
    assert "warning: -r 4: no ratios are given for fewer than 5 rounds" in said.err and "interval" not in said.out


def test_share_of_the_limits(models: Path, fake_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.json"
    ours = models / "ours.gguf"
    flags = ["-p", "64", "-n", "8", "-t", "1,2", "-r", "1", "--roofline", "--json", output]
    assert run(fake_bin, "-m", ours, *flags, "--depth", "100") == 0
    costs = cost.loaded(cost.ModelFile.read(ours), fake_bin)
    found: Any = as_json(output)
    assert found["about"]["tier"] == "fast" and found["about"]["compiler"] == "gcc 1.2.3"
    for test in found["tests"]:
        # A prompt of 64: arithmetic takes longer than reading; text behind 100 tokens: the other way round.
        if test["n_prompt"]:
            limit = GMACS * 1e9 * 64 / (64 * costs.layer_macs + costs.head_macs)
        else:
            limit = GBS * 1e9 / (costs.bytes_per_token + 104.5 * costs.kv_bytes)
        assert test["bound_by"] == ("int8" if test["n_prompt"] else "read")
        assert test["limit_tokens_per_second"] == [pytest.approx(limit * test["threads"])] * 2, "before and after"
        assert test["share_of_limit"] == pytest.approx(30 / limit)
    said = capsys.readouterr()
    row = rows(said.out, "bound by")[1]
    assert row[:3] == ["ours.gguf", "1", "tg8 @ d100"] and row[7] == f"{104.5 * costs.kv_bytes / 1e6:.3f}"
    assert said.err.count("measuring the machine's limits") == 2 and "fits the caches" not in said.out


def test_models_in_the_caches(
    models: Path, fake_bin: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rounds, command):
        monkeypatch.setattr(module, "last_level_cache_bytes", lambda: 32 << 20)
    assert run(fake_bin, "-m", models / "ours.gguf", "-p", "0", "-n", "8", "-t", "1", "-r", "1", "--roofline") == 0
    said = capsys.readouterr().out
    assert rows(said, "bound by")[0][4] == "int8"
    assert "ours.gguf fits the caches (32 MiB): reading memory is no limit, int8 arithmetic is.\n" in said


def test_energy(
    models: Path, fake_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that gains a joule whenever somebody looks."""
    looks = iter(range(10**6))
    folder = fake_powercap(tmp_path / "powercap", {"intel-rapl:0": ("package-0", 0)}, top=10**9)
    monkeypatch.setattr(energy.Counters.__init__, "__defaults__", (folder,))
    monkeypatch.setattr(energy, "_read", lambda file: 10**9 if "range" in file.name else next(looks) * 10**6)
    monkeypatch.setattr(energy.Meter.__init__, "__defaults__", (0.01,))
    output = tmp_path / "out.json"
    assert run(fake_bin, "-m", models / "ours.gguf", "-p", "0", "-n", "4", "-r", "3", "--energy", "--json", output) == 0
    found: Any = as_json(output)
    assert found["energy"]["counters"] == ["package-0"] and found["energy"]["idle_watts"] > 0
    (test,) = found["tests"]
    assert test["joules"] == [1.0] * 3 and test["energy"]["joules_per_token"] == pytest.approx(3 / 12)
    said = capsys.readouterr().out
    assert rows(said, "J/token")[0][2:4] == ["tg4", "0.25"] and "Counted: package-0; idle: " in said


def test_energy_that_is_not_measured(
    models: Path, fake_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy.Counters.__init__, "__defaults__", (tmp_path / "none",))
    output = tmp_path / "out.json"
    flags = ["-m", models / "ours.gguf", "-p", "1", "-n", "0", "-r", "1", "--json", output]
    assert run(fake_bin, *flags, "--energy") == 0
    assert f"\nenergy: not measured: {tmp_path}/none/intel-rapl:0 is not there" in capsys.readouterr().out
    found: Any = as_json(output)
    assert "is not there" in found["energy"]["not_measured"]
    assert run(fake_bin, *flags) == 0
    assert "energy" not in capsys.readouterr().out


def test_warnings(
    models: Path, fake_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = iter([None, machine.Load(900.0, 0.0)])
    monkeypatch.setattr(machine.Watch, "load", lambda self: next(loads))
    monkeypatch.setattr(machine.Watch, "throttle_warnings", lambda self: ["it is hot"])
    output = tmp_path / "out.json"
    flags = ["-m", models / "ours.gguf", "-t", "3", "-r", "1", "--depth", "2000", "--json", output]
    assert run(fake_bin, *flags) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    cores, context, load, heat = said
    assert cores.startswith("warning: -t 3 is more than the 2 physical cores")
    assert "ours.gguf was made for a context of 1024 tokens, the tests fill 2128" in context
    assert load.startswith("warning: during the tests, other programs kept 900.0 of ")
    assert heat == "warning: it is hot"
    found: Any = as_json(output)
    assert ["warning: " + text for text in found["machine"]["warnings"]] == said


def test_picture(models: Path, fake_bin: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = tmp_path / "speed.png"
    ours, rival = models / "ours.gguf", models / "rival.gguf"
    flags = ["-p", "16", "-n", "4", "--roofline", "--plot", image]
    assert run(fake_bin, "-m", ours, "--baseline", rival, "-r", "1", "-t", "1", *flags) == 0
    assert image.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and image.stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "0", "-n", "0"], "-p 0 -n 0: nothing to measure"),
        (["-n", "0", "--depth", "9"], "--depth is the context that text is written behind"),
        (["-r", "0"], "-r 0: expected 1 or more"),
        (["-b", "0"], "-b 0: expected 1 or more"),
        (["-m", "none.gguf"], "the model none.gguf is not there"),
        (["--baseline", "none.gguf"], "the model none.gguf is not there"),
        (["--baseline", "{folder}"], "--baseline {folder} is a folder"),
        (["--json", "{folder}"], "--json {folder}: is a folder; name a file"),
        (["--csv", "{folder}/m.gguf/x.csv"], "--csv {folder}/m.gguf/x.csv: cannot be written"),
        (["--plot", "{folder}"], "--plot {folder}: is a folder"),
        (["--bin-dir", "{folder}"], "build it with"),
    ],
)
def test_mistakes(
    words: list[str],
    said: str,
    models: Path,
    fake_bin: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "m.gguf").touch()
    given = [word.format(folder=tmp_path) for word in words]
    assert run(fake_bin, "-m", models / "ours.gguf", *given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said.format(folder=tmp_path) in error
    assert not (fake_bin / "calls").exists(), "said before anything is measured"


@pytest.mark.parametrize("line", ["-t 0", "-t 1,x", "-r 0", "-r x", "-b 0", "-p -1", "--depth x", "--frob", "extra"])
def test_flags_that_cannot_be_read(line: str, fake_bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fake_bin, *line.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and line.split()[-1] in said


def test_an_engine_that_fails(models: Path, fake_bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(fake_bin, "llama-bench", "import sys; sys.exit('error: no memory')")
    assert run(fake_bin, "-m", models / "ours.gguf") == 1
    assert "running llama-bench on " in (said := capsys.readouterr().err) and "ours.gguf failed" in said


def test_labels() -> None:
    paths = ["/a/x/m.gguf", "/b/x/m.gguf", "/b/n.gguf", "/a/x/m.gguf", "/a/x/m.gguf"]
    files = [cost.ModelFile(Path(path), "llama", {}, {}) for path in paths]
    assert [variant.name for variant in labelled(files)] == [
        "a/x/m.gguf",
        "b/x/m.gguf",
        "n.gguf",
        "a/x/m.gguf #2",
        "a/x/m.gguf #3",
    ]


def test_a_model_against_itself(models: Path, fake_bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = models / "ours.gguf"
    assert run(fake_bin, "-m", ours, "--baseline", ours, "-p", "1", "-n", "0", "-t", "1") == 0
    (row,) = rows(capsys.readouterr().out, "interval")
    assert row[0] == "ours.gguf #2"


def test_ctrl_c_ends_the_engine(models: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    folder = program(tmp_path / "bin", "llama-bench", code)
    command = [sys.executable, str(SCRIPT), "-m", str(models / "ours.gguf"), "--bin-dir", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while not (pid.is_file() and pid.read_text()) and process.poll() is None:
            assert time.monotonic() < end, "the engine was not started"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == EXIT_INTERRUPTED and "Traceback" not in error
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_bundled_model(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    """As bitnet.cpp's users call it, from another folder; everything that it can measure."""
    (tmp_path / "m.gguf").symlink_to(story_gguf)
    flags = ["-m", "m.gguf", "-p", "32", "-n", "8", "-t", "1", "-r", "2", "--depth", "0,64"]
    flags += ["--roofline", "--energy", "--json", "out.json", "--csv", "out.csv", "--bin-dir", str(engine_bin)]
    result = subprocess.run(
        [sys.executable, str(SCRIPT), *flags], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert [row[4] for row in rows(result.stdout, "t/s")] == ["pp32", "tg8", "tg8 @ d64"]
    assert "energy: not measured: " in result.stdout or "Counted: package" in result.stdout
    found: Any = json.loads((tmp_path / "out.json").read_text())
    prompt, text, deep = found["tests"]
    assert all(len(test["tokens_per_second"]) == 2 for test in found["tests"])
    assert all(min(test["tokens_per_second"] + test["limit_tokens_per_second"]) > 0 for test in found["tests"])
    # Of the model's own numbers: 4 layers of width 256, 768 in the feed-forward part.
    assert prompt["per_token"]["macs"] > 4 * (4 * 256 * 256 + 3 * 256 * 768)
    assert deep["per_token"]["kv_bytes"] - text["per_token"]["kv_bytes"] == 64 * 4 * 2 * 256 * 2
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4
