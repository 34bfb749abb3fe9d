# SPDX-License-Identifier: MIT
"""Broken, foreign and non-ternary checkpoints: one clear sentence, and nothing is left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import edit_json, make_checkpoint, refusal
from trit.base.errors import TritError, run_main
from trit.convert.command import main
from trit.convert.from_checkpoint import Options, convert
from trit.convert.pretokenizers import LLAMA_3
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import read_header

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A one-layer checkpoint of masters and one of packed weights."""
    root = tmp_path_factory.mktemp("pristine")
    kinds = ("master-bf16", "packed-autobitlinear")
    return {kind: make_checkpoint(root / kind, kind, layers=1, hidden=128, ffn=256).directory for kind in kinds}


@pytest.fixture
def master(pristine: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine["master-bf16"], tmp_path / "checkpoint"))


@pytest.fixture
def packed(pristine: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine["packed-autobitlinear"], tmp_path / "checkpoint"))


def edit_tensors(directory: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(directory / "model.safetensors")
    edit(tensors)
    save_file(tensors, directory / "model.safetensors")


# --- checkpoint folders


def test_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere: there is no such file or folder" in refusal(capsys, tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file(file: str, master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (master / file).unlink()
    assert f"has no {file}" in refusal(capsys, master)


def test_weights_of_another_form_are_named(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (master / "model.safetensors").rename(master / "consolidated.00.pth")
    assert "pytorch_model.bin.index.json (found consolidated.00.pth)" in refusal(capsys, master)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]"])
def test_broken_json(content: bytes, master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (master / "config.json").write_bytes(content)
    assert "config.json: " in refusal(capsys, master)


@pytest.mark.parametrize("keep", [0, 7, 100, -1000])
def test_truncated_safetensors(keep: int, master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = master / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    words = "not a whole safetensors file" if keep else "is empty"
    assert f"model.safetensors: {words}" in refusal(capsys, master)


def test_corrupt_header(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = master / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[8:12] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    assert "model.safetensors: not a whole safetensors file" in refusal(capsys, master)


def test_file_that_shrinks_while_it_is_read(master: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = master / "model.safetensors"

    def shrink(*arguments: Any) -> None:
        path.write_bytes(path.read_bytes()[:-200_000])

    monkeypatch.setattr("trit.convert.from_checkpoint._write_metadata", shrink)
    with pytest.raises(TritError, match=r"model\.safetensors: ends inside model\."):
        convert(master, master / "m.gguf", Options(ENCODINGS["f32"], "f32"), progress=False)
    assert not list(master.glob("*.gguf")) and not list(master.glob(".*.partial"))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "checkpoint", layers=1, hidden=128, ffn=256, shards=3).directory


def test_missing_shard(sharded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors is missing" in refusal(capsys, sharded)


def test_index_that_lies(sharded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map={**weight_map, "ghost": "model-00001-of-00003.safetensors"})
    assert "ghost: the index says" in refusal(capsys, sharded)
    edit_json(index, weight_map={"ghost": 5})
    assert "has no weight_map of file names" in refusal(capsys, sharded)


def test_tensor_in_two_shards(sharded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (sharded / f"model-0000{i}-of-00003.safetensors" for i in (1, 2))
    save_file({**load_file(second), **load_file(first)}, second)
    assert "is in both" in refusal(capsys, sharded)


def test_model_card(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (master / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    assert run_main(main, [str(master)]) == 0
    assert read_header(master / "ggml-model-i2_s.gguf").metadata["general.license"] == "mit"
    (master / "README.md").write_text("---\nlicense: [mit\n---\n")
    (master / "ggml-model-i2_s.gguf").unlink()
    capsys.readouterr()
    assert run_main(main, [str(master)]) == 2
    assert "README.md: the YAML at its top is broken" in capsys.readouterr().err


# --- foreign models


def test_wrong_architecture(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_json(master / "config.json", architectures=["FalconForCausalLM"])
    line = refusal(capsys, master)
    assert "architecture FalconForCausalLM is not supported; supported: BitNetForCausalLM" in line


@pytest.mark.parametrize("pattern", ["model.layers.0", "o_proj", "self_attn.o_proj", r"model\.layers\.\d+\.self_attn"])
def test_ordinary_layers_among_master_weights(pattern: str, master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``online`` says that floats are master weights, but not of the layers that are left out."""
    declared = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    edit_json(master / "config.json", quantization_config={**declared, "modules_to_not_convert": [pattern]})
    line = refusal(capsys, master)
    assert f"modules_to_not_convert has {pattern!r}, so model.layers.0.self_attn." in line, line


def test_heads_and_embeddings_may_be_left_out(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declared = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    # The last two match nothing: expressions are matched from the start, and up to a dot.
    names = ["lm_head", "model.embed_tokens", "o_proj|k_proj", "model.layers.0.self_attn.q"]
    edit_json(master / "config.json", quantization_config={**declared, "modules_to_not_convert": names})
    assert run_main(main, [str(master)]) == 0
    edit_json(master / "config.json", quantization_config={**declared, "modules_to_not_convert": ["("]})
    (master / "ggml-model-i2_s.gguf").unlink()
    assert "config.json" in refusal(capsys, master)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": None}, "architecture missing"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', the engine's BitNet graphs have relu2 or silu"),
        ({"hidden_size": "big"}, "hidden_size is 'big', expected a positive integer"),
        ({"num_key_value_heads": 3}, "4 query heads of 32 and 3 key/value heads do not fit hidden_size 128"),
        ({"head_dim": 64}, "4 query heads of 64"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope scaling of type yarn"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope scaling of type linear"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config says gptq"),
        ({"intermediate_size": 384}, "gate_proj.weight: has shape [256, 128], config.json asks for [384, 128]"),
        ({"vocab_size": 300}, "embed_tokens.weight: has shape [384, 128], config.json asks for [300, 128]"),
        ({"num_hidden_layers": 2}, "has no layer 1 (model.layers.1.*), but num_hidden_layers is 2 in config.json;"),
        ({"num_hidden_layers": 1000}, "num_hidden_layers is 1000, more than there are tensors (13)"),
        ({"tie_word_embeddings": False}, "lm_head.weight missing"),
    ],
)
def test_configuration_that_does_not_fit(
    changes: dict[str, Any], message: str, master: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_json(master / "config.json", **changes)
    assert message in refusal(capsys, master)


def test_missing_tensor(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_tensors(master, lambda tensors: tensors.pop(Q_PROJ))
    assert f"{Q_PROJ} missing" in refusal(capsys, master)


def test_unexpected_tensor(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bias = Q_PROJ.replace("weight", "bias")
    edit_tensors(master, lambda tensors: tensors.update({bias: torch.zeros(128)}))
    assert f"unexpected tensor {bias}" in refusal(capsys, master)


def test_head_that_is_not_the_tied_embedding(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_tensors(master, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(384, 128)}))
    assert "lm_head.weight: differs from model.embed_tokens.weight" in refusal(capsys, master)


# --- weights


def test_ordinary_model_is_refused(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_json(master / "config.json", quantization_config=None)
    line = refusal(capsys, master)
    assert f"{Q_PROJ}: is not ternary (worst deviation 0." in line and "--master-weights" in line


def test_one_odd_value_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = make_checkpoint(tmp_path / "checkpoint", "fake-f32", layers=1, hidden=128, ffn=256).directory

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[Q_PROJ][77, 5] = tensors[Q_PROJ].abs().max() / 4

    edit_tensors(directory, spoil)
    line = refusal(capsys, directory)
    assert f"{Q_PROJ}: is not ternary (worst deviation 0.250 of the largest weight" in line and "at [77, 5]" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [Q_PROJ, "model.embed_tokens.weight", "model.norm.weight"])
def test_nan_and_infinity(name: str, value: float, master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_tensors(master, lambda tensors: tensors[name].view(-1)[-1].fill_(value))
    assert f"{name}: holds NaN or infinity in model.safetensors" in refusal(capsys, master)


def test_packed_code_3(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_tensors(packed, lambda tensors: tensors[Q_PROJ][3, 4].fill_(0b01_11_00_10))
    assert f"{Q_PROJ}: holds the 2-bit code 3" in refusal(capsys, packed)


def test_packed_without_scale(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_tensors(packed, lambda tensors: tensors.pop(f"{Q_PROJ}_scale"))
    assert f"there is no {Q_PROJ}_scale" in refusal(capsys, packed)


@pytest.mark.parametrize(
    ("values", "found"), [([0.0], "is 0"), ([-1.0], "is -1"), ([1.0, 1.0], "has shape [2]"), ([], "has shape [0]")]
)
def test_scale_that_is_none(values: list[float], found: str, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_tensors(packed, lambda tensors: tensors.update({f"{Q_PROJ}_scale": torch.tensor(values)}))
    assert f"{Q_PROJ}_scale: {found}, expected one positive value" in refusal(capsys, packed)


def test_packed_shape(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_tensors(packed, lambda tensors: tensors.update({Q_PROJ: torch.zeros(31, 128, dtype=torch.uint8)}))
    assert f"{Q_PROJ}: is packed with shape [31, 128], config.json asks for [128, 128]" in refusal(capsys, packed)


def test_integers_where_floats_belong(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "model.norm.weight"
    edit_tensors(packed, lambda tensors: tensors.update({name: torch.ones(128, dtype=torch.uint8)}))
    assert f"{name}: expected floating-point values, found U8" in refusal(capsys, packed)
    edit_tensors(packed, lambda tensors: tensors.update({name: torch.ones(128, dtype=torch.int64)}))
    assert f"{name}: stored as I64 in model.safetensors" in refusal(capsys, packed)


def test_master_with_a_scale(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_tensors(master, lambda tensors: tensors.update({f"{Q_PROJ}_scale": torch.ones(1)}))
    assert f"{Q_PROJ}: is declared a master weight, yet {Q_PROJ}_scale" in refusal(capsys, master)


def test_columns_that_do_not_fit(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, master, "--outtype", "tq2_0")
    assert "blk.0.attn_q.weight: 128 columns, tq2_0 needs a multiple of 256; use --outtype i2_s" in line


def test_values_too_large_for_f16(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "model.embed_tokens.weight"
    edit_tensors(packed, lambda tensors: tensors[name].view(-1)[9].fill_(1e5))
    for kind in ("f16", "q8_0"):
        line = refusal(capsys, packed, "--quant-embd", kind)
        assert f"{name}: holds 100000, too large for {kind}; use --quant-embd f32" in line
    edit_tensors(packed, lambda tensors: tensors[f"{Q_PROJ}_scale"].fill_(1e6))
    assert "blk.0.attn_q.weight: its scale" in refusal(capsys, packed, "--outtype", "f16", "--quant-embd", "f32")


def test_embedding_types_that_are_not_made_here(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--quant-embd: invalid choice: 'q2_k' (choose from" in refusal(capsys, master, "--quant-embd", "q2_k")


def test_embedding_columns_that_do_not_fit(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, master, "--quant-embd", "Q6_K")
    assert "token_embd.weight: 128 columns, q6_k needs a multiple of 256; use --quant-embd f16" in line


# --- tokenizers


def edit_tokenizer(directory: Path, **changes: Any) -> None:
    edit_json(directory / "tokenizer.json", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": None}, "its pre_tokenizer is not byte-level"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre_tokenizer is not byte-level"),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}}, "prefix space"),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False},
                        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                    ],
                }
            },
            "none that is known here (gpt-2, llama-bpe, dbrx, qwen2, qwen35, smollm, falcon, hunyuan-dense); it "
            "splits by ['x+']",
        ),
        ({"normalizer": {"type": "NFKC"}}, "has a NFKC normalizer"),
        ({"model": {"type": "WordPiece"}}, "is a WordPiece tokenizer"),
        ({"version": "77"}, "tokenizer.json: cannot be read"),
    ],
)
def test_tokenizer_that_the_engine_cannot_run(
    changes: dict[str, Any], message: str, master: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_tokenizer(master, **changes)
    assert message in refusal(capsys, master)


def test_tokenizer_without_merges(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = json.loads((master / "tokenizer.json").read_text())["model"]
    edit_tokenizer(master, model={**model, "merges": []})
    assert "has no merges" in refusal(capsys, master)


def test_more_tokens_than_embeddings(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_json(master / "config.json", vocab_size=300)
    edit_tensors(master, lambda tensors: tensors.update({"model.embed_tokens.weight": torch.zeros(300, 128)}))
    assert "config.json says vocab_size 300" in refusal(capsys, master)


def test_no_end_token(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (master / "tokenizer_config.json").unlink()
    (master / "generation_config.json").unlink()
    edit_json(master / "config.json", eos_token_id=None)
    assert "no file names an eos_token_id" in refusal(capsys, master)


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": 5},
        {"architectures": [None]},
        {"architectures": "BitNetForCausalLM"},
        {"quantization_config": "bitnet"},
        {"quantization_config": {"linear_class": ["x"]}},
        {"rope_parameters": "x"},
        {"rope_parameters": {"rope_theta": "abc"}},
        {"rms_norm_eps": "x"},
        {"rms_norm_eps": None},
        {"max_position_embeddings": -1},
        {"max_position_embeddings": "x"},
        {"hidden_act": ["relu2"]},
        {"head_dim": "x"},
        {"tie_word_embeddings": "false"},
        {"hidden_size": 128.5},
    ],
    ids=str,
)
def test_values_of_a_wrong_kind(change: dict[str, Any], master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_json(master / "config.json", **change)
    message = refusal(capsys, master)
    assert "config.json" in message and "Traceback" not in message


@pytest.mark.parametrize("change", [{"pre_tokenizer": "x"}, {"normalizer": "x"}, {"model": "x"}], ids=str)
def test_tokenizer_parts_of_a_wrong_kind(
    change: dict[str, Any], master: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_tokenizer(master, **change)
    assert "tokenizer.json" in refusal(capsys, master)


@pytest.mark.parametrize("change", [{"behavior": "Contiguous"}, {"behavior": "Removed"}, {"invert": True}], ids=str)
def test_known_pattern_used_in_another_way(
    change: dict[str, Any], master: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False, **change}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    edit_tokenizer(master, pre_tokenizer={"type": "Sequence", "pretokenizers": [split, level]})
    assert "none that is known here" in refusal(capsys, master)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_the_output_is_never_the_input(name: str, master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (master / name).read_bytes()
    assert run_main(main, [str(master), "--outfile", str(master / name), "--force"]) == 2
    assert "ends in .gguf" in capsys.readouterr().err
    assert (master / name).read_bytes() == before
