# SPDX-License-Identifier: MIT
"""``utils/test_perplexity.py`` on the bundled model: its three formats, a reference, its head in several types."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_checkpoints import find_family
from trit.base.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, run_main
from trit.base.places import BUNDLED_MODEL, ROOT
from trit.convert.from_checkpoint import Options, convert
from trit.engine.logprobs import LogprobsFile
from trit.gguf.encodings import ENCODINGS
from trit.measure.perplexity import held_out
from trit.measure.perplexity.command import main

FORMATS = ("i2_s", "tl1", "tl2")
Rows = dict[tuple[str, str], dict[str, Any]]
Measure = Callable[..., Rows]


@pytest.fixture(scope="module")
def files(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled model in each format."""
    folder = tmp_path_factory.mktemp("formats")
    made = {name: folder / f"{name}.gguf" for name in (*FORMATS, "f16", "f32")}
    for name, path in made.items():
        convert(BUNDLED_MODEL, path, Options(ENCODINGS[name], None), progress=False)
    return made


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """Run the command with one thread; its JSON rows by (file name, mark)."""

    def run(*flags: object) -> Rows:
        words = [str(flag) for flag in ("-t", 1, "-o", tmp_path / "results", *flags)]
        assert run_main(main, words) == EXIT_OK
        found = json.loads((tmp_path / "results" / "results.json").read_text())
        assert found["threads"] == 1
        return {(Path(row["model"]).stem, row["part"]): row for row in found["rows"]}

    return run


def read_rows(measure: Measure, folder: Path, *flags: object) -> list[dict[str, Any]]:
    """The rows in their order, of several texts."""
    measure(*flags)
    return list(json.loads((folder / "results" / "results.json").read_text())["rows"])


def refused(*flags: object) -> int:
    return run_main(main, [str(flag) for flag in flags])


