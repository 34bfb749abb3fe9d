# SPDX-License-Identifier: MIT
"""``trit verify``: passes for every family and storage kind, and each mutation fails by the right check."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BitNetQuantConfig, LlamaConfig, LlamaForCausalLM
from transformers.integrations.bitnet import replace_with_bitnet_linear
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tests.support.checkpoints import edit_json
from tests.support.proofs import (
    ON_THE_EDGE,
    QUICK,
    Case,
    Proof,
    enlarge,
    flip_weight,
    prepare,
    replace,
    scale_up,
    swap_tensors,
)
from tests.support.tiny_checkpoints import all_families, find_family, llama, maple
from tests.support.tiny_checkpoints.linear_layers import INPUT_NORMS
from trit.base.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, UserError, run_main
from trit.convert import pooling
from trit.convert.from_checkpoint import Options, convert
from trit.engine.server import Server
from trit.gguf.codecs import CODECS
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import read_header
from trit.verify import embeddings, engine, golden, layers, logits, texts, weights
from trit.verify.command import main
from trit.verify.reference import TableGelu, build
from trit.verify.report import FAILED, LEFT_OUT, PASSED
from trit.verify.stored import TorchCheckpoint
from trit.verify.weights import GgufFile, check_weights

GROUPED = "grouped-f16"
# Encodings of those that i2_s does not hold.
FITTING = {llama.ODD: "tl1", maple.VARIANTS[0]: "tq2_0"}
# What the converter refuses, and with which words.
REFUSED: dict[tuple[str, str], str] = {}


def full_cases() -> list[Case]:
    """Every variant of every family once, going round its storage kinds and the types of the file."""
    cases = []
    for family in all_families():
        kinds = [kind for kind in family.STORAGE if (family.FAMILY, kind) not in REFUSED]
        for i, variant in enumerate(family.VARIANTS):
            storage = kinds[i % len(kinds)]
            outtype = "q2_0" if storage == GROUPED else ("i2_s", "i2_s", "q2_0")[i % 3]
            outtype = FITTING.get(variant, outtype)
            cases.append(Case(family.FAMILY, variant, storage, outtype, ("f16", "q8_0")[i % 2]))
    return cases


def stored_cases() -> list[Case]:
    """Every storage kind of every family: only reading and packing differ."""
    return [
        Case(family.FAMILY, (variant := family.VARIANTS[0]), kind, FITTING.get(variant, usual), "f16")
        for family in all_families()
        for kind in family.STORAGE
        for usual in ["q2_0" if kind == GROUPED else "i2_s"]
    ]


def results(path: Path) -> dict[str, dict[str, Any]]:
    """Checks that ``--json`` wrote, by name."""
    found = json.loads(path.read_text())
    assert found["passed"] == all(check["status"] != FAILED for check in found["checks"])
    return {check["name"]: check for check in found["checks"]}


@pytest.mark.parametrize("case", full_cases(), ids=str)
def test_every_variant_passes(case: Case, engine_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, gguf = case.make(tmp_path)
    code = main([str(directory), str(gguf), *QUICK, "--json", str(tmp_path / "out.json")])
    shown = capsys.readouterr().out
    assert code == EXIT_OK, shown
    found = results(tmp_path / "out.json")
    encoder = GgufFile(gguf).field(f"{GgufFile(gguf).architecture}.pooling_type") is not None
    made = {
        "weights",
        "tokens",
        f"layer {GgufFile(gguf).least_blocks}",
        *(["embeddings"] if encoder else ["KL divergence", "top token", "perplexity"]),
    }
    if "chat_template" in (directory / "tokenizer_config.json").read_text():
        made.add("chat template")
    assert {name for name, check in found.items() if check["status"] == PASSED} >= made, shown
    # A check with a bound that plain floats would keep as well would say nothing.
    first = found[f"layer {GgufFile(gguf).least_blocks}"]["values"]
    assert first["bound"] < 0.1 * first["without_rounding"][0], shown


@pytest.mark.parametrize("case", stored_cases(), ids=str)
def test_every_storage_kind_has_the_weights_of_its_checkpoint(case: Case, tmp_path: Path) -> None:
    if words := REFUSED.get((case.family, case.storage)):
        with pytest.raises(UserError, match=words):
            case.make(tmp_path)
        return
    directory, gguf = case.make(tmp_path)
    check = check_weights(TorchCheckpoint(directory), GgufFile(gguf))
    assert check.status == PASSED and check.values["ternary"] > 0, check.measured


@pytest.fixture(scope="module")
def proof(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    case = Case("bitnet", "BitNet-b1.58-2B-4T", "packed-autobitlinear", "i2_s", "f16")
    return prepare(case, tmp_path_factory.mktemp("proof"))


@pytest.mark.parametrize("outtype", [name for name in ENCODINGS if name != "i2_s"])
def test_every_encoding_is_read_by_a_reader_of_its_own(
    outtype: str, proof: Proof, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by its packer, which may be gone by then; and one weight that was packed wrongly is found."""
    gguf, encoding = tmp_path / "model.gguf", ENCODINGS[outtype]
    convert(proof.directory, gguf, Options(encoding, "q8_0"), progress=False)
    data, entry = bytearray(gguf.read_bytes()), read_header(gguf).tensors["blk.1.ffn_up.weight"]
    assert entry.ggml_type == encoding.ggml_type
    ternary, scale = encoding.unpack(entry.read(gguf), *entry.shape, "w")
    ternary[3, 5] = 1 if ternary[3, 5] < 1 else 0
    data[entry.offset : entry.offset + entry.nbytes] = encoding.pack(ternary, scale).tobytes()
    for name, codec in CODECS.items():
        monkeypatch.setitem(CODECS, name, dataclasses.replace(codec, pack=pytest.fail))
    check = check_weights(TorchCheckpoint(proof.directory), GgufFile(gguf))
    assert check.status == PASSED and check.values["worst_lost"] > 0, check.measured
    gguf.write_bytes(data)
    check = check_weights(TorchCheckpoint(proof.directory), GgufFile(gguf))
    assert check.status == FAILED and "blk.1.ffn_up.weight differs in 1 of " in check.measured, check.measured


