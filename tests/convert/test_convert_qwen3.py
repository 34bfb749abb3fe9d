# SPDX-License-Identifier: MIT
"""Qwen3 and Gemma 3 checkpoints: every storage kind converted and read back, keys, tokenizers, pooling, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from gguf import PoolingType
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import edit_json, refusal
from tests.support.tiny_checkpoints import gemma3, qwen3
from tests.support.tiny_checkpoints.built import Built, write_sentence_transformers
from tests.support.tiny_checkpoints.linear_layers import GROUPED
from trit.base.errors import UserError
from trit.convert.from_checkpoint import Options, convert
from trit.convert.pooling import read_pooling
from trit.gguf.encodings import ENCODINGS, spread_scale
from trit.gguf.types import GgufHeader, GGUFWriter, read_header
from trit.models.families import find_family
from trit.models.families.defaults import complete

EMBEDDING_06, EMBEDDING_270 = "bitnet-embedding-0.6b", "bitnet-embedding-270m"
FAMILY_OF = {EMBEDDING_270: gemma3} | dict.fromkeys(qwen3.VARIANTS, qwen3)
# Every storage kind of every family, the variants by turns.
CASES = [
    ("Ternary-Bonsai-1.7B", "master-bf16"),
    ("Ternary-Bonsai-4B", "packed-autobitlinear"),
    ("Ternary-Bonsai-8B", GROUPED),
    ("Ternary-Bonsai-8B", "fake-bf16"),
    (EMBEDDING_06, "master-bf16"),
    (EMBEDDING_06, "packed-autobitlinear"),
    (EMBEDDING_270, "master-bf16"),
    (EMBEDDING_270, "fake-bf16"),
    (EMBEDDING_270, "packed-autobitlinear"),
    (EMBEDDING_270, GROUPED),
]
# Names of a block's tensors in the checkpoint and in the file.
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
}
QWEN3_NORMS = {"post_attention_layernorm": "ffn_norm"}
GEMMA3_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def make(variant: str, storage: str, directory: Path, layers: int = 1) -> Built:
    family: ModuleType = FAMILY_OF[variant]
    built: Built = family.build(variant, storage, layers=layers)
    built.write(directory)
    return built


def gguf_name(name: str, gemma: bool) -> str:
    name = name.removeprefix("model.")
    top = {
        "embed_tokens.weight": "token_embd.weight",
        "norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in top:
        return top[name]
    _, i, rest = name.split(".", 2)
    names = NAMES | (GEMMA3_NORMS if gemma else QWEN3_NORMS)
    if rest.endswith("_proj.norm.weight"):
        return f"blk.{i}.{names[rest.removesuffix('.norm.weight')]}_norm_in.weight"
    return f"blk.{i}.{names[rest.removesuffix('.weight')]}.weight"


@pytest.mark.parametrize(("variant", "storage"), CASES)
def test_every_storage_kind_reads_back(variant: str, storage: str, tmp_path: Path) -> None:
    built, gemma = make(variant, storage, tmp_path / "checkpoint"), variant == EMBEDDING_270
    for outtype in ("q2_0", "f32") if storage == GROUPED else ("i2_s", "q2_0"):
        row, outfile = ENCODINGS[outtype], tmp_path / f"{outtype}.gguf"
        report = convert(tmp_path / "checkpoint", outfile, Options(row, "f32"), progress=False)
        assert sum(report.kinds.values()) == len(built.stored.ternary) == 7
        table = read_header(outfile).tensors
        parameters = dict(built.model.named_parameters())
        assert sorted(table) == sorted(gguf_name(name, gemma) for name in parameters)
        for name, value in parameters.items():
            entry, wanted = table[gguf_name(name, gemma)], value.detach().numpy()
            assert entry.shape == wanted.shape
            if name in built.stored.ternary:
                ternary, scale = row.unpack(entry.read(outfile), *entry.shape, name)
                np.testing.assert_array_equal(ternary, built.stored.ternary[name].numpy())
                values = ternary * spread_scale(scale, *entry.shape, 64).repeat(64, axis=1)
                np.testing.assert_allclose(values, wanted, rtol=6e-4 if outtype == "q2_0" else 1e-6)
                continue
            # Gemma's own norms are stored as weight - 1, those of the projections' inputs as they are.
            shifted = gemma and name.endswith("norm.weight") and not name.endswith("_proj.norm.weight")
            wanted = wanted.astype(np.float32) + np.float32(shifted)
            np.testing.assert_array_equal(entry.read(outfile).view("<f4").reshape(entry.shape), wanted, err_msg=name)


def header(variant: str, storage: str, tmp_path: Path, layers: int = 1) -> GgufHeader:
    make(variant, storage, tmp_path / "checkpoint", layers)
    convert(tmp_path / "checkpoint", tmp_path / "m.gguf", Options(ENCODINGS["f16"], "f16"), progress=False)
    return read_header(tmp_path / "m.gguf")


def test_keys_of_bonsai_8b(tmp_path: Path) -> None:
    found = header("Ternary-Bonsai-8B", GROUPED, tmp_path)
    keys = {key.removeprefix("qwen3."): value for key, value in found.metadata.items() if key.startswith("qwen3.")}
    assert keys == {
        "vocab_size": 3968,
        "context_length": 512,
        "embedding_length": 256,
        "block_count": 1,
        "feed_forward_length": 768,
        "attention.head_count": 4,
        "attention.head_count_kv": 1,
        "attention.key_length": 64,
        "attention.value_length": 64,
        "attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "rope.dimension_count": 64,
        "rope.freq_base": 1e6,
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 128,
    }
    assert found.metadata["general.architecture"] == "qwen3" and found.metadata["tokenizer.ggml.pre"] == "qwen2"
    assert "output.weight" in found.tensors, "the head is not tied"


@pytest.mark.parametrize(
    ("architecture", "name", "expected"),
    [
        (
            "Qwen3ForCausalLM",
            "qwen3",
            {"context_length": 32768, "attention.key_length": 128, "rope.dimension_count": 128},
        ),
        (
            "Gemma3TextModel",
            "gemma3",
            {
                "context_length": 131072,
                "attention.key_length": 256,
                "attention.sliding_window": 4096,
                "attention.sliding_window_pattern": [True] * 5 + [False, True],
                "rope.freq_base": 1e6,
                "rope.freq_base_swa": 1e4,
            },
        ),
    ],
)
def test_keys_that_a_configuration_leaves_out(architecture: str, name: str, expected: dict[str, Any]) -> None:
    """transformers' defaults, which are not LLaMA's."""
    writer = GGUFWriter(None, name)
    sizes = {"vocab_size": 384, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 7}
    config, _ = complete({"architectures": [architecture], **sizes, "num_attention_heads": 4, "num_key_value_heads": 4})
    find_family(config).write_hyperparameters(writer, config)
    found = {key: value.value for key, value in writer.kv_data[0].items()}
    assert {key: found[f"{name}.{key}"] for key in expected} == expected


def test_keys_of_bitnet_embedding_270m(tmp_path: Path) -> None:
    metadata = header(EMBEDDING_270, "master-bf16", tmp_path, layers=7).metadata
    assert metadata["general.architecture"] == "gemma3"
    assert metadata["gemma3.attention.sliding_window"] == 32
    assert metadata["gemma3.attention.sliding_window_pattern"] == [True] * 5 + [False, True]
    assert (metadata["gemma3.rope.freq_base"], metadata["gemma3.rope.freq_base_swa"]) == (1e6, 1e4)
    assert (metadata["gemma3.attention.key_length"], metadata["gemma3.pooling_type"]) == (128, PoolingType.LAST)
    assert metadata["tokenizer.ggml.model"] == "llama" and metadata["tokenizer.ggml.add_space_prefix"] is False
    assert metadata["tokenizer.ggml.add_bos_token"] is True and metadata["tokenizer.ggml.add_eos_token"] is True


@pytest.mark.parametrize("variant", ["Ternary-Bonsai-1.7B", EMBEDDING_06])
def test_what_the_tokenizer_appends_is_the_end_token(variant: str, tmp_path: Path) -> None:
    """Qwen3's embedding models append <|endoftext|>, which is not their eos; the engine appends eos."""
    metadata = header(variant, "fake-bf16", tmp_path).metadata
    tokens = metadata["tokenizer.ggml.tokens"]
    embedding = variant == EMBEDDING_06
    assert metadata["tokenizer.ggml.add_eos_token"] is embedding and not metadata["tokenizer.ggml.add_bos_token"]
    eos, eot = tokens[metadata["tokenizer.ggml.eos_token_id"]], tokens[metadata["tokenizer.ggml.eot_token_id"]]
    assert [eos, eot] == (["<|endoftext|>", "<|im_end|>"] if embedding else ["<|im_end|>", "<|endoftext|>"])
    assert ("qwen3.pooling_type" in metadata) is embedding


