# SPDX-License-Identifier: MIT
"""The decoder against transformers' own BitNetForCausalLM, loaded from the folder that we write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitNetConfig, BitNetForCausalLM
from transformers.integrations.bitnet import AutoBitLinear

from trit.base.errors import UserError
from trit.train.bitlinear import BitLinear, quantize_weight, ternary_weight
from trit.train.checkpoint import load_checkpoint, save_checkpoint
from trit.train.model import Decoder, DecoderConfig
from trit.train.tokenizer import BOS, train_tokenizer


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """More threads wait for each other on a busy machine, and so small a model gains little from them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """transformers compiles its roundings; here they run as they are written."""
    torch.compiler.set_stance("force_eager")
    yield
    torch.compiler.set_stance("default")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


def make_decoder(kv_heads: int = 2, seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    model = Decoder(
        DecoderConfig(2013, 128, 256, 3, num_attention_heads=4, num_key_value_heads=kv_heads, rope_theta=5000.0)
    )
    model.init_weights()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def with_quantized_activations(model: BitNetForCausalLM, *, online: bool) -> BitNetForCausalLM:
    """The QAT forward: every linear layer but the head becomes transformers' AutoBitLinear."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            layer = AutoBitLinear(module.in_features, module.out_features, bias=False, online_quant=online)
            layer.weight = module.weight
            model.set_submodule(name, layer)
    return model


def assert_same_logits(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal within float32's noise at nearly all positions; float [batch, length, vocab].

    That noise decides a few of the int8 roundings the other way, by one step, and everything after such a position in
    its text moves a little. Without int8 rounding no position would agree; with another formula all would be far off.
    """
    assert found.dtype == expected.dtype == torch.float32
    worst = (found - expected).abs().amax(-1)
    assert (worst < 1e-4).float().mean() > 0.8
    assert worst.max() < 0.2 * expected.std()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_logits_equal_those_of_transformers(tmp_path: Path, tokenizer: Tokenizer, kv_heads: int) -> None:
    folder = tmp_path / "model"
    save_checkpoint(make_decoder(kv_heads), tokenizer, folder)
    theirs = with_quantized_activations(AutoModelForCausalLM.from_pretrained(folder), online=False)
    ours, _ = load_checkpoint(folder)
    ids = torch.randint(2, 2013, (30, 10))
    with torch.no_grad():
        assert_same_logits(ours(ids), theirs(ids).logits)


def test_master_weights_equal_online_quantisation(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The declared form needs the package accelerate to load; what transformers computes then is computed here."""
    folder = tmp_path / "model"
    save_checkpoint(make_decoder(), tokenizer, folder, master=True)
    description = json.loads((folder / "config.json").read_text())
    declared = description.pop("quantization_config")
    assert declared == {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    theirs = BitNetForCausalLM(BitNetConfig(**description)).eval()
    missing = theirs.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert missing.missing_keys == ["lm_head.weight"] and not missing.unexpected_keys
    theirs = with_quantized_activations(theirs, online=True)
    ours, _ = load_checkpoint(folder)
    ids = torch.randint(2, 2013, (30, 10))
    with torch.no_grad():
        assert_same_logits(ours(ids), theirs(ids).logits)


def test_fast_way_computes_the_same() -> None:
    model = make_decoder().double()
    ids = torch.randint(2, 2013, (2, 30))
    with torch.no_grad():
        expected = model(ids)
        model.matmul_dtype = torch.float64
        torch.testing.assert_close(model(ids), expected, rtol=1e-8, atol=1e-8)


def test_checkpoint_keeps_the_ternary_values(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Written as t * s and read back, the absmean rule gives the same t, and s rounded to bfloat16."""
    model, folder = make_decoder(), tmp_path / "model"
    save_checkpoint(model, tokenizer, folder)
    stored = load_file(folder / "model.safetensors")
    again, _ = load_checkpoint(folder)
    modules = dict(again.named_modules())
    for name, module in model.named_modules():
        if not isinstance(module, BitLinear):
            continue
        ternary, scale = ternary_weight(module.weight)
        values = stored[f"model.{name}.weight"]
        assert torch.equal(values.float(), ternary * scale.bfloat16().float())
        restored = modules[name]
        assert isinstance(restored, BitLinear)
        assert torch.equal(ternary_weight(restored.weight)[0], ternary)
        torch.testing.assert_close(quantize_weight(restored.weight), values.float(), rtol=1e-6, atol=0)


def test_generation_equals_that_of_transformers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = tmp_path / "model"
    save_checkpoint(make_decoder(seed=3), tokenizer, folder)
    theirs = with_quantized_activations(AutoModelForCausalLM.from_pretrained(folder), online=False)
    ours, _ = load_checkpoint(folder)
    prompts = [tokenizer.encode(text).ids for text in ("Mary went to", "Where is John? In the garden, I think.")]
    for prompt, found in zip(prompts, ours.generate(prompts, eos=1, max_new=8), strict=True):
        expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
        assert found == (expected[: expected.index(1)] if 1 in expected else expected)


def test_generation_stops_at_the_end_of_text() -> None:
    model = make_decoder()
    (free,) = model.generate([[5, 6, 7]], eos=-1, max_new=6)
    assert len(free) == 6
    (stopped,) = model.generate([[5, 6, 7]], eos=free[0], max_new=6)
    assert stopped == []


def test_transformers_tokenizer_adds_bos(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = tmp_path / "model"
    save_checkpoint(make_decoder(), tokenizer, folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    text = "Where is Mary?\nAnswer:"
    assert theirs(text)["input_ids"] == tokenizer.encode(text).ids
    assert theirs.bos_token == BOS and theirs.decode(tokenizer.encode(text).ids, skip_special_tokens=True) == text


def test_unusable_folders_are_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="expected a Hugging Face checkpoint folder"):
        load_checkpoint(tmp_path / "absent")
    folder = tmp_path / "model"
    save_checkpoint(make_decoder(), tokenizer, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 256}))
    with pytest.raises(UserError, match="do not fit together"):
        load_checkpoint(folder)
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="no readable checkpoint"):
        load_checkpoint(folder)