@pytest.mark.parametrize(
    ("change", "tensor"),
    [
        (flip_weight, "blk.1.ffn_up.weight"),
        (scale_up, "blk.0.attn_output.weight"),
        (swap_tensors, "blk.0.attn_k.weight"),
    ],
)
def test_weights_notice(change: Callable[[bytearray, Any], None], tensor: str, proof: Proof, tmp_path: Path) -> None:
    file = proof.changed(tmp_path, change)
    changed = 1 if change is flip_weight else None
    status, measured = proof.weights(file)
    assert status == FAILED and tensor in measured, measured
    assert changed is None or f"{tensor} differs in {changed} of " in measured, measured


def test_layers_notice_where_it_starts(proof: Proof, tmp_path: Path) -> None:
    assert proof.layers(GgufFile(proof.gguf), tmp_path) == [PASSED, PASSED]
    assert proof.layers(proof.changed(tmp_path, scale_up), tmp_path) == [FAILED, FAILED]
    assert proof.layers(proof.changed(tmp_path, partial(scale_up, block=1)), tmp_path) == [PASSED, FAILED]


def test_hyperparameters_are_noticed_by_the_layers_only(proof: Proof, tmp_path: Path) -> None:
    key = b"bitnet-b1.58.rope.freq_base" + struct.pack("<I", 6)
    file = proof.changed(tmp_path, replace(key + struct.pack("<f", 500000.0), key + struct.pack("<f", 10000.0)))
    assert proof.weights(file)[0] == PASSED
    assert FAILED in proof.layers(file, tmp_path)


