# SPDX-License-Identifier: MIT
"""Which of our files an unpatched llama.cpp of the same commit opens, and that it then computes what our engine does.

Stock llama.cpp knows the architectures `llama` and `bitnet` (SiLU) and the types tq1_0, tq2_0, q2_0, f16 and f32. It
rounds activations per block where we round them per token, so the results are as far apart as the two roundings; plain
floats have none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.checkpoints import TinyModel, make_checkpoint
from tests.support.stock_engine import build_program, logits, stock_program
from trit.base.places import BUNDLED_MODEL, ENGINE_DIR
from trit.convert.from_checkpoint import Options, convert
from trit.convert.from_random import generate
from trit.gguf.encodings import ENCODINGS
from trit.models.shapes import Shape

SHARED = ("f32", "f16", "tq2_0", "tq1_0", "q2_0")
# Mean Kullback-Leibler divergence: measured 9e-14 and 3e-8 for plain floats, up to 4e-4 with rounded activations; a
# wrong scale or order of weights gives more than 0.1.
LARGEST_KL = {"f32": 1e-10, "f16": 1e-6, "tq2_0": 2e-3, "tq1_0": 2e-3, "q2_0": 2e-3}
LLAMA = Shape("llama", 2, 256, 512, 4, 2, 512, False, 10000.0, 1024, 1e-5, BUNDLED_MODEL)


@pytest.fixture(scope="module")
def ours(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_program(ENGINE_DIR, engine_bin, tmp_path_factory.mktemp("ours") / "logits")


@pytest.fixture(scope="module")
def stock(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stock_program(tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def silu(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A checkpoint of the architecture `bitnet`."""
    return make_checkpoint(tmp_path_factory.mktemp("silu") / "m", "packed-autobitlinear", activation="silu")


def compare(ours: Path, stock: Path, gguf: Path, largest: float) -> None:
    ours_logits, stock_logits = logits(ours, gguf), logits(stock, gguf)
    assert not isinstance(ours_logits, str), ours_logits[-500:]
    assert not isinstance(stock_logits, str), stock_logits[-500:]
    divergence = float((np.exp(stock_logits) * (stock_logits - ours_logits)).sum(axis=-1).mean())
    print(f"{gguf.name}: KL from stock to ours {divergence:.1e}")
    assert abs(divergence) < largest


@pytest.mark.parametrize("outtype", SHARED)
def test_converted_model_runs_in_stock(outtype: str, ours: Path, stock: Path, silu: TinyModel, tmp_path: Path) -> None:
    gguf = tmp_path / f"{outtype}.gguf"
    convert(silu.directory, gguf, Options(ENCODINGS[outtype], "f32"), progress=False)
    compare(ours, stock, gguf, LARGEST_KL[outtype])


@pytest.mark.parametrize("outtype", SHARED)
def test_llama_shape_runs_in_stock(outtype: str, ours: Path, stock: Path, tmp_path: Path) -> None:
    gguf = tmp_path / f"{outtype}.gguf"
    generate("tiny", LLAMA, ENCODINGS[outtype], "f32", gguf)
    compare(ours, stock, gguf, LARGEST_KL[outtype])


@pytest.mark.parametrize("embedding", ["q8_0", "q6_k", "q5_k", "q4_k"])
def test_heads_run_in_stock(embedding: str, ours: Path, stock: Path, silu: TinyModel, tmp_path: Path) -> None:
    gguf = tmp_path / f"{embedding}.gguf"
    convert(silu.directory, gguf, Options(ENCODINGS["tq2_0"], embedding), progress=False)
    compare(ours, stock, gguf, LARGEST_KL["tq2_0"])


def test_split_files_run_in_stock(ours: Path, stock: Path, silu: TinyModel, tmp_path: Path) -> None:
    options = Options(ENCODINGS["tq2_0"], "q6_k", split_bytes=100_000)
    compare(ours, stock, convert(silu.directory, tmp_path / "m.gguf", options, progress=False).paths[0], 2e-3)


@pytest.mark.parametrize(
    ("outtype", "activation", "says"),
    [("i2_s", "silu", "failed to read tensor info"), ("tq2_0", "relu2", "bitnet-b1.58")],
)
def test_what_stock_refuses(outtype: str, activation: str, says: str, ours: Path, stock: Path, tmp_path: Path) -> None:
    """i2_s always, and models with squared ReLU in any encoding; ours runs both."""
    tiny = make_checkpoint(tmp_path / "m", "packed-autobitlinear", activation=activation)
    gguf = tmp_path / "m.gguf"
    convert(tiny.directory, gguf, Options(ENCODINGS[outtype], "f16"), progress=False)
    refusal = logits(stock, gguf)
    assert isinstance(refusal, str) and says in refusal
    assert not isinstance(logits(ours, gguf), str)
