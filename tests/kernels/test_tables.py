# SPDX-License-Identifier: MIT
"""Panels of table indices (TL1, TL2): their bytes, their way back to 2 bits, and the engine with weights packed so."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.test_panels import pack
from tests.support.tiers import ROOT, ROWS, TABLE_PACKINGS, at_page_end

TL1, TL2 = TABLE_PACKINGS["tl1"], TABLE_PACKINGS["tl2"]


def expected_bytes(packing: int, codes: np.ndarray) -> np.ndarray:
    """The panel as the comment in src/kernels/panel.cpp says it; rows that are missing are not compared."""
    rows, k = codes.shape
    if packing == TL1:
        padded = np.zeros((rows, -(-k // 4) * 4), dtype=np.uint8)
        padded[:, :k] = codes
        u = padded.reshape(rows, -1, 4).transpose(1, 2, 0)  # step, input, row
        return u[:, 0] + 3 * u[:, 1] + 16 * (u[:, 2] + 3 * u[:, 3])
    weights = np.zeros((rows, -(-k // 24) * 24), dtype=np.int64)
    weights[:, :k] = codes.astype(np.int64) - 1
    triples = (weights.reshape(rows, -1, 8, 3) @ [9, 3, 1]).transpose(1, 2, 0)  # step, triple, row
    halves, signs = np.abs(triples), (triples < 0).astype(np.int64)
    vectors = [halves[:, 2 * v] + 16 * halves[:, 2 * v + 1] for v in range(4)]
    vectors.append(sum(signs[:, i] << 7 - i for i in range(8)))
    return np.stack(vectors, axis=1).astype(np.uint8).reshape(-1, rows)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([TL1, TL2]), st.integers(1, 200), st.integers(1, ROWS), st.integers(0, 40), st.integers(0, 2**32)
)
def test_bytes_are_those_of_the_comment(
    library: ctypes.CDLL, packing: int, k: int, rows: int, gap: int, seed: int
) -> None:
    codes = np.random.default_rng(seed).integers(0, 3, (rows, k), dtype=np.uint8)
    panel = pack(library, packing, codes, gap)
    np.testing.assert_array_equal(panel.reshape(-1, ROWS)[:, :rows], expected_bytes(packing, codes))


@pytest.mark.parametrize("packing", [TL1, TL2])
def test_code_3_is_refused(library: ctypes.CDLL, packing: int) -> None:
    for row, place in [(0, 0), (63, 0), (31, 19), (63, 59)]:
        codes = np.full((ROWS, 60), 2, dtype=np.uint8)
        codes[row, place] = 3
        panel = np.zeros(library.trit_panel_bytes(packing, 60), dtype=np.uint8)
        assert library.trit_panel_pack(packing, 60, ROWS, codes.ctypes.data, 60, panel.ctypes.data) == 0


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([TL1, TL2]), st.integers(1, 40), st.integers(1, ROWS), st.integers(0, 2**32))
def test_the_way_back_gives_the_panel_of_2_bits(
    library: ctypes.CDLL, packing: int, k32: int, rows: int, seed: int
) -> None:
    codes = np.random.default_rng(seed).integers(0, 3, (rows, 32 * k32), dtype=np.uint8)
    out = at_page_end(np.full(library.trit_panel_bytes(0, 32 * k32), 0xA5, dtype=np.uint8))
    panel = pack(library, packing, codes)
    library.trit_panel_to_2_bits(packing, 32 * k32, panel.ctypes.data, out.ctypes.data)
    of_these = out.reshape(-1, ROWS, 4)[:, :rows]
    np.testing.assert_array_equal(of_these, pack(library, 0, codes).reshape(-1, ROWS, 4)[:, :rows])


def test_tl2_takes_less_than_1_70_bits_in_every_matrix_of_2b_4t(library: ctypes.CDLL) -> None:
    for k in (2560, 6912):
        assert library.trit_panel_bytes(TL2, k) * 8 / (ROWS * k) <= 1.70
        assert library.trit_panel_bytes(TL1, k) * 8 == 2 * ROWS * k


@pytest.mark.parametrize("packing", TABLE_PACKINGS)
def test_the_engine_gives_the_same_bits(engine_bin: Path, packing: str) -> None:
    """Tests of packed tensors again, in a process whose weights are packed so: the loader decides once."""
    env = {**os.environ, "TRIT_PACKING": packing}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "i2_s or tq1_0",
        "tests/matrix/test_packed.py",
    ]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout[-4000:]
    assert re.search(r"\b[1-9]\d* passed", result.stdout)


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}]
from tests.support.guarded_ggml import same_bits
from tests.support.packed_weights import PackedGgml, Weights, activations
from trit.gguf.encodings import ENCODINGS
for name, n, k in (("i2_s", 400, 256), ("tq2_0", 2700, 2560), ("tq1_0", 100, 512), ("i2_s", 65, 7040)):
    weights = Weights.random(name, "one", n, k)
    ggml = PackedGgml(Path({engine!r}))
    w = ggml.packed(weights)
    for m in (*range(1, 34), *((128, 129) if n == 100 else ())):
        x = activations(m, k)
        node, expected = ggml.mul_mat(w, x), weights.times(x)
        for threads in (1, 2, 3):
            same_bits(ggml.compute(node, (m, n), threads), expected, f"{{name}} {{n}} x {{k}}, m = {{m}}")
    ggml.close()
ggml = PackedGgml(Path({engine!r}))
w = ggml.in_buffer(ENCODINGS["i2_s"].ggml_type, 6912, 640)
print("all equal; bytes:", ggml.base("ggml_backend_buft_get_alloc_size", ggml.type, w).value)
"""


