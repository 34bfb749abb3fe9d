# SPDX-License-Identifier: MIT
"""Generated kernels in the search: which are tried, how they are compiled and loaded, what becomes of the winners."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from tests.support.kernel_build import build_kernels, need
from tests.support.tiers import ROOT
from trit.base.errors import CommandError
from trit.engine import kept_kernels, tuning_file
from trit.engine.tuning_file import Choice, Shape
from trit.tune import command as command
from trit.tune import generated, library
from trit.tune.codegen import Lookup, Table, render
from trit.tune.codegen.configuration import ISA_OF_TIER, NEON, TABLE_ISA_OF_TIER
from trit.tune.layer import Candidate, candidates, layer_contest, way_of
from trit.tune.library import Library, build_library
from trit.tune.timer import Product, Timer
from trit.tune.tuner import Result
from trit.tune.variants import MOST, PREFILL, PRESET_TIERS, Variant, variants

PRESETS = {path.stem: path.parent.name for path in (ROOT / "preset_kernels").glob("*/*.cpp")}
SHAPES = {
    "2B-4T": [(2560, 2560), (640, 2560), (6912, 2560), (2560, 6912)],
    "wide": [(14336, 4096), (4096, 14336)],
    "tiny": [(64, 32)],
    "huge": [(1 << 20, 1 << 18)],
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("tier", TABLE_ISA_OF_TIER)
def test_variants_of_a_tier(tier: str, shapes: list[tuple[int, int]]) -> None:
    """A configuration checks its rules when it is made; here is what a list of them has to keep."""
    found = variants(tier, shapes)
    names = [variant.name for variant in found]
    assert 4 <= len(found) <= MOST and len(set(names)) == len(names) and not set(names) & PRESETS.keys()
    assert all(variant.reason for variant in found)
    # They stand beside the presets' tier, for which presets come first: none of them is ever a default.
    base = PRESET_TIERS[TABLE_ISA_OF_TIER[tier]]
    assert {variant.configuration.tier for variant in found} == {base} <= set(PRESETS.values())
    kinds = [variant.preset for variant in found]
    assert set(kinds) == {"tl1", "tl2"} | ({"lookup"} if tier in PREFILL else set())
    assert len(set(kinds[:3])) == len(set(kinds)), "a budget that ends early has tried something of each kind"
    for variant in found:
        source = render(variant.configuration)
        assert re.search(rf"\btrit_{variant.name} =\s+lookup_kernel<Configuration>\(\);\n", source)
        assert f"trit codegen {variant.configuration.flags}\n" in source


def test_variants_differ_from_presets_that_exist() -> None:
    assert {preset.name for preset in PREFILL.values()} <= PRESETS.keys()
    for packing in ("tl1", "tl2"):
        assert {Table(packing, tier).name for tier in PRESET_TIERS.values()} <= PRESETS.keys()
    assert variants("scalar", SHAPES["2B-4T"]) == [] == variants("avx2", [])
    more = {variant.name for variant in variants("avx2", SHAPES["wide"])} - {
        variant.name for variant in variants("avx2", [(2560, 2560)])
    }
    assert "tl2_avx2_2560x14352x64" in more
    assert "lookup_neon_t16_s2_r2560" in {variant.name for variant in variants("neon", SHAPES["wide"])}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the kernels alone, where winners have their place as in an engine's build."""
    need("c++")
    return build_kernels(tmp_path_factory.mktemp("variants") / "build", None, targets=("trit-tune",))


@pytest.fixture(scope="module")
def few(built: Path) -> list[Variant]:
    """One kernel of each kind for this CPU, small ones."""
    with Timer(built / "bin", megabytes=1) as timer:
        isa = TABLE_ISA_OF_TIER.get(timer.tier)
    if isa is None:
        pytest.skip("there are no generated kernels for this CPU")
    tier = next(tier for tier, lookup in ISA_OF_TIER.items() if (lookup is NEON) == (isa is NEON))
    table = Table("tl2", tier, rows=64, inputs=240, ahead=0)
    return [Variant(Lookup(tier, 1, 1, 64, 1), "small"), Variant(table, "small")]


