# SPDX-License-Identifier: MIT
"""utils/compare.py: what it makes of measurements (with stand-ins), and one real run; never how fast anything is."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.measure.test_benchmarks import program
from tests.support.tiny_checkpoints import qwen3
from tests.support.tiny_checkpoints.linear_layers import GROUPED
from trit.base.errors import TritError, UserError, run_main
from trit.base.places import BUNDLED_MODEL, ROOT
from trit.base.statistics import paired_ratio
from trit.convert.from_random import with_vocabulary
from trit.engine import loading
from trit.engine.llama_bench import Case
from trit.engine.loading import Loading
from trit.gguf.types import read_header
from trit.gguf.writer import PlannedTensor
from trit.measure import model_store, rounds
from trit.measure.formats import command, fidelity, tables
from trit.measure.formats.fidelity import Error
from trit.measure.formats.tables import Comparison, Row
from trit.measure.model_store import CheckpointSource, RandomSource, Size, Source, Store
from trit.measure.variants import BASELINES, DEFAULT_VARIANTS, FORMATS, Variant, parse_variant
from trit.models.shapes import SHAPES

TERNARY = ("i2_s", "tl1", "tl2", "tq2_0", "tq1_0", "q2_0")


def test_variants() -> None:
    assert parse_variant("I2_S") == Variant("i2_s")
    assert parse_variant("tq2_0:no-repack") == Variant("tq2_0", packed=False)
    assert [parse_variant(variant.name) for variant in DEFAULT_VARIANTS] == list(DEFAULT_VARIANTS)
    assert {variant.type for variant in DEFAULT_VARIANTS} == set(FORMATS) and BASELINES[0] in DEFAULT_VARIANTS
    ours = {variant.name for variant in map(Variant, FORMATS) if variant.kernels.startswith("ours")}
    assert ours == set(TERNARY)
    assert Variant("tq2_0", packed=False).kernels == Variant("f16").kernels == "llama.cpp's"
    assert Variant("i2_s", packed=False).kernels.startswith("ours")


def test_text_of_random_letters_is_fixed() -> None:
    text = fidelity.random_text(3000)
    assert text == fidelity.random_text(3000) != fidelity.random_text(3000, seed=1)
    words = text.split(" ")
    assert len(words) == 3000 and {len(word) for word in words} == set(range(2, 9))
    assert text.startswith(fidelity.random_text(10))


def test_errors_of_known_distributions() -> None:
    wanted = np.log(np.array([[[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]]))
    found = np.log(np.array([[[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]]))
    same = fidelity.compare(wanted, wanted.copy())
    assert (same.divergence, same.agreement, same.logits, same.positions) == (0, 1, 0, 2)
    error = fidelity.compare(wanted, found)
    assert error.divergence == pytest.approx(0.25 * math.log(2) / 2)
    assert error.agreement == 0.5
    # Logits without their means: (2, -1, -1) and (-1, 2, -1) thirds of log 2; the second position is the same.
    assert error.logits == pytest.approx(math.sqrt(18 / 12))
    assert error.digest != same.digest == fidelity.compare(found, wanted).digest
    shifted = fidelity.compare(wanted, wanted + 3)
    assert shifted.logits == pytest.approx(0, abs=1e-12), "a constant on all logits means nothing"


def test_memory_of_proc() -> None:
    status = "Name:\tllama-bench\nVmHWM:\t    3000 kB\nVmRSS:\t    2000 kB\nRssAnon:\t 10 kB\n"
    assert loading.read_memory(status, 1.5) == loading.Memory(1.5, 2000 << 10, 3000 << 10)
    assert loading.read_memory("Name:\tllama-bench\nState:\tZ (zombie)\n", 1.5) is None


# Loads for a quarter of a second, waits as long as it is told with 50 MB in use, then uses 100 MB more.
LLAMA_BENCH = """
import time
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
def say(what): print("llama-bench: benchmark 1/1: " + what, file=sys.stderr, flush=True)
say("starting")
model = b"x" * 50_000_000
time.sleep(0.25)
time.sleep(int(flags["--delay"]))
say("prompt run 1/1")
more = b"x" * 100_000_000
time.sleep(0.1)
"""


def test_loading_of_a_stand_in(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"1")
    program(tmp_path, "llama-bench", LLAMA_BENCH)
    found = loading.measure(model, True, 8, 1, tmp_path)
    assert 0.25 <= found.seconds < 30, "without the second that it waits"
    if Path("/proc/self/status").is_file():
        assert found.resident_bytes is not None and found.peak_bytes is not None
        assert 50e6 < found.resident_bytes < 100e6
        # The kernel counts pages in batches on every CPU: with 16 of them 5.5 MB were missing.
        assert found.peak_bytes - found.resident_bytes == pytest.approx(100e6, rel=0.15)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('error: no such model', file=sys.stderr)\nsys.exit(1)", "no such model"),
        ("print('hello', file=sys.stderr)", "did not say when it loaded"),
    ],
)
def test_loading_fails(tmp_path: Path, code: str, said: str) -> None:
    (tmp_path / "model.gguf").write_bytes(b"1")
    program(tmp_path, "llama-bench", code)
    with pytest.raises(TritError, match=said) as caught:
        loading.measure(tmp_path / "model.gguf", True, 8, 1, tmp_path)
    assert caught.value.exit_code == 1 and "llama-bench" in str(caught.value)


def test_every_other_round_runs_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, str]] = []
    cases = [Case(8, 0), Case(0, 4, threads=2)]

    def load(path: Path, packed: bool, prompt: int, threads: int, bin_dir: Path) -> Loading:
        assert (prompt, threads) == (8, 2)
        order.append(("load", Variant(path.stem, packed).name))
        return Loading(float(len(order)), None, None)

    def run(path: Path, cases: list[Case], *, repack: bool, **_: object) -> dict[Case, list[float]]:
        order.append(("run", Variant(path.stem, repack).name))
        return {case: [float(len(order))] for case in cases}

    monkeypatch.setattr(loading, "measure", load)
    monkeypatch.setattr(rounds.llama_bench, "run", run)
    variants = [Variant("i2_s"), Variant("tq2_0"), Variant("tq2_0", packed=False)]
    files = {variant: tmp_path / f"{variant.type}.gguf" for variant in variants}
    loads = rounds.Loads(files, cases)
    results = rounds.measure(files, cases, 3, [rounds.Rounds(3), loads])
    names = [variant.name for variant in variants]
    wanted = [name for turn in (names, names[::-1], names) for name in turn]
    assert order == [(what, name) for name in wanted for what in ("load", "run")]
    assert list(results) == [(variant, case) for variant in variants for case in cases]
    assert [results[variants[0], case].speeds for case in cases] == [[2.0, 12.0, 14.0]] * 2
    assert [load.seconds for load in loads.loads[variants[0]]] == [1.0, 11.0, 13.0]


def row(variant: Variant, speeds: list[float], error: Error | None, peak: int | None) -> Row:
    loads = [Loading(seconds, None if peak is None else peak // 2, peak) for seconds in (0.5, 0.1, 0.3)]
    return Row(
        variant, Size(2_000_000_000, 2.0625), loads, {Case(128, 0, threads=2): speeds, Case(0, 32): [1.0] * 3}, error
    )


def example() -> Comparison:
    exact, near = Error(0.0, 1.0, 0.0, 127, "a"), Error(0.0125, 0.984, 0.0321, 127, "b")
    rows = [
        row(Variant("i2_s"), [30.0, 10.0, 28.0], near, 400_000_000),
        row(Variant("tl2"), [10.0, 10.0, 10.0], near, None),
        row(Variant("f16"), [10.0, 10.0, 10.0], exact, 4_000_000),
        row(BASELINES[0], [10.0, 10.0, 14.0], near, 4_000_000),
    ]
    return Comparison("random weights", rows, BASELINES[0], {"tq1_0": "blk.0: does not fit"}, "a text", ["a note"])


def test_tables() -> None:
    comparison = example()
    text = "\n\n".join(tables.text(comparison))
    assert "| i2_s | ours, packed at load | 2000 | 2.06 | 0.30 | 200 | 400 |" in text
    assert "| tl2 | ours, packed at load | 2000 | 2.06 | 0.30 | not measured | not measured |" in text
    assert "median, lowest and highest" in text
    heading = "| format | kernels | pp128, 2 threads | tg32, 1 thread |"
    assert heading in text and "Medians of 3 rounds" in text
    # Paired: 30/10, 10/10, 28/14, not the ratio of medians 28/10.
    assert "| i2_s | ours, packed at load | 28.0 (2.00x, 1.00 to 3.00) | 1.0 (1.00x, 1.00 to 1.00) |" in text
    assert "| tq2_0 | llama.cpp's | 10.0 | 1.0 |" in text, "no ratio to itself"
    assert "| i2_s | ours, packed at load | 1.25e-02 | 98.4% | 3.2% |" in text
    assert "| f16 | llama.cpp's | 0.00e+00 | 100.0% | 0.0% |" in text
    assert "bit for bit: i2_s, tl2, tq2_0:no-repack." in text
    assert "Left out: tq1_0, blk.0: does not fit." in text and "A note." in text and "rounded to int8" in text
    for one in comparison.rows:
        one.error = None
    assert "Error against f16" not in "".join(tables.text(comparison))


def test_intervals_need_rounds() -> None:
    comparison = example()
    for one in comparison.rows:
        one.speeds, one.loads = {case: speeds * 3 for case, speeds in one.speeds.items()}, one.loads * 3
    ratio = comparison.ratio(comparison.rows[0], Case(128, 0, threads=2))
    assert ratio.median == 2.0 and ratio == paired_ratio([30.0, 10.0, 28.0] * 3, [10.0, 10.0, 14.0] * 3)
    assert "median and its 95 % interval" in "".join(tables.text(comparison))


def test_json_has_every_repetition() -> None:
    data = json.loads(json.dumps(tables.as_json(example())))
    first = data["rows"][0]
    assert first["tests"][0]["tokens_per_second"] == [30.0, 10.0, 28.0]
    assert first["tests"][0]["ratio"] == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert [load["seconds"] for load in first["loads"]] == [0.5, 0.1, 0.3]
    assert first["error"]["divergence"] == 0.0125 and data["left_out"] == {"tq1_0": "blk.0: does not fit"}


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tables.plot(example(), tmp_path / "all.png", "title")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_what_fits_a_shape(tmp_path: Path) -> None:
    plan = Store(tmp_path, RandomSource("bitnet-3b", SHAPES["bitnet-3b"], None, None), FORMATS)
    assert set(plan.sizes) == {"tl1", "q2_0", "q4_0", "f16"}
    assert set(plan.left_out) == {"i2_s", "tl2", "tq2_0", "tq1_0"}
    assert plan.left_out["tq2_0"] == "blk.0.attn_q.weight: 3200 columns, tq2_0 needs a multiple of 256"
    whole = Store(tmp_path, RandomSource("bitnet-2b-4t", SHAPES["bitnet-2b-4t"], None, None), FORMATS)
    assert not whole.left_out
    weights, head = 30 * (2560 * (2 * 2560 + 2 * 640) + 3 * 2560 * 6912), 128256 * 2560 // 256 * 210
    norms = 4 * (30 * (3 * 2560 + 6912) + 2560)
    assert whole.sizes["f16"] == 2 * weights + head + norms
    assert whole.sizes["tq2_0"] == weights // 256 * 66 + head + norms
    assert whole.sizes["i2_s"] == weights // 4 + 30 * 7 * 32 + head + norms
    assert whole.sizes["q4_0"] == weights // 32 * 18 + head + norms


def tensor_bytes(path: Path) -> int:
    return sum(tensor.nbytes for tensor in read_header(path).tensors.values())


def test_random_files_have_the_computed_sizes(tmp_path: Path) -> None:
    shape = with_vocabulary(SHAPES["story"])
    assert shape.vocab == json.loads((BUNDLED_MODEL / "config.json").read_text())["vocab_size"]
    source = RandomSource("story", SHAPES["story"], "q8_0", None)
    kept = Store(tmp_path, source, ["q4_0", "i2_s"])
    kept.check_space(["q4_0", "i2_s"])
    for form in ("q4_0", "i2_s"):
        path = kept.file(form)
        assert path is not None and tensor_bytes(path) == kept.sizes[form]
        assert model_store.size(path).file_bytes == path.stat().st_size
    assert set(kept.files) == {"q4_0", "i2_s"}, "q4_0 of random weights needs no f16 file"
    assert model_store.size(kept.files["q4_0"]).bits == 4.5
    assert model_store.size(kept.files["i2_s"]).bits == pytest.approx(2, abs=0.01)
    before = kept.files["i2_s"].stat().st_mtime_ns
    again = Store(tmp_path, source, ["i2_s"])
    assert again.file("i2_s") == kept.files["i2_s"] and kept.files["i2_s"].stat().st_mtime_ns == before


def test_other_sources_have_other_folders(tmp_path: Path) -> None:
    whole, part = (RandomSource("story", SHAPES["story"], None, layers) for layers in (None, 2))
    assert Store(tmp_path, whole, []).folder != Store(tmp_path, part, []).folder
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED_MODEL, folder, ignore=shutil.ignore_patterns("*.gguf"))
    before = CheckpointSource(folder, None).key
    assert before == CheckpointSource(folder, None).key
    with (folder / "config.json").open("a") as file:
        file.write("\n")
    assert before != CheckpointSource(folder, None).key, "another checkpoint must not be served the old files"


def test_scales_of_groups_are_left_out_of_i2_s(tmp_path: Path) -> None:
    folder = tmp_path / "grouped"
    qwen3.make(folder, "Ternary-Bonsai-1.7B", GROUPED)
    kept = Store(tmp_path / "work", CheckpointSource(folder, None), ["i2_s", "q2_0"])
    kept.check_space(["q2_0"])
    assert kept.file("q2_0") is not None
    assert kept.file("i2_s") is None and kept.file("i2_s") is None
    assert "has a scale for every" in kept.left_out["i2_s"] and "--outtype" not in kept.left_out["i2_s"]
    assert list(kept.files) == ["q2_0"]


def test_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Usage(NamedTuple):
        free: int

    kept = Store(tmp_path, RandomSource("bitnet-2b-4t", SHAPES["bitnet-2b-4t"], None, None), ["f16", "i2_s"])
    monkeypatch.setattr(model_store.shutil, "disk_usage", lambda path: Usage(6_200_000_000))
    with pytest.raises(UserError, match=r"--workdir .* need 5\.3 GB, 1\.1 GB have to stay free, .* has 6\.2 GB"):
        kept.check_space(["f16", "i2_s"])
    kept.check_space(["i2_s"])
    monkeypatch.setattr(model_store.shutil, "disk_usage", lambda path: Usage(6_500_000_000))
    kept.check_space(["f16", "i2_s", "tl2"])
    assert "5.26 GB to make" in capsys.readouterr().err


def test_clean_deletes_what_it_made_and_nothing_else(tmp_path: Path) -> None:
    source = RandomSource("story", SHAPES["story"], "q8_0", None)
    kept = Store(tmp_path, source, ["i2_s"])
    old, other = tmp_path / f"{source.stem}-0123abcd", tmp_path / f"{source.stem}-of-somebody"
    for folder in (kept.folder, old, other):
        folder.mkdir()
        (folder / "i2_s.gguf").write_bytes(b"1")
    kept.clean()
    assert list(tmp_path.iterdir()) == [other]


def test_clean_knows_folders_with_brackets(tmp_path: Path) -> None:
    source = FakeSource("i2_s")
    source.stem = "model[v2]"
    kept = Store(tmp_path, source, ["i2_s"])
    kept.check_space(["i2_s"])
    kept.clean()
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_cleans_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_bin: Path) -> None:
    def fail(*_: object) -> None:
        raise TritError("the engine failed")

    monkeypatch.setattr(command, "_run", fail)
    flags = ["--shape", "story", "--clean", "--workdir", str(tmp_path / "work"), "-o", str(tmp_path / "out")]
    assert run_main(command.main, flags) == 1
    assert not list((tmp_path / "work").iterdir())


class FakeSource(Source):
    """Fits only some formats."""

    label, stem, key, head = "fake", "fake", "00000000", "f16"

    def __init__(self, *fits: str) -> None:
        self._fits = fits

    def tensors(self, form: str) -> list[PlannedTensor]:
        if form not in self._fits:
            raise UserError(f"{form} does not fit")
        return []

    def make(self, form: str, path: Path) -> None:
        path.write_bytes(form.encode())


def test_baseline(tmp_path: Path) -> None:
    def chosen(*fits: str) -> Variant:
        kept = Store(tmp_path, FakeSource(*fits), [variant.type for variant in BASELINES])
        kept.check_space([])
        return command._baseline(BASELINES, kept)

    assert chosen("tq2_0", "q4_0") == Variant("tq2_0", packed=False)
    assert chosen("q4_0") == Variant("q4_0")
    with pytest.raises(UserError, match=r"no tq2_0:no-repack and q4_0 .*tq2_0 does not fit.* --baseline"):
        chosen("i2_s")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("-m", "no-such-folder"), "error: no-such-folder: no file, no folder and no model of this name"),
        (("-m", "models/trit-story-3m", "--layers", "2"), "error: --layers: only a --shape"),
        (("--shape", "story", "--layers", "0"), "error: --layers 0: expected 1 or more"),
        (("--shape", "story", "--layers", "5"), "error: --layers 5: story has 4"),
        (("--shape", "story", "--out", "README.md"), "error: --out README.md"),
        (("--shape", "story", "--rounds", "0"), "error: -r 0: expected 1 or more"),
        (("--shape", "story", "--text", "no-such-text"), "error: no-such-text: is not there; check the name"),
        (("--shape", "story", "--types", "q9_0"), "'q9_0': there are i2_s, tl1"),
        ((), "one of the arguments --shape -m/--model NAME is required"),
        (("--shape", "story", "--bin-dir", "no-such-build"), "build it with"),
    ],
)
def test_refuses(flags: tuple[str, ...], said: str) -> None:
    result = subprocess.run(
        [sys.executable, "utils/compare.py", *flags], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.fixture(scope="module")
def real_run(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The bundled model in every format, as a user would run it.

    But for the tuning: every start of the engine checks its kernels, and here most of the time would go to that.
    """
    folder = tmp_path_factory.mktemp("compare")
    flags = ["-m", str(BUNDLED_MODEL), "-p", "16", "-n", "4", "-r", "1", "-t", "1", "--context", "64"]
    command = [sys.executable, "utils/compare.py", *flags, "--plot", "-o", str(folder / "out")]
    command += ["--workdir", str(folder / "work"), "--bin-dir", str(engine_bin)]
    env = {**os.environ, "TRIT_TUNING": "off"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (written,) = (folder / "out").glob("*-comparison.json")
    return folder, json.loads(written.read_text()), done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [(20, "two pieces of --context 64 need more"), (100, "pieces of 64 tokens, not --chunks 50")],
)
def test_short_texts(engine_bin: Path, story_gguf: Path, tmp_path: Path, words: int, said: str) -> None:
    text = tmp_path / "text.txt"
    text.write_text(fidelity.random_text(words))
    with pytest.raises(UserError, match=f"{said}; name a longer one with --text"):
        fidelity.measure({Variant("f16"): story_gguf}, text, 64, 50, 1, engine_bin)


