# SPDX-License-Identifier: MIT
"""Tensors of models some of whose layers have linear attention (Gated DeltaNet). Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trit.gguf.engine_keys import RECURRENT, SECTIONS, Unsound
from trit.gguf.header import ARRAY, RawHeader

Wanted = Iterator[tuple[str, tuple[int, ...], bool]]

# Where a file does not say after how many layers one attends to everything.
_INTERVAL = 4
_FLOAT32 = 0
_MOST_HEADS, _MOST_SIZE, _MOST_TAPS = 1 << 12, 1 << 12, 64


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters that the shapes of tensors come of.

    Attributes:
        layers: Of the graph, without those that only predict further tokens.
        rotated: Inputs of a head that the rotary embedding turns.
        further: Layers behind them that only predict further tokens.
        classes: Outputs of a classifier's head.
        expert_forward: Inner width of an expert, where it is a key of its own.
    """

    header: RawHeader
    architecture: str
    layers: int
    embedding: int
    forward: int
    heads: int
    kv_heads: int
    key: int
    value: int
    rotated: int
    experts: int
    classes: int
    scaling: str
    further: int
    expert_forward: int = 0


def _numbers(model: Hyper) -> dict[str, int]:
    """The numbers of linear attention; raises Unsound."""
    found = {}
    for name, least, most in (
        ("ssm.conv_kernel", 2, _MOST_TAPS),
        ("ssm.state_size", 1, _MOST_SIZE),
        ("ssm.group_count", 1, _MOST_HEADS),
        ("ssm.time_step_rank", 1, _MOST_HEADS),
        ("ssm.inner_size", 1, _MOST_HEADS * _MOST_SIZE),
        # The engine ends itself where one of the two kinds of layers is missing.
        ("full_attention_interval", 2, model.layers),
    ):
        key = f"{model.architecture}.{name}"
        value = model.header.metadata.get(key, _INTERVAL if name == "full_attention_interval" else None)
        if value is None:
            raise Unsound(f"{key} is missing")
        if not least <= value <= most:
            raise Unsound(f"{key} is {value}, expected {least} to {most}")
        found[name.rpartition(".")[2]] = value
    return found


def check_hybrid(model: Hyper) -> None:
    """The numbers of linear attention and of the rotary embedding fit each other; raises Unsound."""
    name, header, numbers = model.architecture, model.header, _numbers(model)
    heads, groups, size = numbers["time_step_rank"], numbers["group_count"], numbers["state_size"]
    if heads % groups or heads * size != numbers["inner_size"]:
        raise Unsound(
            f"{name}.ssm.inner_size is {numbers['inner_size']}, expected {heads} heads of {size}, a multiple of "
            f"{groups} groups"
        )
    if f"{name}{RECURRENT}" in header.metadata:
        raise Unsound(f"{name}{RECURRENT} is there, which is not known here; full_attention_interval says the same")
    key = f"{name}{SECTIONS}"
    if key not in header.metadata:
        raise Unsound(f"{key} is missing")
    sections = header.metadata[key]
    if header.types[key][0] != ARRAY or sections is None or len(sections) != 4:
        raise Unsound(f"{key} is no array of four numbers")
    if not all(0 <= part <= _MOST_SIZE for part in sections) or not 0 < sum(sections[:3]) <= sum(sections) <= model.key:
        raise Unsound(f"{key} is {sections}, expected four parts of the {model.rotated // 2} rotated pairs")
    for tensor in header.tensors.values():
        if tensor.name.endswith(".ssm_conv1d.weight") and tensor.ggml_type != _FLOAT32:
            raise Unsound(f"{tensor.name} has the type {tensor.ggml_type}; the engine wants float32 there")
    if model.further > 1:
        raise Unsound(f"{name}.nextn_predict_layers is {model.further}, the engine's {name} graph has one")


