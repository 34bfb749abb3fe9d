# SPDX-License-Identifier: MIT
"""The statistic of ``trit.verify``: a rounding that falls otherwise is no failure, an error is a clear one.

Which way a value half way between two integers is rounded depends on the CPU. So right engines are simulated here, too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from tests.support.proofs import ON_THE_EDGE, QUICK, Case, Proof, enlarge, prepare, scale_up
from trit.engine.logprobs import SavedLogprobs
from trit.gguf.types import GGMLQuantizationType as Type
from trit.verify import engine, layers, logits, noise, reference, texts
from trit.verify.report import FAILED, PASSED, Check
from trit.verify.weights import GgufFile

Floats = npt.NDArray[np.float64]
CONTEXT, CHUNKS = int(QUICK[1]), int(QUICK[3])
# What a real fault is beyond its bound, at least; measured: 1,400 and more (docs/verify.md).
WIDE = 100
# What was seen on a CPU with AMX, at 62 positions: nearly all this far, and one flip that no float32 run of it had.
QUIET, FLIP = 2.7e-7, 2.0e-4


@pytest.fixture(scope="module")
def proof(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    """The model of which one flip was taken for a failure."""
    case = Case("bitnet", "BitNet-b1.58-2B-4T", "master-bf16", "i2_s", "f16")
    return prepare(case, tmp_path_factory.mktemp("noise"))


def check_logits(proof: Proof, file: GgufFile, folder: Path) -> Check:
    return logits.check_logits(proof.reference, file, texts.TEXT, folder, CONTEXT, CHUNKS)[0]


def check_layers(proof: Proof, file: GgufFile, folder: Path) -> list[Check]:
    with engine.hidden_server(file.path, 1, CONTEXT) as server:
        return layers.check_layers(proof.reference, file, proof.sequences, server, folder, 1)


def one_trit_in_a_thousand(data: bytearray, header: Any) -> None:
    """Another of -1, 0, +1 in every matrix, at every thousandth place or so; a byte holds four, the scale is behind."""
    for name, entry in header.tensors.items():
        if not name.startswith("blk.") or "norm" in name:
            continue
        for place in range(entry.offset + 7, entry.offset + entry.nbytes - 32, 250):
            code = data[place] >> 4 & 3
            data[place] += 16 if code < 2 else -32


def swap_heads(data: bytearray, header: Any, heads: int = 4) -> None:
    """The first two heads of the queries: rows one behind the other, so that the outputs change places."""
    entry = header.tensors["blk.0.attn_q.weight"]
    size = (entry.nbytes - 32) // heads
    first, second = (slice(entry.offset + i * size, entry.offset + (i + 1) * size) for i in range(2))
    data[first], data[second] = data[second], data[first]


FAULTS: dict[str, Callable[[bytearray, Any], None]] = {
    "a scale off by 1 % in the first block": scale_up,
    "a scale off by 1 % in the last block": partial(scale_up, block=1),
    "one wrong trit in a thousand": one_trit_in_a_thousand,
    "two heads swapped": swap_heads,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_file_fail_by_far(fault: str, proof: Proof, tmp_path: Path) -> None:
    file = proof.changed(tmp_path, FAULTS[fault])
    checks = [check_logits(proof, file, tmp_path), check_layers(proof, file, tmp_path)[-1]]
    assert [check.status for check in checks] == [FAILED, FAILED]
    assert min(check.values["excess"] for check in checks) >= WIDE, checks


def test_another_activation_fails_by_far(proof: Proof, tmp_path: Path) -> None:
    """SiLU in place of the squared ReLU; the file cannot say so, so the reference is the one that has it."""
    model, file = proof.reference.model, GgufFile(proof.gguf)
    right = {name: module for name, module in model.named_modules() if name.endswith("act_fn")}
    assert len(right) == 2
    for name in right:
        model.set_submodule(name, nn.SiLU())
    try:
        checks = [check_logits(proof, file, tmp_path), *check_layers(proof, file, tmp_path)]
    finally:
        for name, module in right.items():
            model.set_submodule(name, module)
    assert min(check.values["excess"] for check in checks) >= WIDE, checks


def test_the_right_file_passes_by_far(proof: Proof, tmp_path: Path) -> None:
    """Distances, that is; the number of flips is a matter of the CPU."""
    file = GgufFile(proof.gguf)
    check = check_logits(proof, file, tmp_path)
    assert check.status == PASSED and check.values["nearest"][0] < check.values["bound"] / 10, check
    for check in check_layers(proof, file, tmp_path):
        assert check.status == PASSED and check.values["errors"][0] < check.values["bound"] / 10, check


def test_where_flips_are_everywhere_the_layers_see_more(engine_bin: Path, tmp_path: Path) -> None:
    """A flip in each of the first tokens: KL divergence cannot tell 1 % of a scale from that, layer 1 can."""
    proof = prepare(Case(*ON_THE_EDGE), tmp_path)
    assert check_logits(proof, GgufFile(proof.gguf), tmp_path).status == PASSED
    changed = proof.changed(tmp_path, enlarge("blk.0.attn_output.weight"))
    assert min(check.values["excess"] for check in check_layers(proof, changed, tmp_path)) >= WIDE


def test_right_engines_of_other_cpus_pass(proof: Proof, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference with noise of float32's epsilon, of seeds that are none of the runs', as if it were the engine."""
    file, ids = GgufFile(proof.gguf), np.array(proof.sequences, np.int32).reshape(CHUNKS, CONTEXT)
    ids[:, 0] = file.field("tokenizer.ggml.bos_token_id")
    whole = partial(proof.reference.logprobs, ids.astype(np.int64), slice(CONTEXT // 2, -1))
    with monkeypatch.context() as context:
        context.setattr(reference, "NOISE", torch.finfo(torch.float32).eps)
        engines = proof.reference.runs(whole, range(1000, 1006))
    assert any(np.abs(other - engines[0]).max() > 1e-3 for other in engines), "no flip in any"
    for other in engines:
        saved = SavedLogprobs(ids, other)
        monkeypatch.setattr(engine, "logprobs", lambda *_, saved=saved: saved)
        check = check_logits(proof, file, tmp_path)
        assert check.status == PASSED, check


def compared(error: Floats, runs: Floats | None = None) -> logits.Comparison:
    """An engine so far from a reference and four runs, which are ``QUIET`` from each other or as ``runs`` says."""
    table = np.full((6, 6, error.size), QUIET)
    if runs is not None:
        table[:, 1:5] = runs
    table[:, 5] = error
    rows, infinite = np.zeros((6, error.size)), np.full(error.size, np.inf)
    return logits.Comparison(table, rows.astype(np.int64), rows - 2, np.full(error.size, 3.5e-4), infinite)


def flipped(number: int, size: float = FLIP) -> Floats:
    return np.where(np.arange(62) < number, size, QUIET)


@pytest.mark.parametrize(
    ("number", "size", "status"),
    [
        (0, FLIP, PASSED),
        (1, FLIP, PASSED),  # the failure that was seen
        (31, FLIP, PASSED),  # the half of the text behind a flip in an early token
        (32, FLIP, FAILED),
        (40, FLIP, FAILED),
        (62, FLIP, FAILED),
        (1, 1e-2, FAILED),  # far more than a flip can be
    ],
)
def test_flips_are_judged_by_number_and_size(number: int, size: float, status: str) -> None:
    check = logits.judge(compared(flipped(number, size)), 4096)[0]
    assert check.status == status and check.values["flips"] == number, check
    assert check.values["mean"] == pytest.approx(flipped(number, size).mean())
    if number == 1 and size == FLIP:
        # What failed: a mean of 3.5e-6 on account of one position, where it is 2.7e-7.
        assert check.values["excess"] < 0.6 and check.values["mean"] > 10 * QUIET
    if number == 62:
        assert check.values["excess"] > WIDE


def test_flips_that_runs_have_are_an_engine_s_right() -> None:
    """Half of each run's positions are flips of its own: then all of the engine's may be, but for an eighth."""
    assert logits.judge(compared(flipped(50), flipped(31)), 4096)[0].status == PASSED
    assert logits.judge(compared(flipped(56), flipped(31)), 4096)[0].status == FAILED
    # Everywhere, as behind many layers.
    everywhere = logits.judge(compared(flipped(62), flipped(62)), 4096)[0]
    assert everywhere.status == PASSED and everywhere.values["flips"] == 0


def test_more_runs_are_asked_before_a_failure() -> None:
    """The engine's flips at all positions are some further run's, too: it is near that one."""
    alone = compared(flipped(62))
    assert logits.judge(alone, 4096)[0].status == FAILED
    alone.more[:] = QUIET
    check = logits.judge(alone, 4096)[0]
    assert check.status == PASSED and check.values["nearest_largest"] == QUIET


def test_distances_are_those_from_the_nearest_run() -> None:
    states = [np.array(values, float) for values in ([0, 0], [1, 5], [3, 1], [9, 2])]
    table = noise.all_distances(states, lambda found, wanted: np.abs(found - wanted))
    error, others = noise.nearest(table)
    assert error.tolist() == [6, 1] and others.tolist() == [[1, 4], [2, 1]]


def test_runs_are_the_same_each_time_and_leave_no_trace(proof: Proof) -> None:
    def hidden() -> Floats:
        return proof.reference.hidden(proof.sequences)[0]

    before, first, again = hidden(), proof.reference.runs(hidden, [3, 4]), proof.reference.runs(hidden, [3, 4])
    assert np.array_equal(first, again) and not np.array_equal(first[0], first[1])
    assert np.array_equal(before, hidden())
    assert np.median(layers.errors(first[0], before)) < layers.FLOOR


def test_heads_read_their_input_as_the_blocks_of_q8_0_hold_it() -> None:
    """Steps are held as float16 there, which is 1e-4 of a value and more than all of float32's rounding."""
    values = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    held = gguf.quants.dequantize(gguf.quants.quantize(values, Type.Q8_0), Type.Q8_0)
    read = reference.as_kernels_read(torch.from_numpy(values), Type.Q8_0).numpy()
    np.testing.assert_allclose(read, held, rtol=1e-6)
    assert np.abs(reference.round_to_int8(torch.from_numpy(values), 32).numpy() - read).max() > 1e-5
