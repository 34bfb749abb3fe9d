# SPDX-License-Identifier: MIT
"""The patched engine on files as other tools write them, with every tier and thread count, and on broken files."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.checkpoints import TEXT, make_checkpoint
from trit.convert import from_gguf as foreign
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import read_header
from trit.gguf.writer import PlannedTensor, StreamWriter

TIERS = sorted(path.stem for path in (Path(__file__).parents[2] / "src" / "kernels" / "tiers").glob("*.cpp"))


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny = make_checkpoint(folder / "checkpoint", "master-bf16")
    convert(tiny.directory, folder / "tiny.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    return folder / "tiny.gguf"


def rewrite(
    source: Path,
    target: Path,
    *,
    architecture: str = "bitnet-b1.58",
    metadata: dict[str, Any] | None = None,
    without: str = "",
    data: dict[str, np.ndarray] | None = None,
) -> Path:
    """Copy a GGUF under another architecture's name, with changed metadata or bytes of some tensors."""
    header = read_header(source)
    writer = StreamWriter(target, architecture)
    old = header.metadata["general.architecture"]
    for key, value in header.metadata.items():
        if key not in ("general.architecture", without):
            new_key = re.sub(rf"^{re.escape(old)}\.", f"{architecture}.", key)
            writer.metadata.add_key_value(new_key, (metadata or {}).get(key, value), *header.types[key])
    for entry in header.tensors.values():
        writer.plan(PlannedTensor(entry.name, entry.shape, entry.ggml_type))
    writer.begin()
    for entry in header.tensors.values():
        writer.write([(data or {}).get(entry.name, entry.read(source))])
    writer.close()
    return target


def complete(engine_bin: Path, gguf: Path, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [engine_bin / "llama-completion", "-m", gguf, "-p", TEXT[:300], "-n", "24", "--temp", "0", "-c", "512"]
    command += ["-no-cnv", "--no-display-prompt", "--no-warmup", "--ignore-eos", *flags]
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **env},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=120,
    )


def answer(engine_bin: Path, gguf: Path, *flags: str, **env: str) -> str:
    result = complete(engine_bin, gguf, *flags, **env)
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(result.stdout.strip()) > 10, "24 tokens of a random model are more than this"
    return result.stdout


def test_every_tier_and_thread_count_answers_the_same(engine_bin: Path, tiny_gguf: Path) -> None:
    expected = answer(engine_bin, tiny_gguf, "-t", "1", TRIT_TIER="scalar")
    ran = []
    for tier in TIERS:
        result = complete(engine_bin, tiny_gguf, "-t", "2", "--verbosity", "4", TRIT_TIER=tier)
        if result.returncode == 2 and "this CPU lacks" in result.stderr:
            continue
        assert result.stdout == expected, tier
        assert f"tier {tier}" in result.stderr
        ran.append(tier)
    assert "scalar" in ran
    for threads in ("1", "2", "3", "8"):
        assert answer(engine_bin, tiny_gguf, "-t", threads) == expected, f"{threads} threads"


def test_no_answer_is_lost_at_exit(engine_bin: Path, tiny_gguf: Path) -> None:
    """The engine logs asynchronously; without patch 0005 most of these runs printed a part of their answer or none."""
    assert len({answer(engine_bin, tiny_gguf) for _ in range(15)}) == 1


def test_mapped_and_copied_weights_answer_the_same(engine_bin: Path, tiny_gguf: Path) -> None:
    assert answer(engine_bin, tiny_gguf, "--load-mode", "none") == answer(engine_bin, tiny_gguf)


def test_packed_and_in_place_weights_answer_the_same(engine_bin: Path, tiny_gguf: Path) -> None:
    expected = answer(engine_bin, tiny_gguf, "--no-repack")
    result = complete(engine_bin, tiny_gguf, "--verbosity", "4")
    assert result.stdout == expected and "weights packed at load" in result.stderr
    assert "weights in place" in complete(engine_bin, tiny_gguf, "--no-repack", "--verbosity", "4").stderr


