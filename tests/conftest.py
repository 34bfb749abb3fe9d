# SPDX-License-Identifier: MIT
"""Fixtures for every test: the compiled engine, its kernels, and the bundled model's GGUF."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import markers
from tests.support.avx512_build import build_emulated, need_emulation
from tests.support.kernel_build import COMPILERS, build_kernels
from tests.support.tiers import TIERS, Tier, open_library
from trit.base.errors import UserError
from trit.base.places import BUNDLED_MODEL, ENGINE_BIN, ROOT, engine_binary, gguf_path

QUICK_S = 2.0
# They share built kernels of every tier.
_BUILD_KERNELS = {"ggml", "kernels", "matrix", "engine/test_leaks.py", "house/test_repo.py"}
QUICK = "not (engine or torch or compiles)"


def _wanted(config: pytest.Config) -> Callable[[set[str]], bool]:
    """Whether -m selects a test with these markers; its language is that of Python's boolean expressions."""
    expression = config.getoption("-m")
    if not expression or set(re.findall(r"\w+", expression)) - {"and", "or", "not", *markers.MARKERS}:
        return lambda marked: True
    code = compile(expression, "-m", "eval")
    return lambda marked: bool(eval(code, {name: name in marked for name in markers.MARKERS}))


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    for name, meaning in markers.MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files whose tests are all deselected by -m: importing torch alone takes seconds."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    return markers.none_is_wanted(markers.of_file(collection_path), _wanted(config)) or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by its file and its fixtures."""
    for item in items:
        found = markers.of_file(item.path) | markers.of_fixtures(set(getattr(item, "fixturenames", ())))
        for name in sorted(found):
            item.add_marker(name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Keep a room's tests in one process: what they build together is built once."""
    # By name, since loadgroup's marks do not reach the scheduler with this pytest.
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].removeprefix("tests/")
            room = file.partition("/")[0]
            if file == "kernels/test_cross.py":
                return file
            return "kernels" if {room, file} & _BUILD_KERNELS else room

    return Rooms(config, log)


def _cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """In the quick path, whatever needs more than QUICK_S of CPU fails: it belongs under a marker, or is too slow."""
    begun = _cpu()
    result = yield
    took = _cpu() - begun
    if took > QUICK_S and item.config.getoption("-m") == QUICK:
        pytest.fail(f"took {took:.1f} s of CPU, {QUICK_S:g} are allowed without a marker; make it quicker or mark it")
    return result


_seconds: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the time of a room's tests, fixtures included."""
    _seconds[report.nodeid.partition("::")[0].rpartition("/")[0]] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long each room took."""
    if sum(_seconds.values()) > QUICK_S:
        terminalreporter.section("time of each room")
        for room, seconds in _seconds.most_common():
            terminalreporter.write_line(f"{seconds:8.1f} s  {room}")


# Shells start background jobs with SIGINT ignored, and programs inherit that: the tests of Ctrl-C would test nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same of nohup, which is to go on: programs do not inherit a handler.
if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)

# Set by `setup_env.py --test`, which builds the engine first: there a missing engine is a failure, not a skip.
REQUIRE_ENGINE = os.environ.get("TRIT_REQUIRE_ENGINE") == "1"


def missing(reason: str) -> None:
    """Skip visibly, or fail where everything is promised to be there."""
    if REQUIRE_ENGINE:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def home_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What belongs to no checkout is not the user's own, here and in programs that are started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def engine_bin() -> Path:
    """Folder with the compiled llama-* programs."""
    try:
        engine_binary("llama-completion")
    except UserError as error:
        missing(str(error))
    return ENGINE_BIN


@pytest.fixture(scope="session")
def loader(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that loads files of a list with the engine, each in a process of its own."""
    from tests.fuzz.engine import build  # imports what a run without the engine need not have

    assert engine_bin.is_dir()
    return build(tmp_path_factory.mktemp("loader"), plain=True)


@pytest.fixture(scope="session")
def library(engine_bin: Path) -> ctypes.CDLL:
    """libtrit, the kernels without the engine."""
    return open_library(engine_bin)


@pytest.fixture(scope="session")
def scalar(library: ctypes.CDLL) -> Tier:
    return Tier(library.trit_tier_by_name(b"scalar").contents)


@pytest.fixture(scope="session")
def emulated_avx512(library: ctypes.CDLL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs in which AVX-512 is functions (avx512_build.py)."""
    need_emulation(library)
    return build_emulated(tmp_path_factory.mktemp("avx512"))


def tier_of(library: ctypes.CDLL, name: str) -> Tier:
    pointer = library.trit_tier_by_name(name.encode())
    assert pointer, f"src/kernels/tiers/{name}.cpp is not in the build"
    if not pointer.contents.supported():
        pytest.skip(f"this CPU cannot run tier {name} (needs {pointer.contents.features.decode()})")
    return Tier(pointer.contents)


@pytest.fixture(scope="session", params=TIERS)
def native_tier(request: pytest.FixtureRequest, library: ctypes.CDLL) -> Tier:
    """Every tier of the source that this CPU can run."""
    return tier_of(library, request.param)


@pytest.fixture(scope="session", params=TIERS)
def tier(request: pytest.FixtureRequest, library: ctypes.CDLL) -> Tier:
    """The same, but those of AVX-512 rather emulated than skipped."""
    if (
        request.param.startswith("avx512")
        and not library.trit_tier_by_name(request.param.encode()).contents.supported()
    ):
        return tier_of(open_library(request.getfixturevalue("emulated_avx512")), request.param)
    return tier_of(library, request.param)


@pytest.fixture(scope="session", params=COMPILERS)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels alone, compiled afresh without a warning by each compiler."""
    return build_kernels(tmp_path_factory.mktemp("kernels") / request.param, request.param)


@pytest.fixture(scope="session")
def story_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as i2_s: the file that set-up made if it is up to date, else converted here once."""
    if not (BUNDLED_MODEL / "config.json").is_file():
        missing(f"the bundled model is not there ({BUNDLED_MODEL / 'config.json'})")
    made = gguf_path(BUNDLED_MODEL)
    inputs = [path for path in BUNDLED_MODEL.iterdir() if path.suffix in {".json", ".safetensors"}]
    inputs += [path for room in ("convert", "gguf", "models") for path in (ROOT / "trit" / room).rglob("*.py")]
    if made.is_file() and made.stat().st_mtime >= max(path.stat().st_mtime for path in inputs):
        return made
    output = tmp_path_factory.mktemp("story") / made.name
    command = [sys.executable, "-m", "trit.convert", str(BUNDLED_MODEL), "--outtype", "i2_s"]
    subprocess.run([*command, "--outfile", str(output)], cwd=ROOT, check=True)
    return output


@pytest.fixture(scope="session")
def plain_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but pip, for tests of set-up."""
    path = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
    return path
