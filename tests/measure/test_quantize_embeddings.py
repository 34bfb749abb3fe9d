# SPDX-License-Identifier: MIT
"""One model with several types of embedding: right files, none replaced or half made, and real speeds."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from tests.support.checkpoints import make_checkpoint
from trit.base.errors import run_main
from trit.base.places import BUNDLED_MODEL
from trit.convert.command import main as convert
from trit.gguf.types import GGMLQuantizationType, read_header
from trit.measure.heads import TYPES, main

BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q6_k": 6.5625, "q5_k": 5.5, "q4_k": 4.5}
BITS |= {"q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("sweep") / "checkpoint", layers=1).directory


def sweep(source: Path, out: Path, *flags: str) -> int:
    argv = ["-i", str(source), "-o", str(out), "--stats-dir", str(out / "stats"), *flags]
    return run_main(main, argv)


def embedding(path: Path) -> tuple[int, bytes]:
    tensor = read_header(path).tensors["token_embd.weight"]
    return tensor.ggml_type, tensor.read(path).tobytes()


def test_files_of_every_type(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(checkpoint, tmp_path, "--no-bench") == 0
    paths = {name: tmp_path / f"ggml-model-i2_s-embed-{name}.gguf" for name in TYPES}
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths.values()} | {"stats"}
    reference = read_header(paths["f32"])
    for name, path in paths.items():
        assert embedding(path)[0] == GGMLQuantizationType[name.upper()]
        matrix = read_header(path).tensors["blk.0.ffn_up.weight"]
        expected = reference.tensors["blk.0.ffn_up.weight"].read(paths["f32"])
        np.testing.assert_array_equal(matrix.read(path), expected)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["embedding", "bits", "file", "MB"]
    shown = {line.split()[0]: line.split()[1:] for line in lines}
    assert list(shown) == list(TYPES)
    for name, (bits, megabytes) in shown.items():
        assert float(bits) == pytest.approx(BITS[name], abs=0.01)
        assert float(megabytes) == pytest.approx(paths[name].stat().st_size / 1e6, abs=0.06)
    rows = list(csv.DictReader((tmp_path / "stats" / "embedding_benchmark.csv").open()))
    assert {row["embedding_type"]: int(row["bytes"]) for row in rows} == {
        name: path.stat().st_size for name, path in paths.items()
    }


@pytest.mark.parametrize("embedding_type", ["f32", "f16"])
def test_a_gguf_gives_what_its_checkpoint_gives(checkpoint: Path, tmp_path: Path, embedding_type: str) -> None:
    """bitnet.cpp's way: a file of floats in, ggml-model-i2_s-embed-TYPE.gguf out."""
    source = tmp_path / "ggml-model-f32.gguf"
    flags = ["--outtype", "f32", "--quant-embd", embedding_type, "--outfile", str(source)]
    assert run_main(convert, [str(checkpoint), *flags]) == 0
    assert sweep(source, tmp_path, "--no-bench", "-t", "Q6_K", "q8_0", "-q", "nowhere/llama-quantize") == 0
    assert sweep(checkpoint, tmp_path / "direct", "--no-bench", "-t", "q6_k", "q8_0", "-s") == 0
    for name in ("q6_k", "q8_0"):
        file = f"ggml-model-i2_s-embed-{name}.gguf"
        one, other = read_header(tmp_path / file), read_header(tmp_path / "direct" / file)
        matrix = "blk.0.attn_q.weight"
        np.testing.assert_array_equal(
            one.tensors[matrix].read(tmp_path / file), other.tensors[matrix].read(tmp_path / "direct" / file)
        )
        # The f16 file has lost bits that the checkpoint has; its rounded values may fall into other steps.
        if embedding_type == "f32":
            assert embedding(tmp_path / file) == embedding(tmp_path / "direct" / file)


