# SPDX-License-Identifier: MIT
"""Foreign GGUF files converted: the bundled model through every layout and back, what is lost, what is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.foreign_files import (
    SPARSE,
    TILED,
    WRITERS,
    Key,
    codes,
    i2_s_flat,
    keys_of,
    random_rows,
    rewrite,
    write_gguf,
)
from tests.support.gguf_models import answer, ask, assert_same_model
from tests.support.tiny_gguf import KEYS
from trit.base.errors import TritError, UserError, run_main
from trit.base.places import engine_program
from trit.convert.command import main
from trit.convert.embedding import quantize_rows
from trit.convert.from_gguf import Options, convert
from trit.gguf.encodings import ENCODINGS
from trit.gguf.header import read_raw_header
from trit.gguf.identify import identify
from trit.gguf.order import Order, measure_order
from trit.gguf.source import Source
from trit.gguf.tiles import Tiles, read_kernel_config
from trit.gguf.types import GGMLQuantizationType, read_header

TILES = {"bitnet_tl1": Tiles(128, 64, 32), "bitnet_tl2": Tiles(128, 96, 32)}
KERNEL_CONFIG = {
    layout: "".join(
        f"[Kernels_{i}]\nm = {m}\nk = {k}\nbm = {tiles.rows}\nbk = {tiles.columns}\nbmm = {tiles.strip}\n\n"
        for i, (m, k) in enumerate([(256, 256), (768, 256), (256, 768)])
    )
    for layout, tiles in TILES.items()
}


@pytest.fixture(scope="module")
def reference(story_gguf: Path, engine_bin: Path) -> Path:
    """The bundled model; converting it again asks the engine for its tokens."""
    assert engine_bin.is_dir()
    return story_gguf


@pytest.mark.parametrize("layout", [layout for layout in WRITERS if layout not in SPARSE])
def test_bundled_model_comes_back_byte_for_byte(layout: str, reference: Path, tmp_path: Path) -> None:
    """Through every layout, as its engine would write it, and back to i2_s."""
    foreign = rewrite(reference, tmp_path / "foreign.gguf", layout)
    command = [str(foreign), "--outfile", str(tmp_path / "back.gguf")]
    if layout in TILED:
        config = tmp_path / "kernel_config.ini"
        config.write_text(KERNEL_CONFIG[layout])
        command += ["--kernel-config", str(config)]
    if layout in ("i2_s_arm", "i2_s_rows4"):
        command += ["--i2-s-layout", layout.removeprefix("i2_s_")]
    assert run_main(main, command) == 0
    assert_same_model(tmp_path / "back.gguf", reference)


def test_one_zero_in_four_is_converted_without_loss(reference: Path, tmp_path: Path) -> None:
    """The bundled model made sparse, as stq1_0 and as i2_s: the same matrices in every encoding."""
    sparse = {
        layout: rewrite(reference, tmp_path / f"{layout}.gguf", layout, sparse=True) for layout in ("stq1_0", "i2_s")
    }
    stored = {path: sum(item.nbytes for item in Source.open(path).found.values()) for path in sparse.values()}
    assert stored[sparse["stq1_0"]] < stored[sparse["i2_s"]]
    for outtype in ("tq2_0", "tq1_0", "q2_0", "i2_s"):
        made = {layout: tmp_path / f"{layout}-{outtype}.gguf" for layout in sparse}
        for layout, path in sparse.items():
            assert run_main(main, [str(path), "--outtype", outtype, "--outfile", str(made[layout])]) == 0
        a, b = Source.open(made["stq1_0"]), Source.open(made["i2_s"])
        for name, item in a.found.items():
            if item.name != outtype:
                continue
            one, other = a.matrix(item), b.matrix(b.found[name])
            np.testing.assert_array_equal(one.values, other.values)
            # What is float32 there is float16 here.
            np.testing.assert_array_equal(one.scales, other.scales.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("outtype", ["tl1", "tl2", "tq2_0", "tq1_0", "q2_0", "f16", "f32"])
def test_bundled_model_in_every_encoding_and_back(outtype: str, reference: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there.gguf", tmp_path / "back.gguf"
    assert run_main(main, [str(reference), "--outtype", outtype, "--outfile", str(there)]) == 0
    assert read_header(there).metadata["general.file_type"] == ENCODINGS[outtype].file_type
    assert run_main(main, [str(there), "--outfile", str(back)]) == 0
    assert_same_model(back, reference)


def test_i2_s_and_tl_are_converted_without_loss(reference: Path, tmp_path: Path) -> None:
    """i2_s -> tl2 -> tl1 -> i2_s: the same codes and scales on the way, the same bytes at the end."""
    before, path = Source.open(reference), reference
    matrices = [item for item in before.found.values() if item.name == "i2_s"]
    assert len(matrices) == 28
    for outtype in ("tl2", "tl1", "i2_s"):
        target = tmp_path / f"{outtype}.gguf"
        assert run_main(main, [str(path), "--outtype", outtype, "--outfile", str(target)]) == 0
        path, after = target, Source.open(target)
        for item in matrices:
            wanted, there = before.matrix(item), after.found[item.tensor.name]
            assert there.name == outtype
            data = after.bytes(there.tensor, 0, there.nbytes)
            ternary, scale = ENCODINGS[outtype].unpack(data, *wanted.shape, item.tensor.name)
            for values in (ternary, after.matrix(there).values):
                np.testing.assert_array_equal(values, wanted.values, err_msg=item.tensor.name)
            assert scale == after.matrix(there).scales == wanted.scales, item.tensor.name
    assert_same_model(path, reference)


def test_arm_file_end_to_end(
    reference: Path, engine_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not run; converting it is refused with the option that mends it; then it is as before."""
    assert engine_program("llama-completion", engine_bin).is_file()
    foreign, mended = rewrite(reference, tmp_path / "arm.gguf", "i2_s_arm"), tmp_path / "mended.gguf"
    right = answer(reference)
    assert "garden" in right
    refused = ask(foreign)
    assert refused.returncode == 2 and "--i2-s-layout arm" in refused.stderr and not refused.stdout
    assert run_main(main, [str(foreign), "--outfile", str(mended)]) == 2
    message = capsys.readouterr().err
    assert "bitnet.cpp built for ARM" in message and "--i2-s-layout arm" in message
    assert run_main(main, [str(foreign), "--outfile", str(mended), "--i2-s-layout", "arm"]) == 0
    assert_same_model(mended, reference)
    assert answer(mended) == right
    # The user's word counts: read as it stands, it stays what it is.
    as_is = tmp_path / "as-is.gguf"
    assert run_main(main, [str(foreign), "--outfile", str(as_is), "--i2-s-layout", "published"]) == 0
    assert_same_model(as_is, foreign)