def test_older_and_newer_ways_to_write_gemma_s_rotary_keys(tmp_path: Path) -> None:
    make(EMBEDDING_270, "fake-bf16", tmp_path / "checkpoint")
    found = []
    for new in (False, True):
        if new:
            config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
            for key in ("rope_theta", "rope_local_base_freq", "rope_scaling", "layer_types"):
                del config[key]
            config["rope_parameters"] = {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
            config["_sliding_window_pattern"] = 6
            (tmp_path / "checkpoint" / "config.json").write_text(json.dumps(config))
        outfile = tmp_path / f"{new}.gguf"
        convert(tmp_path / "checkpoint", outfile, Options(ENCODINGS["i2_s"], "f16"), progress=False)
        found.append({key: value for key, value in read_header(outfile).metadata.items() if key.startswith("gemma3.")})
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints to copy and to spoil."""
    directory = tmp_path_factory.mktemp("checkpoints")
    for variant in ("Ternary-Bonsai-1.7B", EMBEDDING_06, EMBEDDING_270):
        make(variant, "master-bf16", directory / variant)
    return {path.name: path for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("Ternary-Bonsai-1.7B", {"hidden_act": "gelu"}, "hidden_act is 'gelu', the engine's qwen3 graph has silu"),
        (
            "Ternary-Bonsai-1.7B",
            {"use_sliding_window": True, "sliding_window": 64},
            "sliding_window 64 in a context of 512 is not supported",
        ),
        (
            "Ternary-Bonsai-1.7B",
            {"head_dim": 32},
            "q_norm.weight: has shape [64], config.json asks for [32]",
        ),
        (EMBEDDING_270, {"hidden_activation": "relu"}, "hidden_activation is 'relu', the engine's gemma3 graph has"),
        (
            EMBEDDING_270,
            {"query_pre_attn_scalar": 96},
            "query_pre_attn_scalar is 96, the engine's gemma3 graph has head_dim",
        ),
        (EMBEDDING_270, {"use_bidirectional_attention": True}, "use_bidirectional_attention is true"),
        (EMBEDDING_270, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is set"),
        (EMBEDDING_270, {"layer_types": ["full_attention"] * 3}, "layer_types has 3 entries of ['full_attention']"),
        (EMBEDDING_270, {"rope_scaling": {"rope_type": "dynamic"}}, "rope scaling of type dynamic is not supported"),
    ],
)
def test_configurations_that_the_graph_does_not_compute(
    variant: str,
    changes: dict[str, Any],
    message: str,
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = Path(shutil.copytree(folders[variant], tmp_path / "checkpoint"))
    edit_json(directory / "config.json", **changes)
    assert message in refusal(capsys, directory)


def test_a_matrix_that_does_not_fit_is_refused_where_no_scale_can_lie_beside_it(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, folders[EMBEDDING_270], "--outtype", "tq2_0")
    assert "384 columns, tq2_0 needs a multiple of 256; use --outtype i2_s or q2_0 or tl1 or tl2 or f16 or f32" in line


def test_input_norms_are_all_there_or_none(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Path(shutil.copytree(folders[EMBEDDING_06], tmp_path / "checkpoint"))
    tensors = load_file(directory / "model.safetensors")
    name = "layers.0.mlp.up_proj.norm.weight"
    save_file({key: value for key, value in tensors.items() if key != name}, directory / "model.safetensors")
    assert f": {name} missing; the checkpoint is not whole" in refusal(capsys, directory)
    # Without any, nothing says that the weights are masters of BitLinear layers.
    plain = {key: value for key, value in tensors.items() if "_proj.norm" not in key}
    save_file(plain, directory / "model.safetensors")
    assert "is not ternary" in refusal(capsys, directory)


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [("lasttoken", PoolingType.LAST), ("mean_tokens", PoolingType.MEAN), ("cls_token", PoolingType.CLS)],
)
def test_pooling_comes_from_sentence_transformers(mode: str, wanted: PoolingType, tmp_path: Path) -> None:
    write_sentence_transformers(tmp_path, mode, 256)
    for architecture in ("Qwen3ForCausalLM", "Qwen3Model"):
        assert read_pooling(tmp_path, {"architectures": [architecture]}) == wanted


def test_pooling_without_sentence_transformers(tmp_path: Path) -> None:
    assert read_pooling(tmp_path, {"architectures": ["Qwen3ForCausalLM"]}) is None
    assert read_pooling(tmp_path, {"architectures": ["Gemma3TextModel"]}) == PoolingType.LAST


def test_pooling_that_the_engine_has_not(tmp_path: Path) -> None:
    write_sentence_transformers(tmp_path, "max_tokens", 256)
    with pytest.raises(
        UserError, match=r"1_Pooling/config\.json: pools by pooling_mode_max_tokens, the engine by one of"
    ):
        read_pooling(tmp_path, {})
    edit_json(tmp_path / "1_Pooling" / "config.json", pooling_mode_max_tokens=False, pooling_mode_mean_tokens=True)
    assert read_pooling(tmp_path, {}) == PoolingType.MEAN
    edit_json(tmp_path / "1_Pooling" / "config.json", pooling_mode_lasttoken=True)
    with pytest.raises(UserError, match=r"pools by pooling_mode_\w+, pooling_mode_\w+, the engine by one of"):
        read_pooling(tmp_path, {})
    modules = json.loads((tmp_path / "modules.json").read_text())
    (tmp_path / "modules.json").write_text(
        json.dumps([*modules, {"type": "sentence_transformers.models.Dense", "path": "3_Dense"}])
    )
    with pytest.raises(UserError, match=r"modules\.json: has a module Dense"):
        read_pooling(tmp_path, {})
    (tmp_path / "modules.json").write_text("[1]")
    with pytest.raises(UserError, match=r"modules\.json: expected a list of modules"):
        read_pooling(tmp_path, {})
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(UserError, match=r"modules\.json: has 0 modules of type Pooling, expected one"):
        read_pooling(tmp_path, {})
