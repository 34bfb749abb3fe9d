# SPDX-License-Identifier: MIT
"""What a GGUF file is converted to, apart from its layout: split files, where it is from, columns of no whole block."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.engine_logits import run_engine
from tests.support.foreign_files import WRITERS, Key, Tensor, i2_s_flat, keys_of, random_rows, rewrite, write_gguf
from tests.support.gguf_models import answer, assert_same_model
from tests.support.tiny_checkpoints import bitnet_1bitllm
from tests.support.tiny_gguf import KEYS
from trit.base.errors import UserError, run_main
from trit.base.places import ROOT, engine_program
from trit.convert import from_checkpoint
from trit.convert.command import main
from trit.convert.from_gguf import Options, convert
from trit.convert.matrices import SCALED_GRAPHS
from trit.gguf.encodings import ENCODINGS
from trit.gguf.header import read_raw_header
from trit.gguf.loadable import check_loadable
from trit.gguf.source import Source
from trit.gguf.types import read_header
from trit.inspect.command import inspect


def options(**changes: Any) -> Options:
    return Options(ENCODINGS["i2_s"], **changes)


def test_split_files_are_the_whole_model(story_gguf: Path, engine_bin: Path, tmp_path: Path) -> None:
    """The tensors of the file in their order, every part within its limit, and the same answer."""
    foreign = rewrite(story_gguf, tmp_path / "f.gguf", "q2_0_g128")
    paths = convert(foreign, tmp_path / "part.gguf", options(split_bytes=300_000), progress=False).paths
    count = len(paths)
    assert count > 2 and [path.name for path in paths] == [
        f"part-{i + 1:05d}-of-{count:05d}.gguf" for i in range(count)
    ]
    whole, parts = read_header(story_gguf), [read_header(path) for path in paths]
    pairs = [(path, entry) for path, part in zip(paths, parts, strict=True) for entry in part.tensors.values()]
    assert [entry.name for _, entry in pairs] == list(whole.tensors)
    for path, entry in pairs:
        assert entry.read(path).tobytes() == whole.tensors[entry.name].read(story_gguf).tobytes()
    for i, part in enumerate(parts):
        split = {key: part.metadata[f"split.{key}"] for key in ("no", "count", "tensors.count")}
        assert split == {"no": i, "count": count, "tensors.count": len(whole.tensors)}
        sizes = [entry.nbytes for entry in part.tensors.values()]
        assert len(sizes) == 1 or sum(sizes) <= 300_000
    assert set(whole.metadata) <= set(parts[0].metadata)
    assert engine_program("llama-completion", engine_bin).is_file()
    right = answer(story_gguf)
    assert "garden" in right and answer(paths[0]) == right


def test_parts_and_the_source_are_not_replaced(story_gguf: Path, tmp_path: Path) -> None:
    planned = options(split_bytes=300_000, force=False)
    count = len(convert(story_gguf, tmp_path / "n.gguf", planned, progress=False).paths)
    taken = tmp_path / f"m-{count:05d}-of-{count:05d}.gguf"
    taken.write_text("precious")
    with pytest.raises(UserError, match=rf"{taken.name}: exists already; pass --force"):
        convert(story_gguf, tmp_path / "m.gguf", planned, progress=False)
    assert taken.read_text() == "precious"
    itself = tmp_path / f"s-00001-of-{count:05d}.gguf"
    itself.write_bytes(story_gguf.read_bytes())
    with pytest.raises(UserError, match=rf"{itself.name}: is the file that is to be converted"):
        convert(itself, tmp_path / "s.gguf", options(split_bytes=300_000), progress=False)
    assert itself.read_bytes() == story_gguf.read_bytes()


@pytest.fixture(scope="module")
def split(story_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The bundled model in several files."""
    outfile = tmp_path_factory.mktemp("split") / "s.gguf"
    return convert(story_gguf, outfile, options(split_bytes=300_000), progress=False).paths