def test_roundings_on_the_edge_hide_nothing(engine_bin: Path, tmp_path: Path) -> None:
    """Where they move half of the tokens, the others are enough: one scale off by 1 % is found, and where."""
    proof = prepare(Case(*ON_THE_EDGE), tmp_path)
    wanted = proof.reference.hidden(proof.sequences)[0]
    with proof.reference.in_float32():
        noise = layers.errors(proof.reference.hidden(proof.sequences)[0], wanted)
    assert np.mean(noise > 1e-3) > 0.25, "the case is no longer what it is here for"
    assert proof.layers(GgufFile(proof.gguf), tmp_path) == [PASSED, PASSED]
    changed = proof.changed(tmp_path, enlarge("blk.0.attn_output.weight"))
    assert proof.layers(changed, tmp_path) == [FAILED, FAILED]
    changed = proof.changed(tmp_path, enlarge("blk.1.attn_output.weight"))
    assert proof.layers(changed, tmp_path) == [PASSED, FAILED]


def test_gemma_s_bounds_are_as_narrow(engine_bin: Path, tmp_path: Path) -> None:
    """Its GELU is a table of float16 values in the engine; 1 % in one norm of the heads is far less, and found."""
    proof = prepare(Case("gemma3", "bitnet-embedding-270m", "master-bf16", "i2_s", "f16"), tmp_path)
    wanted = proof.reference.hidden(proof.sequences)[0]
    tables = [module for module in proof.reference.model.modules() if isinstance(module, TableGelu)]
    for table in tables:
        table.looks_up = False
    assert np.median(layers.errors(proof.reference.hidden(proof.sequences)[0], wanted)) > 1e-4
    for table in tables:
        table.looks_up = True
    assert proof.layers(GgufFile(proof.gguf), tmp_path) == [PASSED] * 4
    changed = proof.changed(tmp_path, enlarge("blk.0.attn_q_norm.weight"))
    assert proof.layers(changed, tmp_path)[0] == FAILED


def test_an_epsilon_of_the_projections_norms_is_noticed(engine_bin: Path, tmp_path: Path) -> None:
    """``use_rms_norm`` has its own; the model's, which is ten times as large, would be wrong."""
    proof = prepare(Case("llama", INPUT_NORMS, "master-bf16", "i2_s", "f16"), tmp_path)
    key = b"llama.attention.layer_norm_epsilon" + struct.pack("<I", 6)
    other = replace(key + struct.pack("<f", 1e-6), key + struct.pack("<f", 1e-5))
    assert proof.layers(GgufFile(proof.gguf), tmp_path) == [PASSED, PASSED]
    assert FAILED in proof.layers(proof.changed(tmp_path, other), tmp_path)


def test_the_reference_has_the_norms_of_transformers_own_layers(tmp_path: Path) -> None:
    """The same checkpoint in transformers' BitNet integration (AutoBitLinear, online, ``use_rms_norm``)."""
    directory, gguf = Case("llama", INPUT_NORMS, "master-f32", "i2_s", "f16").make(tmp_path)
    reference = build(TorchCheckpoint(directory), GgufFile(gguf))
    config = json.loads((directory / "config.json").read_text())
    declared = BitNetQuantConfig(**config.pop("quantization_config"))
    assert declared.use_rms_norm and declared.rms_norm_eps != config["rms_norm_eps"]
    model = LlamaForCausalLM(LlamaConfig(**config, attn_implementation="eager"))
    model = replace_with_bitnet_linear(model, ["lm_head"], declared).to_empty(device="cpu")
    model.load_state_dict(load_file(directory / "model.safetensors"))
    # Not stored, and lost by to_empty.
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config)
    ids = torch.arange(100, 116)[None]
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        theirs = torch.log_softmax(model.eval()(ids, use_cache=False).logits[0].double(), dim=-1).numpy()
    ours = reference.logprobs(ids.numpy(), slice(None))[0]
    with reference.without_rounding():
        plain = reference.logprobs(ids.numpy(), slice(None))[0]
    # Embedding and head of the reference are those of the file: float16.
    assert np.median(np.abs(ours - theirs)) < 1e-3 < 0.1 * np.median(np.abs(plain - theirs))