@pytest.mark.parametrize("packing", ["2_bits", *TABLE_PACKINGS])
def test_every_number_of_tokens_up_to_33(engine_bin: Path, library: ctypes.CDLL, packing: str) -> None:
    script = DRIVER.format(root=str(ROOT), engine=str(engine_bin))
    env = {**os.environ, "TRIT_PACKING": packing}
    result = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    number = {"2_bits": 0, **TABLE_PACKINGS}[packing]
    # The header, and panels of this packing: the variable was heard.
    assert result.stdout == f"all equal; bytes: {64 + 10 * library.trit_panel_bytes(number, 6912)}\n"


def entry_point(packing: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "utils" / f"codegen_{packing}.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


# The tiles that bitnet.cpp's set-up passes.
BITNET_TILES = [
    ("tl1", "bitnet_b1_58-large", "256,128,256", "128,64,128", "32,64,32"),
    ("tl1", "Llama3-8B-1.58-100B-tokens", "256,128,256,128", "128,64,128,64", "32,64,32,64"),
    ("tl1", "bitnet_b1_58-3B", "160,320,320", "64,128,64", "32,64,32"),
    ("tl2", "bitnet_b1_58-large", "256,128,256", "96,192,96", "32,32,32"),
    ("tl2", "Llama3-8B-1.58-100B-tokens", "256,128,256,128", "96,96,96,96", "32,32,32,32"),
    ("tl2", "bitnet_b1_58-3B", "160,320,320", "96,96,96", "32,32,32"),
]


@pytest.mark.parametrize(("packing", "model", "big_m", "big_k", "block"), BITNET_TILES)
def test_bitnet_cpps_commands_go_on_working(
    tmp_path: Path, packing: str, model: str, big_m: str, big_k: str, block: str
) -> None:
    flags = ["--model", model, "--BM", big_m, "--BK", big_k, "--bm", block, "--outdir", str(tmp_path)]
    result = entry_point(packing, *flags)
    assert result.returncode == 0, result.stderr
    tiles = list(zip(*(text.split(",") for text in (big_m, big_k, block)), strict=True))
    paths = [Path(line) for line in result.stdout.splitlines()[:-1]]
    assert len(paths) == len(set(tiles)) and sorted(paths) == sorted(tmp_path.iterdir())
    for rows, inputs, registers in tiles:
        made = re.compile(rf"{packing}_\w+_{-(-int(rows) // ROWS) * ROWS}x{inputs}x{registers}\.cpp")
        assert any(made.fullmatch(path.name) for path in paths), (rows, inputs, registers)


def test_rows_in_registers_are_at_least_one_register(tmp_path: Path) -> None:
    """bitnet.cpp knows 32 rows at most for tl2; a register of AVX-512 has 64."""
    flags = ["--BM", "160,320,320", "--BK", "96,96,96", "--bm", "32,32,32", "--outdir", str(tmp_path)]
    result = entry_point("tl2", "--model", "bitnet_b1_58-3B", "--tier", "avx512_vbmi", *flags)
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["tl2_avx512_vbmi_192x96x64.cpp", "tl2_avx512_vbmi_320x96x64.cpp"]


def test_a_model_of_ours_is_known_by_its_name(tmp_path: Path) -> None:
    flags = ["--BM", "640,640,768,640", "--BK", "640,640,640,768", "--bm", "32,32,64,64", "--outdir", str(tmp_path)]
    result = entry_point("tl1", "--model", "bitnet-2b-4t", *flags)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.iterdir())) == 3  # two of the four tiles are the same