def test_three_formats_are_equal_to_the_last_digit(
    files: dict[str, Path], measure: Measure, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = measure("-m", *(files[name] for name in FORMATS))
    printed = [line.split("|") for line in capsys.readouterr().out.splitlines() if "+/-" in line]
    assert len(printed) == 6 and [cells[2].strip() for cells in printed] == [name for name in FORMATS for _ in "ab"]
    # Model, matrices and size differ, nothing else.
    assert len({tuple(cells[5:]) for cells in printed}) == 2
    assert rows["i2_s", ""]["perplexity"] == rows["tl1", ""]["perplexity"] == rows["tl2", ""]["perplexity"]
    whole, answers = rows["i2_s", ""], rows["i2_s", held_out.MARK]
    # The stories are not what it has learned to predict, their answers are.
    assert whole["perplexity"]["value"] > whole["vocabulary"] and whole["counted"] % 127 == 0
    assert 300 < answers["counted"] < 0.1 * whole["counted"]
    assert 1 < answers["perplexity"]["value"] < 1.3 and 0 < answers["perplexity"]["error"] < 0.1
    assert answers["right"]["value"] > 0.97


def test_f32_is_near_f16_and_i2_s_not_far(files: dict[str, Path], measure: Measure, tmp_path: Path) -> None:
    plot = tmp_path / "a.png"
    flags = ("--reference", files["f16"], "--chunks", 12, "--plot", plot, "--csv-output", tmp_path / "a.csv")
    rows = measure("-m", files["f32"], files["i2_s"], *flags)
    assert rows["f16", ""]["is_reference"] and rows["f16", ""]["kl"] is None
    ratio = rows["f32", ""]["perplexity"]["value"] / rows["f16", ""]["perplexity"]["value"]
    assert abs(np.log(ratio)) < 0.02
    assert -1e-5 < rows["f32", ""]["kl"]["value"] < 1e-3 and rows["f32", ""]["same_top"]["value"] > 0.98
    # int8 activations and a q6_k head.
    assert rows["f32", ""]["kl"]["value"] < rows["i2_s", ""]["kl"]["value"] < 0.02
    assert 0.95 < rows["i2_s", ""]["same_top"]["value"] < 1
    # The reference's file ends above the probabilities of the stories, but not of the answers.
    assert rows["i2_s", ""]["log_ratio"] is None
    assert abs(rows["i2_s", held_out.MARK]["log_ratio"]["value"]) < 0.01
    assert plot.read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert len(table) == 6 and not (tmp_path / "results" / "results.csv").exists()
    assert float(table[4]["kl"]) == rows["i2_s", ""]["kl"]["value"]


def test_heads_are_compared(
    files: dict[str, Path], measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    source = tmp_path / "source.gguf"
    convert(BUNDLED_MODEL, source, Options(ENCODINGS["tl2"], "f16"), progress=False)
    rows = measure("-m", source, "-e", "f16,q6_k,q4_0", "-q")
    names = [f"source-head-{kind}" for kind in ("f16", "q6_k", "q4_0")]
    assert [row["head"] for (_, part), row in rows.items() if not part] == ["f16", "q6_k", "q4_0"]
    assert {row["matrices"] for row in rows.values()} == {"tl2"}
    sizes = [rows[name, ""]["nbytes"] for name in names]
    assert sizes[0] > sizes[1] > sizes[2]
    assert 0 < rows[names[1], ""]["kl"]["value"] < rows[names[2], ""]["kl"]["value"] < 0.5
    assert rows[names[0], ""]["counted"] == 8 * 127
    assert not list(temporary.iterdir()) and not (tmp_path / "results" / "heads").exists()


def test_heads_come_from_the_checkpoint_where_the_file_has_none_left(
    story_gguf: Path, measure: Measure, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in [*BUNDLED_MODEL.glob("*.json"), BUNDLED_MODEL / "model.safetensors"]:
        (folder / path.name).symlink_to(path)
    (folder / "a.gguf").write_bytes(story_gguf.read_bytes())
    rows = measure("-m", folder / "a.gguf", "-e", "q8_0,q4_k", "--keep", "--chunks", 2)
    assert rows["a-head-q8_0", ""]["is_reference"] and rows["a-head-q4_k", ""]["kl"]["value"] > 0
    assert (tmp_path / "results" / "heads" / "a-head-q4_k.gguf").is_file()
    (folder / "config.json").unlink()
    assert refused("-m", folder / "a.gguf", "-e", "-o", tmp_path) == EXIT_USAGE


def test_saved_logprobs_are_a_reference(
    files: dict[str, Path], measure: Measure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, model = tmp_path / "saved", files["i2_s"]
    first = measure("-m", model, "--save-logits", saved, "--chunks", 4, "--after", "")
    assert set(first) == {("i2_s", "")}
    file = saved / "held-out.txt.logits"
    assert LogprobsFile.open(file).chunks == 4
    for reference in (saved, file):
        rows = measure("-m", files["tl1"], "--reference", reference)
        assert rows["tl1", ""]["perplexity"] == first["i2_s", ""]["perplexity"]
        # The same numbers, once in 16 bits.
        assert abs(rows["tl1", ""]["kl"]["value"]) < 1e-5 and rows["tl1", ""]["same_top"]["value"] > 0.99
        assert rows["tl1", held_out.MARK]["kl"]["value"] == 0
    other = tmp_path / "held-out.txt"
    other.write_text(held_out.make_text(1, 30))
    flags = ("-m", model, "-o", tmp_path, "--reference", saved)
    for more, words in (
        (("-d", other), "is not of"),
        (("-c", 128), "was made with 256"),
        (("--chunks", 3), "has 4; leave --chunks"),
        (("-d", __file__, "--after", "x"), "has no test_perplexity_engine.py.logits"),
    ):
        assert refused(*flags, *more) == EXIT_USAGE
        assert words in capsys.readouterr().err
    file.write_bytes(file.read_bytes()[:-2])
    assert refused(*flags) == EXIT_USAGE and "its header asks for" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["bitnet", "bitnet_1bitllm"])
def test_other_models_and_several_texts(engine_bin: Path, measure: Measure, tmp_path: Path, family: str) -> None:
    """Byte-level BPE and SentencePiece; texts in a folder, saved log-probabilities of each."""
    made = find_family(family)
    made.make(tmp_path / "checkpoint", made.VARIANTS[0], made.STORAGE[0])
    gguf = tmp_path / "a.gguf"
    convert(tmp_path / "checkpoint", gguf, Options(ENCODINGS["i2_s"], "f16"), progress=False)
    texts = tmp_path / "texts"
    (texts / "more").mkdir(parents=True)
    (texts / "a.txt").write_text(
        "  Ein Text mit \u00c4pfeln, \u65e5\u672c. Answer: it is so.\n\n" * 40, encoding="utf-8"
    )
    (texts / "more" / "b.txt").write_text("Another text. Answer: it is not.\n" * 60)
    flags = ("-m", gguf, "-d", texts, "-c", 64)
    rows = read_rows(measure, tmp_path, *flags, "--save-logits", tmp_path / "saved")
    assert [(row["text"], row["kl"]) for row in rows] == [("a.txt", None), ("more/b.txt", None)]
    assert all(row["perplexity"]["value"] > 1 for row in rows)
    again = read_rows(measure, tmp_path, *flags, "--reference", tmp_path / "saved", "--after", "Answer:")
    assert [row["perplexity"] for row in again if not row["part"]] == [row["perplexity"] for row in rows]
    assert len(again) == 4 and all(abs(row["kl"]["value"]) < 1e-5 for row in again)
    # A random model's probabilities are all far above the end of the file.
    assert all(abs(row["log_ratio"]["value"]) < 1e-3 for row in again)
    assert refused(*flags, "--reference", BUNDLED_MODEL / "README.md", "-o", tmp_path) == EXIT_USAGE


def test_a_split_model(files: dict[str, Path], measure: Measure, tmp_path: Path) -> None:
    options = Options(ENCODINGS["i2_s"], "f16", split_bytes=900_000)
    paths = convert(BUNDLED_MODEL, tmp_path / "a.gguf", options, progress=False).paths
    assert len(paths) > 1
    rows = measure("-m", paths[0], "-e", "f16,q6_k", "--chunks", 2)
    assert rows["a-head-f16", ""]["kl"] is None and rows["a-head-q6_k", ""]["kl"]["value"] > 0
    row = measure("-m", paths[0], "--chunks", 2)[paths[0].stem, ""]
    assert row["nbytes"] == sum(path.stat().st_size for path in paths)
    assert row["perplexity"] == rows["a-head-f16", ""]["perplexity"]


def test_short_texts(
    files: dict[str, Path], measure: Measure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, text = files["i2_s"], tmp_path / "short.txt"
    text.write_text("Mary went to the garden. Where is Mary? Answer: Mary is in the garden.\n" * 12)
    row = measure("-m", model, "-d", text)["i2_s", ""]
    tokens = 1 + 12 * 19 - 1  # bos; the engine drops the last line break
    assert row["context"] == 64 and row["counted"] == tokens // 64 * 31
    assert f"has {tokens} tokens: -c 64 instead of 512" in capsys.readouterr().err
    assert refused("-m", model, "-d", text, "-c", 512, "-o", tmp_path) == EXIT_USAGE
    assert f"needs 1024; take -c {tokens // 2} or less" in capsys.readouterr().err
    assert refused("-m", model, "-d", text, "-o", tmp_path, "--chunks", 2, "--reference", model) == EXIT_OK
    capsys.readouterr()
    assert refused("-m", files["tl1"], "-d", text, "-o", tmp_path, "--chunks", 2, "--reference", model) == EXIT_USAGE
    assert "only 62 tokens count in 2 pieces of 64, a divergence needs 100" in capsys.readouterr().err
    text.write_text("Mary went to the garden.\n")
    assert refused("-m", model, "-d", text, "-o", tmp_path) == EXIT_USAGE
    assert "take a longer text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-t", 0), "-t 0"),
        (("-c", 2), "-c 2"),
        (("-q", "--chunks", 3), "give one of them"),
        (("--keep",), "give -e"),
        (("-e", "q3_k"), "no type q3_k; choose from f16"),
        (("--reference", "nowhere.gguf"), "nowhere.gguf: is not there"),
        (("--reference", "README.md"), "--reference README.md is not a GGUF file"),
        (("--llama-perplexity", "nowhere"), "--llama-perplexity nowhere: is not there"),
        (("-m", "nowhere.gguf"), "nowhere.gguf is not there"),
        (("-d", "nowhere.txt"), "nowhere.txt: is not there"),
        (("-e", "--save-logits", "a"), "give one -m and no -e"),
        (("--save-logits", ".", "--reference", "a.logits"), "would overwrite the --reference"),
    ],
)
def test_mistakes_are_named(
    story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[object, ...], words: str
) -> None:
    model = () if "-m" in flags else ("-m", story_gguf)
    assert refused(*model, "-o", tmp_path, *flags) == EXIT_USAGE
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and words in error


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for the program")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo perplexity: over 8 chunks, n_ctx=256", "output has the perplexity 0 times instead of once"),
        ("echo error: no memory; exit 3", "llama-perplexity failed on"),
        ("echo Final estimate: PPL = 1.0 +/- 0.1", "output has the number of pieces 0 times"),
    ],
)
def test_a_program_that_says_something_else_is_our_failure(
    story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, words: str
) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    flags = ("-m", story_gguf, "-o", tmp_path, "--llama-perplexity", program, "--after", "")
    assert refused(*flags) == EXIT_FAILED
    assert words in capsys.readouterr().err


def test_it_runs_as_a_file_and_as_a_module() -> None:
    for command in (["utils/test_perplexity.py"], ["-m", "utils.test_perplexity"]):
        done = subprocess.run(
            [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for flag in ("-m", "-d", "-t", "-c", "-o", "--llama-perplexity", "--quantize-bin", "-q", "-e", "--csv-output"):
            assert flag in done.stdout.split() or f"{flag}," in done.stdout


def test_pytest_finds_no_test_in_it() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "utils/test_perplexity.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 5, done.stdout  # pytest's code for no tests
