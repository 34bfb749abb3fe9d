# SPDX-License-Identifier: MIT
"""Tiny whole models of each architecture that we convert, as lists of keys and tensors that a test can spoil.

Nothing here is taken from the checks: that the engine loads them, and what it says of them spoiled, is the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support.foreign_files import Key, Tensor, write_gguf

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
EMBEDDING, FORWARD, LAYERS, HEADS, KV_HEADS, SIZE, EXPERTS = 64, 96, 2, 2, 1, 32, 4
_POOLED = {"pooling_type": 1, "attention.sliding_window_pattern": 2}
ARCHITECTURES = (
    "bitnet-b1.58",
    "llama",
    "qwen2",
    "qwen3",
    "gemma3",
    "gemma-embedding",
    "qwen35",
    "minicpm",
    "hunyuan-dense",
    "maple",
)
# Of linear attention: two key heads, four value heads. The first layer has it, the second attends.
GROUPS, VALUE_HEADS, STATE, TAPS = 2, 4, 16, 4
_HYBRID = {
    "full_attention_interval": 2,
    "ssm.conv_kernel": TAPS,
    "ssm.state_size": STATE,
    "ssm.group_count": GROUPS,
    "ssm.time_step_rank": VALUE_HEADS,
    "ssm.inner_size": VALUE_HEADS * STATE,
}
ROTATED_BLOCK = 32
_MIXED = {
    "expert_count": EXPERTS,
    "expert_used_count": 2,
    "expert_feed_forward_length": FORWARD,
    "attention.sliding_window": 64,
}
_OF_LAYERS: tuple[Key, ...] = (
    ("maple.attention.sliding_window_pattern", ARRAY, BOOL, [True, False]),
    ("maple.swiglu_clamp_exp", ARRAY, F32, [7.0, 7.0]),
)


def byte_letters() -> list[str]:
    """The letter that stands for each byte in a vocabulary of the tokenizer "gpt2"."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(byte if byte in plain else next(other)) for byte in range(256)]


def gpt2_keys() -> list[Key]:
    """Letters of all bytes, two merged tokens and an end of text."""
    tokens = [*byte_letters(), "th", "the", "<|endoftext|>"]
    return [
        ("tokenizer.ggml.model", STRING, None, "gpt2"),
        ("tokenizer.ggml.pre", STRING, None, "gpt-2"),
        ("tokenizer.ggml.tokens", ARRAY, STRING, tokens),
        ("tokenizer.ggml.token_type", ARRAY, I32, [1] * 258 + [3]),
        ("tokenizer.ggml.merges", ARRAY, STRING, ["t h", "th e"]),
        ("tokenizer.ggml.bos_token_id", U32, None, 258),
        ("tokenizer.ggml.eos_token_id", U32, None, 258),
        ("tokenizer.ggml.add_bos_token", BOOL, None, False),
    ]