@pytest.mark.parametrize(
    ("packing", "changed", "rule"),
    [
        ("tl1", {"model": "input"}, "--model input: expected one of bitnet_b1_58-large"),
        ("tl1", {"BM": "160,320"}, "--BM 160,320: expected 3 whole numbers with commas, one for each of 3200x8640"),
        ("tl1", {"BK": "input"}, "--BK input: expected 3 whole numbers"),
        ("tl1", {"BM": "256,320,320"}, "--BM 256: expected a divisor of the 3200 rows of the matrix of 3200 x 8640"),
        ("tl1", {"BK": "64,96,64"}, "--BK 96: expected a divisor of the 3200 inputs of the matrix of 3200 x 3200"),
        ("tl1", {"bm": "32,16,32"}, "--bm 16: expected 32 or 64 for tl1"),
        ("tl1", {"bm": "64,64,64"}, "--bm 64: expected a divisor of BM = 160"),
        ("tl1", {"BM": "0,320,320"}, "--BM 0 --BK 64: expected numbers from 1 on"),
        ("tl2", {"BK": "100,96,96"}, "--BK 100: 8640 % 100 = 40 of the matrix of 3200 x 8640, expected a multiple"),
        ("tl2", {"BK": "96,96,1000"}, "--BK 1000: 3200 % 1000 = 200 of the matrix of 8640 x 3200, expected a multiple"),
        ("tl2", {"bm": "32,64,32"}, "--bm 64: expected 32 for tl2"),
    ],
)
def test_a_wrong_tile_is_refused_with_its_rule(
    tmp_path: Path, packing: str, changed: dict[str, str], rule: str
) -> None:
    flags = {"model": "bitnet_b1_58-3B", "BM": "160,320,320", "BK": "64,128,64", "bm": "32,32,32"} | changed
    result = entry_point(packing, *(f"--{name}={text}" for name, text in flags.items()), f"--outdir={tmp_path}")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert rule in result.stderr
    assert not list(tmp_path.iterdir())


def selftest(engine_bin: Path, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRIT_")}
    program = engine_bin / "trit-selftest"
    return subprocess.run([program], env={**inherited, **env}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"TRIT_PACKING": "tl3"}, "TRIT_PACKING=tl3: there is no such packing; there are 2_bits 5_trits tl1 tl2"),
        ({"TRIT_PACKING": "tl1", "TRIT_LOOKUP": "off"}, "TRIT_PACKING=tl1: no kernel for it works beside tier "),
        ({"TRIT_PACKING": "5_trits", "TRIT_TIER": "avx2"}, "TRIT_PACKING=5_trits: no kernel for it works beside tier "),
    ],
)
def test_a_packing_that_is_not_there_is_one_sentence_and_exit_code_2(
    engine_bin: Path, env: dict[str, str], sentence: str
) -> None:
    result = selftest(engine_bin, **env)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert result.stderr.startswith(f"error: {sentence}")