def test_real_files(real_run: tuple[Path, dict[str, Any], str]) -> None:
    folder, data, stdout = real_run
    rows = {row["type"]: row for row in data["rows"]}
    assert list(rows) == [variant.name for variant in DEFAULT_VARIANTS] and not data["left_out"]
    plan = Store(folder, CheckpointSource(BUNDLED_MODEL, None), FORMATS)
    for form in FORMATS:
        (path,) = (folder / "work").glob(f"*/{form}.gguf")
        assert tensor_bytes(path) == plan.sizes[form]
        assert rows[form]["file_bytes"] == path.stat().st_size
        assert 0 < path.stat().st_size - plan.sizes[form] < 200_000, "metadata, the vocabulary"
    bits = {form: rows[form]["bits"] for form in FORMATS}
    assert (bits["f16"], bits["q4_0"], bits["q2_0"]) == (16, 4.5, 2.25)
    assert (bits["tq2_0"], bits["tq1_0"]) == (66 * 8 / 256, 54 * 8 / 256)
    assert (bits["i2_s"], bits["tl1"], bits["tl2"]) == pytest.approx((2, 2, 27 * 8 / 128), abs=0.01)
    (text,) = (folder / "out").glob("*-comparison.md")
    assert stdout.split("\n\nwritten:")[0] in text.read_text()
    assert "trit compare" in data["about"]["command"] and str(folder) not in text.read_text()
    (picture,) = (folder / "out").glob("*-comparison.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_real_measurements(real_run: tuple[Path, dict[str, Any], str]) -> None:
    _, data, _ = real_run
    for row in data["rows"]:
        (load,) = row["loads"]
        assert 0 < load["seconds"] < 60
        if Path("/proc/self/status").is_file():
            assert row["file_bytes"] / 2 < load["resident_bytes"] <= load["peak_bytes"] < 1e9
        assert [(test["n_prompt"], test["n_gen"], test["threads"]) for test in row["tests"]] == [(16, 0, 1), (0, 4, 1)]
        assert all(speed > 0 for test in row["tests"] for speed in test["tokens_per_second"])
    baseline = data["rows"][-1]
    assert data["baseline"] == baseline["type"] == "tq2_0:no-repack"
    assert {test["ratio"]["median"] for test in baseline["tests"]} == {1.0}


def test_real_errors(real_run: tuple[Path, dict[str, Any], str]) -> None:
    _, data, _ = real_run
    errors = {row["type"]: row["error"] for row in data["rows"]}
    assert len({errors[form]["digest"] for form in TERNARY}) == 1, "all hold the same weights and round alike"
    assert errors["tq2_0:no-repack"]["digest"] != errors["tq2_0"]["digest"], "other kernels round otherwise"
    assert (errors["f16"]["divergence"], errors["f16"]["agreement"], errors["f16"]["logits"]) == (0, 1, 0)
    for name in ("q2_0", "tq2_0:no-repack"):
        assert 0 < errors[name]["divergence"] < errors["q4_0"]["divergence"] / 4
        assert 0 < errors[name]["logits"] < errors["q4_0"]["logits"] / 2
        assert errors["q4_0"]["agreement"] <= errors[name]["agreement"] <= 1
    assert {error["positions"] for error in errors.values()} == {31}, "from context / 2 to context - 2"