def test_shares_of_the_tokens_are_judged_one_by_one() -> None:
    """Half of the tokens moved by a rounding: the others have to be near; all of them far is a failure."""
    quiet, moved = np.full(64, 1e-7), np.full(64, 1e-2)
    noise, plain = np.concatenate([quiet, moved]), np.full(128, 1.5e-2)
    assert layers.judge(1, noise, noise, plain).status == PASSED
    assert layers.judge(1, np.full(128, 1e-2), noise, plain).status == FAILED
    assert layers.judge(1, np.full(128, 2e-5), noise, plain).status == FAILED
    # More moved tokens than in float32, but not all.
    assert layers.judge(1, np.concatenate([quiet[:40], moved, moved[:24]]), noise, plain).status == PASSED


def test_texts_notice(proof: Proof, tmp_path: Path) -> None:
    file = proof.changed(tmp_path, replace(b"llama-bpe", b"starcoder"), replace(b"'Assistant: '", b"'assistant: '"))
    with engine.hidden_server(file.path, 1, 64) as server:
        tokens = texts.check_tokens(texts.load_tokenizer(proof.directory), server)
        template = texts.check_template(proof.directory, file, server)
    assert proof.weights(file)[0] == PASSED
    assert tokens.status == FAILED and "first in " in tokens.measured, tokens
    assert template.status == FAILED and "one question: " in template.measured, template


def test_tokens_at_the_ends_are_noticed(proof: Proof, tmp_path: Path) -> None:
    key = b"tokenizer.ggml.add_bos_token" + struct.pack("<I", 7)
    file = proof.changed(tmp_path, replace(key + b"\x01", key + b"\x00"))
    with engine.hidden_server(file.path, 1, 64) as server:
        tokens = texts.check_tokens(texts.load_tokenizer(proof.directory), server)
    assert tokens.status == FAILED and tokens.values["wrong"] == tokens.values["strings"], tokens
    assert GgufFile(proof.gguf).adds_bos() and not file.adds_bos()


def test_a_template_that_the_checkpoint_lacks_is_noticed(proof: Proof, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(proof.directory, tmp_path / "checkpoint"))
    edit_json(directory / "tokenizer_config.json", chat_template=None)
    with engine.hidden_server(proof.gguf, 1, 64) as server:
        check = texts.check_template(directory, GgufFile(proof.gguf), server)
    assert check.status == FAILED and "the file has one, the checkpoint has none" in check.measured, check


def test_tensors_of_another_shape_are_noticed() -> None:
    findings = weights._Findings()
    weights._compare(weights.FileTensor(weights.Type(36), np.ones((2, 128))), np.ones((2, 128)), "right", findings)
    assert not findings.wrong
    weights._compare(weights.FileTensor(weights.Type(36), np.ones((1, 128))), np.ones((2, 128)), "wrong", findings)
    assert findings.wrong == "wrong has shape (1, 128), the checkpoint (2, 128)"


def test_tensors_on_one_side_only_are_noticed(proof: Proof, tmp_path: Path) -> None:
    renamed = proof.changed(tmp_path, replace(b"blk.1.ffn_norm.weight", b"blk.1.ffn_more.weight"))
    status, measured = proof.weights(renamed)
    assert status == FAILED and "should be blk.1.ffn_norm.weight in the file, which is not there" in measured, measured
    less, more = TorchCheckpoint(proof.directory), TorchCheckpoint(proof.directory)
    del less._files["model.layers.1.post_attention_layernorm.weight"]
    more._loaded["model.layers.1.surprise.weight"] = torch.ones(4)
    for checkpoint, sentence in (
        (less, "blk.1.ffn_norm.weight is in the file, but not in the checkpoint"),
        (more, "model.layers.1.surprise.weight has no known name in a bitnet-b1.58 file"),
    ):
        check = check_weights(checkpoint, GgufFile(proof.gguf))
        assert check.status == FAILED and sentence in check.measured, check


def test_the_reference_needs_every_parameter(proof: Proof) -> None:
    checkpoint = TorchCheckpoint(proof.directory)
    del checkpoint._files["model.layers.1.post_attention_layernorm.weight"]
    with pytest.raises(UserError, match=r"has no model\.layers\.1\.post_attention_layernorm\.weight, which"):
        build(checkpoint, GgufFile(proof.gguf))


