# SPDX-License-Identifier: MIT
"""The measuring programs' output and what is made of it; never how fast anything is."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import trit.measure.committed.command as both
from tests.support.fake_engine import fake_describe
from trit.base import host
from trit.base.errors import TritError, UserError, run_main
from trit.base.flags import numbers_from, whole_numbers
from trit.base.places import ROOT, engine_program
from trit.engine import roofline
from trit.engine.llama_bench import Case
from trit.engine.program import json_lines
from trit.measure import report
from trit.measure import roofline as roofline_main
from trit.measure.committed import end_to_end, kernels
from trit.measure.rounds import Result
from trit.measure.variants import Variant
from trit.models.shapes import SHAPES

TINY_ROOFLINE = ("--seconds", "0.01", "--megabytes", "8")
TINY_KERNELS = ("--megabytes", "8", "--milliseconds", "0.05", "--repetitions", "2")
HEAD = {"kind": "head", "compiler": "gcc 1.2.3", "megabytes": 8}
ROOFLINE = [
    HEAD,
    {"kind": "tier", "tier": "fast", "features": "X", "packings": ["2_bits", "5_trits"]},
    {"kind": "int8", "tier": "fast", "threads": 1, "gmacs": [90.0, 100.0, 300.0]},
    {"kind": "read", "tier": "fast", "threads": 1, "pages": "huge", "ahead": 0, "gbs": [10.0, 11.0, 90.0]},
    {"kind": "read", "tier": "fast", "threads": 1, "pages": "plain", "ahead": 512, "gbs": [20.0, 19.0, 1.0]},
]
PRODUCT = {
    "kind": "product",
    "tier": "fast",
    "packing": "2_bits",
    "n": 1000,
    "k": 1000,
    "m": 1,
    "threads": 2,
    "weight_bytes": 250_000,
    "seconds": [1e-4, 2e-4, 5e-5],
    "int8_gmacs": [100.0, 100.0, 100.0, 100.0],
    "read_gbs": [4.0, 6.0, 4.0, 6.0],
}


def program(folder: Path, name: str, code: str) -> Path:
    """A Python script in the place of a compiled program."""
    if sys.platform == "win32":
        pytest.skip("stand-ins for programs are scripts")
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\n{code}")
    path.chmod(0o755)
    return path


def prints(objects: list[dict[str, Any]]) -> str:
    return "\n".join(f"print({json.dumps(json.dumps(line))})" for line in objects)


def test_roofline_is_parsed() -> None:
    parsed = roofline.parse(ROOFLINE)
    assert (parsed.compiler, parsed.megabytes, parsed.packings) == ("gcc 1.2.3", 8, {"fast": ["2_bits", "5_trits"]})
    limit = parsed.of("fast", 1)
    # By the median: one lucky sample does not make a pattern the fastest.
    assert (limit.read.pages, limit.read.ahead) == ("plain", 512)
    with pytest.raises(TritError, match="did not measure fast on 2 threads"):
        parsed.of("fast", 2)
    row = roofline_main.table(parsed).splitlines()[1]
    assert row.split() == ["fast", "1", "300.0", "100.0", "20.0", "19.0", "plain,", "512", "ahead"]


@pytest.mark.parametrize("broken", [[], [HEAD, {"kind": "int8"}], [{}], [HEAD, HEAD], [HEAD, ROOFLINE[4]]])
def test_broken_output_of_the_roofline_is_refused(broken: list[dict[str, Any]]) -> None:
    with pytest.raises(TritError, match="printed something else"):
        roofline.parse(broken)


def test_thread_counts() -> None:
    assert [roofline.thread_counts(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_memory_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def megabytes(cache: int | None, free: int | None, buffers: int = 1) -> int:
        monkeypatch.setattr(roofline, "last_level_cache_bytes", lambda: cache and cache << 20)
        monkeypatch.setattr(roofline, "free_memory_bytes", lambda: free and free << 20)
        return roofline.memory_megabytes(buffers)

    assert megabytes(32, 64000) == 256
    assert megabytes(512, 64000) == 2048
    assert megabytes(512, 4000) == 1000, "a quarter of what is free"
    assert megabytes(512, 4000, 2) == 500
    assert megabytes(None, None) == 256


def test_facts_about_the_machine(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t:  Some   CPU @ 2.0GHz\nmodel name : other\n")
    assert host.cpu_name(cpuinfo) == "Some CPU @ 2.0GHz"
    cpuinfo.write_text("cpu family : 26\nmodel : 2\nmodel name : AMD EPYC\n\ncpu family : 1\nmodel name : Other 1\n")
    assert host.cpu_name(cpuinfo) == "AMD EPYC (family 26, model 2)"
    cpuinfo.write_text("model name : AMD EPYC\n")
    assert host.cpu_name(cpuinfo) == "AMD EPYC"
    for cpu, (level, size, shared) in enumerate(
        [(2, "1024K", "0"), (3, "32M", "0-1"), (3, "32M", "0-1"), (3, "8M", "3")]
    ):
        index = tmp_path / f"cpu{cpu}" / "cache" / "index3"
        index.mkdir(parents=True)
        for name, value in (("level", level), ("size", size), ("shared_cpu_list", shared)):
            (index / name).write_text(f"{value}\n")
    assert host.last_level_cache_bytes(tmp_path) == 40 << 20
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:   2048 kB\n")
    assert host.free_memory_bytes(meminfo) == 2 << 20
    assert host.cpu_name()


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("AMD EPYC 9B14", "amd-epyc-9b14"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c"),
        ("Apple M2", "apple-m2"),
        ("AMD EPYC (family 23, model 1)", "amd-epyc-family-23-model-1"),
        ("???", "cpu"),
    ],
)
def test_file_names(name: str, short: str) -> None:
    assert report.slug(name) == short


def test_lists_of_numbers() -> None:
    assert whole_numbers("2,1,2") == [1, 2]
    for text in ("", "0", "1,x", "1,,2"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected whole numbers"):
            whole_numbers(text)
    assert numbers_from(0)("0,2048") == [0, 2048]


def test_shares_of_the_limit() -> None:
    product = kernels.parse(PRODUCT)
    # Arithmetic: 10 us. Reading 250 kB at 5 GB/s, the mean of the samples before and after: 50 us. It binds.
    assert product.limit_seconds() == [pytest.approx((1e-5, 5e-5))] * 3
    assert product.share == pytest.approx(0.5)
    assert product.binding == "read"
    busy = kernels.parse({**PRODUCT, "m": 20, "seconds": [4e-4, 4e-4, 4e-4]})
    assert (busy.binding, busy.share) == ("int8", pytest.approx(0.5))
    row = kernels.details([product]).splitlines()[2]
    assert row == "| fast | 2_bits | 1000 x 1000 | 2 | 1 | 100.0 | 10.0 | 2.5 | 50% | read |"
    assert kernels.summary([product, busy]).splitlines()[::2] == [
        "| tier | packing | threads | m = 1 | m = 20 |",
        "| fast | 2_bits | 2 | 50% | 50% |",
    ]


@pytest.mark.parametrize("change", [{"n": None}, {"seconds": []}, {"int8_gmacs": [1.0]}, {"read_gbs": None}])
def test_broken_output_of_the_kernels_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TritError, match="trit-bench printed"):
        kernels.parse({**PRODUCT, **change})


def test_shapes_come_from_the_models() -> None:
    assert kernels.model_shapes(["bitnet-2b-4t"]) == [(2560, 2560), (640, 2560), (6912, 2560), (2560, 6912)]
    every = kernels.model_shapes(SHAPES)
    assert len(set(every)) == len(every) > 20
    assert set(kernels.model_shapes(["falcon3-7b"])) == set(kernels.model_shapes(["falcon3-7b", "falcon3-10b"]))


def test_programs_that_fail(tmp_path: Path) -> None:
    def run(code: str) -> list[dict[str, Any]]:
        return json_lines([program(tmp_path, "program", code)], "trying", log=tmp_path / "log")

    seen = prints([HEAD]) + "\nprint('chatter'); print('warning', file=sys.stderr)"
    assert run(seen) == [HEAD]
    with pytest.raises(UserError, match=r"^--x: no such flag$"):
        run("sys.exit(print('error: --x: no such flag') or 2)")
    with pytest.raises(TritError, match=r"trying failed \(exit code 1\).*it said: no memory"):
        run("sys.exit('error: no memory')")
    with pytest.raises(TritError, match="broken JSON"):
        run("print('{1')")


def test_table_of_speeds() -> None:
    ours, rival = Variant("i2_s", True), Variant("tq2_0", False)
    prompt, generated = Case(128, 0), Case(0, 32)
    speeds = {
        (ours, generated): [10.0, 30.0, 20.0],
        (rival, generated): [10.0, 10.0, 90.0],
        (ours, prompt): [99.0, 99.0, 99.0],
        (rival, prompt): [33.0, 33.0, 33.0],
    }
    results = {key: Result(*key, found, [40.0, 40.0, 1.0]) for key, found in speeds.items()}
    assert end_to_end.table(results).splitlines() == [
        "| test | threads | i2_s | tq2_0 (llama.cpp) |",
        "| --- | ---: | ---: | ---: |",
        "| pp128 | 1 | 99.0 (3.00x, 248%) | 33.0 (1.00x, 82%) |",
        "| tg32 | 1 | 20.0 (2.00x, 50%) | 10.0 (1.00x, 25%) |",
    ]


# Notes how it was called; i2_s in place is half as fast as packed, and so on.
LLAMA_BENCH = """
with open({log!r}, "a") as log:
    print(os.environ.get("TRIT_TIER"), *sys.argv[1:], file=log)
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
speed = (3 if "i2_s" in flags["-m"] else 1) * (1 + int(flags["--repack"]))
for threads in flags["-t"].split(","):
    for key, other in (("-p", "n_gen"), ("-n", "n_prompt")):
        for count in flags[key].split(","):
            size = {{"n_prompt": 0, "n_gen": 0, ("n_prompt" if key == "-p" else "n_gen"): int(count)}}
            more = {{"n_depth": int(flags["-d"]), "n_batch": int(flags["-b"]), "samples_ts": [{speed}]}}
            print(json.dumps({{"n_threads": int(threads), **size, **more}}))