def test_published_files_load(engine_bin: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """They say file type 40, which is another type in this engine, and name no pre-tokenizer."""
    published = rewrite(tiny_gguf, tmp_path / "published.gguf", metadata={"general.file_type": 40})
    result = complete(engine_bin, published, "--verbosity", "4")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "I2_S" in result.stderr and "Q1_0" not in result.stderr
    assert result.stdout == answer(engine_bin, tiny_gguf)
    nameless = rewrite(tiny_gguf, tmp_path / "nameless.gguf", without="tokenizer.ggml.pre")
    result = complete(engine_bin, nameless)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "GENERATION QUALITY" not in result.stderr


def test_first_upload_s_architecture_loads(engine_bin: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    older = rewrite(tiny_gguf, tmp_path / "older.gguf", architecture="bitnet-25")
    assert answer(engine_bin, older) == answer(engine_bin, tiny_gguf)


def test_silu_architecture_computes_something_else(engine_bin: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """`bitnet` is the same graph with SiLU: if squared ReLU were ignored, both would answer alike."""
    silu = rewrite(tiny_gguf, tmp_path / "silu.gguf", architecture="bitnet")
    assert answer(engine_bin, silu) != answer(engine_bin, tiny_gguf)


# What damages the byte 1234 of a matrix in the story model's shapes: code 3, pair 15, triplet 15.
INVALID = {"i2_s": 0b00110000, "tl1": 0b11110000, "tl2": 0b11110000}


@pytest.mark.parametrize("damage", ["code", "nan", "-0.25"])
@pytest.mark.parametrize("encoding", INVALID)
def test_what_is_not_ternary_is_refused(
    engine_bin: Path, tiny_gguf: Path, tmp_path: Path, encoding: str, damage: str
) -> None:
    name, tiny = "blk.1.ffn_down.weight", tmp_path / "tiny.gguf"
    foreign.convert(tiny_gguf, tiny, foreign.Options(ENCODINGS[encoding]), progress=False)
    raw = read_header(tiny).tensors[name].read(tiny)
    if damage == "code":
        raw[1234] |= INVALID[encoding]
    else:
        raw[-ENCODINGS[encoding].tail_bytes :][:4] = np.float32([damage]).view(np.uint8)
    broken = rewrite(tiny, tmp_path / "broken.gguf", data={name: raw})
    result = complete(engine_bin, broken)  # noticed while the weights are packed
    assert result.returncode == 2
    fault = "holds a code that stands for no weight" if damage == "code" else "has a scale below 0 or no number"
    assert f"the {encoding} tensor {name} {fault}" in result.stderr
    result = complete(engine_bin, broken, "--no-repack", "--check-tensors")
    assert result.returncode != 0
    assert name in result.stderr and "invalid data" in result.stderr
    assert complete(engine_bin, tiny, "--no-repack", "--check-tensors").returncode == 0


def test_truncated_file_is_refused(engine_bin: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:-100])
    result = complete(engine_bin, cut)
    assert result.returncode != 0 and "not within the file bounds" in result.stderr


@pytest.mark.parametrize("encoding", INVALID)
def test_ternary_token_embedding(engine_bin: Path, tiny_gguf: Path, tmp_path: Path, encoding: str) -> None:
    """A ternary embedding is read row by row; it must answer like the f16 embedding with the same values."""
    entry = read_header(tiny_gguf).tensors["token_embd.weight"]
    ternary = np.random.default_rng(3).integers(-1, 2, entry.shape, dtype=np.int8)
    scale = 0.0625  # exact in f16
    packed = ENCODINGS[encoding].pack(ternary, scale)
    floats = (ternary * np.float16(scale)).astype(np.float16).view(np.uint8)
    f16 = rewrite(tiny_gguf, tmp_path / "f16.gguf", data={"token_embd.weight": floats})

    header = read_header(f16)
    rows = tmp_path / "rows.gguf"
    writer = StreamWriter(rows, "bitnet-b1.58")
    for key, value in header.metadata.items():
        if key != "general.architecture":
            writer.metadata.add_key_value(key, value, *header.types[key])
    # As the head the embedding meets rounded activations, so a separate f16 head keeps the comparison exact.
    for item in header.tensors.values():
        kind = ENCODINGS[encoding].ggml_type if item.name == "token_embd.weight" else item.ggml_type
        writer.plan(PlannedTensor(item.name, item.shape, kind))
    writer.plan(PlannedTensor("output.weight", entry.shape, entry.ggml_type))
    writer.begin()
    for item in header.tensors.values():
        writer.write([packed if item.name == "token_embd.weight" else item.read(f16)])
    writer.write([floats])
    writer.close()
    assert answer(engine_bin, rows) == answer(engine_bin, f16)