def test_embeddings_that_lose_too_much_are_noticed(proof: Proof, tmp_path: Path) -> None:
    path = tmp_path / "q8_0.gguf"
    convert(proof.directory, path, Options(ENCODINGS["i2_s"], "q8_0"), progress=False)
    assert proof.weights(GgufFile(path))[0] == PASSED
    data, entry = bytearray(path.read_bytes()), read_header(path).tensors["token_embd.weight"]
    # Blocks of 34 bytes, the float16 scale first: every hundredth is halved, which loses 5 % of the whole.
    for place in range(entry.offset, entry.offset + entry.nbytes, 3400):
        struct.pack_into("<e", data, place, struct.unpack_from("<e", data, place)[0] / 2)
    path.write_bytes(data)
    status, measured = proof.weights(GgufFile(path))
    assert status == FAILED and "token_embd.weight (Q8_0) loses 5." in measured, measured


def compared(positions: int, apart: float) -> logits.Comparison:
    """A reference, three runs and an engine, all as far from each other; each token of the text is 1 in 7.4 (e^2)."""
    divergence = np.full((5, 5, positions), apart) * (1 - np.eye(5))[..., None]
    likeliest, text = np.zeros((5, positions), np.int64), np.full((5, positions), -2.0)
    return logits.Comparison(divergence, likeliest, text, np.full(positions, 1e-3), np.full(positions, np.inf))


@pytest.mark.parametrize("failing", ["KL divergence", "top token", "perplexity"])
def test_each_bound_of_the_logits_counts(failing: str) -> None:
    """Runs that are 1e-5 from each other, and an engine that is too far in one way only."""
    right, far = compared(100, 1e-5), compared(100, 1e-5)
    if failing == "KL divergence":
        far.divergence[:-1, -1] *= 5
    elif failing == "top token":
        far.likeliest[-1, :3] = 1
    else:
        far.text[-1] -= 0.01
    assert {check.status for check in logits.judge(right, 8)} == {PASSED}
    assert [check.name for check in logits.judge(far, 8) if check.status == FAILED] == [failing]


def test_a_text_that_the_model_does_not_predict_has_no_perplexity() -> None:
    """Each token of it is 1 in 7.4 (e^2) to the model, by chance it would be 1 in 7."""
    told = {vocabulary: logits.judge(compared(16, 1e-5), vocabulary)[2].measured for vocabulary in (7, 8)}
    assert told[8] == "engine 7.3891, reference 7.3891"
    assert told[7].startswith("logarithms 0.0e+00 apart; no number, because") and "among its 7 tokens" in told[7]


