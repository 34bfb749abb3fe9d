# SPDX-License-Identifier: MIT
"""Which preset a CPU gets: the nearest one of its tier, in the engine and in Python, on made-up CPUs and presets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernel_build import TEXT, build_kernels, call, need
from tests.support.tiers import TIERS
from trit.base.host import cpu_cores
from trit.base.places import ROOT
from trit.engine import tuning_file

ZEN_3 = {"vendor": "AuthenticAMD", "family": 25, "model": 1}
HASWELL = {"vendor": "GenuineIntel", "family": 6, "model": 60}
CORTEX_A76 = {"implementer": "0x41", "part": "0xd0b"}
# Each is of tier scalar, which every CPU has, unless it says another.
PRESETS: list[dict[str, Any]] = [
    {"match": [{}]},
    {"match": [{"vendor": "AuthenticAMD", "family": 25}]},
    {"match": [HASWELL, {**HASWELL, "model": 63}]},
    {"match": [ZEN_3, {"vendor": "AuthenticAMD", "family": 23}]},
    {"match": [CORTEX_A76]},
    {"match": [{"name": "Apple M2"}]},
    {"match": [{"vendor": "Made Up", "family": 1}], "tables": {"tl1": "tl1_that_this_build_lacks"}},
    {"match": [HASWELL], "tier": "avx9000"},
]
# Cores of a CPU -> the preset.
CASES = {
    "exactly": ([ZEN_3], 3),
    "the family": ([{**ZEN_3, "model": 33}], 1),
    "another entry's family": ([{**ZEN_3, "family": 23, "model": 49}], 3),
    "one of several models": ([{**HASWELL, "model": 63}], 2),
    "of Intel's family 6, another": ([{**HASWELL, "model": 190}], 0),
    "another vendor's numbers": ([{**ZEN_3, "vendor": "HygonGenuine"}], 0),
    "one of two kinds of cores": ([{"implementer": "0x41", "part": "0xd05"}, CORTEX_A76], 4),
    "unknown ARM": ([{"implementer": "0x46", "part": "0x001"}], 0),
    "by name": ([{"name": "Apple M2"}], 5),
    "unknown name": ([{"name": "Apple M9"}], 0),
    "of what is unknown": ([{}], 0),
}


def files() -> list[dict[str, Any]]:
    """The presets as files: preset i has 64 * 8^i rows, so that no shape is in reach of another."""
    rest = {"packing": "5_trits", "lookup": None, "panels": 0, "least_tokens": 0, "gain": 0.0}
    return [
        {"format": tuning_file.FORMAT, "tier": "scalar", "cpu": str(i), "key": "", "layers": [], **preset,
         "shapes": [{"n": 64 * 8**i, "k": 32, "threads": 1, **rest}]}
        for i, preset in enumerate(PRESETS)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("c++")
    json_library = ROOT / "3rdparty" / "llama.cpp" / "vendor"
    if not json_library.is_dir():
        pytest.skip(f"{json_library} is not there: run setup_env.py")
    folder = tmp_path_factory.mktemp("presets")
    # Last first: what is nearest counts, not what comes first.
    (folder / "trit_presets.inc").write_text("".join(f'R"json({json.dumps(file)})json",\n' for file in files()[::-1]))
    kernels = build_kernels(folder / "kernels", None, targets=("trit_objects",))
    objects = sorted((kernels / "src" / "CMakeFiles" / "trit_objects.dir").rglob("*.cpp.o"))
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    flags += [f"-I{ROOT / 'include'}", f"-I{ROOT / 'src'}", f"-I{folder}", "-isystem", str(json_library)]
    sources = [ROOT / "src" / "matrix" / name for name in ("own_file.cpp", "tuning_file.cpp")]
    sources.append(ROOT / "tests" / "support" / "preset_choice.cpp")
    call("c++", *flags, *sources, *objects, "-o", folder / "preset_choice")
    return folder / "preset_choice"


def run(program: Path, *cores: dict[str, Any], **env: str) -> list[str]:
    texts = [",".join(f"{name}={value}" for name, value in core.items()) for core in cores]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIT_")}
    done = subprocess.run([str(program), *texts], env={**inherited, "TRIT_TIER": "scalar", **env}, **TEXT)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("case", CASES)
def test_the_nearest_preset_is_used(program: Path, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cores, expected = CASES[case]
    assert run(program, *cores)[0] == run(program, *cores, TRIT_TUNING="preset")[0] == str(expected)
    for i, file in enumerate(files()):
        (tmp_path / f"{9 - i}.json").write_text(json.dumps(file))
    monkeypatch.setattr(tuning_file, "PRESETS", tmp_path)
    preset = tuning_file.preset("scalar", [{name: str(value) for name, value in core.items()} for core in cores])
    assert preset and preset.cpu == str(expected)


def test_a_preset_that_names_what_is_not_built_in_leaves_the_next(program: Path) -> None:
    assert run(program, {"vendor": "Made Up", "family": 1})[0] == "0"


def test_without_presets_none_is_used(program: Path) -> None:
    assert run(program, ZEN_3, TRIT_TUNING="off")[0] == "none"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Python knows less than the engine")
def test_the_engine_and_python_name_this_cpu_alike(program: Path) -> None:
    found = [dict(word.split("=") for word in line.rstrip(",").split(",")) for line in run(program)[1:]]
    assert found == cpu_cores()


def test_cores_of_a_made_up_cpuinfo(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    arm = "processor\t: {}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {}\n"
    path.write_text("\n".join(arm.format(i, part) for i, part in enumerate(["0xd05", "0xd05", "0xd0b"])))
    assert cpu_cores(path) == [{"implementer": "0x41", "part": "0xd05"}, CORTEX_A76]
    x86 = "processor\t: {}\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n"
    path.write_text("\n".join(map(x86.format, range(2))))
    assert cpu_cores(path) == [{name: str(value) for name, value in ZEN_3.items()}]
    path.write_text("something else\n")
    assert cpu_cores(path) == [{}]


def test_every_tier_has_one_preset_for_any_cpu_and_no_cpu_has_two() -> None:
    presets = [tuning_file.load(path) for path in tuning_file.PRESETS.glob("*.json")]
    anyone = [preset.tier for preset in presets if {} in preset.match]
    assert sorted(anyone) == sorted(set(TIERS) - {"scalar"})
    entries = Counter((preset.tier, json.dumps(entry, sort_keys=True)) for preset in presets for entry in preset.match)
    assert max(entries.values()) == 1


def test_a_preset_is_written_for_the_cpu_that_it_was_measured_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning_file, "PRESETS", tmp_path)
    zen_3 = {name: str(value) for name, value in ZEN_3.items()}
    monkeypatch.setattr(tuning_file, "cpu_cores", lambda: [zen_3])
    path, old = tuning_file.own_preset("avx2")
    assert (path.name, old) == ("avx2-authenticamd-25-1.json", None)
    tuning_file.save(path, tuning_file.Tuning("avx2", "", [], match=[zen_3]))
    tuning_file.save(tmp_path / "avx2.json", tuning_file.Tuning("avx2", "", [], match=[{}], cpu="any"))
    found, same = tuning_file.own_preset("avx2")
    assert found == path and same and list(same.match) == [zen_3]
    other = {**zen_3, "model": "33"}
    assert [preset.cpu == "any" for preset in map(tuning_file.preset, ["avx2"] * 2, [[zen_3], [other]]) if preset] == [
        False,
        True,
    ]