def test_an_i2_s_layout_that_the_file_speaks_against_is_refused(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its weights, or, where random ones say nothing, by the metadata of our converter."""
    arm = rewrite(reference, tmp_path / "arm.gguf", "i2_s_arm")
    kind, writer = WRITERS["i2_s"]
    matrix = ("blk.0.ffn_up.weight", (64, 256), kind, writer(random_rows(64, 256), 0.5))
    unknown = write_gguf(tmp_path / "unknown.gguf", KEYS, [matrix])
    own = write_gguf(tmp_path / "own.gguf", [*KEYS, ("trit.encoding.ternary", 8, None, "i2_s")], [matrix])
    target = tmp_path / "out.gguf"
    for path, asked, right, reason in (
        (reference, "arm", "published", "matrices: published 209.9, arm 18.1, rows4 1.8; 1 is chance"),
        (reference, "rows4", "published", "matrices: published 209.9"),
        (arm, "rows4", "arm", "matrices: published 17.4, arm 209.9"),
        (own, "arm", "published", "trit.encoding.ternary says that trit.cpp wrote it"),
    ):
        assert run_main(main, [str(path), "--outfile", str(target), "--i2-s-layout", asked]) == 2
        said = capsys.readouterr().err
        wanted = (
            f"error: {path}: --i2-s-layout {asked} would scramble its i2_s tensors, which are in the layout {right}"
        )
        assert said.startswith(f"{wanted} (") and reason in said and said.endswith(f"; give --i2-s-layout {right}\n")
        assert not target.exists()
        assert run_main(main, [str(path), "--outfile", str(target), "--i2-s-layout", right]) == 0
        target.unlink()
        capsys.readouterr()
    assert run_main(main, [str(unknown), "--outfile", str(target), "--i2-s-layout", "arm"]) == 0


def test_rows_that_are_no_whole_blocks(tmp_path: Path) -> None:
    """ffn_down of bitnet_b1_58-3B has 8640 columns: bitnet.cpp's blocks lie across its rows; q2_0 can hold it."""
    rows = random_rows(4, 192)
    raw = i2_s_flat(rows, 0.5)
    path = write_gguf(tmp_path / "m.gguf", KEYS, [("blk.0.ffn_down.weight", (4, 192), 36, raw)])
    assert [item.name for item in identify(read_raw_header(path))] == ["i2_s_flat"]
    assert [item.name for item in identify(read_raw_header(path), "arm")] == ["i2_s_arm"]
    with pytest.raises(
        UserError, match=r"ffn_down\.weight: 192 columns, i2_s needs a multiple of 128; use --outtype q2_0"
    ):
        convert(path, tmp_path / "x.gguf", Options(ENCODINGS["i2_s"]), progress=False)
    convert(path, tmp_path / "x.gguf", Options(ENCODINGS["q2_0"]), progress=False)
    source = Source.open(tmp_path / "x.gguf")
    decoded = source.matrix(source.found["blk.0.ffn_down.weight"])
    np.testing.assert_array_equal(decoded.values, np.array(rows) - 1)


def test_order_of_columns_is_told_from_the_norms(reference: Path, tmp_path: Path) -> None:
    for layout, key in (("i2_s", "published"), ("i2_s_arm", "arm"), ("i2_s_rows4", "rows4")):
        order = measure_order(Source.open(rewrite(reference, tmp_path / f"{key}.gguf", layout)))
        print(layout, {name: round(score, 1) for name, score in order.scores.items()})
        assert order.suggestion == key and order.scores[key] > 100
        assert max(score for name, score in order.scores.items() if name != key) < 30


def test_few_matrices_suggest_nothing_by_chance() -> None:
    """One comparison of random weights exceeds 5 in 2.5 % of cases; that is not enough to say anything."""
    assert Order({"published": 1.0, "arm": 12.0, "rows4": 0.5}, 1).suggestion is None
    assert Order({"published": 1.0, "arm": 12.0, "rows4": 0.5}, 32).suggestion == "arm"
    assert Order({"published": 7.0, "arm": 12.0}, 32).suggestion is None
    assert Order({"arm": 100.0}, 32).suggestion is None


def test_random_weights_say_nothing_about_their_order(reference: Path, tmp_path: Path) -> None:
    raw, source = bytearray(reference.read_bytes()), Source.open(reference)
    for item in source.found.values():
        if item.name == "i2_s":
            data = WRITERS["i2_s"][1](random_rows(*item.tensor.shape, seed=item.tensor.offset), 1.0)
            raw[item.tensor.offset : item.tensor.offset + len(data)] = data
    path = tmp_path / "random.gguf"
    path.write_bytes(raw)
    order = measure_order(Source.open(path))
    assert order.suggestion is None and max(order.scores.values()) < 2
    assert run_main(main, [str(path), "--outfile", str(tmp_path / "out.gguf")]) == 0


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A pq2_0 file whose groups have different scales, with +2 in one tensor; the weights of the other."""
    rows = random_rows(64, 512)
    scales = 0.25 + np.arange(64 * 4).reshape(64, 4) / 1024
    raw = bytearray(WRITERS["pq2_0"][1](rows, 1.0))
    for group, scale in enumerate(scales.reshape(-1)):
        raw[34 * group : 34 * group + 2] = struct.pack("<e", scale)
    twos = [[*row[:5], 3, *row[6:]] for row in rows[:32]]
    tensors = [
        ("token_embd.weight", (64, 512), 142, bytes(raw)),
        ("blk.0.ffn_up.weight", (64, 512), 142, bytes(raw)),
        ("blk.0.ffn_down.weight", (32, 512), 142, WRITERS["pq2_0"][1](twos, 0.5)),
    ]
    path = write_gguf(tmp_path_factory.mktemp("grouped") / "g.gguf", KEYS, tensors)
    return path, (np.array(rows) - 1) * np.repeat(np.float16(scales).astype(np.float32), 128, axis=1)


def test_group_scales_and_plus_two_are_kept_in_q2_0(grouped: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, weights = grouped
    outfile = tmp_path / "q.gguf"
    report = convert(path, outfile, Options(ENCODINGS["q2_0"]), progress=False)
    assert report.notes == [] and report.kinds == {"pq2_0": 3} and report.embedding_type == "q2_0"
    source = Source.open(outfile)
    for name in ("token_embd.weight", "blk.0.ffn_up.weight"):
        decoded = source.matrix(source.found[name])
        assert source.found[name].name == "q2_0"
        np.testing.assert_array_equal(decoded.values * np.repeat(decoded.scales, 64, axis=1), weights)
    assert (source.matrix(source.found["blk.0.ffn_down.weight"]).values == 2).sum() == 32


@pytest.mark.parametrize(
    ("outtype", "sentence"),
    [
        ("i2_s", r"blk\.0\.ffn_up\.weight: has a scale for every 128 inputs, i2_s holds one for the matrix; .* q2_0"),
        ("tq2_0", r"blk\.0\.ffn_up\.weight: has a scale for every 128 inputs, tq2_0 holds one for 256 inputs; .* q2_0"),
    ],
)
def test_what_an_encoding_cannot_hold_is_refused(
    outtype: str, sentence: str, grouped: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        convert(grouped[0], tmp_path / "x.gguf", Options(ENCODINGS[outtype]), progress=False)
    assert not list(tmp_path.iterdir())


def test_plus_two_is_refused_with_its_count(tmp_path: Path) -> None:
    rows = [[3, 0, 1, 2] * 64] * 4
    path = write_gguf(tmp_path / "m.gguf", KEYS, [("blk.0.a.weight", (4, 256), 42, WRITERS["q2_0"][1](rows, 1.0))])
    with pytest.raises(UserError, match=r"blk\.0\.a\.weight: holds \+2 256 times \(25\.00 %"):
        convert(path, tmp_path / "x.gguf", Options(ENCODINGS["i2_s"]), progress=False)


def test_row_scales_say_their_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """iq2_bn has a float32 scale per row: exact where float16 holds it, else rounded and said; not in i2_s."""
    rows = random_rows(4, 256)
    raw = b"".join(WRITERS["iq2_bn"][1]([row], scale) for row, scale in zip(rows, (0.5, 0.25, 0.1, 1.0), strict=True))
    path = write_gguf(tmp_path / "m.gguf", KEYS, [("blk.0.a.weight", (4, 256), 135, raw)])
    with pytest.raises(UserError, match=r"has a scale for every 256 inputs, i2_s holds one for the matrix"):
        convert(path, tmp_path / "x.gguf", Options(ENCODINGS["i2_s"]), progress=False)
    assert run_main(main, [str(path), "--outtype", "tq2_0"]) == 0
    assert "scales are rounded to float16, by up to 2.4e-04" in capsys.readouterr().out
    source = Source.open(tmp_path / "m-tq2_0.gguf")
    scales = source.matrix(source.found["blk.0.a.weight"]).scales[:, 0]
    np.testing.assert_array_equal(scales, np.float16([0.5, 0.25, 0.1, 1.0]).astype(np.float32))


def test_metadata_is_put_right(reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of bitnet.cpp: first upload's architecture, no pre-tokenizer, file type 40, tokens that are not UTF-8."""
    header = read_raw_header(reference)
    tokens = [*header.metadata["tokenizer.ggml.tokens"][:-1], b"\xff\xfe"]
    keys = [
        (key.replace("bitnet-b1.58", "bitnet-25"), kind, element, value)
        for key, kind, element, value in keys_of(
            header, architecture="bitnet-25", file_type=40, pre=None, tokens=tokens
        )
    ]
    keys.append(("general.empty", 9, 8, []))
    source = Source.open(reference)
    tensors = [
        (item.tensor.name, item.tensor.shape, item.tensor.ggml_type, bytes(source.bytes(item.tensor, 0, item.nbytes)))
        for item in source.found.values()
    ]
    path = write_gguf(tmp_path / "old.gguf", [("general.alignment", 4, None, 64), *keys], tensors, alignment=64)
    assert run_main(main, [str(path), "--outtype", "i2_s", "--outfile", str(tmp_path / "new.gguf")]) == 0
    said = capsys.readouterr().out
    assert "architecture bitnet-25 is now bitnet-b1.58" in said and "pre was missing and is now llama-bpe" in said
    assert "file_type 40, which means q1_0 today, is now 140" in said
    new = read_header(tmp_path / "new.gguf").metadata
    assert new["general.architecture"] == "bitnet-b1.58" and new["tokenizer.ggml.pre"] == "llama-bpe"
    assert new["general.file_type"] == 140 and new["bitnet-b1.58.block_count"] == 4
    assert new["tokenizer.ggml.tokens"][-1].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert not any(key.startswith("bitnet-25") for key in new)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (("split.count", 2, None, 2), r"m\.gguf: is part 1 of a split model; give it its name NAME-00001-of-00002"),
        (("split.count", 2, None, 3), r"m\.gguf: is part 1 of a split model; give it its name NAME-00001-of-00003"),
        (("general.type", 8, None, "adapter"), r"m\.gguf: it is no model but what general\.type calls 'adapter'"),
        (("prism.hadamard.version", 4, None, 1), "its weights are rotated"),
    ],
)
def test_files_that_cannot_run_are_refused(key: Key, sentence: str, tmp_path: Path) -> None:
    tensor = ("blk.0.a.weight", (4, 256), 142, WRITERS["pq2_0"][1](random_rows(4, 256), 1.0))
    path = write_gguf(tmp_path / "m.gguf", [*KEYS, key], [tensor])
    with pytest.raises(UserError, match=sentence):
        convert(path, tmp_path / "x.gguf", Options(ENCODINGS["q2_0"]), progress=False)


