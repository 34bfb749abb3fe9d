# SPDX-License-Identifier: MIT
"""Checkpoints of every kind -> GGUF, decoded again and compared with the checkpoint's ternary values."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers.integrations.bitnet import WeightQuant, unpack_weights

from tests.support.checkpoints import KINDS, TinyModel, edit_json, make_checkpoint
from trit.base.errors import UserError
from trit.convert.command import main
from trit.convert.from_checkpoint import Options, convert
from trit.convert.ternary import Declared, read_ternary
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import GGUFReader, read_header
from trit.models.checkpoint import Checkpoint

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"
    return {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }[name]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyModel]:
    """One checkpoint per kind, shared and read-only; kinds differ in head layout and tying."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        kind: make_checkpoint(root / kind, kind, kv_heads=(1, 2, 4)[i % 3], tied=i % 2 == 0, seed=i)
        for i, kind in enumerate(KINDS)
    }


@pytest.fixture
def checkpoint(checkpoints: dict[str, TinyModel], tmp_path: Path) -> Path:
    """A copy of the master-bf16 checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoints["master-bf16"].directory, tmp_path / "checkpoint"))


@pytest.mark.parametrize("outtype", ENCODINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_encoding(kind: str, outtype: str, checkpoints: dict[str, TinyModel], tmp_path: Path) -> None:
    tiny, outfile, row = checkpoints[kind], tmp_path / "m.gguf", ENCODINGS[outtype]
    report = convert(tiny.directory, outfile, Options(row, "f32"), progress=False)
    assert sum(report.kinds.values()) == len(tiny.ternary)

    table = read_header(outfile).tensors
    state = {
        name: value for name, value in tiny.model.state_dict().items() if name in dict(tiny.model.named_parameters())
    }
    assert sorted(table) == sorted(gguf_name(name) for name in state)
    for name, value in state.items():
        entry = table[gguf_name(name)]
        assert entry.shape == tuple(value.shape)
        if name in tiny.ternary:
            assert entry.ggml_type == row.ggml_type
            ternary, scale = row.unpack(entry.read(outfile), *entry.shape, name)
            np.testing.assert_array_equal(ternary, tiny.ternary[name], err_msg=name)
            assert scale == pytest.approx(tiny.scales[name], rel=1e-3 if row.stored_scale(0.1) != 0.1 else 1e-6)
        else:
            assert entry.ggml_type == gguf.GGMLQuantizationType.F32
            np.testing.assert_array_equal(entry.read(outfile).view("<f4").reshape(entry.shape), value.numpy())


def test_gguf_py_decodes_the_same_weights(checkpoints: dict[str, TinyModel], tmp_path: Path) -> None:
    """An independent reader and decoder: gguf-py's, for the types that it knows."""
    tiny = checkpoints["master-f32"]
    for outtype in ("tq2_0", "tq1_0", "f16"):
        outfile = tmp_path / f"{outtype}.gguf"
        convert(tiny.directory, outfile, Options(ENCODINGS[outtype], "f16"), progress=False)
        decoded = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in GGUFReader(outfile).tensors}
        for name, ternary in tiny.ternary.items():
            scale = np.float32(np.float16(tiny.scales[name]))
            np.testing.assert_array_equal(decoded[gguf_name(name)], ternary * scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_masters_are_ternarised_as_transformers_does(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(3)
    weight = (torch.randn(384, 640) * 0.02).to(dtype)
    weight[0] = 0
    save_file({"w": weight}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    stored = Checkpoint.open(tmp_path).tensors["w"]
    ternary, scale, kind = read_ternary(stored, None, Declared(divides=False, master=True))
    with torch.compiler.set_stance("force_eager"):
        theirs = WeightQuant.apply(weight)
    assert kind == "master"
    np.testing.assert_array_equal(np.sign(theirs.float().numpy()), ternary)
    # torch sums the mean in float32, in an order of its own: the scale may differ in the last bits.
    torch.testing.assert_close((torch.from_numpy(ternary) * torch.tensor(scale)).to(dtype), theirs, rtol=3e-7, atol=0)


def test_the_scale_of_masters_is_what_training_divides_by(tmp_path: Path) -> None:
    """1 / (1 / mean) in float32, which is not the mean for one number in eight."""
    means = (np.float32(1) + np.arange(1, 1000, dtype=np.float32) / np.float32(1 << 10)).astype(np.float32)
    mean = next(float(m) for m in means if np.float32(1) / (np.float32(1) / m) != m)
    save_file({"w": torch.tensor([[mean / 2, -mean * 1.5] * 64])}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    stored = Checkpoint.open(tmp_path).tensors["w"]
    _, scale, _ = read_ternary(stored, None, Declared(divides=False, master=True))
    assert scale == float(np.float32(1) / (np.float32(1) / np.float32(mean))) != mean


def test_packed_weights_are_unpacked_as_transformers_does(checkpoints: dict[str, TinyModel]) -> None:
    tiny = checkpoints["packed-bitlinear"]
    stored = load_file(tiny.directory / "model.safetensors")
    with torch.compiler.set_stance("force_eager"):
        for name, ternary in tiny.ternary.items():
            assert np.array_equal(unpack_weights(stored[name], torch.float32).numpy(), ternary)


def test_a_matrix_of_zeros(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(4, 128)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    stored = Checkpoint.open(tmp_path).tensors["w"]
    ternary, scale, kind = read_ternary(stored, None, Declared(divides=False, master=False))
    assert not ternary.any() and scale == 1.0 and kind == "ternary floats"


def test_already_ternary_masters_are_kept(checkpoints: dict[str, TinyModel], tmp_path: Path) -> None:
    """Ternarising again would multiply every scale by the share of non-zero weights."""
    tiny, directory = checkpoints["fake-bf16"], tmp_path / "checkpoint"
    shutil.copytree(tiny.directory, directory)
    edit_json(directory / "config.json", quantization_config={"quant_method": "bitnet", "quantization_mode": "online"})
    report = convert(directory, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    assert report.kinds == {"ternary floats": len(tiny.ternary)}
    entry = read_header(tmp_path / "m.gguf").tensors["blk.0.attn_q.weight"]
    _, scale = ENCODINGS["i2_s"].unpack(entry.read(tmp_path / "m.gguf"), *entry.shape, "q")
    assert scale == tiny.scales["model.layers.0.self_attn.q_proj.weight"]


@pytest.mark.parametrize("kind", ["master-bf16", "fake-f32", "packed-bitlinear"])
def test_pieces_do_not_matter(
    kind: str, checkpoints: dict[str, TinyModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large tensors are read in pieces, here 1000 values at a time: the file is the same."""
    whole, pieces = tmp_path / "whole.gguf", tmp_path / "pieces.gguf"
    convert(checkpoints[kind].directory, whole, Options(ENCODINGS["i2_s"], "q8_0"), progress=False)
    monkeypatch.setattr("trit.models.checkpoint.CHUNK_VALUES", 1000)
    monkeypatch.setattr("trit.convert.read_back.PIECE_BYTES", 1000)
    convert(checkpoints[kind].directory, pieces, Options(ENCODINGS["i2_s"], "q8_0"), progress=False)
    assert whole.read_bytes() == pieces.read_bytes()


def test_scales_that_differ_between_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"w": torch.tensor([[0.0, 0.0], [0.5, -0.5], [0.25, 0.25]])}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("trit.models.checkpoint.CHUNK_VALUES", 2)
    stored = Checkpoint.open(tmp_path).tensors["w"]
    with pytest.raises(UserError, match=r"^w: is not ternary \(worst deviation 0\.500 .* at \[2, 0\] = 0\.25\)"):
        read_ternary(stored, None, Declared(divides=False, master=False))


def test_shards_give_the_same_file(tmp_path: Path) -> None:
    contents = []
    for shards in (1, 3):
        tiny = make_checkpoint(tmp_path / "checkpoint", "master-bf16", shards=shards)
        outfile = tmp_path / f"{shards}.gguf"
        convert(tiny.directory, outfile, Options(ENCODINGS["i2_s"], "f16"), progress=False)
        header = read_header(outfile)
        of_itself = ("trit.source.", "trit.padding")
        metadata = {key: value for key, value in header.metadata.items() if not key.startswith(of_itself)}
        tensors = {name: entry.read(outfile).tobytes() for name, entry in header.tensors.items()}
        assert len(header.metadata["trit.source.files"]) == shards
        contents.append((metadata, tensors))
        shutil.rmtree(tiny.directory)
    assert contents[0] == contents[1]


def test_metadata(checkpoints: dict[str, TinyModel], tmp_path: Path) -> None:
    tiny = checkpoints["master-bf16"]
    convert(tiny.directory, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16", name="Tiny"), progress=False)
    metadata = read_header(tmp_path / "m.gguf").metadata
    expected = {
        "general.architecture": "bitnet-b1.58",
        "general.name": "Tiny",
        "general.file_type": 140,
        "general.quantization_version": 2,
        "bitnet-b1.58.block_count": 2,
        "bitnet-b1.58.context_length": 256,
        "bitnet-b1.58.embedding_length": 256,
        "bitnet-b1.58.feed_forward_length": 512,
        "bitnet-b1.58.attention.head_count": 4,
        "bitnet-b1.58.attention.head_count_kv": 1,
        "bitnet-b1.58.rope.freq_base": 10000.0,
        "bitnet-b1.58.rope.dimension_count": 64,
        "bitnet-b1.58.vocab_size": 384,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 5,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }
    assert {key: metadata.get(key) for key in expected} == expected
    assert metadata["bitnet-b1.58.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)


def test_tokens_and_types(checkpoints: dict[str, TinyModel], tmp_path: Path) -> None:
    tiny = checkpoints["master-bf16"]
    convert(tiny.directory, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    metadata = read_header(tmp_path / "m.gguf").metadata
    tokenizer = Tokenizer.from_file(str(tiny.directory / "tokenizer.json"))
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    count = tokenizer.get_vocab_size()
    assert tokens[:count] == [tokenizer.id_to_token(i) for i in range(count)]
    assert count < 384 and tokens[count:] == [f"[PAD{i}]" for i in range(count, 384)]
    kinds = gguf.TokenType
    assert types[:2] == [kinds.CONTROL] * 2 and set(types[2 : count - 1]) == {kinds.NORMAL}
    assert types[tokenizer.token_to_id("<tool>")] == kinds.USER_DEFINED
    assert types[count:] == [kinds.UNUSED] * (384 - count)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    assert metadata["tokenizer.ggml.merges"] == [" ".join(pair) for pair in merges]


def test_chat_template_file_comes_first(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("from the file")
    convert(checkpoint, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    assert read_header(tmp_path / "m.gguf").metadata["tokenizer.chat_template"] == "from the file"


def test_llama_3_tokenizer(checkpoint: Path, tmp_path: Path) -> None:
    """The split of LLaMA 3 (and of BitNet-b1.58-2B-4T), as its tokenizer.json writes it."""
    description = json.loads((checkpoint / "tokenizer.json").read_text())
    regex = (
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
        "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    )
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    description["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    description["model"]["ignore_merges"] = True
    (checkpoint / "tokenizer.json").write_text(json.dumps(description))
    convert(checkpoint, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    assert read_header(tmp_path / "m.gguf").metadata["tokenizer.ggml.pre"] == "llama-bpe"


def test_without_tokenizer_config(checkpoint: Path, tmp_path: Path) -> None:
    """Special tokens come from config.json then, and adding bos from what tokenizer.json does."""
    (checkpoint / "tokenizer_config.json").unlink()
    (checkpoint / "generation_config.json").unlink()
    convert(checkpoint, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    metadata = read_header(tmp_path / "m.gguf").metadata
    assert [metadata[f"tokenizer.ggml.{key}"] for key in ("bos_token_id", "eos_token_id")] == [0, 1]
    assert metadata["tokenizer.ggml.add_bos_token"] is True and "tokenizer.ggml.eot_token_id" not in metadata


def test_every_special_token_is_named(checkpoint: Path, tmp_path: Path) -> None:
    texts = {"bos": "<|bos|>", "eos": "<|eos|>", "unk": "<tool>", "pad": "<|eos|>"}
    names = {f"{name}_token": text for name, text in texts.items()}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(names))
    convert(checkpoint, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    metadata = read_header(tmp_path / "m.gguf").metadata
    ids = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    found = {name: metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in ids.items()}
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    assert found == {name: tokenizer.token_to_id(text) for name, text in texts.items()}


@pytest.mark.parametrize(("says", "expected"), [({}, True), ({"add_bos_token": False}, False)])
def test_adding_bos(says: dict[str, bool], expected: bool, checkpoint: Path, tmp_path: Path) -> None:
    """tokenizer.json's post-processor puts bos in front; an explicit flag of tokenizer_config.json wins."""
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|eos|>", **says}))
    convert(checkpoint, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    assert read_header(tmp_path / "m.gguf").metadata["tokenizer.ggml.add_bos_token"] is expected


@pytest.mark.parametrize("embedding", ["f16", "bf16", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0"])
def test_embedding_types(embedding: str, checkpoints: dict[str, TinyModel], tmp_path: Path) -> None:
    tiny = checkpoints["packed-autobitlinear"]
    convert(tiny.directory, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], embedding), progress=False)
    by_name = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "m.gguf").tensors}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensor = by_name[gguf_name(name)]
        assert tensor.tensor_type.name == embedding.upper()
        wanted = tiny.model.state_dict()[name].numpy()
        error = np.abs(gguf.quants.dequantize(tensor.data, tensor.tensor_type) - wanted).max()
        steps = {
            "f16": 0,
            "bf16": 2**-9,
            "q8_0": 1 / 200,
            "q6_k": 1 / 50,
            "q5_k": 1 / 25,
            "q4_k": 1 / 12,
            "q4_0": 1 / 8,
        }
        assert error <= np.abs(wanted).max() * steps[embedding]


def test_tied_head_may_be_a_copy(checkpoint: Path, tmp_path: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, checkpoint / "model.safetensors")
    convert(checkpoint, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    assert "output.weight" not in read_header(tmp_path / "m.gguf").tensors


def test_master_weights_flag(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_json(checkpoint / "config.json", quantization_config=None)
    assert main([str(checkpoint), "--master-weights"]) == 0
    output = capsys.readouterr().out
    assert "i2_s from 14 master; embedding q6_k" in output
    assert "14 ternary tensors (1,114,112 weights) decode to the source's values and scales" in output
    assert (checkpoint / "ggml-model-i2_s.gguf").is_file()


def test_bare_quant_embd_means_f16(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(checkpoint), "--outtype", "f32", "--quant-embd"]) == 0
    assert "embedding f16" in capsys.readouterr().out
    assert main([str(checkpoint), "--outtype", "f32", "--force"]) == 0
    assert "embedding f32" in capsys.readouterr().out


def test_only_the_output_is_written_into_the_checkpoint(checkpoint: Path) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert main([str(checkpoint)]) == 0
    after = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert set(after) - set(before) == {"ggml-model-i2_s.gguf"}
    assert {name: after[name] for name in before} == before