def spm_keys() -> list[Key]:
    """Bytes and a few pieces, as sentencepiece has them."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "\u2581the", "t", "h", "e"]
    return [
        ("tokenizer.ggml.model", STRING, None, "llama"),
        ("tokenizer.ggml.pre", STRING, None, "default"),
        ("tokenizer.ggml.tokens", ARRAY, STRING, tokens),
        ("tokenizer.ggml.scores", ARRAY, F32, [0.0] * 259 + [-1.0, -2.0, -3.0, -4.0, -5.0]),
        ("tokenizer.ggml.token_type", ARRAY, I32, [2, 3, 3] + [6] * 256 + [1] * 5),
        ("tokenizer.ggml.bos_token_id", U32, None, 1),
        ("tokenizer.ggml.eos_token_id", U32, None, 2),
        ("tokenizer.ggml.unknown_token_id", U32, None, 0),
        ("tokenizer.ggml.add_space_prefix", BOOL, None, True),
    ]


def model(architecture: str) -> tuple[list[Key], list[Tensor]]:
    """Keys and float32 tensors of a model that the engine loads."""
    gemma = architecture.startswith("gemma")
    vocabulary = spm_keys() if gemma else gpt2_keys()
    tokens = next(len(value) for key, _, _, value in vocabulary if key.endswith(".tokens"))
    keys: list[Key] = [
        ("general.architecture", STRING, None, architecture),
        ("general.name", STRING, None, "tiny"),
        ("general.file_type", U32, None, 0),
        *(
            (f"{architecture}.{name}", U32, None, value)
            for name, value in {
                "context_length": 128,
                "embedding_length": EMBEDDING,
                "block_count": LAYERS,
                "feed_forward_length": FORWARD,
                "attention.head_count": HEADS,
                "attention.head_count_kv": KV_HEADS,
                "attention.key_length": SIZE,
                "attention.value_length": SIZE,
                "rope.dimension_count": SIZE,
                **({"attention.sliding_window": 64} if gemma else {}),
                **(_HYBRID if architecture == "qwen35" else {}),
                **(_POOLED if architecture == "gemma-embedding" else {}),
                **(_MIXED if architecture == "maple" else {}),
            }.items()
        ),
        *(_OF_LAYERS if architecture == "maple" else ()),
        (f"{architecture}.attention.layer_norm_rms_epsilon", F32, None, 1e-6),
        (f"{architecture}.rope.freq_base", F32, None, 10000.0),
        *(_rotation() if architecture == "qwen35" else []),
        *vocabulary,
    ]
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (tokens, EMBEDDING),
        "output_norm.weight": (EMBEDDING,),
    }
    if not gemma:
        shapes["output.weight"] = (tokens, EMBEDDING)
    for layer in range(LAYERS):
        layers = _hybrid_layer(layer) if architecture == "qwen35" else _layer(architecture)
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in layers.items()}
    random = np.random.default_rng(0)
    return keys, [(name, shape, 0, floats(random, shape)) for name, shape in shapes.items()]


def _layer(architecture: str) -> dict[str, tuple[int, ...]]:
    queries, keys = HEADS * SIZE, KV_HEADS * SIZE
    shapes: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (EMBEDDING,),
        "attn_q.weight": (queries, EMBEDDING),
        "attn_k.weight": (keys, EMBEDDING),
        "attn_v.weight": (keys, EMBEDDING),
        "attn_output.weight": (EMBEDDING, queries),
        "ffn_norm.weight": (EMBEDDING,),
        "ffn_gate.weight": (FORWARD, EMBEDDING),
        "ffn_up.weight": (FORWARD, EMBEDDING),
        "ffn_down.weight": (EMBEDDING, FORWARD),
    }
    if architecture.startswith("bitnet"):
        shapes |= {"attn_sub_norm.weight": (EMBEDDING,), "ffn_sub_norm.weight": (FORWARD,)}
    if architecture == "qwen2":
        shapes |= {f"attn_{name}.bias": (rows,) for name, rows in (("q", queries), ("k", keys), ("v", keys))}
    if architecture == "maple":
        stacks = {name: shapes.pop(f"ffn_{name}.weight") for name in ("gate", "up", "down")}
        shapes |= {f"ffn_{name}_exps.weight": (EXPERTS, *shape) for name, shape in stacks.items()}
        shapes["ffn_gate_inp.weight"] = (EXPERTS, EMBEDDING)
    if architecture in ("qwen3", "hunyuan-dense", "maple") or architecture.startswith("gemma"):
        shapes |= {"attn_q_norm.weight": (SIZE,), "attn_k_norm.weight": (SIZE,)}
    if architecture.startswith("gemma"):
        shapes |= {"post_attention_norm.weight": (EMBEDDING,), "post_ffw_norm.weight": (EMBEDDING,)}
    return shapes


def _hybrid_layer(layer: int) -> dict[str, tuple[int, ...]]:
    """Of Qwen3.5's kind."""
    shapes = _layer("qwen3")
    shapes["attn_q.weight"] = (2 * HEADS * SIZE, EMBEDDING)
    shapes["post_attention_norm.weight"] = shapes.pop("ffn_norm.weight")
    if layer == 1:
        return shapes
    inner = VALUE_HEADS * STATE
    channels = 2 * GROUPS * STATE + inner
    return {
        **{name: shape for name, shape in shapes.items() if name.startswith(("attn_norm", "post_", "ffn_"))},
        "attn_qkv.weight": (channels, EMBEDDING),
        "attn_gate.weight": (inner, EMBEDDING),
        "ssm_alpha.weight": (VALUE_HEADS, EMBEDDING),
        "ssm_beta.weight": (VALUE_HEADS, EMBEDDING),
        "ssm_out.weight": (EMBEDDING, inner),
        "ssm_conv1d.weight": (channels, TAPS),
        "ssm_a": (VALUE_HEADS,),
        "ssm_dt.bias": (VALUE_HEADS,),
        "ssm_norm.weight": (STATE,),
    }


def _rotation() -> list[Key]:
    """Sections of the rotary embedding, and a basis that the matrices are said to be in, as in Ternary-Bonsai-2."""
    folded = ["blk.0.ssm_out.weight", "blk.0.attn_qkv.weight", "blk.1.ffn_down.weight", "output.weight"]
    return [
        ("qwen35.rope.dimension_sections", ARRAY, I32, [6, 5, 5, 0]),
        ("prism.hadamard.version", U32, None, 1),
        ("prism.hadamard.block_size", U32, None, ROTATED_BLOCK),
        ("prism.hadamard.transform", STRING, None, "normalized-sylvester-walsh-hadamard"),
        ("prism.hadamard.axis", STRING, None, "input-last-dimension"),
        ("prism.hadamard.sign_mode", STRING, None, "explicit"),
        ("prism.hadamard.sign_widths", ARRAY, I32, [EMBEDDING, FORWARD]),
        ("prism.hadamard.sign_values", ARRAY, I32, [1, -1] * ((EMBEDDING + FORWARD) // 2)),
        ("prism.hadamard.weight_names", ARRAY, STRING, folded),
        ("prism.hadamard.inverse_weight_names", ARRAY, STRING, ["token_embd.weight"]),
        ("prism.hadamard.gdn_v_grouped", BOOL, None, True),
    ]


def floats(random: np.random.Generator, shape: Sequence[int]) -> bytes:
    """Float32 numbers: around 1 of a vector, around 0 of a matrix."""
    values = random.standard_normal(tuple(shape)) * 0.05 + (len(shape) == 1)
    return values.astype("<f4").tobytes()


def write(path: Path, keys: Sequence[Key], tensors: Sequence[Tensor]) -> Path:
    """A GGUF file of them."""
    return write_gguf(path, keys, tensors)
