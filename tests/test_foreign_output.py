# SPDX-License-Identifier: MIT
"""What a GGUF file is converted to, apart from its layout: split files, where it is from, columns of no whole block."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_logits import run_engine
from foreign_files import WRITERS, Key, Tensor, i2_s_flat, keys_of, random_rows, rewrite, write_gguf
from gguf_models import answer, assert_same_model

from utils.cli import ROOT, UserError, run_main
from utils.convert import pipeline
from utils.convert.__main__ import main
from utils.convert.matrices import SCALED_GRAPHS
from utils.foreign.convert import Options, convert
from utils.foreign.source import Source
from utils.gguf_header import read_raw_header
from utils.gguf_types import read_header
from utils.host import engine_program
from utils.tiny_checkpoints import bitnet_1bitllm
from utils.weight_encodings import ENCODINGS


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
        pipeline.convert(folder, path, pipeline.Options(ENCODINGS[outtype], "f16"), progress=False)
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


KEYS: list[Key] = [("general.architecture", 8, None, "bitnet-b1.58")]


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
    shapes: dict[str, tuple[int, ...]], architecture: str, tmp_path: Path
) -> None:
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
