# SPDX-License-Identifier: MIT
"""Random models in known shapes: right sizes, right bytes, and the engine loads them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.support.checkpoints import make_checkpoint
from trit.base.errors import run_main
from trit.base.places import ROOT
from trit.convert.from_random import (
    CHUNK_VALUES,
    FLOAT_TYPES,
    HEADS,
    OUTTYPES,
    main,
    matrix_pieces,
    planned_tensors,
)
from trit.convert.random_heads import HEAD_STD
from trit.gguf.encoding_table import SCALE_AT
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import GGUFReader, read_header
from trit.models.shapes import SHAPES, SIZES, SPM, VOCABULARIES


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """A BPE vocabulary of 400 tokens in a GGUF file: enough for the files that no engine loads."""
    path = tmp_path / "vocab.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(400)])
    writer.add_token_types([1] * 400)
    writer.add_token_merges(["t 1"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path


def make(outfile: Path, *flags: str) -> Path:
    assert run_main(main, ["--outfile", str(outfile), *flags]) == 0
    return outfile


# Parameters as the models' pages give them, two of them rounded there.
PARAMETERS = {
    "bitnet-large": 0.729e9,
    "bitnet-3b": 3.32e9,
    "bitnet-2b-4t": 2_412_820_480,
    "llama3-8b": 8_030_261_248,
    "falcon3-1b": 1_669_408_768,
    "falcon3-3b": 3_227_655_168,
    "falcon3-7b": 7_455_550_464,
    "falcon3-10b": 10_305_653_760,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name: str) -> None:
    planned = planned_tensors(SHAPES[name], ENCODINGS["f16"], "f16")
    rounding = 2e-3 if isinstance(PARAMETERS[name], float) else 0
    assert sum(int(np.prod(tensor.shape)) for tensor in planned) == pytest.approx(PARAMETERS[name], rel=rounding)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_have_the_parameters_of_their_names(name: str) -> None:
    planned = planned_tensors(SIZES[name], ENCODINGS["tl2"], "q6_k")
    wanted = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
    assert sum(int(np.prod(tensor.shape)) for tensor in planned) == pytest.approx(wanted, rel=0.03)


def test_one_seed_is_one_model_in_every_encoding(tmp_path: Path, vocabulary: Path) -> None:
    decoded = {}
    for name, row in ENCODINGS.items():
        flags = ["--shape", "story", "--layers", "2", "--vocab", str(vocabulary), "--outtype", name]
        path = make(tmp_path / f"{name}.gguf", *flags, "--head", "f16" if name == "i2_s" else "q8_0")
        table = read_header(path).tensors
        for entry in (table["blk.0.attn_q.weight"], table["blk.1.ffn_down.weight"]):
            ternary, scale = row.unpack(entry.read(path), *entry.shape, entry.name)
            assert scale == pytest.approx((1.5 / entry.shape[1]) ** 0.5, rel=1e-3)
            first = decoded.setdefault(entry.name, ternary)
            np.testing.assert_array_equal(ternary, first)
    shares = [np.mean(decoded["blk.0.attn_q.weight"] == value) for value in (-1, 0, 1)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.01)
    assert not np.array_equal(decoded["blk.0.attn_q.weight"][:, :256], decoded["blk.1.ffn_down.weight"][:, :256])


# Largest deviation from -s, 0 and +s, as a share of s. q4_0 and q5_0 have one code more on one side of zero, so that
# the other side lacks a step, an 8th or a 16th; q4_1 and q5_1 have an even number of codes: zero lies between two.
DEVIATIONS = {"bf16": 2e-3, "q8_0": 1e-3, "q6_k": 0.01, "q5_k": 0.01, "q4_k": 0.01}
DEVIATIONS |= {"q4_0": 1 / 8 + 1e-3, "q5_0": 1 / 16 + 1e-3, "q4_1": 1 / 15 + 1e-3, "q5_1": 1 / 31 + 1e-3}


@pytest.mark.parametrize("name", FLOAT_TYPES)
def test_float_types_hold_the_same_weights(name: str) -> None:
    n, k = 64, 768
    (ternary, scale) = ENCODINGS["f32"].unpack(drawn(n, k, "f32"), n, k, "f32")
    kind = FLOAT_TYPES[name].ggml_type
    row_bytes = len(drawn(n, k, name)) // n
    values = gguf.quants.dequantize(drawn(n, k, name).reshape(n, row_bytes), kind) / scale
    deviations = np.abs(values - ternary)
    assert deviations.max() < DEVIATIONS[name]
    assert (np.sign(np.round(values)) == ternary).all()


def drawn(n: int, k: int, name: str, *, block_scales: bool = False) -> np.ndarray:
    pieces = list(matrix_pieces(np.random.default_rng(1), n, k, OUTTYPES[name], block_scales=block_scales))
    return np.concatenate([np.ascontiguousarray(piece).view(np.uint8).reshape(-1) for piece in pieces])


@pytest.mark.parametrize("k", [2048, 2080])
def test_a_matrix_that_is_drawn_in_pieces(k: int) -> None:
    n = CHUNK_VALUES // k + 9
    names = [name for name, row in ENCODINGS.items() if k % row.block == 0]
    assert len(names) == (8 if k == 2048 else 3)
    first, scale = ENCODINGS["f32"].unpack(drawn(n, k, "f32"), n, k, "f32")
    assert scale == np.float32((1.5 / k) ** 0.5)
    for name in names:
        ternary, stored = ENCODINGS[name].unpack(drawn(n, k, name), n, k, name)
        np.testing.assert_array_equal(ternary, first, err_msg=name)
        assert stored == ENCODINGS[name].stored_scale(scale)
    assert not np.array_equal(first[:9], first[-9:])


@pytest.mark.parametrize("name", SCALE_AT)
def test_scales_of_blocks(name: str) -> None:
    """Of their own, half to one and a half of the matrix's; the weights are those of every other file."""
    n, k = 64, 768
    first, scale = ENCODINGS["f32"].unpack(drawn(n, k, "f32"), n, k, "f32")
    ternary, scales = ENCODINGS[name].unpack(drawn(n, k, name, block_scales=True), n, k, name)
    np.testing.assert_array_equal(ternary, first)
    assert scales.shape == (n, k // ENCODINGS[name].block) and len(np.unique(scales)) > scales.size / 3
    assert scale / 2 * 0.999 < scales.min() < 0.6 * scale and 1.4 * scale < scales.max() < 1.5 * scale * 1.001


def test_float_types_are_as_the_engine_quantises_them(engine_bin: Path, tmp_path: Path, vocabulary: Path) -> None:
    """llama-quantize, from the floats, gives the same bytes."""
    flags = ["--shape", "story", "--layers", "1", "--vocab", str(vocabulary), "--head", "f16"]
    floats = make(tmp_path / "f32.gguf", *flags, "--outtype", "f32")
    for name in FLOAT_TYPES:
        ours, theirs = make(tmp_path / f"{name}.gguf", *flags, "--outtype", name), tmp_path / f"{name}-engine.gguf"
        file_type = {"q4_k": "q4_k_s", "q5_k": "q5_k_s"}.get(name, name)
        command = [engine_bin / "llama-quantize", "--pure", floats, theirs, file_type, "2"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        ours_header, theirs_header = read_header(ours), read_header(theirs)
        for tensor in ("blk.0.attn_k.weight", "blk.0.ffn_down.weight"):
            expected = theirs_header.tensors[tensor]
            assert ours_header.tensors[tensor].ggml_type == expected.ggml_type == FLOAT_TYPES[name].ggml_type
            np.testing.assert_array_equal(ours_header.tensors[tensor].read(ours), expected.read(theirs), err_msg=name)
        assert ours_header.metadata["general.file_type"] == theirs_header.metadata["general.file_type"]


def test_seeds_differ(tmp_path: Path, vocabulary: Path) -> None:
    flags = ["--shape", "story", "--layers", "1", "--vocab", str(vocabulary)]
    files = [make(tmp_path / f"{seed}.gguf", *flags, "--seed", seed).read_bytes() for seed in ("1", "2")]
    files.append(make(tmp_path / "again.gguf", *flags, "--seed", "1").read_bytes())
    assert files[0] == files[2] != files[1]


@pytest.mark.parametrize("head", HEADS)
def test_head_types(head: str, tmp_path: Path, vocabulary: Path) -> None:
    flags = ["--shape", "story", "--layers", "1", "--vocab", str(vocabulary), "--head", head]
    tensors = {tensor.name: tensor for tensor in GGUFReader(make(tmp_path / "m.gguf", *flags)).tensors}
    head_tensor = tensors["token_embd.weight"]
    assert head_tensor.tensor_type.name == head.upper() and "output.weight" not in tensors
    values = gguf.quants.dequantize(head_tensor.data, head_tensor.tensor_type)
    assert values.shape == (512, 256)
    assert values.mean() == pytest.approx(0, abs=0.05 * HEAD_STD) and values.std() == pytest.approx(HEAD_STD, rel=0.05)


def test_vocabulary_is_filled_up(tmp_path: Path, vocabulary: Path) -> None:
    metadata = read_header(
        make(tmp_path / "m.gguf", "--shape", "story", "--layers", "1", "--vocab", str(vocabulary))
    ).metadata
    assert metadata["tokenizer.ggml.tokens"] == [f"t{i}" for i in range(400)] + [f"[PAD{i}]" for i in range(400, 512)]
    assert metadata["tokenizer.ggml.token_type"] == [1] * 400 + [5] * 112
    assert metadata["bitnet-b1.58.block_count"] == 1 and metadata["general.name"] == "random story"


def test_a_checkpoint_folder_brings_its_vocabulary(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "checkpoint", layers=1).directory
    path = make(tmp_path / "m.gguf", "--shape", "story", "--layers", "1", "--vocab", str(directory))
    header = read_header(path)
    assert header.metadata["tokenizer.ggml.pre"] == "gpt-2" and len(header.metadata["tokenizer.ggml.tokens"]) == 384
    assert header.tensors["token_embd.weight"].shape == (384, 256)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shape", "bitnet-3b"], "blk.0.ffn_down.weight: 8640 columns, i2_s needs a multiple of 128"),
        (["--shape", "bitnet-3b", "--outtype", "tq2_0"], "blk.0.attn_q.weight: 3200 columns, tq2_0 needs"),
        (
            ["--shape", "bitnet-3b", "--outtype", "f16", "--head", "q6_k"],
            "token_embd.weight: 3200 columns, q6_k needs a multiple of 256; use --head q8_0",
        ),
        (["--shape", "story", "--layers", "0"], "--layers 0: expected 1 or more"),
        (["--shape", "story", "--vocab", "nowhere.gguf"], "nowhere.gguf: is missing"),
    ],
)
def test_refusals(flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(main, ["--outfile", str(tmp_path / "m.gguf"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_output_that_cannot_be_written(tmp_path: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outfile = vocabulary / "m.gguf"
    assert run_main(main, ["--shape", "story", "--vocab", str(vocabulary), "--outfile", str(outfile)]) == 2
    assert f"{outfile}: cannot be written (" in capsys.readouterr().err


def test_too_large_vocabulary_and_existing_file(
    tmp_path: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outfile = make(tmp_path / "m.gguf", "--shape", "story", "--layers", "1", "--vocab", str(vocabulary))
    flags = ["--outfile", str(outfile), "--shape", "story", "--vocab", str(vocabulary)]
    assert run_main(main, flags) == 2
    assert "m.gguf: exists already; pass --force" in capsys.readouterr().err
    monkeypatch.setitem(SHAPES, "story", replace(SHAPES["story"], vocab=100))
    assert run_main(main, [*flags, "--force"]) == 2
    assert "has 400 tokens, this shape needs 1 to 100" in capsys.readouterr().err


PEAK = """
import os, sys
from pathlib import Path
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])  # as many pieces are worked on at once as there are CPUs
exec(sys.argv[1])
print(1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]))
"""


def peak_memory(code: str) -> int:
    """Most bytes of memory of a Python that runs some code, on one CPU."""
    command = [sys.executable, "-c", PEAK, code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["f32", "q4_0", "tl2"])
def test_memory_for_the_largest_matrix(name: str) -> None:
    """Of 100B: 373 million weights, 1.5 GB in f32; no more than a sixth of that is ever in memory."""
    peak = peak_memory(
        "import numpy as np; from trit.convert.from_random import *; shape = SIZES['100B']\n"
        f"made = sum(piece.nbytes for piece in matrix_pieces(np.random.default_rng(0), shape.ffn, shape.hidden, "
        f"OUTTYPES[{name!r}]))\n"
        "assert made > shape.ffn * shape.hidden / 5, made"
    )
    assert peak < 250e6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_layers(tmp_path: Path, vocabulary: Path) -> None:
    peaks = []
    for layers in ("1", "4"):
        argv = ["--model-size", "7B", "--layers", layers, "--head", "q6_k", "--vocab", str(vocabulary), "--force"]
        argv += ["--outfile", str(tmp_path / "m.gguf")]
        peaks.append(peak_memory(f"from trit.convert.from_random import main; assert main({argv!r}) == 0"))
    assert (tmp_path / "m.gguf").stat().st_size > 4 * 50e6
    assert peaks[1] < 250e6 and peaks[1] - peaks[0] < 20e6


SCRIPT = ROOT / "utils" / "generate-dummy-bitnet-model.py"


def script(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *flags]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)


def test_bitnet_flags(tmp_path: Path) -> None:
    """bitnet.cpp's command line: sizes of its table, the folder's vocabulary, a name beside the folder."""
    folder = make_checkpoint(tmp_path / "checkpoint", layers=1).directory
    flags = [folder, "--outtype", "tl2", "--model-size", "125M"]
    done = script(*flags, "--model-name", "dummy", "--verbose", "--use-temp-file")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "dummy-bitnet-125M-tl2.gguf"
    assert done.stdout.startswith(f"{path}: ") and done.stdout.count("\n") == 1
    assert "blk.10.ffn_down.weight: 768 x 3072, 497,728 bytes" in done.stderr
    header = read_header(path)
    assert header.metadata["general.name"] == "dummy" and header.metadata["bitnet.block_count"] == 11
    assert len(header.metadata["tokenizer.ggml.tokens"]) == 384
    assert header.tensors["token_embd.weight"].shape == (384, 768)
    assert header.tensors["token_embd.weight"].ggml_type == gguf.GGMLQuantizationType.Q6_K
    again = script(*flags)
    assert again.returncode == 2 and f"{path}: exists already; pass --force" in again.stderr
    assert script(*flags, "--force", "--seed", "1").returncode == 0


def test_bitnet_flags_for_the_vocabulary_alone(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", layers=1).directory
    outfile = tmp_path / "vocab.gguf"
    done = script(folder, "--vocab-only", "--outfile", outfile)
    assert done.returncode == 0 and "a vocabulary, no weights" in done.stdout
    header = read_header(outfile)
    assert not header.tensors and len(header.metadata["tokenizer.ggml.tokens"]) == 384
    path = make(tmp_path / "m.gguf", "--shape", "story", "--layers", "1", "--vocab", str(outfile))
    assert read_header(path).metadata["tokenizer.ggml.merges"] == header.metadata["tokenizer.ggml.merges"]


def test_bitnet_flags_without_a_tokenizer(tmp_path: Path) -> None:
    if not (VOCABULARIES / SPM).is_file():
        pytest.skip(f"the engine's vocabularies are not in {VOCABULARIES}")
    outfile = tmp_path / "m.gguf"
    done = script(tmp_path, "--vocab-only", "--outfile", outfile)
    assert done.returncode == 0 and "taking LLaMA's vocabulary" in done.stderr
    assert len(read_header(outfile).metadata["tokenizer.ggml.tokens"]) == 32002


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bigendian"], "--bigendian: the engine's kernels run on little-endian CPUs only"),
        (["--model-size", "8B"], "invalid choice: '8B'"),
        (["--outtype", "q3_k"], "invalid choice: 'q3_k'"),
    ],
)
def test_bitnet_flags_that_are_refused(flags: list[str], message: str, tmp_path: Path) -> None:
    done = script(tmp_path, *flags)
    assert done.returncode == 2 and message in done.stderr and not list(tmp_path.iterdir())
    missing = script(tmp_path / "nowhere", "--model-size", "125M")
    assert missing.returncode == 2 and "nowhere: there is no such folder" in missing.stderr


@pytest.mark.parametrize(
    ("shape", "flags"),
    [
        ("1.5B", ["--outtype", "tl2", "--head", "q6_k"]),
        ("3.8B", ["--outtype", "i2_s", "--head", "q6_k"]),
        ("125M", ["--outtype", "q4_0", "--head", "q8_0"]),
        ("bitnet-large", ["--outtype", "i2_s", "--head", "q6_k"]),
        ("bitnet-large", ["--outtype", "tq1_0", "--head", "q4_k"]),
        ("bitnet-2b-4t", ["--outtype", "i2_s", "--head", "q8_0"]),
        ("falcon3-1b", ["--outtype", "i2_s", "--head", "q4_k"]),
    ],
)
def test_engine_runs_it(
    shape: str, flags: list[str], engine_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block of the shape: the engine loads it, and its numbers are sane (a perplexity, not NaN).

    Heads of 48 (1.5B) and 120 (3.8B) values are no power of two.
    """
    if shape == "falcon3-1b":  # its two matrices of 131,072 rows in f16 would be 1 GB
        monkeypatch.setitem(SHAPES, shape, replace(SHAPES[shape], vocab=32002, vocabulary=SPM))
    if not (VOCABULARIES / str((SHAPES | SIZES)[shape].vocabulary)).is_file():
        pytest.skip(f"the engine's vocabularies are not in {VOCABULARIES}")
    path = make(tmp_path / "m.gguf", "--model-size" if shape in SIZES else "--shape", shape, "--layers", "1", *flags)
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 12)
    command = [engine_bin / "llama-perplexity", "-m", path, "-f", text, "-t", "2"]
    command += ["-c", "32", "-b", "32", "--chunks", "1"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    perplexity = float(output.split("Final estimate: PPL = ")[1].split()[0])
    assert 1e3 < perplexity < 1e9