def test_existing_files_are_kept(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--no-bench", "-t", "q8_0"]
    path = tmp_path / "ggml-model-i2_s-embed-q8_0.gguf"
    assert sweep(checkpoint, tmp_path, *flags) == 0
    made = path.stat()
    assert sweep(checkpoint, tmp_path, *flags) == 0
    assert path.stat().st_mtime_ns == made.st_mtime_ns and path.stat().st_ino == made.st_ino
    assert f"{path}: exists and is kept" in capsys.readouterr().err
    assert sweep(checkpoint, tmp_path, *flags, "--force") == 0
    assert path.stat().st_ino != made.st_ino or path.stat().st_mtime_ns != made.st_mtime_ns


@pytest.mark.parametrize("outtype", ["i2_s", "tl2"])
def test_a_file_with_something_else_in_it(
    checkpoint: Path, tmp_path: Path, outtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"ggml-model-{outtype}-embed-q8_0.gguf"
    assert run_main(convert, [str(checkpoint), "--quant-embd", "q6_k", "--outfile", str(path)]) == 0
    content = path.read_bytes()
    assert sweep(checkpoint, tmp_path, "--no-bench", "-t", "q8_0", "--outtype", outtype) == 2
    expected = f"exists, but is no {outtype} model with a q8_0 embedding; pass --force"
    assert expected in capsys.readouterr().err and path.read_bytes() == content
    assert sweep(checkpoint, tmp_path, "--no-bench", "-t", "q8_0", "--outtype", outtype, "--force") == 0
    assert path.read_bytes() != content


def test_types_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """128 columns are no whole block of the k-quants: left out, or refused where they are asked for."""
    source = make_checkpoint(tmp_path / "checkpoint", layers=1, hidden=128, ffn=256).directory
    out = tmp_path / "out"
    assert sweep(source, out, "--no-bench") == 0
    made = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert made == set(TYPES) - {"q6_k", "q5_k", "q4_k"}
    refused = tmp_path / "refused"
    assert sweep(source, refused, "--no-bench", "-t", "q8_0", "q4_k") == 2
    assert "128 columns, q4_k needs a multiple of 256" in capsys.readouterr().err
    assert [path.name for path in refused.glob("*.gguf*")] == ["ggml-model-i2_s-embed-q8_0.gguf"]


def test_refusals(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    quantised = tmp_path / "q.gguf"
    assert run_main(convert, [str(checkpoint), "--outfile", str(quantised)]) == 0
    capsys.readouterr()
    for source, flags, message in [
        (quantised, [], "its embedding is q6_k already, and would be quantised twice; name the folder"),
        (tmp_path / "nowhere.gguf", [], "nowhere.gguf: is not there; check the name"),
        (checkpoint, ["--rounds", "0"], "--rounds 0: expected 1 or more"),
    ]:
        assert sweep(source, out, "--no-bench", *flags) == 2
        assert message in capsys.readouterr().err
    assert sweep(checkpoint, out, "-b", str(tmp_path / "llama-bench")) == 2
    assert "llama-bench is missing" in capsys.readouterr().err
    assert sweep(checkpoint, out, "-b", "/bin/true") == 2
    assert "-b /bin/true: expected the program llama-bench" in capsys.readouterr().err
    assert not out.exists()
    assert sweep(checkpoint, quantised / "below", "--no-bench") == 2
    assert f"-o {quantised / 'below'}: cannot be made" in capsys.readouterr().err
    for flags in (["-t", "q3_k"], ["--threads", "0"]):
        assert sweep(checkpoint, out, *flags) == 2
        assert flags[1] in capsys.readouterr().err


def test_speeds_are_measured_in_turns(
    engine_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundled model, twice, by relative paths; what is printed are the medians of what the CSV file holds."""
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "own.csv"
    flags = ["-t", "f16", "q6_k", "--threads", "1", "--rounds", "2", "-c", table.name]
    program = os.path.relpath(engine_bin / "llama-bench")
    assert sweep(BUNDLED_MODEL, Path("out"), *flags, "-b", program) == 0
    captured = capsys.readouterr()
    order = [line.split()[-1] for line in captured.err.splitlines() if line.startswith("round ")]
    assert order == ["f16", "q6_k", "q6_k", "f16"]
    rows = list(csv.DictReader(table.open()))
    assert [row["embedding_type"] for row in rows] == ["f16", "q6_k"]
    head, *lines = captured.out.splitlines()
    assert head.split()[-2:] == ["pp128", "tg128"]
    for row, line in zip(rows, lines, strict=True):
        for test, shown in zip(("pp128", "tg128"), line.split()[-2:], strict=True):
            runs = [float(value) for value in row[f"{test}_runs"].split()]
            assert len(runs) == 2 and min(runs) > 1
            assert float(row[f"{test}_median"]) == pytest.approx(median(runs), abs=0.01)
            assert float(shown) == pytest.approx(median(runs), abs=0.06)
    assert not (tmp_path / "out" / "stats").exists()
