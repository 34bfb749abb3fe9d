# SPDX-License-Identifier: MIT
"""What run_inference.py and set-up say about files that the engine does not load, before they start it."""

from __future__ import annotations

import shlex
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.foreign_files import TILED, WRITERS, Key, keys_of, random_rows, write_gguf
from tests.support.tiny_gguf import KEYS, tiny_gguf
from trit.base.errors import UserError, run_main
from trit.base.places import ROOT
from trit.convert.command import main as convert_main
from trit.gguf.given import check_given
from trit.gguf.header import read_raw_header
from trit.gguf.layouts import LAYOUTS
from trit.gguf.loadable import check_loadable
from trit.run import completion, serve

# What nothing in a file tells apart from the published layout, or what its shapes do.
SILENT = ("i2_s_flat", "i2_s_arm", "i2_s_rows4")


def model(path: Path, layout: str, *keys: Key) -> Path:
    kind, writer = WRITERS[layout]
    tensors = [("blk.0.ffn_up.weight", (128, 768), kind, writer(random_rows(128, 768, layout=layout), 0.5))]
    if layout in TILED:
        tensors.append(("blk.0.ffn_up.weight_scale", (1,), 0, b"\0\0\0\x3f"))
    return write_gguf(path, [*KEYS, *keys], tensors)


@pytest.mark.parametrize("layout", [name for name, row in LAYOUTS.items() if row.loads])
def test_what_the_engine_loads_passes(layout: str, tmp_path: Path) -> None:
    check_loadable(model(tmp_path / "m.gguf", layout))
    assert check_given(tmp_path / "m.gguf") is None


@pytest.mark.parametrize("layout", [name for name, row in LAYOUTS.items() if not row.loads and name not in SILENT])
def test_foreign_files_are_refused_with_a_command_that_works(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model(tmp_path / "my model.gguf", layout)
    for main in (completion.main, serve.main):
        assert run_main(main, ["-m", str(path), "-p", "x"]) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"error: {path}: blk.0.ffn_up.weight is {layout}, written by {LAYOUTS[layout].writer}")
    if layout in TILED:
        with pytest.raises(UserError, match=rf"is {layout}, written by"):
            check_given(path)
    else:
        assert check_given(path) == LAYOUTS[layout].outtype
    words = shlex.split(line.partition("convert the file first: ")[2])
    assert words[1:3] == ["-m", "utils.convert"]
    (tmp_path / "kernel_config.ini").write_text("[K]\nm = 128\nk = 768\nbm = 128\nbk = 96\nbmm = 32\n")
    if layout == "bitnet_tl1":
        (tmp_path / "kernel_config.ini").write_text("[K]\nm = 128\nk = 768\nbm = 128\nbk = 64\nbmm = 32\n")
    monkeypatch.chdir(tmp_path)
    assert run_main(convert_main, words[3:]) == 0
    (made,) = tmp_path.glob("my model-*.gguf")
    check_loadable(made)


def test_unknown_and_rotated_files_are_refused(tmp_path: Path) -> None:
    raw = WRITERS["q2_0"][1](random_rows(4, 256), 0.5)
    path = write_gguf(tmp_path / "m.gguf", KEYS, [("blk.0.a.weight", (4, 256), 150, raw)])
    with pytest.raises(UserError, match=r"blk\.0\.a\.weight has type 150 .* ik_llama.cpp; the engine does not load it"):
        check_given(path)
    with pytest.raises(UserError, match=r"rotated \(prism\.hadamard\.\* keys"):
        check_given(model(tmp_path / "r.gguf", "q2_0", ("prism.hadamard.version", 4, None, 1)))


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What both commands say of a file, which is also what set-up says."""
    said = []
    for main in (completion.main, serve.main):
        assert run_main(main, ["-m", str(path), "-p", "x"]) == 2
        said.append(capsys.readouterr().err)
    with pytest.raises(UserError) as error:
        check_given(path)
    assert said == 2 * [f"error: {error.value}\n"]
    return said[0]


def test_damaged_headers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.gguf"
    for raw, reason in (
        (b"GGUF\3\0\0\0", "it ends inside its header, after 8 bytes"),
        (tiny_gguf("i2_s")[:170], "a string of 25 bytes at offset 155 runs too far"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "says that it has 1099511627776 tensors"),
        (tiny_gguf("i2_s").replace(b"output_norm", b"output\xff\xffrm"), "a key or name is not UTF-8"),
    ):
        path.write_bytes(raw)
        assert refused(path, capsys).startswith(f"error: {path}: not a whole GGUF file ({reason}")


def test_a_file_that_is_cut_short_is_refused_with_both_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By one byte, by the whole last tensor, by more than that."""
    matrix = ("blk.0.ffn_up.weight", (8, 256), *WRITERS["i2_s"][:1], WRITERS["i2_s"][1](random_rows(8, 256), 0.5))
    path = write_gguf(tmp_path / "m.gguf", KEYS, [matrix, ("output.weight", (4, 256), 1, bytes(2048))])
    whole = path.read_bytes()
    for missing in (1, 2048, 2049, 2048 + 500):
        path.write_bytes(whole[:-missing])
        assert refused(path, capsys) == (
            f"error: {path}: is cut short: by its header it has at least {len(whole):,} bytes, "
            f"found {len(whole) - missing:,}; download or convert it again\n"
        )


