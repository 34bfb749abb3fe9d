# SPDX-License-Identifier: MIT
"""Models in a rotated basis in the compiled engine: folded = unfolded = transformers in float64."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tests.support.agreement import log_probabilities
from tests.support.engine_logits import CONTEXT, divergence, run_engine
from tests.support.foreign_files import keys_of, tensors_of, write_gguf
from tests.support.rotated import Basis, copy_rotated, rotate_model
from tests.support.tiny_checkpoints import qwen35
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.linear_layers import GROUPED
from trit.convert import from_checkpoint, from_gguf
from trit.gguf.encodings import ENCODINGS
from trit.gguf.header import read_raw_header
from trit.gguf.loadable import check_loadable
from trit.gguf.source import Source

HALF = slice(CONTEXT // 2, -1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, Path]:
    """A model and its file of floats, in no rotated basis."""
    folder = tmp_path_factory.mktemp("plain")
    built = qwen35.build("Ternary-Bonsai-27B", GROUPED, seed=1, layers=2, small=False)
    built.write(folder)
    options = from_checkpoint.Options(ENCODINGS["f32"], "f32")
    from_checkpoint.convert(folder, folder / "plain.gguf", options, progress=False)
    return built, folder / "plain.gguf"


def test_folded_is_unfolded_is_transformers(plain: tuple[Built, Path], engine_bin: Path, tmp_path: Path) -> None:
    built, unfolded = plain
    found = run_engine(engine_bin, unfolded, chunks=2)
    wanted = log_probabilities(built.model, found.tokens)[:, HALF]
    for explicit in (True, False):
        folded = copy_rotated(unfolded, tmp_path / "folded.gguf", Basis(explicit=explicit), fold=True)
        check_loadable(folded)
        ours = run_engine(engine_bin, folded, chunks=2).logprobs
        to_theirs = float(np.abs(divergence(wanted, ours)).mean())
        to_unfolded = float(np.abs(divergence(found.logprobs, ours)).mean())
        print(f"explicit {explicit}: KL of folded to transformers {to_theirs:.1e}, to unfolded {to_unfolded:.1e}")
        assert to_theirs < 5e-6 and to_unfolded < 5e-6


def test_published_layouts_of_a_rotated_model(plain: tuple[Built, Path], engine_bin: Path, tmp_path: Path) -> None:
    """PQ2_0 and PTQ1_0, converted to q2_0, against transformers with layers that rotate, then round their input."""
    built, unfolded = plain
    basis = Basis()
    foreign = copy_rotated(unfolded, tmp_path / "pq2_0.gguf", basis, fold=False)
    options = from_gguf.Options(ENCODINGS["q2_0"])
    report = from_gguf.convert(foreign, tmp_path / "q2_0.gguf", options, progress=False)
    assert report.kinds["ptq1_0"] == 3 and report.kinds["pq2_0"] > 10
    check_loadable(tmp_path / "q2_0.gguf")
    found = run_engine(engine_bin, tmp_path / "q2_0.gguf", chunks=2)
    results = {}
    for name, group in (("rounded", 128), ("not rounded", None)):
        model: nn.Module = copy.deepcopy(built.model)
        rotate_model(model, basis, group)
        results[name] = log_probabilities(model, found.tokens)[:, HALF]
    ours = float(np.median(divergence(results["rounded"], found.logprobs)))
    rounding = float(np.median(divergence(results["rounded"], results["not rounded"])))
    wrong = float(np.median(divergence(log_probabilities(built.model, found.tokens)[:, HALF], found.logprobs)))
    line = f"median KL of q2_0 {ours:.1e}, of no rounding {rounding:.1e}, of no rotation {wrong:.1e}"
    print(line)
    assert abs(ours) < 0.35 * rounding and 10 * rounding < wrong, line


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "prism.hadamard.version is not 1"),
        ({"block_size": 96}, "prism.hadamard.block_size is no power of two"),
        ({"transform": "other"}, "prism.hadamard.transform is not normalized"),
        ({"sign_mode": None}, "prism.hadamard.sign_mode is missing"),
        ({"sign_values": [1] * 128}, "prism.hadamard.sign_widths does not share out the 128 numbers"),
        ({"weight_names": ["blk.9.ffn_up.weight"]}, "has blk.9.ffn_up.weight, which the model has not"),
        ({"inverse_weight_names": ["output_norm.weight"]}, "output_norm.weight, which is no table"),
    ],
)
def test_the_engine_refuses_keys_that_it_cannot_follow(
    changes: dict[str, object], reason: str, plain: tuple[Built, Path], engine_bin: Path, tmp_path: Path
) -> None:
    source = copy_rotated(plain[1], tmp_path / "a.gguf", Basis(), fold=True)
    keys = keys_of(read_raw_header(source), **changes)
    path = write_gguf(tmp_path / "b.gguf", keys, tensors_of(Source.open(source)))
    command = [engine_bin / "llama-completion", "-m", path, "-no-cnv", "-n", "1", "-p", "a"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and reason in done.stderr, done.stderr[-1500:]
