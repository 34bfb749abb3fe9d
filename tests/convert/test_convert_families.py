# SPDX-License-Identifier: MIT
"""Checkpoints of LLaMA's shape and 1bitLLM's: converted, read back, and run in the engine against transformers.

How the comparison works is in test_convert_engine.py. What is compared here are graphs and configurations, so every
case also says how far off a wrong conversion would be: the median KL divergence of the engine to the reference, against
that of the reference to itself with one thing changed.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import edit_json, refusal
from tests.support.engine_logits import EngineRun, divergence, int8_activations, reference, run_engine
from tests.support.tiny_checkpoints import bitnet, bitnet_1bitllm, find_family, llama, maple, minicpm, qwen2, qwen3
from tests.support.tiny_checkpoints.linear_layers import GROUPED, INPUT_NORM_EPSILON, INPUT_NORMS
from trit.base.errors import EXIT_USAGE
from trit.convert.command import main
from trit.convert.from_checkpoint import Options, convert
from trit.convert.report import Report
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import read_header

# Measured: up to 4e-7 and 5e-5 (one rounding of the first token that falls on the other side).
MAX_F16_KL, MAX_QAT_KL = 1e-5, 1e-3
# To a reference that rounds no activations; choosing experts makes steps of it.
MAX_INT8_KL = 4e-3
# With others a rounding of the first token, which is the same in all chunks, may fall on the other side.
SEED = 1
FAMILIES: dict[str, Any] = {"llama": llama, "qwen2": qwen2, "bitnet_1bitllm": bitnet_1bitllm}
LAYER = "model.layers.0"


def swap_rotated_halves(model: torch.nn.Module) -> None:
    """What is wrong with q if its rows are not reordered for the graph, or for one that needs no reordering."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("q_proj.weight"):
                size = model.config.head_dim if getattr(model.config, "head_dim", None) else 64
                halves = parameter.reshape(-1, 2, size // 2, parameter.shape[-1])
                parameter.copy_(halves.transpose(1, 2).reshape(parameter.shape))


def other_positions(model: torch.nn.Module) -> None:
    """Plain rotary positions in place of scaled ones."""
    rotary = model.model.rotary_emb
    size = 2 * rotary.inv_freq.shape[0]
    base = model.config.rope_parameters["rope_theta"]
    rotary.inv_freq = 1 / base ** (torch.arange(0, size, 2).double() / size)
    rotary.attention_scaling, rotary.rope_type = 1.0, "default"


def no_biases(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()


def other_scale(model: torch.nn.Module) -> None:
    """Scales of the down projection off by 5 %."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("down_proj.weight"):
                parameter.mul_(1.05)


def other_constants(model: torch.nn.Module) -> None:
    """Of MiniCPM: no scale of what a layer adds."""
    for layer in model.model.layers:
        layer.residual_multiplier = 1.0


def other_head(model: torch.nn.Module) -> None:
    model.config.logits_scaling /= 2


def norms_before_turning(model: torch.nn.Module) -> None:
    """Of Hunyuan: norms of the heads in front of the rotary embedding, as in Qwen3."""
    for layer in model.model.layers:
        attention = layer.self_attn
        for projection, norm in (("q_proj", "query_layernorm"), ("k_proj", "key_layernorm")):
            before = Normed(getattr(attention, projection), getattr(attention, norm))
            setattr(attention, projection, before)
            setattr(attention, norm, torch.nn.Identity())


def one_expert(model: torch.nn.Module) -> None:
    for layer in model.model.layers:
        layer.mlp.gate.used = 1


def other_experts(model: torch.nn.Module) -> None:
    """The stacks of two experts changed."""
    for layer in model.model.layers:
        experts = layer.mlp.experts
        experts[0], experts[1] = experts[1], experts[0]


def no_window(model: torch.nn.Module) -> None:
    for layer in model.model.layers:
        layer.self_attn.window = None


def turned_everywhere(model: torch.nn.Module) -> None:
    """The layer that sees everything rotates, too."""
    for layer in model.model.layers:
        layer.self_attn.rotated = 32


class Normed(torch.nn.Module):
    """A projection, then a norm of each head."""

    def __init__(self, linear: torch.nn.Module, norm: torch.nn.Module) -> None:
        super().__init__()
        self.linear, self.norm = linear, norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.linear(x)
        return self.norm(rows.unflatten(-1, (-1, self.norm.weight.shape[0]))).flatten(-2)


def engine_run(folder: Path, outtype: str, engine_bin: Path) -> tuple[EngineRun, Report]:
    gguf = folder / f"{outtype}.gguf"
    report = convert(folder, gguf, Options(ENCODINGS[outtype], "f16"), progress=False)
    return run_engine(engine_bin, gguf, chunks=3), report


Change = Callable[[torch.nn.Module], None]
CASES: list[tuple[str, str, str, Sequence[Change]]] = [
    ("llama", "Llama3-8B-1.58-100B-tokens", "packed-bitlinear", [swap_rotated_halves]),
    ("llama", "Falcon3-1B-Instruct-1.58bit", "packed-bitlinear", [swap_rotated_halves]),
    ("llama", "Falcon3-7B-1.58bit", "packed-autobitlinear", [swap_rotated_halves]),
    ("llama", "Falcon-E-1B-Base", "fake-bf16", [swap_rotated_halves]),
    ("llama", "Llama-3.2-1B-onebitllms", "master-bf16", [swap_rotated_halves, other_positions]),
    ("llama", "BitCPM-CANN-1B", "fake-bf16", [swap_rotated_halves, other_positions]),
    ("llama", "biased-yarn", "offline-float", [swap_rotated_halves, other_positions, no_biases]),
    ("qwen2", "Qwen2.5-0.5B-onebitllms", "master-f32", [swap_rotated_halves, no_biases]),
    ("bitnet_1bitllm", "bitnet_b1_58-large", "bin", [other_scale]),
    ("bitnet_1bitllm", "bitnet_b1_58-xl", "master-f32", [other_scale]),
    ("bitnet_1bitllm", "bitnet_b1_58-3B", "master-f32", [other_scale]),
]


@pytest.mark.parametrize(("family", "variant", "storage", "changes"), CASES, ids=[case[1] for case in CASES])
def test_engine_agrees_with_transformers(
    family: str, variant: str, storage: str, changes: Sequence[Change], engine_bin: Path, tmp_path: Path
) -> None:
    module = FAMILIES[family]
    module.make(tmp_path, variant, storage, SEED)
    model, stored, description = module.build(variant, storage, SEED)
    bos = description["bos_token_id"]
    plain_run, _ = engine_run(tmp_path, "f16", engine_bin)
    wanted = reference(model, plain_run.tokens, bos)
    kl = float(np.median(divergence(wanted, plain_run.logprobs)))
    wrong = []
    for change in changes:
        changed = copy.deepcopy(model)
        change(changed)
        wrong.append(float(np.median(divergence(wanted, reference(changed, plain_run.tokens, bos)))))
    rounded, report = engine_run(tmp_path, "i2_s", engine_bin)
    assert sum(report.kinds.values()) == len(stored.ternary) == 14
    # What became f16 computes with float activations.
    odd = "down" if "as f16" in str(report.notes) else "none"
    int8_activations(model, [name for name in stored.ternary if odd not in name])
    qat = reference(model, plain_run.tokens, bos)
    qat_kl = float(np.median(divergence(qat, rounded.logprobs)))
    others = ", ".join(f"{value:.1e}" for value in wrong)
    line = f"{variant}: KL of f16 {kl:.1e}, of i2_s to QAT {qat_kl:.1e}; of wrong conversions {others}"
    print(line)
    assert kl < MAX_F16_KL and qat_kl < MAX_QAT_KL, line
    assert 5 * max(kl, qat_kl) < min(wrong), line


CONSTANTS = [swap_rotated_halves, other_positions, other_constants, other_head]
GROUPS: list[tuple[str, str, str, Sequence[Change]]] = [
    ("minicpm", "BitCPM-CANN-0.5B", GROUPED, CONSTANTS),
    ("minicpm", "BitCPM-CANN-8B", "fake-bf16", CONSTANTS),
    ("minicpm", minicpm.LONG, GROUPED, [other_positions]),
    ("hunyuan_dense", "Hy-MT1.5-1.8B", GROUPED, [swap_rotated_halves, other_positions, norms_before_turning]),
    ("maple", "maple-preview", maple.ROWS, [one_expert, other_experts, no_window, turned_everywhere]),
]


@pytest.mark.parametrize(("family", "variant", "storage", "changes"), GROUPS, ids=[case[1] for case in GROUPS])
def test_engine_agrees_where_groups_have_scales(
    family: str, variant: str, storage: str, changes: Sequence[Change], engine_bin: Path, tmp_path: Path
) -> None:
    built = find_family(family).build(variant, storage, SEED)  # type: ignore[attr-defined]
    built.write(tmp_path)
    outtype = "q2_0" if storage == GROUPED else "tq2_0"
    plain_run, _ = engine_run(tmp_path, "f16", engine_bin)
    rounded, report = engine_run(tmp_path, outtype, engine_bin)
    assert sum(report.kinds.values()) == len(built.stored.ternary)
    # What the engine begins a text with, if the vocabulary asks for it.
    bos = built.config["bos_token_id"] if built.tokenizer.encode("a").special_tokens_mask[0] else plain_run.tokens[:, 0]
    wanted = reference(built.model, plain_run.tokens, bos)
    wrong = []
    for change in changes:
        changed = copy.deepcopy(built.model)
        change(changed)
        wrong.append(float(np.median(divergence(wanted, reference(changed, plain_run.tokens, bos)))))
    kl, rounded_kl = (float(np.median(divergence(wanted, run.logprobs))) for run in (plain_run, rounded))
    others = ", ".join(f"{value:.1e}" for value in wrong)
    line = f"{variant}: KL of f16 {kl:.1e}, of {outtype} {rounded_kl:.1e}; of wrong conversions {others}"
    print(line)
    assert kl < MAX_F16_KL and rounded_kl < MAX_INT8_KL and 5 * kl < min(wrong), line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_emb": 0}, "scale_emb is 0, expected a positive number"),
        ({"dim_model_base": "x"}, "dim_model_base is 'x', expected a positive number"),
        ({"num_experts": 8}, "num_experts, so this is MiniCPM-MoE"),
        ({"sparse_config": {"kernel_size": 32}}, "take sparse_config out"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "supported: default, linear, longrope"),
        ({"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, "long_factor of the rope scaling is [1.0]"),
        (
            {"rope_scaling": {"type": "longrope", "long_factor": [0.0] * 32, "short_factor": [1.0] * 32}},
            "long_factor of the rope scaling is 0.0, expected a positive number",
        ),
    ],
)
def test_refusals_of_minicpm(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minicpm.make(tmp_path, "BitCPM-CANN-0.5B", "fake-bf16")
    edit_json(tmp_path / "config.json", **changes)
    assert message in refusal(capsys, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nope_on_global_attention": False}, "nope_on_global_attention is False, the engine's maple graph has True"),
        ({"use_bias": True}, "use_bias is True, the engine's maple graph has False"),
        ({"num_shared_experts": 1}, "num_shared_experts is 1, the engine's maple graph has experts alone"),
        ({"layer_types": ["full_attention"]}, "layer_types is ['full_attention'], expected 4 times"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok is 9 of 8 experts"),
        ({"partial_rotary_factor": 0.11}, "partial_rotary_factor 0.11 turns 7 inputs of heads of 64"),
        ({"num_experts": 9}, f"{LAYER}.mlp.experts.8.down_proj.weight"),
        ({"num_experts": 7}, f"unexpected tensor {LAYER}.mlp.experts.7.down_proj.weight"),
    ],
)
def test_refusals_of_maple(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maple.make(tmp_path, "maple-preview", maple.ROWS)
    edit_json(tmp_path / "config.json", **changes)
    assert message in refusal(capsys, tmp_path)


def test_one_scale_for_all_experts_is_refused_with_what_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maple.make(tmp_path, "maple-preview", "fake-bf16")
    line = refusal(capsys, tmp_path, code=EXIT_USAGE)
    place = "blk.0.ffn_gate_exps.weight: has several matrices, i2_s one scale for all"
    assert line == f"error: {place}; use --outtype tq2_0 or tq1_0 or q2_0 or f16 or f32"


def test_keys_of_minicpm(tmp_path: Path) -> None:
    """Twice the original context: LongRoPE multiplies queries and keys with sqrt(1 + log(2) / log(256))."""
    minicpm.make(tmp_path, "BitCPM-CANN-8B", "fake-bf16")
    config = json.loads((tmp_path / "config.json").read_text())
    scaling = {**config["rope_scaling"], "original_max_position_embeddings": 256}
    edit_json(tmp_path / "config.json", rope_scaling=scaling)
    convert(tmp_path, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    header = read_header(tmp_path / "m.gguf")
    expected = {
        "general.architecture": "minicpm",
        "minicpm.embedding_scale": 12.0,
        "minicpm.residual_scale": pytest.approx(1.4 / 2**0.5),
        "minicpm.logit_scale": 16.0,
        "minicpm.rope.scaling.type": "longrope",
        "minicpm.rope.scaling.original_context_length": 256,
        "minicpm.rope.scaling.attn_factor": pytest.approx((1 + np.log(2) / np.log(256)) ** 0.5),
    }
    assert {key: header.metadata.get(key) for key in expected} == expected
    for name in ("long", "short"):
        entry = header.tensors[f"rope_factors_{name}.weight"]
        assert entry.read(tmp_path / "m.gguf").view("<f4") == pytest.approx(scaling[f"{name}_factor"])


# --- one-layer checkpoints of LLaMA's shape that lack something, or have too much


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pristine") / "checkpoint"
    llama.make(directory, "Llama3-8B-1.58-100B-tokens", "master-bf16")
    return directory


@pytest.fixture
def checkpoint(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', the engine's llama graph has silu"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope scaling of type dynamic is not supported"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 0}},
            "factor of the rope scaling is 0, expected",
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor of the rope scaling is None"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4, "truncate": False}}, "the engine truncates"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 128}, "sliding_window 128 in a context of 512"),
        ({"attention_bias": True}, "self_attn.k_proj.bias"),
        ({"mlp_bias": "no"}, "mlp_bias is 'no', expected true or false"),
        ({"head_dim": 63}, "4 query heads of 63 and 2 key/value heads do not fit"),
        ({"num_key_value_heads": 3}, "4 query heads of 64 and 3 key/value heads do not fit"),
        ({"num_hidden_layers": 3}, "has no layer 2 (model.layers.2.*), but num_hidden_layers is 3 in config.json"),
        ({"tie_word_embeddings": True}, "lm_head.weight: differs from model.embed_tokens.weight"),
        ({"quantization_config": None}, "q_proj.weight: is not ternary (worst deviation"),
        (
            {"quantization_config": {"quant_method": "bitnet", "use_rms_norm": True}},
            f"{LAYER}.mlp.down_proj.rms_norm.weight, {LAYER}.mlp.gate_proj.rms_norm.weight",
        ),
        (
            {"quantization_config": {"quant_method": "bitnet", "use_rms_norm": "yes"}},
            "use_rms_norm is 'yes', expected true or false",
        ),
        (
            {"quantization_config": {"quant_method": "bitnet", "use_rms_norm": True, "rms_norm_eps": 0}},
            "rms_norm_eps of quantization_config is 0, expected a positive number",
        ),
        ({"weight_bits": 2}, "weight_bits 2 and input_bits 8; the ternary kernels compute 1 and 8"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_json(checkpoint / "config.json", **changes)
    assert message in refusal(capsys, checkpoint)


def test_unexpected_norms_are_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    save_file({**tensors, f"{LAYER}.self_attn.q_norm.weight": torch.ones(64)}, checkpoint / "model.safetensors")
    assert f"unexpected tensor {LAYER}.self_attn.q_norm.weight" in refusal(capsys, checkpoint)


def test_declared_norms_are_needed_and_others_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """transformers computes with such norms where ``use_rms_norm`` says so, and ignores them elsewhere."""
    llama.make(tmp_path, INPUT_NORMS, "master-bf16")
    declared = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    edit_json(tmp_path / "config.json", quantization_config={**declared, "use_rms_norm": False})
    assert f"unexpected tensor {LAYER}.mlp.down_proj.rms_norm.weight" in refusal(capsys, tmp_path)
    edit_json(tmp_path / "config.json", quantization_config=declared)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[f"{LAYER}.self_attn.v_proj.rms_norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert f"{LAYER}.self_attn.v_proj.rms_norm.weight missing" in refusal(capsys, tmp_path)


@pytest.mark.parametrize(("module", "epsilon"), [(llama, 1e-5), (bitnet, 1e-5), (qwen2, 1e-6), (qwen3, 1e-6)])
def test_declared_norms_keep_their_values_and_their_own_epsilon(module: Any, epsilon: float, tmp_path: Path) -> None:
    module.make(tmp_path, INPUT_NORMS, "master-bf16")
    gguf = tmp_path / "m.gguf"
    convert(tmp_path, gguf, Options(ENCODINGS["i2_s"], "f16"), progress=False)
    header = read_header(gguf)
    architecture = header.metadata["general.architecture"]
    assert header.metadata[f"{architecture}.attention.layer_norm_rms_epsilon"] == pytest.approx(epsilon)
    assert header.metadata[f"{architecture}.attention.layer_norm_epsilon"] == pytest.approx(INPUT_NORM_EPSILON)
    tensors = load_file(tmp_path / "model.safetensors")
    entry = header.tensors["blk.1.ffn_down_norm_in.weight"]
    wanted = tensors["model.layers.1.mlp.down_proj.rms_norm.weight"].float().numpy()
    np.testing.assert_array_equal(entry.read(gguf).view("<f4"), wanted)
    assert len([name for name in header.tensors if name.endswith("_norm_in.weight")]) == 14


def test_stored_frequencies_are_left_out(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    frequencies = {f"{LAYER}.self_attn.rotary_emb.inv_freq": torch.ones(32)}
    save_file({**tensors, **frequencies}, checkpoint / "model.safetensors")
    assert main([str(checkpoint)]) == 0
    assert not [name for name in read_header(checkpoint / "ggml-model-i2_s.gguf").tensors if "inv_freq" in name]


def test_metadata(tmp_path: Path) -> None:
    llama.make(tmp_path, "biased-yarn", "master-f32")
    convert(tmp_path, tmp_path / "m.gguf", Options(ENCODINGS["i2_s"], "f16"), progress=False)
    metadata = read_header(tmp_path / "m.gguf").metadata
    expected = {
        "general.architecture": "llama",
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 32,
        "llama.attention.value_length": 32,
        "llama.rope.dimension_count": 32,
        "llama.rope.freq_base": 500000.0,
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 128,
    }
    assert {key: metadata.get(key) for key in expected} == expected
    assert metadata["llama.rope.scaling.attn_factor"] == pytest.approx(1.25 / (1 + 0.1 * np.log(4)))


def test_columns_of_no_whole_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """bitnet_b1_58-3B's 8640 columns: one line says what became of them, and the file holds their values exactly."""
    bitnet_1bitllm.make(tmp_path, "bitnet_b1_58-3B", "master-f32")
    assert main([str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "note: 2 matrices like blk.0.ffn_down.weight have 576 columns, i2_s needs a multiple of 128" in output
    assert "14 ternary tensors" in output
    _, stored, _ = bitnet_1bitllm.build("bitnet_b1_58-3B", "master-f32")
    gguf, name = tmp_path / "ggml-model-i2_s.gguf", f"{LAYER}.mlp.down_proj.weight"
    table = read_header(gguf).tensors
    entry, scale = table["blk.0.ffn_down.weight"], table["blk.0.ffn_down.scale"]
    ternary, one = ENCODINGS["q2_0"].unpack(entry.read(gguf), *entry.shape, name)
    assert one == 1.0 and scale.read(gguf).view("<f4")[0] == np.float32(stored.scales[name])
    np.testing.assert_array_equal(ternary, stored.ternary[name].numpy())
    assert "blk.0.ffn_up.scale" not in table


def test_all_matrices_of_no_whole_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SmolLM's widths: what was asked for is refused with what fits, which converts without loss."""
    llama.make(tmp_path, llama.ODD, "fake-f32")
    line = refusal(capsys, tmp_path, code=EXIT_USAGE)
    assert line.endswith("192 columns, i2_s needs a multiple of 128; use --outtype q2_0 or tl1 or f16 or f32")
    _, stored, _ = llama.build(llama.ODD, "fake-f32")
    name, gguf = f"{LAYER}.mlp.up_proj.weight", tmp_path / "ggml-model-tl1.gguf"
    assert main([str(tmp_path), "--outtype", "tl1"]) == 0
    entry = read_header(gguf).tensors["blk.0.ffn_up.weight"]
    ternary, scale = ENCODINGS["tl1"].unpack(entry.read(gguf), *entry.shape, name)
    np.testing.assert_array_equal(ternary, stored.ternary[name].numpy())
    assert scale == np.float32(stored.scales[name])


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_columns_of_no_whole_block_where_the_graph_reads_no_scale(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One matrix of seven in another encoding would need a scale beside it, which these graphs ignore in silence."""
    find_family(family).make(tmp_path, find_family(family).VARIANTS[0], "master-bf16")
    tensors = load_file(tmp_path / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("gate_proj.weight", "up_proj.weight")):
            tensors[name] = tensor[:576].contiguous()
        elif name.endswith("down_proj.weight"):
            tensors[name] = tensor[:, :576].contiguous()
        elif name.endswith("down_proj.norm.weight"):
            tensors[name] = tensor[:576].contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    edit_json(tmp_path / "config.json", intermediate_size=576)
    line = refusal(capsys, tmp_path, code=EXIT_USAGE)
    place = "blk.0.ffn_down.weight: 576 columns, i2_s needs a multiple of 128"
    assert line == f"error: {place}; use --outtype q2_0 or tl1 or f16 or f32"
    assert main([str(tmp_path), "--outtype", "q2_0"]) == 0
    assert not [name for name in read_header(tmp_path / "ggml-model-q2_0.gguf").tensors if name.endswith(".scale")]


def test_master_weights_of_another_code_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """bitnet_b1_58's names without its declaration: nothing is guessed."""
    bitnet_1bitllm.make(tmp_path, "bitnet_b1_58-large", "master-f32")
    config = tmp_path / "config.json"
    edit_json(config, input_bits=4)
    assert "weight_bits 1 and input_bits 4" in refusal(capsys, tmp_path)
    value = json.loads(config.read_text())
    config.write_text(json.dumps({key: value[key] for key in value if key not in {"weight_bits", "input_bits"}}))
    assert "attn_sub_norm.weight" in refusal(capsys, tmp_path)
