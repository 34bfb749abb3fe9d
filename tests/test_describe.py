# SPDX-License-Identifier: MIT
"""``trit-describe``, which says what the engine packs, against what Python decides by itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kernel_build import TEXT

from tiers import TIERS
from utils.bench import work
from utils.host import cpu_cores
from utils.tune import store
from utils.weight_encodings import ENCODINGS

MATRICES = [
    (encoding, n, k)
    for encoding in ("i2_s", "tq2_0", "tq1_0", "q2_0")
    for n, k in [(2560, 2560), (6912, 2560), (2560, 6912), (640, 2560), (1024, 4096), (130, 512), (32, 256), (31, 256)]
]
THREADS = (1, 2, 16)
TOKENS = (1, 5, 24, 128)


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
        found = [store.Choice(2560, 2560, 2, packing="tl2", **rest), store.Choice(640, 2560, 1, packing=None, **rest)]
        store.save(Path(tuning), store.Tuning(tier, "", found))
    env = {"TRIT_TIER": tier, "TRIT_TUNING": tuning, "TRIT_PACKING": packing}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    head, *rest_lines = lines(engine_bin, env) or [{}]
    if not head:
        return
    assert head["tier"] == tier and head["panel_rows"] == work.PANEL_ROWS
    decided = work.Packing.of_tier(tier, head["packings"])
    matrices = [line for line in rest_lines if line["kind"] == "matrix"]
    assert [(line["encoding"], line["n"], line["k"]) for line in matrices] == MATRICES
    for line in matrices:
        encoding, n, k = line["encoding"], line["n"], line["k"]
        group = ENCODINGS[encoding].block if ENCODINGS[encoding].ggml_type in work.SCALE_PLACES else 0
        if n < work.LEAST_ROWS or k % max(group, work.ALIGNMENT):
            assert (line["packing"], line["bytes"], line["grouped_bytes"]) == ("", 0, 0)
            continue
        assert line["packing"] == decided.of(ENCODINGS[encoding].ggml_type, n, k)
        assert line["bytes"] == work.packed_bytes(n, k, line["packing"])
        assert line["grouped_bytes"] == (work.packed_bytes(n, k, "2_bits", group) if group else 0)
    packings = {(line["encoding"], line["n"], line["k"]): line["packing"] for line in matrices}
    products = [line for line in rest_lines if line["kind"] == "product"]
    assert len(products) == len(THREADS) * len(TOKENS) * sum(packing != "" for packing in packings.values())
    for line in products:
        choice = decided.tuning.nearest(line["n"], line["k"], line["threads"]) if decided.tuning else None
        packed = packings[line["encoding"], line["n"], line["k"]]
        assert (line["few"] != "") == packed.startswith("tl")
        if choice and packed != "5_trits":
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