"""


@pytest.fixture
def fake_bin(tmp_path: Path) -> Path:
    """A folder with scripts instead of llama-bench and trit-roofline."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "llama-bench", LLAMA_BENCH.format(log=str(tmp_path / "calls"), speed="speed * int(threads)"))
    lines = ROOFLINE + [{**line, "threads": 2} for line in ROOFLINE if "threads" in line]
    program(folder, "trit-roofline", prints(lines))
    fake_describe(folder)
    return folder


def run_end_to_end(tmp_path: Path, fake_bin: Path, *flags: str) -> int:
    places = ["--out", str(tmp_path / "out"), "--workdir", str(tmp_path / "work"), "--bin-dir", str(fake_bin)]
    return run_main(end_to_end.main, ["--shape", "story", "--head", "f16", *places, *flags])


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_end_to_end_with_stand_ins(tmp_path: Path, fake_bin: Path) -> None:
    flags = ("--rounds", "2", "-p", "8", "-n", "4", "-t", "1,2", "--tier", "fast", "--megabytes", "8")
    assert run_end_to_end(tmp_path, fake_bin, *flags) == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    way = ["i2_s.gguf --repack 1", "i2_s.gguf --repack 0", "tq2_0.gguf --repack 1", "tq2_0.gguf --repack 0"]
    assert all(wanted in call for wanted, call in zip(way + way[::-1], calls, strict=True)), (
        "the second round backwards"
    )
    assert all(call.startswith("fast -m ") and " -p 8 -n 4 -d 0 -b 2048 -t 1,2 -r 1 " in call for call in calls)
    text = only(tmp_path / "out", "*-end-to-end.md").read_text()
    assert "gcc 1.2.3" in text and "tier fast" in text and str(tmp_path / "out") not in text
    assert "| pp8 | 2 | 12.0 (6.00x, " in text
    data = json.loads(only(tmp_path / "out", "*-end-to-end.json").read_text())
    assert {"cpu", "cores", "compiler", "commit", "engine_commit", "date", "command"} <= set(data["about"])
    assert len(data["tests"]) == 2 * 2 * 4
    assert all(len(test["tokens_per_second"]) == len(test["limit_tokens_per_second"]) == 2 for test in data["tests"])
    made = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert made == ["random-story-head-f16-i2_s.gguf", "random-story-head-f16-tq2_0.gguf"]