@pytest.mark.parametrize("layout", WRITERS)
def test_whatever_layout_comes_last_no_byte_may_be_missing(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few bytes less could be another layout of the same number; the sentence then speaks of both."""
    kind, writer = WRITERS[layout]
    tensor = ("blk.0.ffn_up.weight", (128, 768), kind, writer(random_rows(128, 768, layout=layout), 0.5))
    path = write_gguf(tmp_path / "m.gguf", KEYS, [tensor])
    whole = path.read_bytes()
    end = read_raw_header(path).data_offset + len(tensor[3])
    if LAYOUTS[layout].loads or layout in SILENT:
        path.write_bytes(whole[:end])
        check_loadable(path)
    path.write_bytes(whole[: end - 1])
    assert refused(path, capsys).startswith(f"error: {path}: ")
    path.write_bytes(whole[: end - len(tensor[3]) // 2])
    assert refused(path, capsys).startswith(f"error: {path}: is cut short: ")


def test_every_file_of_a_split_model_is_looked_at(
    story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--outtype", "i2_s", "--outfile", str(tmp_path / "m.gguf"), "--split-max-size", "1M"]
    assert run_main(convert_main, [str(story_gguf), *flags]) == 0
    capsys.readouterr()
    first, second = sorted(tmp_path.iterdir())
    check_loadable(first)
    raw = second.read_bytes()
    second.write_bytes(raw[:-100])
    assert refused(first, capsys).startswith(f"error: {second}: is cut short: by its header it has at least ")
    second.unlink()
    assert refused(first, capsys) == (
        f"error: {second}: is missing; the model is split into 2 files and needs them all\n"
    )
    second.write_bytes(raw)
    assert refused(second, capsys) == f"error: {second}: is part 2 of a split model; give the first, {first.name}\n"


def test_needs_no_packages_and_little_time(story_gguf: Path, tmp_path: Path) -> None:
    """A vocabulary of 128,256 tokens with 280,147 merges; measured without site-packages."""
    keys = keys_of(
        read_raw_header(story_gguf),
        tokens=[f"token{i}" for i in range(128_256)],
        token_type=[1] * 128_256,
        merges=[f"a{i} b{i}" for i in range(280_147)],
    )
    raw = WRITERS["pq2_0"][1](random_rows(4, 256), 0.5)
    path = write_gguf(tmp_path / "big.gguf", keys, [("blk.0.a.weight", (4, 256), 142, raw)])
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); "]
    command[-1] += f"sys.argv = ['x', '-m', {str(path)!r}, '-p', 'x']; from trit.run.completion import main; "
    command[-1] += "from trit.base.errors import run_main; sys.exit(run_main(main))"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "is pq2_0, written by PrismML's fork" in done.stderr, done.stderr
    times = []
    for _ in range(3):
        started = time.process_time()
        with pytest.raises(UserError):
            check_loadable(path)
        times.append(time.process_time() - started)
    print(f"{1000 * min(times):.0f} ms for {path.stat().st_size / 1e6:.1f} MB")
    assert min(times) < 2  # 0.1 s on a current CPU, 0.3 s on a Zen 1
