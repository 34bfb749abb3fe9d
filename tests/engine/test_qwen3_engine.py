# SPDX-License-Identifier: MIT
"""Converted Qwen3 and Gemma 3 models in the compiled engine against transformers' forward in float64.

Next-token probabilities come from llama-perplexity, embeddings from llama-server. Files of floats are compared with the
plain forward, ternary files with one whose linear layers round their input to int8 after their norm, per token, or per
64 inputs where the file has a scale for every 64 (what include/trit.h says). Few layers, for the reason in
tests/convert/test_convert_engine.py: rounding makes the forward discontinuous, so more layers compare noise.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.convert.test_convert_qwen3 import EMBEDDING_06, EMBEDDING_270, make
from tests.run.test_run_inference_server import free_port
from tests.support.agreement import log_probabilities, rounded
from tests.support.engine_logits import CONTEXT, divergence, run_engine
from tests.support.tiny_checkpoints.built import Built
from tests.support.tiny_checkpoints.linear_layers import GROUPED, NormedLinear
from trit.convert.from_checkpoint import Options, convert
from trit.gguf.encodings import ENCODINGS
from trit.verify.reference import round_to_int8

# Longer than the window of 32 tokens, and shorter.
TEXTS = (
    "Daniel moved to the garden, then to the hallway, then he went back to the office and took the milk, which he "
    "dropped there before he went to the bedroom again: 12 apples, 345 pears & 6 plums!\n\nWhere is the milk?",
    "na\u00efve caf\u00e9, \u6771\u4eac and \U0001f642",
    "Where is Mary?",
    "in the kitchen, with 12 apples",
    "def f(x):\n    return x + 1",
    "a",
    "She sells 5 pears for \u00a33.",
)


def gguf_of(built: Built, directory: Path, outtype: str, head: str = "f32") -> Path:
    """The model written and converted; embeddings and head as float32, so that nothing else is rounded."""
    outfile = directory / f"{outtype}-{head}.gguf"
    if not (directory / "checkpoint").exists():
        built.write(directory / "checkpoint")
    convert(directory / "checkpoint", outfile, Options(ENCODINGS[outtype], head), progress=False)
    return outfile


@pytest.mark.parametrize(
    ("variant", "storage", "outtype", "group"),
    [
        ("Ternary-Bonsai-8B", GROUPED, "q2_0", 128),
        ("Ternary-Bonsai-4B", "master-bf16", "i2_s", None),
    ],
)
def test_next_tokens_agree(
    variant: str, storage: str, outtype: str, group: int | None, engine_bin: Path, tmp_path: Path
) -> None:
    built = make(variant, storage, tmp_path / "checkpoint", layers=2)
    found = run_engine(engine_bin, gguf_of(built, tmp_path, "f32"))
    plain = log_probabilities(built.model, found.tokens)[:, CONTEXT // 2 : -1]
    float_kl = float(divergence(plain, found.logprobs).mean())
    ternary = run_engine(engine_bin, gguf_of(built, tmp_path, outtype)).logprobs
    wanted = log_probabilities(rounded(built.model, built.stored.ternary, group), found.tokens)[:, CONTEXT // 2 : -1]
    # Medians: where a value lies half way between two integers, the positions after it differ by whole steps.
    ours, rounding = np.median(divergence(wanted, ternary)), np.median(divergence(wanted, plain))
    line = f"{variant}: KL of f32 {float_kl:.1e}; median KL of {outtype} {ours:.1e}, of no rounding {rounding:.1e}"
    print(line)
    assert float_kl < 1e-6 and abs(ours) < 0.2 * rounding, line


def test_head_and_embedding_in_q2_0(engine_bin: Path, tmp_path: Path) -> None:
    """Ternary-Bonsai's are ternary too: they lose nothing in q2_0 but the rounding of the head's input."""
    built = make("Ternary-Bonsai-1.7B", GROUPED, tmp_path / "checkpoint", layers=1)
    exact = run_engine(engine_bin, gguf_of(built, tmp_path, "f32"))
    packed = run_engine(engine_bin, gguf_of(built, tmp_path, "f32", head="q2_0"))
    head = built.model.lm_head
    inputs: list[torch.Tensor] = []
    head.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    log_probabilities(built.model, exact.tokens)
    logits = nn.functional.linear(round_to_int8(inputs[0], 128), head.weight)
    wanted = torch.log_softmax(logits, dim=-1).detach().numpy()[:, CONTEXT // 2 : -1]
    ours, rounding = (
        np.median(divergence(wanted, packed.logprobs)),
        np.median(divergence(exact.logprobs, packed.logprobs)),
    )
    line = f"head in q2_0: median KL {ours:.1e}; to a head of floats {rounding:.1e}"
    print(line)
    assert abs(ours) < 0.2 * rounding, line


@contextmanager
def server(engine_bin: Path, gguf: Path, *flags: str) -> Iterator[str]:
    """llama-server for embeddings with float32 keys and values; yields its address."""
    port, log = free_port(), gguf.with_suffix(".log")
    command = [str(engine_bin / "llama-server"), "-m", str(gguf), "--embeddings", "--port", str(port), *flags]
    command += ["-t", "2", "-c", "512", "-ctk", "f32", "-ctv", "f32", "-fa", "off"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def embeddings(engine_bin: Path, gguf: Path, *flags: str) -> np.ndarray:
    """Float64 [texts, width] of ``TEXTS``."""
    with server(engine_bin, gguf, *flags) as address:
        body = json.dumps({"input": TEXTS}).encode()
        request = urllib.request.Request(f"{address}/v1/embeddings", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            data = json.load(response)["data"]
    return np.array([row["embedding"] for row in data])


def reference(model: nn.Module, built: Built, mean: bool = False, texts: tuple[str, ...] = TEXTS) -> np.ndarray:
    """What sentence-transformers would return: the last token's vector, or the mean, divided by its length."""
    rows = []
    for text in texts:
        with torch.no_grad():
            states = model(torch.tensor([built.tokenizer.encode(text).ids])).last_hidden_state[0]
        vector = states.mean(dim=0) if mean else states[-1]
        rows.append((vector / vector.norm()).numpy())
    return np.array(rows)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cosine of each pair of unit vectors."""
    return np.asarray(1 - (a * b).sum(axis=1))


@pytest.mark.parametrize("variant", [EMBEDDING_06, EMBEDDING_270])
def test_embeddings_agree(variant: str, engine_bin: Path, tmp_path: Path) -> None:
    """Floats through all layers: norms of the projections, windows, tokenizer with what it appends, pooling."""
    built = make(variant, "master-bf16", tmp_path / "checkpoint", layers=7 if variant == EMBEDDING_270 else 2)
    wanted, gguf = reference(built.model, built), gguf_of(built, tmp_path, "f32")
    got = embeddings(engine_bin, gguf)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    far = distances(got, wanted).max()
    if variant == EMBEDDING_06:
        means = embeddings(engine_bin, gguf, "--pooling", "mean")
        assert distances(means, reference(built.model, built, mean=True)).max() < 1e-5
    # The same comparison notices what it is there for.
    else:
        for layer in built.model.layers:
            layer.self_attn.sliding_window = None
        built.model.config.sliding_window = 512
        assert distances(reference(built.model, built, texts=TEXTS[:1]), wanted[:1])[0] > 1e-4
    for module in built.model.modules():
        if isinstance(module, NormedLinear):
            module.norm.weight.data.fill_(1)
    plain_norms = distances(reference(built.model, built, texts=TEXTS[:1]), wanted[:1]).max()
    line = f"{variant}: 1 - cosine {far:.1e}; without the norms' weights {plain_norms:.1e}"
    print(line)
    assert far < 1e-5 and plain_norms > 1e-2, line


@pytest.mark.parametrize(
    ("variant", "storage", "outtype", "group"),
    [
        (EMBEDDING_06, "master-bf16", "i2_s", None),
        (EMBEDDING_270, "packed-autobitlinear", "i2_s", None),
        (EMBEDDING_06, GROUPED, "q2_0", 128),
    ],
)
def test_ternary_embeddings_agree_with_training(
    variant: str, storage: str, outtype: str, group: int | None, engine_bin: Path, tmp_path: Path
) -> None:
    built = make(variant, storage, tmp_path / "checkpoint", layers=1)
    wanted = reference(rounded(built.model, built.stored.ternary, group), built)
    far = distances(embeddings(engine_bin, gguf_of(built, tmp_path, outtype)), wanted)
    rounding = distances(reference(built.model, built), wanted)
    # Medians: a value half way between two integers moves a text's vector by a whole step.
    line = f"{variant} {outtype}: median 1 - cosine {np.median(far):.1e}, of no rounding {np.median(rounding):.1e}"
    print(line)
    assert abs(np.median(far)) < 0.2 * np.median(rounding) and far.max() < rounding.max(), line


def test_files_of_bitnet_cpp_have_float16_norms(engine_bin: Path, tmp_path: Path) -> None:
    """Their norms, also those of the projections' inputs, are F16 where ours are F32; the names are the same."""
    import gguf

    from trit.gguf.types import GGUFReader

    built = make(EMBEDDING_06, "fake-bf16", tmp_path / "checkpoint", layers=1)
    ours = gguf_of(built, tmp_path, "f16")
    reader, theirs = GGUFReader(ours), tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(theirs, "qwen3")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind = field.types[0]
        writer.add_key_value(key, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        data = tensor.data.astype(np.float16) if "norm" in tensor.name else tensor.data
        writer.add_tensor(tensor.name, data, raw_dtype=None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    far = distances(embeddings(engine_bin, theirs), embeddings(engine_bin, ours)).max()
    print(f"F16 norms: 1 - cosine {far:.1e}")
    assert far < 1e-5