@pytest.fixture(scope="module")
def embedding_model(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    case = Case("qwen3", "bitnet-embedding-0.6b", "master-bf16", "i2_s", "f16")
    return case.make(tmp_path_factory.mktemp("embedding"))


def test_another_pooling_is_noticed_by_the_embeddings(embedding_model: tuple[Path, Path], tmp_path: Path) -> None:
    directory, gguf = embedding_model
    key = b"qwen3.pooling_type" + struct.pack("<I", 4)
    raw = gguf.read_bytes()
    assert raw.count(key + struct.pack("<I", 3)) == 1
    changed = tmp_path / "mean.gguf"
    changed.write_bytes(raw.replace(key + struct.pack("<I", 3), key + struct.pack("<I", 1)))
    reference = build(TorchCheckpoint(directory), GgufFile(gguf))
    tokenizer = texts.load_tokenizer(directory)
    for path, status in ((gguf, PASSED), (changed, FAILED)):
        check = embeddings.check_embeddings(reference, tokenizer, directory, GgufFile(path), 1)
        assert check.status == status and "last pooling" in check.measured, check


def test_each_bound_of_the_embeddings_counts() -> None:
    """Most vectors have to be near, none far, all of length 1; a single one that is off is a rounding on the edge."""
    noise, plain = np.full(12, 1e-9), np.full(12, 1e-3)
    one_off, one_far, most_off = noise.copy(), noise.copy(), noise.copy()
    one_off[3], one_far[3], most_off[:7] = 5e-4, 2e-3, 5e-4
    for error, length, status in (
        (noise, 1e-8, PASSED),
        (one_off, 1e-8, PASSED),
        (one_far, 1e-8, FAILED),
        (most_off, 1e-8, FAILED),
        (noise, 1e-3, FAILED),
    ):
        assert embeddings._judge(error, noise, plain, length, "last").status == status


def test_means_of_tokens_are_pooled_by_the_reference() -> None:
    states = [np.array([[3.0, 0.0], [0.0, 4.0]])]
    np.testing.assert_allclose(embeddings._vectors(states, "mean"), [[0.6, 0.8]])
    np.testing.assert_allclose(embeddings._vectors(states, "last"), [[0.0, 1.0]])
    np.testing.assert_allclose(embeddings._vectors(states, "cls"), [[1.0, 0.0]])


def test_the_verifier_takes_the_poolings_of_the_converter() -> None:
    assert {key: name for key, (name, _) in embeddings.POOLINGS.items()} == {
        key: kind.name.lower() for key, kind in pooling.MODES.items()
    }


@pytest.mark.parametrize("key", embeddings.POOLINGS)
def test_every_pooling_passes(key: str, engine_bin: Path, tmp_path: Path) -> None:
    case = Case("qwen3", "bitnet-embedding-0.6b", "master-bf16", "i2_s", "f16")
    find_family(case.family).make(tmp_path, case.variant, case.storage)
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({key: True}))
    gguf = tmp_path / "model.gguf"
    convert(tmp_path, gguf, Options(ENCODINGS["i2_s"], "f16"), progress=False)
    reference = build(TorchCheckpoint(tmp_path), GgufFile(gguf))
    check = embeddings.check_embeddings(reference, texts.load_tokenizer(tmp_path), tmp_path, GgufFile(gguf), 1)
    assert check.status == PASSED and f"{embeddings.POOLINGS[key][0]} pooling" in check.measured, check


def test_a_pooling_that_the_engine_lacks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(UserError, match=r"names none of the poolings .*: pooling_mode_lasttoken, "):
        embeddings.pooling_of(tmp_path)


def test_the_text_of_an_answer_counts_like_its_tokens() -> None:
    recorded = {entry["prompt"]: entry for entry in json.loads(golden.TRANSCRIPTS.read_text())}

    class Recorded:
        def __init__(self, suffix: str) -> None:
            self.suffix = suffix

        def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            entry = recorded[body["prompt"]]
            return {"tokens": entry["tokens"], "content": entry["answer"] + self.suffix}

    assert golden.check_transcripts(Recorded("")).status == PASSED  # type: ignore[arg-type]
    assert golden.check_transcripts(Recorded(".")).status == FAILED  # type: ignore[arg-type]


def test_plain_floats_are_not_the_forward_of_training(proof: Proof, tmp_path: Path) -> None:
    """An engine that left the rounding of activations out (as it does for f16 files) would be noticed."""
    f16 = tmp_path / "f16.gguf"
    convert(proof.directory, f16, Options(ENCODINGS["f16"], "f16"), progress=False)
    text = tmp_path / "text.txt"
    text.write_text(texts.TEXT.read_text())
    command = [str(proof.directory), str(f16), *QUICK, "--text", str(text), "--json", str(tmp_path / "out.json")]
    assert main(command) == EXIT_OK
    assert main([*command, "--activations", "int8"]) == EXIT_FAILED
    failed = {name for name, check in results(tmp_path / "out.json").items() if check["status"] == FAILED}
    assert failed >= {"KL divergence", "layer 1", "layer 2"} and not failed & {"weights", "tokens", "chat template"}


