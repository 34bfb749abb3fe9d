# SPDX-License-Identifier: MIT
"""trit/tune: the search with made-up times, the real program on small matrices, and the engine with its file."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.kernel_build import call, need
from tests.support.tiers import ROOT, TIERS
from trit.base import plots
from trit.base.errors import TritError, UserError
from trit.base.places import DEMO_PROMPT
from trit.base.plots import check_plot
from trit.engine import tuning_file
from trit.gguf.encoding_table import MADE_FOR
from trit.tune import formats, report
from trit.tune.codegen.configuration import Lookup
from trit.tune.layer import LayerContest
from trit.tune.search import LEAST_ROUNDS, MARGIN, contest, least_winning
from trit.tune.shapes import of_model, of_published_shape
from trit.tune.timer import Kernel, Product, Timer
from trit.tune.tuner import OWN, tune, ways

PRODUCT = Product(2560, 2560, 128, 2)
KERNEL = Kernel("lookup_x", 32, 40, 21)


@dataclass
class FakeTimer:
    """Times are those of `seconds`, with noise that all ways of a round share and noise of their own."""

    seconds: dict[str, float]
    shared: float = 0.3
    own: float = 0.03
    seed: int = 0
    impossible: frozenset[str] = frozenset()
    kernels: list[Kernel] = field(default_factory=lambda: [KERNEL])
    default: str = ""
    packings: list[str] = field(default_factory=lambda: [OWN])
    asked: int = 0
    told: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def at_once(self, packing: str, tokens: int) -> None:
        self.told[packing] = tokens

    def rounds(self, product: Product, names: Sequence[str], count: int) -> dict[str, list[float]]:
        possible = [name for name in names if name not in self.impossible]
        self.asked += count * len(possible)
        times: dict[str, list[float]] = {name: [] for name in possible}
        for _ in range(count):
            machine = 1 + self.shared * self.random.random()
            for name in possible:
                times[name].append(self.time(name, product) * machine * (1 + self.own * self.random.random()))
        return times

    def time(self, name: str, product: Product) -> float:
        """Of a packing with kernels for many tokens, those count."""
        own, _, tokens = name.partition("/")
        if tokens and name not in self.seconds:
            return self.seconds.get(own, 1.0)
        return self.seconds[re.sub(r":\d+$", ":1", name.rpartition("+")[2])]


@pytest.mark.parametrize("seed", range(5))
def test_the_fastest_wins_in_the_noise_of_a_shared_machine(seed: int) -> None:
    timer = FakeTimer({"a": 1.0, "b": 0.8, "c": 0.93, "d": 1.4}, seed=seed)
    result = contest(timer, PRODUCT, "a", ["c", "b", "d"], seconds=60)
    assert result.winner == "b"
    assert result.gain == pytest.approx(0.25, abs=0.03)
    # Those that cannot win are not measured to the end.
    assert len(result.ratios["d"]) <= LEAST_ROUNDS < len(result.ratios["b"]) + 1


@pytest.mark.parametrize("seed", range(5))
def test_the_default_stays_where_nothing_is_gained(seed: int) -> None:
    timer = FakeTimer({"a": 1.0, "b": 1 - MARGIN / 2, "c": 1.0}, seed=seed)
    assert contest(timer, PRODUCT, "a", ["b", "c"], seconds=60).winner == "a"


@pytest.mark.parametrize("seed", range(5))
def test_of_two_that_are_as_good_the_first_is_taken_each_time(seed: int) -> None:
    timer = FakeTimer({"a": 1.0, "b": 0.805, "c": 0.8}, seed=seed)
    assert contest(timer, PRODUCT, "a", ["b", "c"], seconds=60).winner == "b"


def test_what_is_impossible_is_left_out() -> None:
    timer = FakeTimer({"a": 1.0, "b": 0.5}, impossible=frozenset({"b"}))
    result = contest(timer, PRODUCT, "a", ["b"], seconds=60)
    assert (result.winner, result.stopped, list(result.ratios)) == ("a", "nothing else is possible", ["a"])


def test_the_budget_ends_a_search_that_noise_keeps_open() -> None:
    timer = FakeTimer({"a": 1.0, "b": 0.97, "c": 0.98}, own=1.0)
    result = contest(timer, PRODUCT, "a", ["b", "c"], seconds=0)
    assert result.stopped in ("time", "decided")
    assert len(result.ratios["a"]) == LEAST_ROUNDS


def test_the_fewest_tokens_that_win_are_found() -> None:
    class Growing(FakeTimer):
        def time(self, name: str, product: Product) -> float:
            return 1.0 if name == "table" else product.m / 13

    found = least_winning(Growing({}), lambda m: Product(64, 64, m, 1), OWN, "table", range(4, 33, 4), 60)
    assert found == 16


def test_ways_are_sizes_that_make_a_difference() -> None:
    assert ways([KERNEL], 2560) == ["lookup_x@40:1", "lookup_x@20:1", "lookup_x@10:1"]
    assert ways([KERNEL], 640) == ["lookup_x@10:1"]
    assert ways([KERNEL], 65) == ["lookup_x@2:1"]
    assert ways([Kernel("lookup_y", 16, 200, 9)], 64 * 300)[:2] == ["lookup_y@200:1", "lookup_y@80:1"]


def test_choices_and_the_time_of_a_layer() -> None:
    timer = FakeTimer({OWN: 1.0, "lookup_x@40:1": 0.5, "lookup_x@20:1": 0.7, "lookup_x@10:1": 0.8, "lookup_x@1:1": 3.0})
    told: list[str] = []
    shapes = {(2560, 2560): 2, (64, 2560): 1}
    result = tune(timer, shapes, [1, 2], 60, lambda one: told.extend(report.lines(one)))
    choices = result.choices
    assert [(c.n, c.threads, c.lookup, c.panels, c.packing) for c in choices] == [
        (2560, 1, "lookup_x", 40, OWN),
        (64, 1, None, 0, OWN),
        (2560, 2, "lookup_x", 40, OWN),
        (64, 2, None, 0, OWN),
    ]
    # Its time does not depend on the tokens here, the other's neither: it wins from the first number on.
    assert choices[0].least_tokens == 8 and choices[0].gain == pytest.approx(1.0, abs=0.05) and choices[1].gain == 0
    assert told[1].startswith("2560 x 2560, m = 128, 1 thread: lookup_x@40:1: +") and "stays" in told[2]
    one, two = (line for line in told if line.startswith("layer, "))
    default, tuned = map(float, re.findall(r"([\d.]+) ms", one))
    # 2 + 1 by default, 2 * 0.5 + 1 tuned.
    assert default / tuned == pytest.approx(3 / 2, rel=0.1) and "2 threads: 2_bits, tuned" in two
    assert [(layer.threads, layer.packing, list(layer.seconds)) for layer in result.measured] == [
        (1, OWN, [OWN]),
        (2, OWN, [OWN]),
    ]
    # What is written down is the better one of the two.
    assert result.measured[0].seconds[OWN]["128"] == pytest.approx(2.3, rel=0.2)


@pytest.mark.parametrize(("seconds", "wanted"), [(1.3, 0), (0.99, 0), (0.8, 16)])
def test_tokens_of_a_call(seconds: float, wanted: int) -> None:
    timer = FakeTimer({OWN: 1.0, f"{OWN}/0": 1.0, f"{OWN}/16": seconds}, kernels=[])
    told: list[str] = []
    result = tune(timer, {(64, 64): 1, (2560, 6912): 2}, [1, 2], 60, lambda one: told.extend(report.lines(one)))
    assert result.at_once == timer.told == {OWN: wanted}
    assert told[0].startswith("2560 x 6912, m = 48, 2 threads: ")


def test_a_preset_is_the_default_of_the_tokens_of_a_call() -> None:
    timer = FakeTimer({OWN: 1.0, f"{OWN}/0": 1.0, f"{OWN}/16": 0.99}, kernels=[])
    preset = tuning_file.Tuning("tier", "", [], at_once={OWN: 16})
    assert tune(timer, {(64, 64): 1}, [1], 60, lambda one: None, preset).at_once == {OWN: 16}


class Packed(FakeTimer):
    """Times of packings by the number of tokens."""

    def time(self, name: str, product: Product) -> float:
        return self.seconds.get(f"{name.partition('+')[0]} {product.m}", 1.0)


SHAPES = {(2560, 2560): 2, (64, 2560): 1}
TIMES = {"2_bits 1": 1.0, "2_bits 4": 1.4, "2_bits 128": 20.0, "tl2 1": 0.75, "tl2 4": 2.2, "tl2 128": 20.5}


def packed(times: dict[str, float], **changed: Any) -> LayerContest:
    timer = Packed(TIMES | times, packings=["2_bits", "tl2"], kernels=[], **changed)
    (layer,) = tune(timer, SHAPES, [2], 60, lambda one: None).layers
    return layer


@pytest.mark.parametrize("seed", range(5))
def test_the_packing_with_the_fastest_layer_wins(seed: int) -> None:
    layer = packed({}, seed=seed)
    assert (layer.default, layer.winner, layer.packing) == ("2_bits", "tl2", "tl2")
    steps = {
        name: sum(count * TIMES[f"{name} {m}"] for m, count in tuning_file.STEPS.items()) for name in ("2_bits", "tl2")
    }
    median, low, high = layer.interval("tl2")
    assert low <= median <= high and median == pytest.approx(steps["tl2"] / steps["2_bits"], abs=0.02)
    # 2 + 1 matrices; noise only adds to times.
    assert 3 * 0.75 < layer.step_seconds("tl2", 1) < 3 * 0.75 * 1.4


@pytest.mark.parametrize("times", [{"tl2 1": 0.985, "tl2 4": 1.4, "tl2 128": 20.0}, {"tl2 4": 8.0}, {"tl2 128": 38.0}])
@pytest.mark.parametrize("seed", range(3))
def test_a_packing_that_is_slower_for_other_steps_or_hardly_faster_does_not(times: dict[str, float], seed: int) -> None:
    assert packed(times, seed=seed).packing == "2_bits"


def test_the_preset_is_what_a_packing_has_to_beat() -> None:
    timer = Packed(TIMES | {"tl2 1": 0.99}, packings=["2_bits", "tl2"], kernels=[])
    choices = [tuning_file.Choice(2560, 2560, 1, "tl2", None, 0, 0, 0.0)]
    (layer,) = tune(timer, SHAPES, [2], 60, lambda one: None, tuning_file.Tuning("avx2", "", choices)).layers
    assert layer.default == "tl2" and layer.packing == "2_bits"
    # A preset of a packing that nothing reads here is none.
    timer.packings = ["2_bits", "5_trits"]
    timer.seconds |= {"5_trits 1": 0.8, "5_trits 4": 1.4, "5_trits 128": 20.0}
    (layer,) = tune(timer, SHAPES, [2], 60, lambda one: None, tuning_file.Tuning("avx2", "", choices)).layers
    assert (layer.default, layer.packing) == ("5_trits", "5_trits")


def tuning_with(packing: str, seconds: dict[str, list[float]], key: str = "k") -> tuning_file.Tuning:
    shapes = [tuning_file.Choice(n, k, 2, packing, None, 0, 0, 0.0) for n, k in SHAPES]
    steps = {name: dict(zip(map(str, tuning_file.STEPS), times, strict=True)) for name, times in seconds.items()}
    layer = tuning_file.Layer(sorted([n, k, count] for (n, k), count in SHAPES.items()), 2, packing, steps)
    return tuning_file.Tuning("avx2", key, shapes, [layer])


def test_auto_is_said_in_one_line_with_its_margin() -> None:
    times = {"2_bits": [1.0, 2.0, 16.0], "tl2": [0.5, 4.0, 16.0], "tl1": [0.75, 4.0, 16.0]}
    said = formats.verdict(tuning_with("tl2", times), SHAPES, "")
    # (256 + 32 + 64) / (128 + 64 + 64)
    assert said.line == (
        "auto: tl2, 1.38 times as fast as i2_s (1 token 2.00, 4 tokens 0.50, 128 tokens 1.00; 2 threads)"
    )
    assert said.format == "tl2"
    said = formats.verdict(tuning_with("2_bits", times | {"tl2": [2.0, 2.0, 16.0]}), SHAPES, "preset for avx2, a CPU")
    assert said.line == "auto: i2_s, because tl1 is not faster beyond doubt (seemed 1.10 times)"
    assert said.format == "i2_s"
    rows = {"2_bits": [1.0] * 3, "tl2": [1.5] * 3}
    line = formats.verdict(tuning_with("2_bits", rows), SHAPES, "preset for avx2").line
    assert line.startswith("auto: i2_s, 1.50 times as fast as tl2 (1 token 1.50, ")
    assert line.endswith("; 2 threads; preset for avx2)")
    # 1.6 bits are packed from the same file.
    said = formats.verdict(tuning_with("5_trits", {"2_bits": [1.0] * 3, "5_trits": [0.9] * 3}), SHAPES, "")
    assert said.line == "auto: i2_s (nothing else works here)"
    assert formats.verdict(None, SHAPES, "no preset for scalar").line == "auto: i2_s (no preset for scalar)"
    far = {(64, 64): 1}
    assert formats.verdict(tuning_with("tl2", times), far, "why").line == "auto: i2_s (why)"
    assert formats.Verdict(None, "nothing to tune").line == "nothing to tune"


def test_the_picture_shows_every_shape(tmp_path: Path) -> None:
    timer = FakeTimer({OWN: 1.0, "lookup_x@40:1": 0.5, "lookup_x@20:1": 0.7, "lookup_x@10:1": 0.8, "lookup_x@1:1": 3.0})
    sizes = []
    for shapes in ({(2560, 2560): 2}, {(2560, 2560): 2, (64, 2560): 1}):
        path = tmp_path / "new" / "search.png"
        check_plot(path)
        report.plot(tune(timer, shapes, [1], 60, lambda result: None), path, "a title")
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG")
        sizes.append(struct.unpack(">II", data[16:24]))
        assert [file.name for file in path.parent.iterdir()] == ["search.png"]
    assert sizes[1][0] == sizes[0][0] and sizes[1][1] > sizes[0][1]


def test_a_picture_without_matplotlib_is_refused_before_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--plot x\.png: needs matplotlib; install it: .* -m pip install matplotlib"):
        check_plot(Path("x.png"))


def test_shapes_of_a_layer(story_gguf: Path) -> None:
    assert of_published_shape("bitnet-2b-4t") == {(2560, 2560): 2, (640, 2560): 2, (6912, 2560): 2, (2560, 6912): 1}
    with pytest.raises(UserError, match="--shape nothing: expected one of"):
        of_published_shape("nothing")
    config = json.loads((ROOT / "models" / "trit-story-3m" / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    found = of_model(story_gguf)
    assert found[inner, hidden] == 2 and sum(found.values()) == 7
    # Before a conversion there is only the checkpoint.
    assert of_model(ROOT / "models" / "trit-story-3m") == found
    with pytest.raises(UserError, match=r"has no config\.json"):
        of_model(ROOT / "models")


def test_files_of_other_machines_are_not_merged(tmp_path: Path) -> None:
    one = tuning_file.Choice(64, 64, 1, "tl1", None, 0, 0, 0.0)
    two = tuning_file.Choice(64, 64, 2, None, "lookup_x", 1, 9, 0.1)
    again = tuning_file.Choice(64, 64, 1, "2_bits", "lookup_x", 1, 9, 0.2)
    layer = tuning_file.Layer([[64, 64, 1]], 1, "tl1", {"tl1": {"1": 0.5}})
    better = tuning_file.Layer([[64, 64, 1]], 1, "2_bits", {"tl1": {"1": 0.5}})
    path = tmp_path / "tuning.json"
    tuning_file.save(path, tuning_file.Tuning("avx2", "k", [one, two], [layer]))
    old = tuning_file.load(path)
    assert old == tuning_file.Tuning("avx2", "k", [one, two], [layer])
    new = tuning_file.merged(old, tuning_file.Tuning("avx2", "k", [again], [better]))
    assert (new.shapes, new.layers) == ([two, again], [better])
    assert tuning_file.merged(old, tuning_file.Tuning("avx2", "k", [again])).layers == [layer]
    assert tuning_file.merged(old, tuning_file.Tuning("avx2", "other", [again])).shapes == [again]
    assert tuning_file.merged(None, tuning_file.Tuning("avx2", "k", [again])).shapes == [again]
    for text in ("", "{}", '{"format": 1}', '{"format": 2, "tier": "a", "key": "b", "shapes": [{"n": 1}]}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"tuning\.json is no tuning file"):
            tuning_file.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["tuning.json"]


def format_of(line: str) -> str:
    """The format that a search ends with."""
    found = re.match(r"auto: (\w+)", line)
    assert found, line
    return found[1]


def command(*arguments: str | Path) -> list[str]:
    # Generated kernels have tests of their own: these here leave the build as it is.
    return [sys.executable, "-m", "trit.tune", "--no-variants", *map(str, arguments)]


def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=300
    )


def test_the_bundled_model_is_tuned_in_seconds(engine_bin: Path, story_gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuning.json"
    first = run("-m", story_gguf, "--seconds", "5", "--out", out, "--threads", "1,2", "--if-needed")
    assert first.returncode == 0, first.stderr
    assert {(shape.n, shape.k, shape.threads) for shape in tuning_file.load(out).shapes} == {
        (n, k, threads) for n, k in of_model(story_gguf) for threads in (1, 2)
    }
    assert f"written: {out}" in first.stdout
    verdict = first.stdout.splitlines()[-1]
    assert format_of(verdict) == MADE_FOR[str(tuning_file.load(out).packing(of_model(story_gguf)))]
    again = run("-m", story_gguf, "--seconds", "5", "--out", out, "--threads", "2", "--if-needed")
    assert again.stdout == f"up to date: {out}\n{verdict}\n"


def test_times_are_real(engine_bin: Path) -> None:
    """Twice the rows take about twice the time; what is impossible is left out; a mistake is named."""
    with Timer(engine_bin, megabytes=16) as timer:
        assert timer.tier and all(kernel.panels > 0 for kernel in timer.kernels)
        small = timer.rounds(Product(512, 512, 64, 1), ["2_bits", "5_trits", "in_place"], 9)
        large = timer.rounds(Product(2048, 512, 64, 1), ["2_bits", "in_place"], 9)
        assert "2_bits" in small and "in_place" in small and all(len(times) == 9 for times in small.values())
        assert 2 < min(large["2_bits"]) / min(small["2_bits"]) < 8
        with pytest.raises(TritError, match="trit-tune ended while it measured 64 x 64, m = 1, 1 thread"):
            timer.rounds(Product(64, 64, 1, 1), ["fast"], 1)


def test_a_model_without_ternary_matrices(engine_bin: Path, tmp_path: Path) -> None:
    from gguf import GGUFWriter

    path = tmp_path / "plain.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((64, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    out = tmp_path / "tuning.json"
    needed = run("-m", path, "--out", out, "--if-needed")
    assert (needed.returncode, needed.stdout) == (0, "nothing to tune: plain.gguf has no ternary matrix\n")
    asked = run("-m", path, "--out", out)
    assert asked.returncode == 2 and "plain.gguf has no ternary matrix to tune for" in asked.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--threads", "0"], "--threads 0: expected whole numbers from 1 to 512"),
        (["--threads", "two"], "--threads two: expected whole numbers"),
        (["--seconds", "-1"], "--seconds -1: expected 0 to 86400"),
        (["--shape", "huge"], "--shape huge: expected one of"),
        (["--bin-dir", "/nowhere"], "the engine is not built"),
        (["-m", "/nowhere.gguf"], "-m /nowhere.gguf: there is no such file or folder"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(flags: list[str], sentence: str, tmp_path: Path) -> None:
    result = run(*flags, "--out", tmp_path / "tuning.json")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert sentence in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_an_interrupted_tuning_leaves_what_was_there(engine_bin: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuning.json"
    tuning_file.save(out, tuning_file.Tuning("avx2", "k", []))
    before = out.read_bytes()
    arguments = command("--shape", "bitnet-2b-4t", "--seconds", "600", "--out", out)
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline().startswith("tuning for bitnet-2b-4t")
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read().strip() == "interrupted"
    assert out.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["tuning.json"]


@pytest.fixture(scope="module")
def tuned_choice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("c++")
    program = tmp_path_factory.mktemp("choice") / "tuned_choice"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}"]
    call(
        "c++",
        *flags,
        ROOT / "tests" / "support" / "tuned_choice.cpp",
        ROOT / "src" / "matrix" / "tuning.cpp",
        "-o",
        program,
    )
    return program


@pytest.mark.parametrize(
    ("n", "k", "threads", "panels"),
    [
        (2560, 2560, 1, 1),
        (2560, 2560, 8, 2),
        (2560, 2560, 2, 1),  # nearer to 1 than to 8
        (2560, 2560, 4, 2),
        (3200, 2560, 1, 1),  # another shape, not far off
        (2560, 6912, 8, 2),
        (6912, 6912, 1, 9),  # further: 2.7 and 2.7 times as large
        (640, 640, 1, 9),  # between the two, far from both
        (192, 512, 1, 3),
        (8192, 16384, 1, 5),  # far from what was measured, not from a preset
    ],
)
def test_the_nearest_shape_counts_unless_it_is_far(
    tuned_choice: Path, n: int, k: int, threads: int, panels: int
) -> None:
    engine_panels, engine_packing = map(int, call(tuned_choice, str(n), str(k), str(threads)).split())
    assert engine_panels == panels
    # trit/tune decides as the engine does.
    choices = [
        tuning_file.Choice(2560, 2560, 1, "2_bits", "lookup_x", 1, 7, 0.0),
        tuning_file.Choice(2560, 2560, 8, "tl2", "lookup_x", 2, 7, 0.0),
        tuning_file.Choice(256, 256, 1, "tl1", "lookup_x", 3, 7, 0.0),
    ]
    presets = [
        tuning_file.Choice(2560, 2560, 1, "2_bits", "lookup_x", 8, 7, 0.0),
        tuning_file.Choice(16384, 16384, 1, "tl1", "lookup_x", 5, 7, 0.0),
    ]
    own, preset = (tuning_file.Tuning("avx2", "", found) for found in (choices, presets))
    nearest = own.nearest(n, k, threads) or preset.nearest(n, k, threads)
    assert (nearest.panels if nearest else 9) == panels
    packing = own.packing({(n, k): 1}) or preset.packing({(n, k): 1})
    numbers = ["2_bits", "5_trits", "1_bit", "tl1", "tl2"]
    assert (numbers.index(packing) if packing else len(numbers)) == engine_packing
    # Packed once for any number of threads: what was found for the most counts.
    assert engine_packing == {1: 4, 2: 4, 3: 3, 5: 3, 9: 5}[panels]


@pytest.mark.parametrize("path", sorted(tuning_file.PRESETS.glob("*.json")), ids=lambda path: path.stem)
def test_a_preset_names_what_there_is(path: Path) -> None:
    preset = tuning_file.load(path)
    assert preset.tier in TIERS and path.stem.startswith(preset.tier) and preset.key == tuning_file.PRESET_KEY
    assert preset.match
    assert preset.cpu and {choice.packing for choice in preset.shapes} <= {*MADE_FOR, None}
    for choice in preset.shapes:
        if choice.lookup:
            (source,) = (ROOT / "preset_kernels").glob(f"*/{choice.lookup}.cpp")
            most = Lookup(**configuration_of(source))
            assert 0 < choice.panels * 64 <= most.rows and 0 < choice.least_tokens <= most.tokens
        else:
            assert (choice.panels, choice.least_tokens) == (0, 0)
    # Only what was measured has times.
    assert bool(preset.layers) == (not preset.cpu.startswith("not measured"))
    for layer in preset.layers:
        assert layer.packing in layer.seconds
        assert all(set(steps) == set(map(str, tuning_file.STEPS)) for steps in layer.seconds.values())


def configuration_of(source: Path) -> dict[str, Any]:
    """From the third line of a generated look-up kernel."""
    match = re.search(r"lookup --tier (\w+) --registers (\d+) --steps (\d+) --rows (\d+)", source.read_text())
    assert match
    registers, steps, rows = map(int, match.groups()[1:])
    return {"tier": match[1], "registers": registers, "steps": steps, "rows": rows}


def test_presets_are_used_where_nothing_was_measured(engine_bin: Path, tmp_path: Path) -> None:
    """A matrix near those of a preset is packed as it says; TRIT_TUNING=off leaves what is built in."""
    with Timer(engine_bin, megabytes=1) as timer:
        preset, packings = tuning_file.preset(timer.tier), timer.packings
    built_in = "5_trits" if "5_trits" in packings else "2_bits"
    gguf = tmp_path / "dummy.gguf"
    make = ["trit", "dummy", "--shape", "bitnet-2b-4t", "--layers", "1", "--outfile", gguf]
    subprocess.run([sys.executable, "-m", *map(str, make)], cwd=ROOT, check=True, capture_output=True)
    expected = (preset.packing(of_model(gguf)) if preset else None) or built_in
    for tuning, packing in (("preset", expected), ("off", built_in)):
        program = [str(engine_bin / "llama-bench"), "-m", str(gguf), "-p", "1", "-n", "0", "-r", "1", "-v"]
        done = subprocess.run(
            program, env={**os.environ, "TRIT_TUNING": tuning}, capture_output=True, text=True, timeout=300
        )
        assert f"packed at load as {packing}" in done.stderr, done.stderr[-2000:]
    line = run("-m", gguf, "--use-pretuned").stdout
    assert format_of(line) == MADE_FOR[expected] and "preset for" in line


def answer(engine_bin: Path, gguf: Path, tuning: Path | str) -> subprocess.CompletedProcess[str]:
    program = engine_bin / "llama-completion"
    flags = ["-m", gguf, "-p", DEMO_PROMPT, "-n", "6", "--temp", "0", "-no-cnv", "--no-display-prompt", "--no-warmup"]
    return subprocess.run(
        [program, *flags],
        env={**os.environ, "TRIT_TUNING": str(tuning)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def test_a_file_that_cannot_be_used_is_said_and_changes_nothing(
    engine_bin: Path, story_gguf: Path, tmp_path: Path
) -> None:
    with Timer(engine_bin, megabytes=4) as timer:
        tier, tables = timer.tier, timer.tables["tl2"]
    shape = {"n": 64, "k": 64, "threads": 1, "packing": None, "lookup": None, "panels": 0, "least_tokens": 0}
    good = {"format": 2, "tier": tier, "shapes": [shape]}
    path = tmp_path / "tuning.json"
    faults = {
        "is not of format 2": [{**good, "format": 1}, [], "text", {**good, "format": "2"}],
        "was made for another tier": [{**good, "tier": "avx9000"}, {"format": 2}],
        "has no shapes": [{**good, "shapes": 3}],
        "has a shape without": [{**good, "shapes": [1]}, {**good, "shapes": [{**shape, "n": 0}]},
                                {**good, "shapes": [{**shape, "lookup": 1}]}],
        "has a shape without packing": [{**good, "shapes": [{**shape, "packing": 3}]},
                                        {**good, "shapes": [{k: v for k, v in shape.items() if k != "packing"}]}],
        "names the packing tl3, which": [{**good, "shapes": [{**shape, "packing": "tl3"}]}],
        "names the kernel lookup_none, which": [{**good, "shapes": [{**shape, "lookup": "lookup_none"}]}],
        "names the kernel tl2_none for tl2, which": [{**good, "tables": {"tl2": "tl2_none"}}],
        "names the kernel  for tl2, which": [{**good, "tables": {"tl2": 2}}],
        f"names the kernel {tables[0]} for tl1, which": [{**good, "tables": {"tl1": tables[0]}}],
    }  # fmt: skip
    plain = answer(engine_bin, story_gguf, "off")
    assert plain.returncode == 0 and "warning" not in plain.stderr
    for sentence, contents in faults.items():
        for content in contents:
            path.write_text(json.dumps(content))
            result = answer(engine_bin, story_gguf, path)
            assert f"warning: the tuning file {path} {sentence}" in result.stderr, content
            assert result.stdout == plain.stdout
    path.write_text("{")
    assert "is not of format 2" in answer(engine_bin, story_gguf, path).stderr
    for name in ("absent.json", "."):
        assert "cannot be read" in answer(engine_bin, story_gguf, tmp_path / name).stderr
    path.write_text(json.dumps({**good, "tables": {"tl2": tables[-1]}}))
    assert "warning" not in answer(engine_bin, story_gguf, path).stderr
