# SPDX-License-Identifier: MIT
"""``trit-describe``, which says what the engine packs, against docs/formats.md and the tuning files."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernel_build import TEXT
from tests.support.tiers import TIERS
from trit.base.host import cpu_cores
from trit.engine import tuning_file
from trit.engine.packed import Packed, packed
from trit.gguf.encodings import ENCODINGS

MATRICES = [
    (encoding, n, k)
    for encoding in ("i2_s", "tq2_0", "tq1_0", "q2_0")
    for n, k in [(2560, 2560), (6912, 2560), (2560, 6912), (640, 2560), (1024, 4096), (130, 512), (32, 256), (31, 256)]
]
# Inputs and bytes of one step of a panel of 64 rows (docs/formats.md).
PANEL_ROWS = 64
PANEL_STEPS = {"2_bits": (16, 256), "5_trits": (20, 256), "tl1": (4, 64), "tl2": (24, 320)}
THREADS = (1, 2, 16)
TOKENS = (1, 5, 24, 128)


def panel_bytes(n: int, k: int, packing: str, group: int = 0) -> int:
    """In panels; with scales of their own for groups of inputs if ``group`` is not 0."""
    inputs, step_bytes = PANEL_STEPS[packing]
    groups, width = (k // group, group) if group else (1, k)
    return math.ceil(n / PANEL_ROWS) * groups * (math.ceil(width / inputs) * step_bytes + 2 * PANEL_ROWS * (group > 0))


def tuned(n: int, k: int, threads: int, tunings: Sequence[tuning_file.Tuning]) -> tuning_file.Choice | None:
    """The first tuning that has something near."""
    return next(filter(None, (tuning.nearest(n, k, threads) for tuning in tunings)), None)


def expected_packing(encoding: str, n: int, k: int, head: Mapping[str, Any], forced: str, choice: Any) -> str:
    usual = "5_trits" if "5_trits" in head["packings"] else "2_bits"
    return forced or (choice.packing if choice else None) or usual


def describe(engine_bin: Path, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIT_")}
    return subprocess.run([str(engine_bin / "trit-describe"), *flags], env={**inherited, **env}, **TEXT)


def lines(engine_bin: Path, env: Mapping[str, str]) -> list[dict[str, Any]]:
    flags = ["--matrices", ",".join(f"{encoding}:{n}x{k}" for encoding, n, k in MATRICES)]
    flags += ["--threads", ",".join(map(str, THREADS)), "--m", ",".join(map(str, TOKENS))]
    result = describe(engine_bin, *flags, **env)
    if "this CPU lacks" in result.stderr:
        pytest.skip(result.stderr.strip())
    if "no kernel for it works beside" in result.stderr:
        return []
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("tuning", ["off", "preset", "own"])
@pytest.mark.parametrize("packing", ["", "2_bits", "5_trits", "tl1", "tl2"])
def test_python_and_the_engine_agree(
    engine_bin: Path, tier: str, tuning: str, packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tuning == "own":
        tuning = str(tmp_path / "tuning.json")
        rest = {"lookup": None, "panels": 0, "least_tokens": 0, "gain": 0.0}
        found = [
            tuning_file.Choice(2560, 2560, 2, packing="tl2", **rest),
            tuning_file.Choice(640, 2560, 1, packing=None, **rest),
        ]
        tuning_file.save(Path(tuning), tuning_file.Tuning(tier, "", found))
    env = {"TRIT_TIER": tier, "TRIT_TUNING": tuning, "TRIT_PACKING": packing}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    head, *rest_lines = lines(engine_bin, env) or [{}]
    if not head:
        return
    assert head["tier"] == tier and head["panel_rows"] == PANEL_ROWS
    tunings = [tuning_file.load(Path(tuning))] if Path(tuning).is_file() else []
    tunings += [] if tuning == "off" else filter(None, [tuning_file.preset(tier)])
    matrices = [line for line in rest_lines if line["kind"] == "matrix"]
    assert [(line["encoding"], line["n"], line["k"]) for line in matrices] == MATRICES
    for line in matrices:
        encoding, n, k = line["encoding"], line["n"], line["k"]
        group = ENCODINGS[encoding].scale_inputs
        if n < PANEL_ROWS // 2 or k % max(group, 32):
            assert (line["packing"], line["bytes"], line["grouped_bytes"]) == ("", 0, 0)
            continue
        choice = tuned(n, k, tuning_file.MOST_THREADS, tunings)
        assert line["packing"] == expected_packing(encoding, n, k, head, packing, choice)
        assert line["bytes"] == panel_bytes(n, k, line["packing"])
        grouped = "5_trits" if packing == "5_trits" and group >= 128 else "2_bits"
        assert line["grouped_bytes"] == (panel_bytes(n, k, grouped, group) if group else 0)
        found = packed([(encoding, n, k)], engine_bin)[encoding, n, k]
        assert found == Packed(line["packing"], line["bytes"], line["grouped_bytes"])
    packings = {(line["encoding"], line["n"], line["k"]): line["packing"] for line in matrices}
    products = [line for line in rest_lines if line["kind"] == "product"]
    assert len(products) == len(THREADS) * len(TOKENS) * sum(packing != "" for packing in packings.values())
    for line in products:
        choice = tuned(line["n"], line["k"], line["threads"], tunings)
        made = packings[line["encoding"], line["n"], line["k"]]
        assert (line["few"] != "") == made.startswith("tl")
        if choice and made != "5_trits":
            many = (choice.lookup or "", choice.panels, choice.least_tokens)
            assert (line["many"], line["many_panels"], line["least_tokens"]) == many
        assert line["in_tables"] <= line["m"] and (line["in_tables"] == 0 or (line["many"] and line["m"] > 1))
        assert 1 <= line["block"] <= line["m"]


def test_the_cpu_that_it_names(engine_bin: Path) -> None:
    head = json.loads(describe(engine_bin).stdout.splitlines()[0])
    cores = [dict(word.split("=") for word in text.split(",")) if text else {} for text in head["cores"]]
    assert cores == cpu_cores()


@pytest.mark.parametrize("text", ["i2_s", "2560x2560", "f16:64x64", "i2_s:64", "i2_s:0x64", "i2_s:64x64x64", ""])
def test_a_mistake_is_one_sentence(engine_bin: Path, text: str) -> None:
    result = describe(engine_bin, "--matrices", text)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: --matrices ") and result.stderr.count("\n") == 1