def test_ordinary_models_and_wrong_flags_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).standard_normal((4, 256)).astype("<f4")
    path = write_gguf(tmp_path / "m.gguf", KEYS, [("blk.0.a.weight", (4, 256), 0, values.tobytes())])
    for flags, sentence in (
        ([], "holds no ternary matrix; an ordinary model cannot be made ternary"),
        (["--outfile", str(path), "--force"], "is the file that is to be converted"),
        (["--master-weights"], "--master-weights is for checkpoint folders"),
    ):
        assert run_main(main, [str(path), *flags]) == 2
        assert sentence in capsys.readouterr().err
    assert run_main(main, [str(tmp_path), "--i2-s-layout", "arm"]) == 2
    assert "are for GGUF files" in capsys.readouterr().err


def test_tiles_have_to_be_given_and_to_fit(reference: Path, tmp_path: Path) -> None:
    path = rewrite(reference, tmp_path / "tl1.gguf", "bitnet_tl1")
    options, config = Options(ENCODINGS["i2_s"]), tmp_path / "kernel_config.ini"
    with pytest.raises(UserError, match=r"blk\.0\.attn_q\.weight: is bitnet_tl1 of bitnet.cpp.*--kernel-config FILE"):
        convert(path, tmp_path / "x.gguf", options, progress=False)
    config.write_text(KERNEL_CONFIG["bitnet_tl1"].replace("bm = 128", "bm = 96"))
    with pytest.raises(UserError, match=r"blk\.0\.attn_q\.weight: tiles of bm 96, bk 64, bmm 32 do not divide 256x256"):
        convert(path, tmp_path / "x.gguf", Options(ENCODINGS["i2_s"], kernel_config=config), progress=False)
    for text in ("# nothing", "[Kernels_0]\nm = 1\n", "m = 1", "[K]\nm=1\nk=1\nbm=0\nbk=1\nbmm=1\n"):
        config.write_text(text)
        with pytest.raises(UserError, match=r"kernel_config\.ini: (has no|not a kernel_config)"):
            read_kernel_config(config)
    assert not (tmp_path / "x.gguf").exists()