def test_end_to_end_refuses(tmp_path: Path, fake_bin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_end_to_end(tmp_path, fake_bin, "--rounds", "0") == 2
    assert capsys.readouterr().err == "error: --rounds 0: expected 1 or more\n"
    program(fake_bin, "llama-bench", "print('{}')")
    assert run_end_to_end(tmp_path, fake_bin, "--rounds", "1") == 1
    assert "llama-bench printed something else than expected" in capsys.readouterr().err
    program(fake_bin, "llama-bench", "")
    assert run_end_to_end(tmp_path, fake_bin, "--rounds", "1") == 1
    assert "llama-bench left out pp128, " in capsys.readouterr().err
    (fake_bin / "llama-bench").unlink()
    assert run_end_to_end(tmp_path, fake_bin, "--rounds", "1") == 2
    assert "build it with" in capsys.readouterr().err


def test_both_benchmarks_get_the_shared_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    for module in (kernels, end_to_end):
        monkeypatch.setattr(module, "main", lambda argv: calls.append(argv) or 0)
    assert both.main([]) == 0 and calls == [[], []]
    assert both.main(["--out", "x", "--workdir", "y"]) == 0
    assert calls[2:] == [["--out", "x"], ["--out", "x", "--workdir", "y"]]


@pytest.mark.parametrize("part", [(), ("kernels",), ("end-to-end",)])
def test_help(part: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "trit", "committed", *part, "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0 and "--out" in result.stdout


def positive(samples: list[float]) -> bool:
    return bool(samples) and min(samples) > 0


def test_roofline_runs(
    engine_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(roofline_main, "CACHE", tmp_path / "kept.json")
    output = tmp_path / "limits.json"
    flags = [
        "--threads",
        "2",
        "--tier",
        "all",
        "--again",
        "--json",
        str(output),
        "--bin-dir",
        str(engine_bin),
        *TINY_ROOFLINE,
    ]
    assert run_main(roofline_main.main, flags) == 0
    data = json.loads(output.read_text())
    assert data["megabytes"] == 8 and data["cpu"] == host.cpu_name()
    assert {"scalar"} <= set(data["packings"]) and "2_bits" in data["packings"]["scalar"]
    assert [limit["threads"] for limit in data["limits"]] == [1, 2] * len(data["packings"])
    for limit in data["limits"]:
        assert positive(limit["int8_gmacs"]) and all(positive(read["gbs"]) for read in limit["reads"])
        patterns = [(read["pages"], read["ahead"]) for read in limit["reads"]]
        assert patterns == [(pages, n) for pages in ("huge", "plain") for n in (0, 512, 1024, 2048, 4096, 8192)]
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + len(data["limits"])


def test_kernels_run(engine_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--out", str(tmp_path), "--bin-dir", str(engine_bin)]
    # Look-up kernels, which depend on the CPU, are left to tests/kernels/.
    packings = ["2_bits", "5_trits", "in_place"]
    flags = ["--model", "story", "--tier", "scalar", "--m", "1,17", "--threads", "1,2", "--packing", *packings]
    assert run_main(kernels.main, [*flags, *places, *TINY_KERNELS]) == 0
    data = json.loads(only(tmp_path, "*-kernels.json").read_text())
    shapes = kernels.model_shapes(["story"])
    wanted = [
        (threads, n, k, packing, m) for threads in (1, 2) for n, k in shapes for packing in packings for m in (1, 17)
    ]
    assert [tuple(p[key] for key in ("threads", "n", "k", "packing", "m")) for p in data["products"]] == wanted
    for product in data["products"]:
        assert product["tier"] == "scalar" and product["binding"] in ("int8", "read") and product["share_of_limit"] > 0
        assert all(positive(product[key]) for key in ("seconds", "gmacs", "gbs"))
        bits = 8 * product["weight_bytes"] / (product["n"] * product["k"])
        assert 1.6 <= bits <= 2.0, "the five trits' last group of inputs may be filled up"
    assert only(tmp_path, "*-kernels.md").read_text().count("\n| scalar |") == 2 * len(packings) + len(wanted)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [
        ("trit-roofline", {"--tier": "none"}, "error: --tier none: there is no such tier"),
        ("trit-roofline", {"--seconds": "x"}, "error: --seconds x: expected a number"),
        ("trit-roofline", {"--threads": "1,0"}, "error: --threads 1,0: expected whole numbers"),
        ("trit-roofline", {"--what": "1"}, "error: --what: no such flag"),
        ("trit-bench", {"--shapes": "64x31"}, "error: --shapes 64x31: expected NxK"),
        ("trit-bench", {"--packings": "tl3"}, "error: --packings tl3: there are"),
    ],
)
def test_programs_refuse(engine_bin: Path, name: str, flags: Mapping[str, str], said: str) -> None:
    command = [str(engine_program(name, engine_bin)), *(word for pair in flags.items() for word in pair)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(said) and result.stderr.count("\n") == 1