def test_a_comparison_knows_its_arithmetic() -> None:
    wanted, found = np.log(np.array([[0.5, 0.25, 0.25]])), np.log(np.array([[0.25, 0.5, 0.25]]))
    lopsided = np.log(np.array([[0.125, 0.625, 0.25]]))
    far = logits.Comparison.of([wanted, lopsided, found], wanted, np.array([2]))
    assert far.divergence[0, 2, 0] == pytest.approx(0.25 * np.log(2)) and far.agreement(2) == 0
    assert far.perplexity(2) == pytest.approx(4) and far.agreement(0) == 1
    # Not the same in both directions.
    there, back = 0.5 * np.log(4) + 0.25 * np.log(0.4), 0.125 * np.log(0.25) + 0.625 * np.log(2.5)
    assert far.divergence[0, 1, 0] == pytest.approx(there) and far.divergence[1, 0, 0] == pytest.approx(back)
    # Steps of 16 bits, all rounded up: no divergence below zero, and half a square of the step.
    stored = logits.divergences([wanted, wanted + 1e-4])
    assert stored[0, 1, 0] == pytest.approx(5e-9, rel=1e-3) and stored[1, 0, 0] == pytest.approx(5e-9, rel=1e-3)
    # Below e^-16 of the likeliest llama-perplexity's file says nothing, so neither side counts.
    low = np.log(np.array([[1 - 1e-9, 1e-9]])), np.log(np.array([[1 - 1e-8, 1e-8]]))
    assert logits.Comparison.of(low, low[0], np.array([1])).divergence[0, 1, 0] < 1e-15
    both = logits.Comparison.joined([far, far])
    assert both.divergence.shape == (3, 3, 2) and both.text.shape == (3, 2) and both.plain.shape == (2,)


def test_bundled_model(
    story_gguf: Path,
    engine_bin: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trit.verify.command.default_model", lambda: story_gguf)
    assert main(["--bundled", "--json", str(tmp_path / "out.json"), *QUICK]) == EXIT_OK
    shown = capsys.readouterr().out
    found = results(tmp_path / "out.json")
    assert "a weak answer is the model's own" in shown
    assert found["transcripts"]["values"]["answers"] > 20 and found["layer 4"]["status"] == PASSED
    assert found["chat template"]["status"] == LEFT_OUT
    assert found["perplexity"]["status"] == PASSED
    assert "apart; no number, because the model does not predict this text" in found["perplexity"]["measured"]


def test_another_answer_fails(
    story_gguf: Path, engine_bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = json.loads(golden.TRANSCRIPTS.read_text())
    recorded[3]["tokens"][2] += 1
    (tmp_path / "golden.json").write_text(json.dumps(recorded))
    monkeypatch.setattr(golden, "TRANSCRIPTS", tmp_path / "golden.json")
    with Server(story_gguf, 2, slots=1) as server:
        check = golden.check_transcripts(server)
    assert check.status == FAILED and recorded[3]["answer"] in check.measured


def test_without_torch_the_answers_are_still_checked(
    story_gguf: Path, engine_bin: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trit.verify.command.default_model", lambda: story_gguf)
    monkeypatch.setattr("trit.verify.command.NEEDED", ("no_such_package",))
    assert main(["--bundled"]) == EXIT_OK
    shown = capsys.readouterr().out
    assert "transcripts" in shown and "no_such_package is not installed" in shown
    assert run_main(main, [str(story_gguf.parent), str(story_gguf)]) == EXIT_USAGE


def test_mistakes_are_named(proof: Proof, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Too short.")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    edit_json(broken / "config.json", model_type="unheard-of")
    model = str(proof.gguf)
    for arguments, words in (
        ([], "name a model, or a checkpoint folder"),
        ([str(tmp_path), model], "has no config.json"),
        ([str(broken), model], "found no weights"),
        ([str(proof.directory), str(tmp_path / "no.gguf")], "no.gguf"),
        ([str(proof.directory), model, "--text", str(short)], "tokens long"),
        ([str(proof.directory), model, "--context", "1"], "--context"),
        (["--bundled", str(proof.directory)], "--bundled"),
    ):
        assert run_main(main, arguments) == EXIT_USAGE
        assert words in capsys.readouterr().err
