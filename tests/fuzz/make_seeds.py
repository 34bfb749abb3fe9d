# SPDX-License-Identifier: MIT
"""Write the small valid files that the readers' fuzzing starts from: ``python -m tests.fuzz.make_seeds``.

They are kept in the repository, so that a run from a seed number is the same everywhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.support.engine_models import model
from tests.support.foreign_files import WRITERS, Tensor, random_rows
from tests.support.foreign_files import write_gguf as write_file
from trit.base.errors import EXIT_OK, run_main
from trit.gguf.encodings import ENCODINGS
from trit.gguf.types import GGMLQuantizationType
from trit.gguf.writer import PlannedTensor, StreamWriter

SEEDS = Path(__file__).parent / "seeds"
CONFIG = {
    "architectures": ["BitNetForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 16,
    "vocab_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "hidden_act": "relu2",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "eos_token_id": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"},
}


def write_gguf(path: Path, alignment: int | None) -> None:
    """A key of every kind, and a tensor of every type of ours."""
    writer = StreamWriter(path, "bitnet-b1.58")
    keys = writer.metadata
    if alignment is not None:
        keys.add_custom_alignment(alignment)
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(keys, f"add_{kind}")(f"a.{kind}", 7)
    keys.add_float32("a.float32", 0.5)
    keys.add_float64("a.float64", 0.25)
    keys.add_bool("a.bool", True)
    keys.add_array("tokenizer.ggml.tokens", ["a", "bc", ""])
    keys.add_array("tokenizer.ggml.token_type", [1, 3, 5])
    keys.add_array("tokenizer.ggml.scores", [0.5, -1.0, 0.0])
    tensors = [PlannedTensor("norm.weight", (8,), 0), PlannedTensor("token_embd.weight", (2, 256), 14)]
    tensors += [PlannedTensor(f"blk.0.{n}.weight", (2, 256), row.ggml_type) for n, row in ENCODINGS.items()]
    for tensor in tensors:
        writer.plan(tensor)
    writer.begin()
    for tensor in tensors:
        if tensor.name.startswith("blk."):
            row = ENCODINGS[tensor.name.split(".")[2]]
            writer.write([row.pack(np.ones(tensor.shape, dtype=np.int8), 0.5)])
        else:
            writer.write([np.zeros(tensor.nbytes, dtype=np.uint8)])
    writer.close()
    assert {GGMLQuantizationType(tensor.ggml_type) for tensor in tensors}


def write_rotated(path: Path) -> None:
    """Matrices of PrismML's layouts, and the keys of a rotated basis."""
    names = [f"blk.0.ffn_{name}.weight" for name in ("gate", "up")]
    rows = random_rows(2, 128)
    tensors: list[Tensor] = []
    for name, layout in zip(names, ("pq2_0", "ptq1_0"), strict=True):
        number, writer = WRITERS[layout]
        tensors.append((name, (2, 128), number, writer(rows, 0.5)))
    keys = [key for key in model("qwen35")[0] if not key[0].startswith("tokenizer.")]
    write_file(path, keys, tensors)


def write_tokenizer(folder: Path) -> int:
    """All bytes, two merges, an end token; how many tokens there are."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("ab", "c")]
    vocab = {text: i for i, text in enumerate([*letters, "ab", "abc"])}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<end>", "add_bos_token": False, "chat_template": "{{ messages[0]['content'] }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [len(vocab)]}))
    return len(vocab) + 1


def checkpoint_tensors(packed: bool, vocabulary: int = 8) -> dict[str, np.ndarray]:
    """A whole BitNet model of one block."""
    shapes = {"q_proj": (8, 8), "k_proj": (4, 8), "v_proj": (4, 8), "o_proj": (8, 8)}
    linear = {f"self_attn.{name}": shape for name, shape in shapes.items()}
    linear |= {"mlp.gate_proj": (16, 8), "mlp.up_proj": (16, 8), "mlp.down_proj": (8, 16)}
    norms = {"input_layernorm": 8, "post_attention_layernorm": 8, "self_attn.attn_sub_norm": 8, "mlp.ffn_sub_norm": 16}
    tensors: dict[str, np.ndarray] = {"model.embed_tokens.weight": np.ones((vocabulary, 8), np.float32)}
    tensors["model.norm.weight"] = np.ones(8, np.float32)
    for name, size in norms.items():
        tensors[f"model.layers.0.{name}.weight"] = np.ones(size, np.float32)
    for name, (n, k) in linear.items():
        key = f"model.layers.0.{name}.weight"
        tensors[key] = np.full((n // 4, k), 0x99, np.uint8) if packed else np.full((n, k), 0.5, np.float16)
        if packed:
            tensors[f"{key}_scale"] = np.ones(1, np.float32)
    return tensors


def main(argv: Sequence[str] | None = None) -> int:
    """Write them all."""
    SEEDS.mkdir(exist_ok=True)
    write_gguf(SEEDS / "plain.gguf", None)
    write_gguf(SEEDS / "aligned.gguf", 64)
    write_rotated(SEEDS / "rotated.gguf")
    (SEEDS / "plain2.gguf").write_bytes((SEEDS / "plain.gguf").read_bytes().replace(b"GGUF\3", b"GGUF\2", 1))
    for name, packed in (("packed", True), ("floats", False)):
        folder = SEEDS / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        tensors = checkpoint_tensors(packed)
        if packed:
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            continue
        names = sorted(tensors)
        weight_map = {}
        for shard in range(2):
            file = f"model-{shard + 1:05d}-of-00002.safetensors"
            save_file({key: tensors[key] for key in names[shard::2]}, folder / file)
            weight_map |= dict.fromkeys(names[shard::2], file)
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = SEEDS / "whole"
    whole.mkdir(exist_ok=True)
    vocabulary = write_tokenizer(whole)
    config = {**CONFIG, "vocab_size": vocabulary, "eos_token_id": vocabulary - 1}
    (whole / "config.json").write_text(json.dumps(config))
    tensors = {f"_orig_mod.{name}": data for name, data in checkpoint_tensors(True, vocabulary).items()}
    save_file(tensors, whole / "model.safetensors", metadata={"format": "pt"})
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(run_main(main))