def test_split_model_is_read_as_one(split: list[Path], story_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Converted from its first file it is the whole model again, and its hashes are those of all its files."""
    back = split[0].with_name("s-i2_s.gguf")
    assert run_main(main, [str(split[0])]) == 0 and back.is_file()
    assert_same_model(back, story_gguf)
    metadata = read_header(back).metadata
    assert metadata["trit.source.files"] == [path.name for path in split]
    assert metadata["trit.source.sha256"] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in split]
    found, whole = inspect(split[0], exact=True), inspect(story_gguf, exact=True)
    assert found.kind == f"GGUF model in {len(split)} files" and found.verdict == whole.verdict == "loads as it is"
    assert (found.layers, found.types, found.memory["packed"]) == (whole.layers, whole.types, whole.memory["packed"])
    back.unlink()


def test_foreign_tensor_in_a_later_part_is_named(split: list[Path], tmp_path: Path) -> None:
    """Before the engine starts, with the file that it is in."""
    copies = [Path(shutil.copy(path, tmp_path)) for path in split]
    check_loadable(copies[0])
    raw = bytearray(copies[-1].read_bytes())
    source = Source.open(copies[0])
    name = next(name for name, item in source.found.items() if item.name == "i2_s" and source.files[name] == copies[-1])
    place = raw.index(name.encode()) + len(name) + 4 + 2 * 8  # behind it: number of dimensions, two of them, the type
    assert raw[place : place + 4] == (36).to_bytes(4, "little")
    raw[place] = 150
    copies[-1].write_bytes(raw)
    with pytest.raises(UserError, match=rf"{copies[-1].name}: {name} has type 150"):
        check_loadable(copies[0])


def test_parts_that_are_not_a_model(split: list[Path], tmp_path: Path) -> None:
    count = len(split)
    with pytest.raises(
        UserError, match=rf"{split[1].name}: is part 2 of a split model; give the first, {split[0].name}"
    ):
        Source.open(split[1])
    assert "is part 2 of a split model" in inspect(split[1]).verdict
    moved = Path(shutil.copy(split[0], tmp_path / "first.gguf"))
    with pytest.raises(
        UserError, match=rf"first\.gguf: is part 1 of a split model; give it its name NAME-00001-of-0+{count}"
    ):
        Source.open(moved)
    copies = [Path(shutil.copy(path, tmp_path)) for path in split]
    copies[1].unlink()
    with pytest.raises(UserError, match=rf"{copies[1].name}: is missing; the model is split into {count} files"):
        Source.open(copies[0])
    shutil.copy(split[2], copies[1])
    with pytest.raises(UserError, match=rf"{copies[1].name}: does not say that it is part 2 of {count}"):
        Source.open(copies[0])


def test_parts_of_two_models(tmp_path: Path) -> None:
    """Numbers that fit, tensors that do not: one twice, or one too few."""

    def part(number: int, name: str, total: int) -> Path:
        keys: list[Key] = [
            *KEYS,
            ("split.no", 2, None, number),
            ("split.count", 2, None, 2),
            ("split.tensors.count", 5, None, total),
        ]
        raw = WRITERS["q2_0"][1](random_rows(4, 256), 0.5)
        return write_gguf(tmp_path / f"m-0000{number + 1}-of-00002.gguf", keys, [(name, (4, 256), 42, raw)])

    part(1, "blk.0.a.weight", 2)
    with pytest.raises(UserError, match=r"m-00002-of-00002\.gguf: blk\.0\.a\.weight is in m-00001-of-00002\.gguf too"):
        Source.open(part(0, "blk.0.a.weight", 2))
    with pytest.raises(UserError, match="says that the model has 3 tensors, its parts have 2"):
        Source.open(part(0, "blk.0.b.weight", 3))
    assert len(Source.open(part(0, "blk.0.b.weight", 2)).found) == 2


def test_manifest_names_the_file(story_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign, once, twice = (tmp_path / f"{name}.gguf" for name in ("foreign", "once", "twice"))
    rewrite(story_gguf, foreign, "pq2_0")
    flags = ["--outtype", "tq2_0", "--source", "somebody/a-model@v1.0"]
    assert run_main(main, [str(foreign), *flags, "--outfile", str(once)]) == 0
    first = read_header(once).metadata
    assert (first["trit.source.repository"], first["trit.source.revision"]) == ("somebody/a-model", "v1.0")
    assert first["trit.source.files"] == ["foreign.gguf"]
    assert first["trit.source.sha256"] == [hashlib.sha256(foreign.read_bytes()).hexdigest()]
    embedding = Source.open(foreign).found["token_embd.weight"].name
    assert (first["trit.encoding.ternary"], first["trit.encoding.embedding"]) == ("tq2_0", embedding)
    # Converted again: the hash is that of the new input; where it is from is carried on, unless something else is said.
    assert run_main(main, [str(once), "--outfile", str(twice)]) == 0
    second = read_header(twice).metadata
    assert (second["trit.source.repository"], second["trit.source.revision"]) == ("somebody/a-model", "v1.0")
    assert second["trit.source.sha256"] == [hashlib.sha256(once.read_bytes()).hexdigest()]
    assert second["trit.encoding.ternary"] == "i2_s"
    assert run_main(main, [str(once), "--outfile", str(twice), "--force", "--source", "else/where"]) == 0
    third = read_header(twice).metadata
    assert third["trit.source.repository"] == "else/where" and "trit.source.revision" not in third
    capsys.readouterr()
    assert run_main(main, [str(once), "--outfile", str(twice), "--force", "--source", "a b"]) == 2
    assert "--source a b: expected ORG/NAME" in capsys.readouterr().err


def test_revision_comes_from_the_download(story_gguf: Path, tmp_path: Path) -> None:
    foreign, commit = rewrite(story_gguf, tmp_path / "m.gguf", "pq2_0"), "0123456789" * 4
    note = tmp_path / ".cache" / "huggingface" / "download" / "m.gguf.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{commit}\n{hashlib.sha256(foreign.read_bytes()).hexdigest()}\n1700000000.0\n")
    convert(foreign, tmp_path / "x.gguf", options(), progress=False)
    assert read_header(tmp_path / "x.gguf").metadata["trit.source.revision"] == commit


# --- columns of no whole block


@pytest.fixture(scope="module", params=["bitnet_b1_58-3B", "bitnet_b1_58-xl"])
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model whose ffn_down fits no i2_s: as an f32 file, and converted from its folder to i2_s."""
    folder = tmp_path_factory.mktemp("odd")
    bitnet_1bitllm.make(folder, request.param, "master-f32")
    floats, ours = folder / "f32.gguf", folder / "i2_s.gguf"
    for path, outtype in ((floats, "f32"), (ours, "i2_s")):
        from_checkpoint.convert(folder, path, from_checkpoint.Options(ENCODINGS[outtype], "f16"), progress=False)
    return floats, ours


def test_odd_columns_become_what_they_are_from_a_folder(
    odd: tuple[Path, Path], engine_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    floats, ours = odd
    back = tmp_path / "back.gguf"
    assert run_main(main, [str(floats), "--outfile", str(back)]) == 0
    said = capsys.readouterr().out
    assert "note: 2 matrices like blk.0.ffn_down.weight have" in said and "14 ternary tensors" in said
    assert_same_model(back, ours)
    assert "blk.0.ffn_down.scale" in read_header(back).tensors
    a, b = run_engine(engine_bin, back, chunks=2), run_engine(engine_bin, ours, chunks=2)
    np.testing.assert_array_equal(a.logprobs, b.logprobs)
    # Once more: the scale's tensor is there already, and stays the only one.
    again = tmp_path / "again.gguf"
    assert run_main(main, [str(back), "--outfile", str(again)]) == 0
    assert_same_model(again, ours)


def test_blocks_across_rows_become_what_they_are_from_a_folder(odd: tuple[Path, Path], tmp_path: Path) -> None:
    """bitnet.cpp's file of the same model: i2_s, ffn_down with blocks that lie across its rows."""
    floats, ours = odd
    source = Source.open(floats)
    tensors: list[Tensor] = []
    for item in source.found.values():
        tensor, raw = item.tensor, source.bytes(item.tensor, 0, item.nbytes).tobytes()
        row = (tensor.name, tensor.shape, tensor.ggml_type, raw)
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2:
            decoded = source.exact_ternary(item)
            assert decoded is not None
            rows = (decoded.values + 1).tolist()
            row = (*row[:2], 36, i2_s_flat(rows, float(decoded.scales[0, 0])))
        tensors.append(row)
    path = write_gguf(tmp_path / "flat.gguf", keys_of(read_raw_header(floats), file_type=40), tensors)
    assert Source.open(path).found["blk.1.ffn_down.weight"].name == "i2_s_flat"
    assert run_main(main, [str(path), "--outfile", str(tmp_path / "back.gguf")]) == 0
    assert_same_model(tmp_path / "back.gguf", ours)


def file_of(path: Path, shapes: dict[str, tuple[int, ...]], architecture: str = "bitnet-b1.58") -> Path:
    tensors: list[Tensor] = []
    for name, shape in shapes.items():
        rows = random_rows(int(np.prod(shape[:-1])), shape[-1])
        tensors.append((f"blk.0.{name}.weight", shape, 42, WRITERS["q2_0"][1](rows, 0.5)))
    return write_gguf(path, [("general.architecture", 8, None, architecture)], tensors)


@pytest.mark.parametrize(
    ("shapes", "architecture"),
    [
        ({"ffn_up": (4, 256), "ffn_down": (8, 192)}, "bitnet-b1.58"),  # most of the weights
        ({"ffn_up": (16, 256), "ffn_down": (8, 192)}, "qwen2"),  # a graph without scales
        ({"ffn_up": (16, 256), "ffn_down": (2, 4, 192)}, "llama"),  # experts
    ],
)
def test_where_there_is_no_fallback_it_is_refused(
    shapes: dict[str, tuple[int, ...]], architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The file has none of the keys and other tensors of a model.
    monkeypatch.setattr("trit.convert.metadata.unsound", lambda header, foreign: None)
    path = file_of(tmp_path / "m.gguf", shapes, architecture)
    with pytest.raises(
        UserError, match=r"ffn_down\.weight: 192 columns, i2_s needs a multiple of 128; use --outtype q2_0"
    ):
        convert(path, tmp_path / "x.gguf", options(), progress=False)
    assert list(tmp_path.iterdir()) == [path]


def test_graphs_that_multiply_with_scales_do() -> None:
    """The engine's own source: each of these graphs gives every product of a layer the tensor beside its matrix."""
    models = ROOT / "3rdparty" / "llama.cpp" / "src" / "models"
    if not models.is_dir():
        pytest.skip("the engine's source is not unpacked")
    for architecture in sorted(SCALED_GRAPHS):
        text = (models / f"{architecture.removesuffix('-b1.58').replace('-', '')}.cpp").read_text()
        assert "build_qkv(" in text or re.search(r"layers\[il\]\.wq_s", text), architecture
        for name in ("wo", "ffn_up", "ffn_gate", "ffn_down"):
            assert len(re.findall(rf"layers\[il\]\.{name}_s\b", text)) >= 1, f"{architecture}: {name}"


# --- groups, zeros and embeddings


def test_group_of_zeros_by_its_scale(tmp_path: Path) -> None:
    """Codes behind a scale of 0 are zeros, whatever they are; one scale is left, which i2_s holds."""
    rows = random_rows(4, 256)
    raw = b"".join(
        WRITERS["q2_0"][1]([row[i : i + 64]], 0.0 if i == 64 else 0.5) for row in rows for i in range(0, 256, 64)
    )
    path = write_gguf(tmp_path / "m.gguf", KEYS, [("blk.0.a.weight", (4, 256), 42, raw)])
    expected = np.array(rows) - 1
    expected[:, 64:128] = 0
    for outtype in ("i2_s", "tq1_0", "tq2_0", "q2_0", "f16"):
        outfile = tmp_path / f"{outtype}.gguf"
        convert(path, outfile, Options(ENCODINGS[outtype]), progress=False)
        source = Source.open(outfile)
        item = source.found["blk.0.a.weight"]
        decoded = source.matrix(item) if item.layout else source.exact_ternary(item)
        assert decoded is not None
        scales = np.broadcast_to(decoded.scales, (4, decoded.scales.shape[1]))
        weights = decoded.values * scales.repeat(256 // scales.shape[1], axis=1)
        np.testing.assert_array_equal(weights, expected * 0.5)


def test_few_floats_are_not_ternary_by_chance(tmp_path: Path) -> None:
    """Every row of one value is -s or +s: that makes no matrix ternary."""
    column = np.random.default_rng(0).standard_normal((8, 1)).astype("<f4")
    tensors: list[Tensor] = [
        ("blk.0.conv.weight", (8, 1), 0, column.tobytes()),
        ("blk.0.ffn_up.weight", (8, 256), 42, WRITERS["q2_0"][1](random_rows(8, 256), 0.5)),
    ]
    path = write_gguf(tmp_path / "m.gguf", KEYS, tensors)
    assert convert(path, tmp_path / "x.gguf", options(), progress=False).kinds == {"q2_0": 1}
    entry = read_header(tmp_path / "x.gguf").tensors["blk.0.conv.weight"]
    assert entry.ggml_type == 0 and entry.read(tmp_path / "x.gguf").tobytes() == column.tobytes()


@pytest.mark.parametrize(
    ("columns", "value", "flag", "sentence"),
    [
        (256, 1.0, "q2_0", "token_embd.weight: is not ternary, and q2_0 would make it so"),
        (256, 1e6, "f16", "token_embd.weight: holds 1e+06, too large for f16; use --quant-embd f32"),
        (256, float("nan"), "q6_k", "token_embd.weight: holds NaN or infinity"),
        (192, 1.0, "q6_k", "token_embd.weight: 192 columns, q6_k needs a multiple of 256; use --quant-embd f16"),
    ],
)
def test_embeddings_that_a_type_cannot_hold(
    columns: int, value: float, flag: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.random.default_rng(0).standard_normal((16, columns)).astype("<f4")
    values[3, 5] = value
    tensors: list[Tensor] = [
        ("token_embd.weight", (16, columns), 0, values.tobytes()),
        ("blk.0.ffn_up.weight", (8, 256), 42, WRITERS["q2_0"][1](random_rows(8, 256), 0.5)),
    ]
    path = write_gguf(tmp_path / "m.gguf", KEYS, tensors)
    assert run_main(main, [str(path), "--quant-embd", flag]) == 2
    assert sentence in capsys.readouterr().err and list(tmp_path.iterdir()) == [path]


def test_embedding_type_that_it_has_already(tmp_path: Path) -> None:
    """Asking for what is there is no second quantisation; a foreign layout can become nothing but q2_0."""
    raw = WRITERS["pq2_0"][1](random_rows(8, 256), 0.5)
    tensors: list[Tensor] = [("token_embd.weight", (8, 256), 142, raw), ("blk.0.ffn_up.weight", (8, 256), 142, raw)]
    path = write_gguf(tmp_path / "m.gguf", KEYS, tensors)
    for name, encoding in (("a", "q2_0"), ("b", "tq2_0")):
        planned = Options(ENCODINGS[encoding], embedding_type="q2_0")
        assert convert(path, tmp_path / f"{name}.gguf", planned, progress=False).embedding_type == "q2_0"
        path = tmp_path / f"{name}.gguf"
    with pytest.raises(UserError, match=r"token_embd\.weight: is q2_0 already, and --quant-embd q6_k would quantise"):
        convert(path, tmp_path / "x.gguf", options(embedding_type="q6_k"), progress=False)


# --- files that are none, and flags for others


def test_files_that_are_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The converter and the inspector say the same."""
    whole = file_of(tmp_path / "m.gguf", {"ffn_up": (8, 256)}).read_bytes()
    for content, sentence in (
        (b"", "is empty; download or make the file again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "is a Git LFS pointer to the file of 9 bytes",
        ),
        (b"<html></html>", "is a web page, not the file"),
        # Of the layouts that have the number of q2_0's 576 bytes, stq1_0 takes the least, 336.
        (whole[:-300], f"is cut short: by its header it has at least {len(whole) - 240:,} bytes, found"),
        (write_gguf(tmp_path / "m.gguf", KEYS, []).read_bytes(), "no weights"),
    ):
        path = tmp_path / "x.gguf"
        path.write_bytes(content)
        assert run_main(main, [str(path)]) == 2
        said = capsys.readouterr().err
        assert sentence in said and sentence in inspect(path).verdict
        assert ("cut short" in said) == (content == whole[:-300])
    assert run_main(main, [str(tmp_path / "no.gguf")]) == 2
    assert "no.gguf: there is no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--i2-s-layout", "arm"], "m.gguf: holds no i2_s, so leave --i2-s-layout away"),
        (["--kernel-config", "{file}"], "m.gguf: holds no TL1 or TL2, so leave --kernel-config away"),
        (["--kernel-config", "no.ini"], "no.ini: is not there"),
        (["--outfile", "{folder}", "--force"], "is a folder; give --outfile the name of a file in it"),
        (["--outfile", "x.bin"], "x.bin: is the name of a checkpoint's file"),
    ],
)
def test_flags_for_other_files(
    flags: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trit.convert.metadata.unsound", lambda header, foreign: None)
    path = file_of(tmp_path / "m.gguf", {"ffn_up": (8, 256)})
    config = tmp_path / "kernel_config.ini"
    config.write_text("[Kernels_0]\nm = 8\nk = 256\nbm = 8\nbk = 8\nbmm = 8\n")
    words = [flag.format(file=config, folder=tmp_path) for flag in flags]
    assert run_main(main, [str(path), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_matrices_that_stay_are_told(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((8, 256)).astype("<f4")
    tensors: list[Tensor] = [
        ("blk.0.ffn_up.weight", (8, 256), 42, WRITERS["q2_0"][1](random_rows(8, 256), 0.5)),
        ("blk.0.ffn_gate_inp.weight", (8, 256), 0, values.tobytes()),
        ("blk.0.ffn_norm.weight", (256,), 0, values[0].tobytes()),
    ]
    report = convert(write_gguf(tmp_path / "m.gguf", KEYS, tensors), tmp_path / "x.gguf", options(), progress=False)
    (note,) = report.notes
    assert note == "1 matrices of layers are not ternary and stay as they are, blk.0.ffn_gate_inp.weight is the first"
