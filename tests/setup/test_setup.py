# SPDX-License-Identifier: MIT
"""Set-up as a whole, in a fake checkout: what it makes, what it skips, what it says when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import trit.base.host
import trit.base.processes
from tests.support.fake_checkout import ENGINE_FILES, Checkout, make_checkout, make_sdist, write_lock
from tests.support.tiny_gguf import EMPTY, tiny_gguf
from trit.base.errors import UserError, run_main
from trit.base.places import ROOT
from trit.gguf.encodings import ENCODINGS, check_fits
from trit.setup import (
    answer,
    build,
    compiler,
    context,
    conversion,
    engine,
    lock,
    model,
    page,
    pipeline,
    suite,
    tools,
    tuning,
)
from trit.setup.options import build_parser, parse_options

MODULES = (
    trit.base.processes,
    trit.base.host,
    answer,
    build,
    compiler,
    context,
    conversion,
    engine,
    lock,
    model,
    page,
    pipeline,
    tuning,
    suite,
    tools,
)


@pytest.fixture
def checkout(tmp_path: Path, plain_venv: Path) -> Checkout:
    return make_checkout(tmp_path, plain_venv)


@pytest.fixture
def inside(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """The fake checkout, for running set-up inside this process: every place points into it."""
    root = checkout.root
    places = {
        "ROOT": root,
        "VENV": root / ".venv",
        "ENGINE_DIR": root / "3rdparty" / "llama.cpp",
        "CACHE_DIR": root / "3rdparty" / "cache",
        "STAMPS": root / "3rdparty" / "cache" / "stamps",
        "BUILD_DIR": root / "build",
        "ENGINE_BIN": root / "build" / "bin",
        "MODELS_DIR": root / "models",
        "BUNDLED_MODEL": root / "models" / "trit-story-3m",
        "LOCK_FILE": root / "3rdparty" / "llama.cpp.lock.json",
        "PATCHES": root / "3rdparty" / "patches",
        "PAGE_DIR": root / "3rdparty" / "page",
    }
    for module in MODULES:
        for name in places.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, places[name])
    monkeypatch.setattr(build, "engine_program", lambda name: root / "build" / "bin" / name)
    monkeypatch.setattr(pipeline.selftest, "engine_program", lambda name: root / "build" / "bin" / name)
    monkeypatch.setattr(tools, "_UNFINISHED", places["CACHE_DIR"] / "venv.unfinished")
    monkeypatch.setattr(tools, "active_environment", lambda: None)
    monkeypatch.setattr(tools, "check_there_is_one", lambda setup: None)
    monkeypatch.setattr(tools, "find_compiler", lambda setup: context.Compiler("fake 1", "cc", "c++"))
    for name, value in checkout.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(root)
    return checkout


def setup(*arguments: str) -> int:
    return run_main(pipeline.main, arguments)


def test_everything_once_and_nothing_twice(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    inside.forget_downloads()
    assert setup() == 0
    first = capsys.readouterr().out
    assert "answer:  a fake answer" in first
    assert "speed:   prompt 2500 tokens/s, answer 1000 tokens/s" in first
    assert "run_inference.py -p" in first
    assert (inside.engine / "src" / "engine.c").read_text() == "int patched_engine;\n"
    assert not (inside.engine / "docs").exists()
    assert not (inside.engine / ".git").exists()
    assert inside.gguf.read_bytes().startswith(EMPTY + b"i2_s")
    for name in ("tools", "engine", "conversion", "build", "tuning", "self-test", "answer"):
        assert (inside.root / "logs" / f"{name}.log").is_file(), name
    assert inside.leftovers() == []

    build_log = (inside.root / "logs" / "build.log").read_text()
    times = {path: path.stat().st_mtime_ns for path in inside.root.rglob("*") if path.is_file()}
    start = time.monotonic()
    assert setup() == 0
    assert time.monotonic() - start < 10
    second = capsys.readouterr().out
    assert second.count("up to date") == 4
    assert "auto: i2_s, 1.50 times" in second
    assert (inside.root / "logs" / "build.log").read_text() == build_log
    changed = {path.name for path, mtime in times.items() if path.stat().st_mtime_ns != mtime}
    assert changed <= {"answer.log", "self-test.log", "setup.lock", "tuning.log"}


def test_what_changes_is_done_again(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    def redone() -> set[str]:
        assert setup("--no-run") == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[1] for line in lines if line.startswith("[") and "up to date" not in line}

    always = {"model", "tuning", "self-test"}
    assert redone() == {"engine", "conversion", "build"} | always
    assert redone() == always
    (inside.root / "src" / "ours.cpp").write_text("int ours_changed;\n")
    assert redone() == {"build"} | always
    (inside.root / "models" / "trit-story-3m" / "config.json").write_text('{"changed": true}')
    assert redone() == {"conversion"} | always
    (inside.root / "requirements.txt").write_text("# other\n\n")
    assert redone() == always, "a comment is no requirement"
    (inside.root / "requirements.txt").write_text(
        "# no package\npip==0 ; python_version < '3' --hash=sha256:" + "0" * 64
    )
    assert redone() == {"tools"} | always
    patch = inside.root / "3rdparty" / "patches" / "0001-test.patch"
    patch.write_text(patch.read_text().replace("patched_engine", "other_engine"))
    kept = (inside.engine / "CMakeLists.txt").stat().st_mtime_ns
    old = (inside.engine / "src" / "engine.c").stat().st_mtime_ns
    assert redone() == {"engine", "build"} | always
    assert (inside.engine / "CMakeLists.txt").stat().st_mtime_ns == kept, "an unchanged file keeps its time"
    assert (inside.engine / "src" / "engine.c").stat().st_mtime_ns > old
    inside.gguf.write_bytes(b"GGUF")
    assert redone() == {"conversion"} | always, "a GGUF of another size is not what was made"
    (inside.root / "build" / "bin" / "llama-cli").unlink()
    assert redone() == {"build"} | always


def test_tuning_has_a_budget_that_may_be_nothing(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup("--no-run", "--tune-seconds", "0") == 0
    assert "auto: i2_s (preset for a fake)" in capsys.readouterr().out
    assert not (inside.root / "build" / "tuning.json").exists()
    assert setup("--no-run", "--tune-seconds", "7") == 0
    assert "auto: i2_s, 1.50 times as fast as others" in capsys.readouterr().out
    words = (inside.root / "build" / "tuning.json").read_text().split()
    assert words == ["-m", str(inside.gguf.parent), "--if-needed", "--seconds", "7"]
    # Presets instead of what was found.
    assert setup("--no-run", "--use-pretuned") == 0
    assert not (inside.root / "build" / "tuning.json").exists()


def test_what_is_measured_to_be_fastest_is_what_is_converted_to(
    inside: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    (inside.root / "fastest").write_text("tl2")
    assert setup("--no-run") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert [line.split()[1] for line in lines[3:6]] == ["build", "tuning", "conversion"]
    assert "auto: tl2, 1.50 times" in lines[4] and "ggml-model-tl2.gguf" in lines[5]
    assert inside.gguf.with_name("ggml-model-tl2.gguf").read_bytes().endswith(b"tl2None") and not inside.gguf.exists()
    # One who names a type gets it, and it is converted before the engine is built, which takes longest.
    assert setup("--no-run", "-q", "i2_s") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert [line.split()[1] for line in lines[3:6]] == ["conversion", "build", "tuning"]
    assert "fastest here: tl2, 1.50 times" in lines[5] and inside.gguf.read_bytes().endswith(b"i2_sNone")


def test_auto_takes_what_holds_the_matrices(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    (inside.root / "fitting").write_text("tl1 q2_0 f16")
    assert setup("--no-run") == setup("--no-run") == 0, "the second time by a note of the first"
    assert capsys.readouterr().out.count("auto: tl1, as i2_s does not hold these matrices") == 2


def test_kernels_that_tuning_added(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    """They are kept with the build that they were measured in, and go with it."""
    kernel, tuning = (inside.root / "build" / name for name in ("kernels/lookup_x.cpp", "tuning.json"))

    def kept_by(*arguments: str, measured: tuple[str, ...] = ("--tune-seconds", "0")) -> tuple[bool, bool, bool]:
        """Whether the kernel and what names it are still there, and whether the engine was built."""
        kernel.parent.mkdir(exist_ok=True)
        kernel.touch()
        tuning.write_text('{"lookup": "lookup_x"}')
        assert setup("--no-run", *measured, *arguments) == 0
        return kernel.exists(), tuning.exists(), "compiled with" in capsys.readouterr().out

    assert setup("--no-run") == 0
    assert f"-DTRIT_KERNELS_DIR={kernel.parent}" in (inside.root / "logs" / "build.log").read_text()
    capsys.readouterr()
    assert kept_by() == (True, True, False)
    assert kept_by(measured=("--use-pretuned",)) == (False, False, True)
    assert kept_by() == (True, True, False)
    (inside.root / "src" / "ours.cpp").write_text("int ours_changed;\n")
    assert kept_by() == (False, False, True)
    assert kept_by("--clean") == (False, False, True)


def test_clean_keeps_models_environment_and_download(inside: Checkout) -> None:
    assert setup("--no-run") == 0
    (inside.root / "build" / "junk").touch()
    before = inside.gguf.stat().st_mtime_ns
    assert setup("--no-run", "--clean", "--jobs", "1") == 0
    assert not (inside.root / "build" / "junk").exists()
    assert (inside.root / "3rdparty" / "cache" / "fake_engine-1.0.tar.gz").is_file()
    assert inside.gguf.stat().st_mtime_ns > before
    assert "--parallel 1" in (inside.root / "logs" / "build.log").read_text()
    assert "downloading" not in (inside.root / "logs" / "engine.log").read_text()


def test_offline_with_a_download_made_before(inside: Checkout) -> None:
    assert setup("--no-run") == 0
    for path in inside.index.iterdir():
        path.unlink()
    assert setup("--no-run", "--clean") == 0


def test_no_network(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    inside.forget_downloads()
    for path in inside.index.iterdir():
        path.unlink()
    assert setup() == 1
    error = capsys.readouterr().err
    assert "downloading fake_engine-1.0.tar.gz failed" in error
    assert "network reaches the Python package index" in error
    assert "put fake_engine-1.0.tar.gz into" in error
    assert not inside.engine.exists()


def test_wrong_hash_from_the_index(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    inside.forget_downloads()
    write_lock(inside.root, "fake_engine-1.0.tar.gz", "0" * 64)
    assert setup() == 1
    assert "is not the file that 3rdparty/llama.cpp.lock.json pins" in capsys.readouterr().err
    assert not list((inside.root / "3rdparty" / "cache").glob("*.tar.gz"))
    assert not inside.engine.exists()


def test_what_was_built_stays_good_in_a_moved_checkout(checkout: Checkout) -> None:
    assert checkout.run("--no-run").returncode == 0
    new = checkout.root.with_name("moved")
    checkout.root.rename(new)
    moved = Checkout(new, checkout.index, checkout.tools)
    built = (new / "build" / "bin" / "llama-cli").stat().st_mtime_ns
    done = moved.run("--no-run")
    assert done.returncode == 0, done.stderr
    assert "up to date in build/bin" in done.stdout and "up to date: models/trit-story-3m/" in done.stdout
    assert (new / "build" / "bin" / "llama-cli").stat().st_mtime_ns == built
    # What is compiled later must not look into the old folder.
    log = (new / "logs" / "build.log").read_text()
    assert f"-S {new}" in log and "--fresh" in log and "--build" not in log
    assert moved.run("--no-run").returncode == 0
    assert (new / "logs" / "build.log").read_text() == log


def test_a_ccache_that_appears_later_rebuilds_nothing(
    inside: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ccache, which = inside.root / "ccache", shutil.which

    def find(name: str) -> str | None:
        return which(name) if name != "ccache" else str(ccache) if ccache.exists() else None

    def configured() -> tuple[bool, bool]:
        """Whether a change of a source set the build up from nothing, and whether with a launcher."""
        (inside.root / "src" / "ours.cpp").write_text(f"int at_{time.monotonic_ns()};\n")
        assert setup("--no-run") == 0
        log = (inside.root / "logs" / "build.log").read_text()
        return "--fresh" in log, f"-DCMAKE_CXX_COMPILER_LAUNCHER={ccache}" in log

    monkeypatch.setattr(shutil, "which", find)
    assert configured() == (True, False)
    ccache.touch()
    capsys.readouterr()
    assert setup("--no-run") == 0
    assert "up to date in build/bin" in capsys.readouterr().out
    assert configured() == (False, False)
    assert setup("--no-run", "--clean") == 0
    assert configured() == (False, True)
    # One that is gone is no longer called.
    ccache.unlink()
    assert configured() == (True, False)


def test_what_a_link_to_an_environment_points_to_is_never_emptied(inside: Checkout) -> None:
    theirs = inside.root.parent / "theirs"
    theirs.mkdir()
    (theirs / "precious").touch()
    venv = inside.root / ".venv"
    venv.unlink()
    venv.symlink_to(theirs)
    assert setup("--no-run") == 0
    assert not venv.is_symlink() and (venv / "trit-setup.json").is_file()
    assert [path.name for path in theirs.iterdir()] == ["precious"]


def test_wrong_hash_in_the_cache_is_fetched_again(inside: Checkout) -> None:
    cache = inside.root / "3rdparty" / "cache"
    (cache / "fake_engine-1.0.tar.gz").write_bytes(b"half a downl")
    assert setup("--no-run") == 0
    assert (inside.engine / "src" / "engine.c").is_file()


def test_the_page_is_laid_where_the_engine_s_build_looks(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup("--no-run") == 0
    assert (inside.engine / "tools" / "ui" / "dist" / "index.html").read_text() == "<html>"
    (inside.root / "3rdparty" / "page" / "page.tar.gz").write_bytes(b"other")
    assert setup("--no-run") == 2
    assert "page.tar.gz: is not the file that page.json beside it pins" in capsys.readouterr().err


def test_patch_that_does_not_apply(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    patch = inside.root / "3rdparty" / "patches" / "0001-test.patch"
    patch.write_text(patch.read_text().replace("-int engine;", "-int other;"))
    assert setup() == 1
    error = capsys.readouterr().err
    assert "applying 0001-test.patch failed" in error
    assert "patch does not apply" in error, "the tail of the log is shown"
    assert not inside.engine.exists()


@pytest.mark.parametrize("program", ["git", "patch"])
def test_each_patching_program_inside_a_repository(
    inside: Checkout, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git skips in silence what it takes to be outside of its folder; the real checkout is a repository."""
    subprocess.run(["git", "init", "-q", str(inside.root)], check=True)
    which = engine.shutil.which
    monkeypatch.setattr(engine.shutil, "which", lambda name: which(name) if name in (program, "cmake") else None)
    assert setup("--no-run") == 0
    assert (inside.engine / "src" / "engine.c").read_text() == "int patched_engine;\n"


