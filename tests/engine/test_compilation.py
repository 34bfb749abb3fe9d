# SPDX-License-Identifier: MIT
"""How the engine is compiled (cmake/compile_time.cmake): what costs time at each token fully, and nothing twice."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from trit.base.places import BUILD_DIR, ROOT

# Of paths in the checkout.
HOT = (
    r"src/(ggml|kernels|matrix)/(?!arguments|own_file|request_bounds|rotation|server_access|tuning_file|vocabulary_main|watched_file).*",
    r"preset_kernels/.*",
    r"3rdparty/llama\.cpp/ggml/src/(ggml-cpu/.*|ggml\.c|ggml-(alloc|backend|quants|threading)\.c(pp)?)",
    r"3rdparty/llama\.cpp/src/(llama|llama-(batch|context|grammar|graph|kv-cache.*|memory.*|sampler|vocab)|unicode)\.cpp",
    r"3rdparty/llama\.cpp/common/(sampling|speculative|ngram-.*)\.cpp",
)
# Once in the kernels' library, once in ggml's base library, which is below it.
TWICE = {"src/matrix/encodings.cpp"}


@pytest.fixture(scope="module")
def commands(engine_bin: Path) -> list[tuple[str, list[str]]]:
    """Each compiled file, by its path in the checkout or the build folder, and the words of its command."""
    entries = json.loads((BUILD_DIR / "compile_commands.json").read_text(encoding="utf-8"))
    words = [(Path(entry["file"]), shlex.split(entry["command"])) for entry in entries]
    assert engine_bin.parent == BUILD_DIR
    if not any(word.startswith("-O") for word in words[0][1]):
        pytest.skip("not a build by gcc or clang with a build type")
    places = [path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path) for path, _ in words]
    return [(place, command) for place, (_, command) in zip(places, words, strict=True)]


def level(command: list[str]) -> str:
    """The optimisation that holds: the last one."""
    return [word for word in command if re.fullmatch(r"-O\w*", word)][-1]


@pytest.mark.parametrize("pattern", HOT)
def test_what_runs_for_each_token_is_optimised_fully(commands: list[tuple[str, list[str]]], pattern: str) -> None:
    levels = {place: level(command) for place, command in commands if re.fullmatch(pattern, place)}
    assert levels, "no such file is compiled"
    assert set(levels.values()) == {"-O3"}, {place: found for place, found in levels.items() if found != "-O3"}


def test_what_runs_once_is_compiled_quickly(commands: list[tuple[str, list[str]]]) -> None:
    cold = [level(command) for place, command in commands if place.endswith(("common/arg.cpp", "mtmd/clip.cpp"))]
    assert cold == ["-O1", "-O1"]


def test_no_file_is_compiled_twice(commands: list[tuple[str, list[str]]]) -> None:
    of_engine = [place for place, _ in commands if not re.search(r"/tools/(?!server|mtmd/[^d])", place)]
    again = {place for place, count in Counter(of_engine).items() if count > 1}
    assert again == TWICE


def test_files_with_the_same_headers_are_one_compilation(commands: list[tuple[str, list[str]]]) -> None:
    places = [place for place, _ in commands]
    together = [
        place for place in places if re.search(r"/Unity/unity_(chat|jinja|models|parts|schema)_cxx\.cxx$", place)
    ]
    assert len(together) == 5
    assert not [
        place for place in places if re.search(r"llama\.cpp/(common/(jinja|parsers)|tools/mtmd/models)/", place)
    ]
