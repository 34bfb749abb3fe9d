# SPDX-License-Identifier: MIT
"""tl1 and tl2 as file formats: every byte means one thing or is refused, in Python and in the engine; their sizes.

``codes`` reads a block by the description, one weight after the other.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ggml.test_hook import Ggml
from tests.support.engine_logits import CHUNKS, run_engine
from tests.support.foreign_files import TILED, WRITERS, Key, write_gguf
from trit.base.errors import UserError
from trit.base.places import DEMO_PROMPT, ROOT
from trit.convert.from_gguf import Options, convert
from trit.gguf.decode import decode
from trit.gguf.encodings import ENCODINGS, fallback
from trit.gguf.header import RawTensor, read_raw_header
from trit.gguf.identify import identify
from trit.gguf.layouts import LAYOUTS
from trit.gguf.loadable import check_loadable
from trit.models.shapes import SHAPES, matrices

NAMES = ("tl1", "tl2")
TAIL = struct.pack("<f", 0.5) + bytes(60)
KEYS: list[Key] = [("general.architecture", 8, None, "bitnet-b1.58")]


def pair(index: int) -> list[int]:
    return [index // 3, index % 3] if index < 9 else [3, 3]


def codes(name: str, block: bytes) -> list[int]:
    """The codes t + 1 of one block, 3 for what stands for no weight."""
    if name == "tl1":
        return [code for byte in block for half in (byte & 15, byte >> 4) for code in pair(half)]
    out = []
    for i in range(42):
        index = block[i // 2] >> 4 * (i % 2) & 15
        sign = block[22 + i // 8] >> i % 8 & 1 if i < 40 else block[21] >> 4 + i - 40 & 1
        digits = 13 + (-index if sign else index)
        out += [3, 3, 3] if index > 13 or sign > index else [digits // 9, digits // 3 % 3, digits % 3]
    return out + (pair(block[21] & 15) if block[21] < 64 else [3, 3])


def blocks(name: str, raw: bytes) -> list[bytes]:
    size = ENCODINGS[name].block_bytes
    return [raw[i : i + size] for i in range(0, len(raw), size)]


@st.composite
def raw_blocks(draw: st.DrawFn, name: str) -> bytes:
    """Blocks of one row: of weights, with a few bytes replaced by any."""
    row = ENCODINGS[name]
    ternary = np.random.default_rng(draw(st.integers(0, 99))).integers(-1, 2, (1, 3 * row.block), dtype=np.int8)
    raw = bytearray(row.pack(ternary, 0.5)[: -row.tail_bytes].tobytes())
    for _ in range(draw(st.integers(0, 3))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_bytes_are_the_only_ones_of_their_weights_or_refused(name: str, data: st.DataObject) -> None:
    raw = data.draw(raw_blocks(name))
    expected = np.array([code for block in blocks(name, raw) for code in codes(name, block)])
    row, k, array = ENCODINGS[name], len(expected), np.frombuffer(raw + TAIL, np.uint8)
    if (expected == 3).any():
        sentence = rf"^blk\.0\.x: row 0, column {expected.argmax()} holds an index, which means no weight"
        with pytest.raises(UserError, match=sentence):
            row.unpack(array, 1, k, "blk.0.x")
        with pytest.raises(UserError, match=sentence):
            decode(name, array, 1, k, "blk.0.x")
        return
    ternary, scale = row.unpack(array, 1, k, "blk.0.x")
    np.testing.assert_array_equal(ternary[0] + 1, expected)
    np.testing.assert_array_equal(decode(name, array, 1, k, "blk.0.x").values, ternary)
    assert row.pack(ternary, scale).tobytes() == raw + TAIL


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_reads_all_bytes_as_described(name: str, engine_bin: Path) -> None:
    """Rows of a table of random bytes; a code that stands for no weight comes out as +2. And ggml's check of them."""
    row, n, k = ENCODINGS[name], 400, ENCODINGS[name].block * 2
    raw = np.random.default_rng(1).integers(0, 256, n * row.block_bytes * 2, dtype=np.uint8)
    # Most blocks of random bytes hold something invalid: half of the rows get blocks of weights.
    good = np.random.default_rng(2).integers(-1, 2, (n // 2, k), dtype=np.int8)
    raw[: len(raw) // 2] = row.pack(good, 1.0)[: -row.tail_bytes]
    tail = struct.pack("<f", 1.0) + bytes(60)
    table = np.concatenate([raw, np.frombuffer(tail, np.uint8)])
    expected = np.array([codes(name, block) for block in blocks(name, raw.tobytes())]).reshape(n, k)
    ggml = Ggml(engine_bin)
    w, ids = ggml.tensor(row.ggml_type, k, n), ggml.tensor(26, n)
    ggml.write(w, table)
    ggml.write(ids, np.arange(n, dtype=np.int32))
    out = ggml.compute(ggml.call("ggml_get_rows", w, ids), (n, k), 2)
    ggml.close()
    np.testing.assert_array_equal(out + 1, expected)

    check = ctypes.CDLL(str(engine_bin / "libggml-base.so")).ggml_validate_row_data
    check.restype = ctypes.c_bool
    for i, part in enumerate(blocks(name, raw.tobytes())):
        data = part + tail
        assert check(row.ggml_type, data, ctypes.c_size_t(len(data))) == (expected.reshape(-1, row.block)[i] < 3).all()
    for scale in (float("nan"), float("inf")):
        data = raw[: row.block_bytes].tobytes() + struct.pack("<f", scale) + bytes(60)
        assert not check(row.ggml_type, data, ctypes.c_size_t(len(data)))


def test_bits_per_weight() -> None:
    """Tails included, of every matrix of 2B-4T; 1.70 is the most that tl2 may take."""
    for n, k in matrices(SHAPES["bitnet-2b-4t"]).values():
        assert 8 * ENCODINGS["tl2"].nbytes(n, k) / (n * k) < 1.688
        assert 8 * ENCODINGS["tl1"].nbytes(n, k) / (n * k) < 2.001


def test_columns_of_no_whole_block() -> None:
    assert fallback(ENCODINGS["tl1"], 8640).name == "tl1"
    assert fallback(ENCODINGS["tl2"], 8640).name == "q2_0"
    assert fallback(ENCODINGS["tl1"], 5460).name == fallback(ENCODINGS["tl2"], 5460).name == "f16"


@st.composite
def places(draw: st.DrawFn) -> tuple[int, int, int, int, bool]:
    """Rows, columns, tensors before and behind the matrix, whether the end of the file is padded."""
    n, k = draw(st.integers(1, 40)), 64 * draw(st.integers(1, 12))
    return n, k, draw(st.integers(0, 2)), draw(st.integers(0, 2)), draw(st.booleans())


@settings(max_examples=300, deadline=None)
@given(place=places())
@pytest.mark.parametrize("layout", ["tl1", "bitnet_tl1"])
def test_tl1_is_never_taken_for_bitnet_cpp_s(
    layout: str, place: tuple[int, int, int, int, bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same number and the same bytes of codes: the tail of 64 bytes, not 32 or none, is another size everywhere."""
    n, k, before, behind, padded = place
    for size in LAYOUTS[layout].sizes(n, k):
        tensors = [(f"blk.{i}.norm.weight", (8,), 0, bytes(32)) for i in range(before)]
        tensors.append(("blk.9.ffn_up.weight", (n, k), 38, bytes(size)))
        tensors += [(f"blk.1{i}.norm.weight", (8,), 0, bytes(32)) for i in range(behind)]
        path = write_gguf(tmp_path_factory.getbasetemp() / f"{layout}.gguf", KEYS, tensors)
        if not padded and not behind:
            path.write_bytes(path.read_bytes()[: path.stat().st_size - -size % 32])
        found = {item.tensor.name: item for item in identify(read_raw_header(path))}["blk.9.ffn_up.weight"]
        assert (found.name, found.nbytes) == (layout, size)


def test_where_padding_hides_the_tail_nothing_is_loaded(tmp_path: Path) -> None:
    """Alignment 64, which neither program writes: bitnet.cpp's 32 bytes and ours pad to the same size."""
    for layout in ("tl1", "bitnet_tl1"):
        raw = bytes(LAYOUTS[layout].sizes(4, 64)[-1])
        keys: list[Key] = [*KEYS, ("general.alignment", 4, None, 64)]
        path = write_gguf(tmp_path / f"{layout}.gguf", keys, [("blk.0.a.weight", (4, 64), 38, raw)], alignment=64)
        with pytest.raises(UserError, match=r"blk\.0\.a\.weight is bitnet_tl1"):
            check_loadable(path)


def engine_table(path: Path, engine_bin: Path) -> list[int] | None:
    """The offsets that the engine's own reader finds, None if it refuses the file's table."""
    base = ctypes.CDLL(str(engine_bin / "libggml-base.so"))

    class Params(ctypes.Structure):
        _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))

    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_get_tensor_offset.restype = base.gguf_get_n_tensors.restype = ctypes.c_int64
    context = base.gguf_init_from_file(str(path).encode(), Params(True, None))
    if context is None:
        return None
    handle = ctypes.c_void_p(context)
    return [base.gguf_get_tensor_offset(handle, ctypes.c_int64(i)) for i in range(base.gguf_get_n_tensors(handle))]


@pytest.mark.parametrize("size", [128 * 64 // 4, 128 * 64 // 4 + 32])
def test_the_engine_refuses_bitnet_cpp_s_tl1(size: int, engine_bin: Path, tmp_path: Path) -> None:
    norm = ("blk.0.norm.weight", (8,), 0, bytes(32))
    own = ("blk.0.ffn_up.weight", (128, 64), 38, bytes(128 * 64 // 4 + 64))
    theirs = (*own[:3], bytes(size))
    assert engine_table(write_gguf(tmp_path / "own.gguf", KEYS, [own, norm]), engine_bin) is not None
    assert engine_table(write_gguf(tmp_path / "theirs.gguf", KEYS, [theirs, norm]), engine_bin) is None
    # As the last tensor of a file its size is nobody's offset: the loader compares it with the end of the file.
    last = write_gguf(tmp_path / "last.gguf", KEYS, [norm, theirs])
    offsets = engine_table(last, engine_bin)
    assert offsets is not None
    header = read_raw_header(last)
    assert header.data_offset + offsets[-1] + ENCODINGS["tl1"].nbytes(128, 64) > header.file_bytes


def test_tensor_spans_are_as_large_as_the_formats_say(tmp_path: Path) -> None:
    """By hand, for 3 rows of 128: 96 bytes of tl1 and 81 of tl2, 64 more, padded to 32."""
    rows = [[1] * 128] * 3
    tensors = [(f"blk.0.{name}.weight", (3, 128), WRITERS[name][0], WRITERS[name][1](rows, 1.0)) for name in NAMES]
    found: dict[str, RawTensor] = read_raw_header(write_gguf(tmp_path / "m.gguf", KEYS, tensors)).tensors
    assert [tensor.span for tensor in found.values()] == [160, 160]
    assert [len(raw) for _, _, _, raw in tensors] == [160, 145] and "bitnet_tl1" in TILED


@pytest.fixture(scope="module")
def stories(story_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled model in the three encodings."""
    folder, files = tmp_path_factory.mktemp("stories"), {"i2_s": story_gguf}
    for name in NAMES:
        files[name] = folder / f"{name}.gguf"
        convert(story_gguf, files[name], Options(ENCODINGS[name]), progress=False)
    return files


def test_logits_are_those_of_i2_s(stories: dict[str, Path], engine_bin: Path, tmp_path: Path) -> None:
    """Bit for bit, packed at load and in place, in batches of 64 tokens (one at a time: the answers below)."""
    links = {name: tmp_path / f"{name}.gguf" for name in stories}
    for name, link in links.items():
        link.symlink_to(stories[name])
    wanted = run_engine(engine_bin, links["i2_s"])
    assert np.isfinite(wanted.logprobs).all() and wanted.logprobs.std() > 1
    for name in ("i2_s", *NAMES):
        for flags in ([], ["--no-repack"]):
            got = run_engine(engine_bin, links[name], "f32", CHUNKS, *flags)
            np.testing.assert_array_equal(got.tokens, wanted.tokens)
            assert got.logprobs.tobytes() == wanted.logprobs.tobytes(), (name, flags)


@pytest.mark.parametrize("flags", [[], ["--no-repack"]], ids=["packed", "in place"])
@pytest.mark.parametrize("name", NAMES)
def test_the_bundled_model_answers(name: str, flags: list[str], stories: dict[str, Path], engine_bin: Path) -> None:
    command = [sys.executable, "run_inference.py", "-m", str(stories[name]), "-p", DEMO_PROMPT, "-n", "6", "-temp", "0"]
    command += ["--verbose", "--", "--verbosity", "4", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "garden" in done.stdout
    assert f"{name.upper()} - {'2' if name == 'tl1' else '1.69'} bpw ternary" in done.stderr
    assert f"weights {'in place' if flags else 'packed at load'}" in done.stderr