def test_no_patching_program(
    inside: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine.shutil, "which", lambda name: None)
    assert setup() == 2
    assert "neither git nor patch is installed; install git" in capsys.readouterr().err


def test_source_without_a_kept_path(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    write_lock(inside.root, *make_sdist(inside.index), keep=["CMakeLists.txt", "src", "gone"])
    assert setup() == 2
    assert "has no gone: it is not llama.cpp abc123" in capsys.readouterr().err
    assert not inside.engine.exists()


def test_own_llama_cpp(inside: Checkout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own"
    for name, text in ENGINE_FILES.items():
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_text(text)
    assert setup("--no-run", "--llama-cpp-dir", str(own)) == 0
    assert (inside.engine / "src" / "engine.c").read_text() == "int patched_engine;\n"
    assert (own / "src" / "engine.c").read_text() == "int engine;\n", "the user's own copy stays as it is"
    (own / "src" / "more.c").write_text("int more;\n")
    assert setup("--no-run") == 0
    assert "up to date: llama.cpp abc123" in capsys.readouterr().out
    assert setup("--no-run", "--llama-cpp-dir", str(own)) == 0
    assert (inside.engine / "src" / "more.c").is_file()
    (own / "src" / "engine.c").write_text("int newer;\n")
    assert setup("--no-run", "--llama-cpp-dir", str(own)) == 2
    assert "0001-test.patch does not apply to it" in capsys.readouterr().err
    assert (inside.engine / "src" / "engine.c").read_text() == "int patched_engine;\n", "the good tree stays"
    assert setup("--no-run", "--llama-cpp-dir", str(tmp_path / "nowhere")) == 2
    assert "there is no CMakeLists.txt" in capsys.readouterr().err


def test_build_failure_shows_the_compiler_s_words(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    (inside.root / "break-build").write_text("src/x.cpp:3:5: error: 'foo' was not declared in this scope")
    assert setup() == 1
    error = capsys.readouterr().err
    assert "src/x.cpp:3:5: error: 'foo' was not declared" in error
    assert "logs/build.log" in error
    assert "[1/3] Building" not in error
    (inside.root / "break-build").write_text("c++: fatal error: Killed signal terminated program cc1plus")
    assert setup() == 1
    assert "--jobs 1" in capsys.readouterr().err
    (inside.root / "break-build").write_text("fatal error: error writing to /x.s: No space left on device")
    assert setup() == 1
    assert "the disk is full" in capsys.readouterr().err
    (inside.root / "break-build").unlink()
    assert setup("--no-run") == 0


def test_refused_model_is_the_user_s_error(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    """In the flags that set-up has; the sentences are the converter's own."""
    model = inside.root / "models" / "trit-story-3m"
    with pytest.raises(UserError, match="use --outtype q2_0") as columns:
        check_fits(ENCODINGS["tl2"], "blk.0.ffn_down.weight", 8640)
    master = "x: if these are the master weights, pass --master-weights"
    for sentence, shown in (
        (str(columns.value), str(columns.value).replace("--outtype", "-q")),
        ("x: 96 columns; use --quant-embd f16", "x: 96 columns; use --quant-embd f16"),
        (f"{master}|--master-weights", f"{master}; that is a flag of: python3 -m utils.convert {model}"),
    ):
        (model / "refuse").write_text(sentence)
        assert setup() == 2
        assert f"error: {shown}\n" in capsys.readouterr().err
        assert not inside.gguf.exists()


def test_failing_self_test_stops_set_up(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    program = inside.root / "program.py"
    program.write_text(program.read_text().replace("sys.exit(0)", "print('avx2 FAILED: k = 128'); sys.exit(1)"))
    assert setup() == 1
    error = capsys.readouterr().err
    assert "avx2 FAILED: k = 128" in error
    assert "the kernels' self-test failed" in error


def test_local_model_with_bitnet_s_flags(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    folder = inside.root / "models" / "mine"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    assert setup("-md", "models/mine", "-q", "tl1", "-p", "-ld", "other-logs", "--quant-embd") == 0
    out = capsys.readouterr().out
    assert "fastest here: i2_s (preset for a fake)" in out
    assert not (inside.root / "build" / "tuning.json").exists()
    assert (folder / "ggml-model-tl1.gguf").read_bytes() == EMPTY + b"tl1f16"
    assert (inside.root / "other-logs" / "conversion.log").is_file()
    assert "-m models/mine/ggml-model-tl1.gguf" in out
    assert setup("--no-run", "-md", "models/mine", "-q", "f16") == 0
    assert (folder / "ggml-model-f16.gguf").read_bytes() == EMPTY + b"f16None"


def test_folder_with_only_a_gguf(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    folder = inside.root / "models" / "given"
    folder.mkdir()
    (folder / "ggml-model-i2_s.gguf").write_bytes(EMPTY + b"from elsewhere")
    assert setup("--no-run", "-md", "models/given") == 0
    assert "is given, nothing to convert" in capsys.readouterr().out
    (folder / "config.json").write_text("{}")
    assert setup("--no-run", "-md", "models/given") == 0
    assert "is given, nothing to convert" in capsys.readouterr().out, "a config.json alone is no checkpoint"
    (folder / "ggml-model-i2_s.gguf").write_bytes(tiny_gguf("i2_s")[:-1])
    assert setup("--no-run", "-md", "models/given") == 2
    assert "ggml-model-i2_s.gguf: is cut short: by its header it has at least" in capsys.readouterr().err
    (folder / "ggml-model-i2_s.gguf").write_bytes(b"<html>")
    assert setup("--no-run", "-md", "models/given") == 2
    assert "is not a GGUF file" in capsys.readouterr().err


def test_user_s_own_gguf_is_never_replaced(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    folder = inside.root / "models" / "mine"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    own = folder / "ggml-model-i2_s.gguf"
    own.write_bytes(EMPTY + b"made by hand")
    for name in ("config.json", "model.safetensors"):
        os.utime(folder / name, (1, 1))
    assert setup("--no-run", "-md", "models/mine") == 0
    os.utime(own, (0, 0))
    assert setup("--no-run", "-md", "models/mine") == 2
    assert "was not made by set-up" in capsys.readouterr().err
    assert own.read_bytes() == EMPTY + b"made by hand"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-md", "nowhere"), "there is no such folder"),
        (("-md", "src"), "holds neither config.json nor ggml-model-i2_s.gguf"),
        (("-hr", "no-slash"), "expected ORG/NAME"),
    ],
)
def test_wrong_model_is_refused_before_any_work(
    inside: Checkout, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "[1/" not in captured.out


def test_missing_bundled_model(inside: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(inside.root / "models" / "trit-story-3m")
    assert setup() == 1
    assert "is missing; get it back with: git checkout -- models" in capsys.readouterr().err


def test_flags_of_bitnet_keep_names_and_defaults() -> None:
    defaults = vars(build_parser().parse_args([]))
    assert defaults == {
        "hf_repo": None,
        "model_dir": None,
        "quant_type": "auto",
        "quant_embd": None,
        "use_pretuned": False,
        "tune_seconds": 60.0,
        "compiler": "auto",
        "jobs": None,
        "llama_cpp_dir": None,
        "native": False,
        "wheel": None,
        "clean": False,
        "log_dir": Path("logs"),
        "no_run": False,
        "list_models": False,
        "test": False,
    }
    short = parse_options(["-hr", "a/b@main", "-md", "m", "-q", "tq2_0", "-ld", "l", "-p", "--quant-embd", "q6_k"])
    long = "--hf-repo a/b@main --model-dir m --quant-type tq2_0 --log-dir l --use-pretuned --quant-embd q6_k"
    assert short == parse_options(long.split())
    assert parse_options(["--test", "--", "-k", "cli"]).pytest_args == ["-k", "cli"]
    for wrong in (["--jobs", "0"], ["--tune-seconds", "-1"], ["-q", "i2s"], ["--", "-k"], ["--unknown"]):
        with pytest.raises(UserError):
            parse_options(wrong)


def test_flags_that_cannot_be_right_are_noticed_at_once() -> None:
    assert parse_options(["--quant-embd", "Q6_K"]).quant_embd == "q6_k"
    for wrong, sentence in (
        (["--quant-embd", "zz"], "--quant-embd: invalid choice: 'zz' (choose from"),
        (["-p", "--tune-seconds", "60"], "--tune-seconds: not allowed with argument --use-pretuned/-p"),
        (["--tune-seconds", "0", "-p"], "--use-pretuned: not allowed with argument --tune-seconds"),
    ):
        with pytest.raises(UserError) as error:
            parse_options(wrong)
        assert str(error.value).startswith(sentence)


def test_test_flag_runs_pytest_with_its_arguments(inside: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "test", "release"):
        (inside.root / f"requirements-{name}.txt").write_text("# nothing\n")
    calls: list[list[str]] = []

    def fake_call(command: list[str | Path]) -> int:
        calls.append([str(word) for word in command[1:]])
        return 5 if "--cov" in calls[-1] else 0

    monkeypatch.setattr(suite, "call", fake_call)
    monkeypatch.setenv("TRIT_REQUIRE_ENGINE", "0")
    assert setup("--test", "--", "-k", "cli") == 0
    assert calls == [["-m", "pytest", "-k", "cli"]]
    assert os.environ["TRIT_REQUIRE_ENGINE"] == "1"
    stamp = json.loads((inside.root / ".venv" / "trit-setup.json").read_text())
    assert {f"requirements{name}.txt" for name in ("", "-train", "-test", "-release")} | {
        "pyproject.toml"
    } <= stamp.keys()
    calls.clear()
    assert setup("--test") == 5
    (whole,) = calls
    assert whole[:4] == ["-m", "pytest", "--cov", "-n"] and 1 <= int(whole[4]) <= 4


def test_real_second_run_is_quick() -> None:
    """In this checkout, if set-up has made it what it is: nothing is left to do, and saying so takes seconds."""
    if os.environ.get("TRIT_REQUIRE_ENGINE") != "1":
        pytest.skip("runs under setup_env.py --test, which has set this checkout up")
    start = time.monotonic()
    command = [sys.executable, "setup_env.py", "--no-run"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("up to date") == 4 and "auto: " in result.stdout, result.stdout
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        ("fpu avx avx2 bmi1 bmi2 f16c fma", False),
        ("fpu avx f16c", True),
        ("fpu avx2x bmi2 f16c fma", True),
        (None, False),
    ],
)
def test_a_cpu_without_avx2_gets_a_build_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str | None, native: bool
) -> None:
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor\t: 0\nvmx flags\t: avx2\nflags\t\t: {flags}\nbugs\t\t: fma\n")
    assert build.needs_native_build(cpuinfo) is native
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    assert build.needs_native_build(cpuinfo) is False