def hybrid_layers(model: Hyper) -> Wanted:
    """(name, shape, whether it has to be there) of all blocks, those that predict further tokens last."""
    interval = _numbers(model)["full_attention_interval"]
    for layer in range(model.layers + model.further):
        block, further = f"blk.{layer}.", layer >= model.layers
        attends = further or (layer + 1) % interval == 0
        matrices = dict(_attention(model, block) if attends else _linear_attention(model))
        if attends:
            yield from _beside_attention(model, block)
        else:
            yield from _vectors(model, block)
        matrices |= {f"ffn_{name}": (model.forward, model.embedding) for name in ("gate", "up")}
        matrices["ffn_down"] = (model.embedding, model.forward)
        if further:
            matrices["nextn.eh_proj"] = (model.embedding, 2 * model.embedding)
            yield from _of_further(model, block)
        for name, shape in matrices.items():
            yield f"{block}{name}.weight", shape, True
            yield f"{block}{name}.scale", (1,), False
            yield f"{block}{name}.input_scale", (1,), False
            yield f"{block}{name}_norm_in.weight", shape[1:], False
        for name in ("attn_norm", "post_attention_norm"):
            yield f"{block}{name}.weight", (model.embedding,), True


def _attention(model: Hyper, block: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Queries come with their gates."""
    queries, keys = model.heads * model.key, model.kv_heads * model.key
    if f"{block}attn_qkv.weight" in model.header.tensors:
        yield "attn_qkv", (2 * queries + 2 * keys, model.embedding)
    else:
        yield "attn_q", (2 * queries, model.embedding)
        yield "attn_k", (keys, model.embedding)
        yield "attn_v", (keys, model.embedding)
    yield "attn_output", (model.embedding, queries)


def _beside_attention(model: Hyper, block: str) -> Wanted:
    """Norms of heads, and biases that the engine looks for, too."""
    for name in "qk":
        yield f"{block}attn_{name}_norm.weight", (model.key,), True
    queries, keys = 2 * model.heads * model.key, model.kv_heads * model.key
    tensors = model.header.tensors
    if f"{block}attn_qkv.weight" in tensors:
        yield f"{block}attn_qkv.bias", (queries + 2 * keys,), False
        if f"{block}attn_qkv.bias" in tensors:
            return
    for name, rows in (("q", queries), ("k", keys), ("v", keys)):
        yield f"{block}attn_{name}.bias", (rows,), False


def _linear_attention(model: Hyper) -> Iterator[tuple[str, tuple[int, ...]]]:
    numbers = _numbers(model)
    inner, heads = numbers["inner_size"], numbers["time_step_rank"]
    yield "attn_qkv", (2 * numbers["group_count"] * numbers["state_size"] + inner, model.embedding)
    yield "attn_gate", (inner, model.embedding)
    yield "ssm_beta", (heads, model.embedding)
    yield "ssm_alpha", (heads, model.embedding)
    yield "ssm_out", (model.embedding, inner)


def _vectors(model: Hyper, block: str) -> Wanted:
    numbers = _numbers(model)
    channels = 2 * numbers["group_count"] * numbers["state_size"] + numbers["inner_size"]
    yield f"{block}ssm_conv1d.weight", (channels, numbers["conv_kernel"]), True
    yield f"{block}ssm_dt.bias", (numbers["time_step_rank"],), True
    yield f"{block}ssm_a", (numbers["time_step_rank"],), True
    yield f"{block}ssm_norm.weight", (numbers["state_size"],), True


def _of_further(model: Hyper, block: str) -> Wanted:
    for name in ("enorm", "hnorm", "shared_head_norm"):
        yield f"{block}nextn.{name}.weight", (model.embedding,), name != "shared_head_norm"
    tokens = model.header.tensors["token_embd.weight"].shape[0]
    for name in ("embed_tokens", "shared_head_head"):
        yield f"{block}nextn.{name}.weight", (tokens, model.embedding), False