@pytest.fixture(scope="module")
def compiled(built: Path, few: list[Variant]) -> Library:
    made = build_library(few, built, 100)
    assert (made.compiled, made.note, made.variants) == (2, "", few)
    return made


def test_a_library_s_kernels_are_tested_and_timed(built: Path, few: list[Variant], compiled: Library) -> None:
    lookup, table = (variant.name for variant in few)
    with Timer(built / "bin", megabytes=4, library=compiled.path) as timer:
        assert lookup in [kernel.name for kernel in timer.kernels] and table in timer.tables["tl2"][1:]
        assert timer.default in {"", *PRESETS} and timer.tables["tl2"][0] in PRESETS, "a preset stays the default"
        times = timer.rounds(Product(512, 256, 16, 1), ["2_bits", f"{lookup}@1:1"], 3)
        assert len(times[f"{lookup}@1:1"]) == 3
        times = timer.rounds(Product(512, 256, 1, 1), ["tl2", table, f"{table}+2_bits"], 3)
        assert [len(some) for some in times.values()] == [3, 3, 3]
    with Timer(built / "bin", megabytes=4) as timer:
        assert lookup not in [kernel.name for kernel in timer.kernels]


def test_a_second_time_nothing_is_compiled(
    built: Path, few: list[Variant], compiled: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: object, **others: object) -> None:
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(library, "_start", started)
    monkeypatch.setattr(library, "_link", started)
    for seconds in (100, 0):
        assert build_library(few, built, seconds) == Library(compiled.path, few, 0, "")