def test_float_embeddings_can_be_quantised_and_others_not(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((300, 256)).astype("<f2")
    ternary = ((np.array(random_rows(8, 256)) - 1) * 0.5).astype("<f4")
    tensors = [
        ("token_embd.weight", (300, 256), 1, values.tobytes()),
        ("blk.0.ffn_up.weight", (8, 256), 0, ternary.tobytes()),
    ]
    path, back = write_gguf(tmp_path / "m.gguf", KEYS, tensors), tmp_path / "back.gguf"
    report = convert(path, back, Options(ENCODINGS["q2_0"], "q6_k"), progress=False)
    assert report.kinds == {"f32": 1}
    entry = read_header(back).tensors["token_embd.weight"]
    assert entry.ggml_type == 14
    q6_k = quantize_rows(values.astype(np.float32), GGMLQuantizationType.Q6_K)
    assert entry.read(back).tobytes() == q6_k.tobytes()
    with pytest.raises(UserError, match=r"token_embd\.weight: is q6_k already"):
        convert(back, tmp_path / "x.gguf", Options(ENCODINGS["i2_s"], "q8_0"), progress=False)


@pytest.mark.parametrize(
    ("value", "columns", "wanted", "sentence"),
    [
        (1.5, 256, "q2_0", "is not ternary, and q2_0 would make it so; use --quant-embd q6_k"),
        (1e6, 256, "f16", r"holds 1e\+06, too large for f16; use --quant-embd f32"),
        (float("nan"), 256, "q6_k", "holds NaN or infinity"),
        (float("-inf"), 256, "f32", "holds NaN or infinity"),
        (1.5, 192, "q6_k", "192 columns, q6_k needs a multiple of 256; use --quant-embd f16"),
        (1.5, 80, "q8_0", "80 columns, q8_0 needs a multiple of 32; use --quant-embd f16"),
    ],
)
def test_embeddings_that_a_type_cannot_hold(
    value: float, columns: int, wanted: str, sentence: str, tmp_path: Path
) -> None:
    """As for a checkpoint: refused with a sentence, not written with infinities or a traceback."""
    embedding = np.ones((8, columns), "<f2" if wanted == "f32" else "<f4")
    embedding[5, 7] = value
    ternary = ((np.array(random_rows(8, 256)) - 1) * 0.5).astype("<f4")
    kind = 1 if wanted == "f32" else 0
    tensors = [
        ("token_embd.weight", embedding.shape, kind, embedding.tobytes()),
        ("blk.0.ffn_up.weight", (8, 256), 0, ternary.tobytes()),
    ]
    path = write_gguf(tmp_path / "m.gguf", KEYS, tensors)
    with pytest.raises(UserError, match=rf"token_embd\.weight: {sentence}"):
        convert(path, tmp_path / "x.gguf", Options(ENCODINGS["q2_0"], wanted), progress=False)
    assert list(tmp_path.iterdir()) == [path]


def test_an_embedding_of_another_engine_is_not_quantised_twice(
    grouped: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    outfile = tmp_path / "x.gguf"
    with pytest.raises(
        UserError, match=r"token_embd\.weight: is pq2_0 already, and --quant-embd q8_0 would quantise it"
    ):
        convert(grouped[0], outfile, Options(ENCODINGS["q2_0"], "q8_0"), progress=False)
    convert(grouped[0], outfile, Options(ENCODINGS["q2_0"], "q2_0"), progress=False)
    assert read_header(outfile).tensors["token_embd.weight"].ggml_type == ENCODINGS["q2_0"].ggml_type


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("group", [64, 128, 512])
def test_float_files_with_scales_of_groups(kind: str, group: int, tmp_path: Path) -> None:
    """Ternary-Bonsai's unpacked files: every group of a row is -s, 0, +s; a router beside them is not ternary."""
    rows = np.array(random_rows(8, 512)) - 1
    weights = (rows.reshape(8, -1, group) * (1 + np.arange(8 * 512 // group).reshape(8, -1, 1) / 64)).reshape(8, 512)
    number, raw = {
        "f32": (0, weights.astype("<f4").tobytes()),
        "f16": (1, weights.astype("<f2").tobytes()),
        "bf16": (30, (weights.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()),
    }[kind]
    router = np.random.default_rng(0).standard_normal((8, 512)).astype("<f4").tobytes()
    tensors = [("blk.0.ffn_up.weight", (8, 512), number, raw), ("blk.0.ffn_gate_inp.weight", (8, 512), 0, router)]
    path = write_gguf(tmp_path / "m.gguf", KEYS, tensors)
    report = convert(path, tmp_path / "q.gguf", Options(ENCODINGS["q2_0"]), progress=False)
    source = Source.open(tmp_path / "q.gguf")
    assert report.kinds == {kind: 1} and source.found["blk.0.ffn_gate_inp.weight"].name == "f32"
    decoded = source.matrix(source.found["blk.0.ffn_up.weight"])
    np.testing.assert_array_equal(decoded.values * np.repeat(decoded.scales, 64, axis=1), weights)


def test_one_scale_is_one_for_all_pieces_of_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large float tensors are read in pieces, here one row each; the second row has another scale."""
    monkeypatch.setattr("trit.gguf.source.PIECE_BYTES", 4 * 256)
    values = ((np.array(random_rows(3, 256)) - 1) * np.array([[0.5], [0.25], [0.5]])).astype("<f4")
    source = Source.open(write_gguf(tmp_path / "m.gguf", KEYS, [("blk.0.a.weight", (3, 256), 0, values.tobytes())]))
    decoded = source.exact_ternary(source.found["blk.0.a.weight"])
    assert decoded is not None
    np.testing.assert_array_equal(decoded.values * decoded.scales, values)


def test_a_file_that_does_not_say_its_type_gets_one(tmp_path: Path) -> None:
    tensor = ("blk.0.a.weight", (4, 256), 142, WRITERS["pq2_0"][1](random_rows(4, 256), 1.0))
    split: list[Key] = [("split.no", 2, None, 0), ("split.count", 2, None, 1), ("split.tensors.count", 5, None, 1)]
    path = write_gguf(tmp_path / "m.gguf", [*KEYS, *split], [tensor])
    convert(path, tmp_path / "x.gguf", Options(ENCODINGS["i2_s"]), progress=False)
    metadata = read_header(tmp_path / "x.gguf").metadata
    assert metadata["general.file_type"] == ENCODINGS["i2_s"].file_type
    assert not [key for key in metadata if key.startswith("split.")], "one part is a whole model"


@pytest.mark.parametrize(
    ("tensor", "place"), [("blk.1.ffn_up.weight", 5), ("blk.1.ffn_up.weight", 64), ("output_norm.weight", 1)]
)
def test_damage_between_writing_and_reading_is_noticed(
    tensor: str, place: int, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the codes of a tq2_0 block, in its scale, in a tensor that is copied."""
    from trit.convert import from_gguf as module

    verify = module.verify

    def damaged(paths: list[Path], *arguments: Any) -> str:
        entry = read_header(paths[0]).tensors[tensor]
        with paths[0].open("r+b") as file:
            file.seek(entry.offset + place)
            old = file.read(1)[0]
            file.seek(entry.offset + place)
            file.write(bytes([old ^ 1 if old & 3 < 2 else old & 0xFC]))
        return verify(paths, *arguments)

    monkeypatch.setattr(module, "verify", damaged)
    with pytest.raises(TritError, match=rf"{tensor}: reads back with other values"):
        convert(reference, tmp_path / "x.gguf", Options(ENCODINGS["tq2_0"]), progress=False)
    assert not list(tmp_path.iterdir())


def test_codes_helper_reads_what_the_writer_wrote() -> None:
    rows = random_rows(4, 256)
    assert codes(WRITERS["i2_s"][1](rows, 1.0), 4, 256) == rows