def test_a_wrong_kernel_is_left_out(built: Path, few: list[Variant], monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(configuration: Lookup | Table) -> str:
        text = render(configuration)
        for _ in range(2):  # the instruction set's header, and what all have in common
            text = re.sub(r'#include "(kernels/lookup/(?:lookup|lookup_\w+)-inl\.h)"', included, text)
        assert "s2 = add(s2, x2)" in text
        return text.replace("s2 = add(s2, x2)", "s2 = subtract(s2, x2)")

    def included(line: re.Match[str]) -> str:
        return (ROOT / "src" / line[1]).read_text()

    monkeypatch.setattr(library, "render", wrong)
    made = build_library(few[:1], built, 100)
    assert made.compiled == 1, "another source is another object"
    with Timer(built / "bin", megabytes=1, library=made.path) as timer:
        assert few[0].name not in [kernel.name for kernel in timer.kernels]


def test_a_file_that_is_no_library_of_kernels(built: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    objects = next((built / "src").rglob("*cpu_features*.o*"))
    plain = tmp_path / "plain.so"
    subprocess.run(["c++", "-shared", "-o", plain, objects], check=True)
    for path in (text, plain, tmp_path / "absent.so"):
        command = [built / "bin" / "trit-tune", "--kernels", path]
        result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
        assert f"--kernels {path}: expected a library with trit_variants (" in result.stderr


@pytest.fixture
def fake_build(built: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A build folder with the real ``trit-tune``, whose compiler is a shell script."""

    def make(script: str) -> Path:
        folder = tmp_path / "build"
        (folder / "bin").mkdir(parents=True)
        shutil.copy(built / "bin" / "trit-tune", folder / "bin")
        compiler = folder / "c++"
        compiler.write_text(f"#!/bin/sh\n[ $1 = --version ] && exit\n{script}\n")
        compiler.chmod(0o755)
        source = str(ROOT / "preset_kernels" / "avx2" / "any.cpp")
        command = shlex.join([str(compiler), "-O1", "-o", "any.o", "-c", source])
        entry = {"directory": str(folder), "command": command, "file": source}
        (folder / "compile_commands.json").write_text(json.dumps([entry]))
        (folder / "CMakeCache.txt").write_text(f"TRIT_KERNELS_DIR:PATH={folder / 'kernels'}\n")
        return folder

    return make


posix = pytest.mark.skipif(os.name != "posix", reason="shell scripts and signals")


@posix
def test_a_compiler_that_fails_is_a_note(fake_build: Callable[[str], Path], few: list[Variant]) -> None:
    folder = fake_build('echo "x.cpp:1:1: error: not today" >&2; exit 1')
    made = build_library(few, folder, 100)
    assert made == Library(note="2 of 2 do not compile (x.cpp:1:1: error: not today)")
    assert sorted(path.suffix for path in (folder / "variants").iterdir()) == [".cpp"] * 3
    (folder / "c++").unlink()
    assert "do not compile" in (note := build_library(few, folder, 100).note) and "does not start" in note


@posix
def test_a_linker_that_fails_is_a_note(fake_build: Callable[[str], Path], few: list[Variant]) -> None:
    folder = fake_build('case "$*" in *-shared*) echo "ld: error: no"; exit 1;; *) for o; do :; done; : > "$o";; esac')
    assert build_library(few, folder, 100) == Library(note="none links (ld: error: no)")
    assert not list((folder / "variants").glob("variants-*")) and not list((folder / "variants").glob(".*"))


def test_a_build_that_says_nothing_is_a_note(few: list[Variant], tmp_path: Path) -> None:
    assert build_library(few, tmp_path, 100).note == f"{tmp_path / 'CMakeCache.txt'} is missing"
    (tmp_path / "CMakeCache.txt").write_text("TRIT_KERNELS_DIR:PATH=/mine\n")
    assert f"-DTRIT_KERNELS_DIR={tmp_path / 'kernels'}" in build_library(few, tmp_path, 100).note
    (tmp_path / "CMakeCache.txt").write_text(f"TRIT_KERNELS_DIR:PATH={tmp_path / 'kernels'}\n")
    for text in ("", "[]", "{}", '[{"file": "preset_kernels/a.cpp", "command": "cl /c a.cpp"}]'):
        (tmp_path / "compile_commands.json").write_text(text)
        assert "does not say how gcc or clang made a kernel" in build_library(few, tmp_path, 100).note
    assert {path.name for path in tmp_path.iterdir()} == {"CMakeCache.txt", "compile_commands.json"}


@posix
def test_no_time_compiles_nothing(fake_build: Callable[[str], Path], few: list[Variant]) -> None:
    folder = fake_build("touch started")
    assert build_library(few, folder, 0) == Library(note="no time to compile 2 of 2")
    assert not (folder / "started").exists() and not (folder / "variants").exists()


@posix
def test_when_time_is_up_no_compiler_is_started(
    fake_build: Callable[[str], Path], few: list[Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "usable_cpus", lambda: 1)
    folder = fake_build('echo >> started; sleep 0.3; for o; do :; done; : > "$o"')
    assert build_library(few, folder, 0.1) == Library(note="no time to compile 2 of 2")
    assert (folder / "started").read_text() == "\n", "the one that was running came to its end"
    assert len(list((folder / "variants").glob("*.o"))) == 1


def tune_command(folder: Path, model: Path, *arguments: str | Path) -> list[str]:
    words = ["-m", "trit.tune", "-m", model, "--bin-dir", folder / "bin", "--out", folder / "tuning.json", "-t", "1"]
    return [sys.executable, *map(str, [*words, *arguments])]


@posix
def test_the_search_goes_on_without_a_compiler(fake_build: Callable[[str], Path], story_gguf: Path) -> None:
    folder = fake_build("exit 1")
    command = tune_command(folder, story_gguf, "--seconds", "1")
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "do not compile (exit code 1); the search goes on without them\n" in result.stdout
    assert (folder / "tuning.json").is_file() and not (folder / "kernels").exists()


@posix
def test_interrupted_compilers_end_and_leave_nothing(fake_build: Callable[[str], Path], story_gguf: Path) -> None:
    folder = fake_build('for o; do :; done; echo $$ >> pids; echo half > "$o"; exec sleep 100')
    with subprocess.Popen(
        tune_command(folder, story_gguf, "--seconds", "600"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not list((folder / "variants").glob("[a-z]*.partial")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert {path.suffix for path in (folder / "variants").iterdir()} == {".cpp"}
    for pid in (folder / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_hopeless_variants_are_told_by_a_few_rounds(few: list[Variant]) -> None:
    class Fake:
        kernels = (SimpleNamespace(name=few[0].name, panels=4),)
        tables: ClassVar = {"tl1": ["tl1_preset"], "tl2": ["tl2_preset", few[1].name]}

        def __init__(self, slow: float) -> None:
            self.slow = slow
            self.products: list[Product] = []

        def rounds(self, product: Product, ways: list[str], count: int) -> dict[str, list[float]]:
            self.products.append(product)
            return {way: [1.0 if way in ("lookup", "tl2") else self.slow] * count for way in ways}

    timer = Fake(1.2)
    slow = generated.hopeless(timer, Library(variants=few), [(64, 64), (640, 256)], 2)
    assert slow == {variant.name for variant in few}
    assert timer.products == [Product(640, 256, 128, 2), Product(640, 256, 1, 2)]
    assert generated.hopeless(Fake(1.02), Library(variants=few), [(64, 64)], 2) == set()
    # Of tl1 there is nothing but the preset; of tl2 a contest decides.
    (one,) = generated.best_tables(Fake(0.9), [(64, 64), (640, 256)], 2, 0, set())
    assert (one.default, one.winner, one.product) == ("tl2", few[1].name, Product(640, 256, 1, 2))
    assert generated.best_tables(Fake(0.99), [(64, 64)], 2, 0, set())[0].winner == "tl2", "below the margin"
    assert generated.best_tables(Fake(0.9), [(64, 64)], 2, 0, {few[1].name}) == []


@pytest.mark.parametrize(("seconds", "tables"), [(0.5, {"tl2": "tl2_x"}), (0.99, {}), (1.2, {})])
def test_a_kernel_for_few_tokens_has_to_be_worth_it_for_a_layer(seconds: float, tables: dict[str, str]) -> None:
    class Fake:
        def rounds(self, product: Product, ways: Sequence[str], count: int) -> dict[str, list[float]]:
            return {way: [seconds if way.startswith("tl2_x+") else 1.0] * count for way in ways}

    shape = (640, 256)
    usual = Candidate("tl2", "tl2", {shape: way_of("tl2", "2_bits")})
    found = candidates(["2_bits", "tl2"], usual, {shape: "2_bits"}, {"tl2": "tl2_x"})
    assert [one.name for one in found] == ["tl2", "2_bits", "tl2, tuned"]
    result = layer_contest(Fake(), 1, {shape: 2}, found, 0)
    assert result.tables == tables and Result([], [result], {}).tables == tables


def test_what_is_said_of_them(few: list[Variant]) -> None:
    made, (lookup, table) = Library(variants=few), (variant.name for variant in few)
    line = generated.verdict(made, ["lookup_x", lookup, table], {"lookup_x", table})
    assert line == f"generated variants: 2 tried, won: {table}"
    assert generated.verdict(made, [lookup], set()) == "generated variants: 1 tried, won: none, the presets stay"


def test_a_winner_is_built_in_and_goes_when_it_is_no_longer_used(
    built: Path, few: list[Variant], capfd: pytest.CaptureFixture[str]
) -> None:
    name = few[0].name
    source = built / "kernels" / f"{name}.cpp"
    compiled = build_library(few, built, 100)  # where another test has made another library since

    def names() -> list[str]:
        with Timer(built / "bin", megabytes=1) as timer:
            return [kernel.name for kernel in timer.kernels]

    assert generated.build_in(compiled, built, {name, "a_preset"})
    assert f"building the engine with {name}\n" in capfd.readouterr().out
    assert source.read_text() == render(few[0].configuration) and name in names()
    assert not generated.build_in(compiled, built, {name}), "nothing to do the second time"
    # With the kernel in the program, the one in the library is left out.
    with Timer(built / "bin", megabytes=1, library=compiled.path) as timer:
        assert [kernel.name for kernel in timer.kernels].count(name) == 1
    assert not generated.build_in(Library(), built, {name}), "it stays without a library, too"
    # One of an older generator does not go into a build of today.
    old = built / "kernels" / "lookup_old.cpp"
    old.write_text(
        source.read_text()
        .replace(name, old.stem)
        .replace("trit/tune/codegen, version ", "trit/tune/codegen, version 9")
    )
    source.unlink()
    assert generated.build_in(compiled, built, {name, old.stem})
    assert source.is_file() and old.stem not in names() and name in names()
    assert generated.build_in(compiled, built, set())
    assert list((built / "kernels").iterdir()) == [] and name not in names()


def test_tuning_again_finds_its_winner_in_the_program(
    built: Path,
    few: list[Variant],
    story_gguf: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole command, with a search that prefers the variants; what it builds does not void what it writes."""

    def search(timer: Timer, shapes: Mapping[Shape, int], threads: Sequence[int], *_: object) -> SimpleNamespace:
        assert few[0].name in [kernel.name for kernel in timer.kernels]
        choices = [Choice(n, k, one, "2_bits", few[0].name, 1, 1, 0.5) for n, k in shapes for one in threads]
        return SimpleNamespace(choices=choices, measured=[], tables={}, at_once={})

    monkeypatch.setattr(command, "tune", search)
    monkeypatch.setattr(generated, "variants", lambda tier, shapes: few)
    monkeypatch.setattr(generated, "hopeless", lambda *_: set())
    monkeypatch.setattr(generated, "best_tables", lambda *_: [])
    out = built / "tuning.json"
    arguments = ["-m", story_gguf, "--bin-dir", built / "bin", "--out", out, "-t", "1", "--seconds", "1", "--if-needed"]
    assert command.main(list(map(str, arguments))) == 0
    said = capsys.readouterr().out
    assert f"won: {few[0].name}\n" in said and f"building the engine with {few[0].name}\n" in said
    assert kept_kernels.sources(built).keys() == {few[0].name} == tuning_file.kernels(tuning_file.load(out))
    assert command.main(list(map(str, arguments))) == 0
    assert capsys.readouterr().out.startswith(f"up to date: {out}\n")
    # Another file does not take its kernels away, and what is built for that one does not void it.
    other = built / "other.json"
    monkeypatch.setattr(command, "tune", lambda *_: SimpleNamespace(choices=[], measured=[], tables={}, at_once={}))
    kept_kernels.keep(built, {few[0].name: few[0].name}, "true")  # as if the generator had changed
    assert command.main([*map(str, arguments[:5]), str(other), "-t", "1", "--seconds", "1"]) == 0
    assert "building the engine" in capsys.readouterr().out and other.is_file()
    assert kept_kernels.sources(built) == {few[0].name: render(few[0].configuration)}
    assert command.main(list(map(str, arguments))) == 0
    assert capsys.readouterr().out.startswith(f"up to date: {out}\n")
    out.unlink()
    generated.build_in(Library(), built, set())


def test_a_build_that_fails_puts_the_kernels_back(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "a.cpp").write_text("old")
    with pytest.raises(CommandError, match="building the engine with the kernels that won failed"):
        kept_kernels.keep(tmp_path, {"a": "new", "b": "new"}, shutil.which("false") or "false")
    assert kept_kernels.sources(tmp_path) == {"a": "old"}


def test_dropped_kernels_take_the_choices_that_name_them_along(tmp_path: Path) -> None:
    tuning = tmp_path / "tuning.json"
    tuning.write_text('{"shapes": [{"lookup": "lookup_b"}]}')
    assert not kept_kernels.drop(tmp_path) and tuning.exists()
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "lookup_a.cpp").touch()
    assert kept_kernels.drop(tmp_path) and tuning.exists(), "it names another one"
    (tmp_path / "kernels" / "lookup_b.cpp").touch()
    assert kept_kernels.drop(tmp_path) and not tuning.exists()
    assert kept_kernels.sources(tmp_path) == {}
