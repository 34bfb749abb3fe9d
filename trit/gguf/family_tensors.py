# SPDX-License-Identifier: MIT
"""Which tensors a model of each architecture that we convert has, in which shapes. Standard library only.

As ``load_arch_tensors`` of the engine's ``models/`` and the scales that ``llama-model.cpp`` looks for afterwards: one
that it does not ask for ends loading ("wrong number of tensors").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trit.gguf.engine_keys import CLAMP, EXPERT_FORWARD, SECTIONS, Unsound
from trit.gguf.header import RawTensor
from trit.gguf.hybrid_tensors import Hyper, Wanted, check_hybrid, hybrid_layers
from trit.gguf.layouts import LAYOUTS, PLAIN, TILED
from trit.gguf.vocabulary import TOKENS


@dataclass(frozen=True)
class _Family:
    """What an architecture has besides what all of ours have.

    Attributes:
        vectors: Names of its further vectors -> which of the dimensions they have.
        biases: Projections that may have a bias.
        fused: Whether queries, keys and values may be one matrix.
        square: Whether queries are as wide as the embedding.
        turns_all: Whether the rotary embedding has to turn whole heads.
        mixes: Whether it has a graph for experts.
        head_bias: Whether the output head may have a bias.
        factors: Whether it looks for factors of the rotary embedding.
        classifies: Whether it looks for the head of a classifier.
        dense: Whether it looks for two matrices behind the pooling.
        hybrid: Whether some layers have linear attention, the others a gate on theirs.
        windows: Whether some layers attend to a window only: None, or "some" of all if they have one, or "mixed", or
            "each" where a file says it of every layer.
        own_head: Whether it needs an output head, which the embedding cannot be.
    """

    vectors: dict[str, str]
    biases: tuple[str, ...] = ("attn_q", "attn_k", "attn_v")
    fused: bool = True
    square: bool = False
    turns_all: bool = True
    mixes: bool = False
    head_bias: bool = False
    factors: bool = False
    classifies: bool = False
    dense: bool = False
    hybrid: bool = False
    windows: str | None = None
    own_head: bool = False


_SUB_NORMS = {"attn_sub_norm": "embedding", "ffn_sub_norm": "forward"}
_QK_NORMS = {"attn_q_norm": "key", "attn_k_norm": "key"}
_POST_NORMS = {"post_attention_norm": "embedding", "post_ffw_norm": "embedding"}
_QKV, _FFN = ("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up", "ffn_down")
_BITNET = _Family(_SUB_NORMS, biases=(), fused=False, square=True, turns_all=False)
_GEMMA = _Family(_QK_NORMS | _POST_NORMS, turns_all=False, windows="some")
FAMILIES = {
    **dict.fromkeys(("bitnet", "bitnet-b1.58", "bitnet-25"), _BITNET),
    "llama": _Family({}, biases=(*_QKV, "attn_output", *_FFN), mixes=True, factors=True),
    "qwen2": _Family({}, square=True, head_bias=True),
    "qwen3": _Family(_QK_NORMS, classifies=True),
    "qwen35": _Family(_QK_NORMS, turns_all=False, hybrid=True),
    "gemma3": _GEMMA,
    "gemma-embedding": replace(_GEMMA, dense=True, windows="mixed"),
    "minicpm": _Family({}, biases=(*_QKV, "attn_output", *_FFN), mixes=True, factors=True),
    "hunyuan-dense": _Family(_QK_NORMS),
    "maple": _Family(_QK_NORMS, turns_all=False, mixes=True, windows="each", own_head=True),
}
# Every so manieth layer attends to all, where a file does not say which.
_PATTERN = 6
_MOST_CLAMP = 1e6
# Types that hold numbers, not weights: the engine has no product with them.
_NO_WEIGHTS = {number: PLAIN[number][0] for number in (9, 15, 24, 25, 26, 27, 28)}
_TILED_TYPES = {number for name in TILED for number in LAYOUTS[name].ids}


def check_tensors(model: Hyper, foreign: bool) -> None:
    """Every tensor is there and has its shape and a type that it can have; raises Unsound.

    Args:
        model: Of an architecture of ``FAMILIES``.
        foreign: Let through what another engine's layout has beside its matrices, the file being to be converted.
    """
    family = FAMILIES[model.architecture]
    queries = model.heads * model.key
    if model.key != model.value or (family.square and queries != model.embedding):
        raise Unsound(
            f"{model.architecture}.attention: {model.heads} heads of {model.key} and {model.value} do not make up an "
            f"embedding of {model.embedding}"
        )
    out = f"{model.architecture}.embedding_length_out"
    if (width := model.header.metadata.get(out, 0)) not in (0, model.embedding):
        raise Unsound(f"{out} is {width}, expected the embedding's {model.embedding}")
    if not 0 < model.rotated <= model.key or (family.turns_all and model.rotated != model.key):
        raise Unsound(f"{model.architecture}.rope.dimension_count is {model.rotated} for heads of {model.key}")
    if model.header.metadata.get("minicpm.logit_scale") == 0 and model.architecture == "minicpm":
        raise Unsound("minicpm.logit_scale is 0, by which its graph divides")
    if model.architecture == "maple":
        _check_maple(model)
    if model.architecture == "hunyuan-dense":
        _check_sections(model)
    if family.windows:
        _check_windows(model, family.windows)
    if family.dense:
        _check_dense(model)
    if family.hybrid:
        check_hybrid(model)
    tensors = model.header.tensors
    known = set()
    for name, shape, needed in _wanted(model, family):
        known.add(name)
        tensor = tensors.get(name)
        if tensor is None:
            if needed:
                raise Unsound(f"{name} is missing")
            continue
        _check_tensor(tensor, shape)
    for name in tensors:
        if name not in known and not (foreign and _scale_beside(name, tensors)):
            raise Unsound(f"{name[:60]!a} is no tensor of a {model.architecture} model of {model.layers} layers")


def _check_sections(model: Hyper) -> None:
    """Positions are numbers, not places in pictures, for which the graph is given too few; raises Unsound."""
    key = f"{model.architecture}{SECTIONS}"
    value = model.header.metadata.get(key, 0)
    if model.header.counts.get(key, 4) != 4:
        raise Unsound(f"{key} has {model.header.counts[key]} numbers, expected 4")
    if value if not isinstance(value, list) else min(value[:2]) > 0:
        raise Unsound(f"{key} is {value}, of positions in pictures, for which {model.architecture} has no graph")


def _check_maple(model: Hyper) -> None:
    """What its graph cannot be without; raises Unsound."""
    name = model.architecture
    if not model.experts or not model.expert_forward:
        key = EXPERT_FORWARD[1:] if model.experts else "expert_count"
        raise Unsound(f"{name}.{key} is {model.expert_forward if model.experts else 0}, of a mixture of experts")
    used = model.header.metadata.get(f"{name}.expert_used_count")
    if isinstance(used, list) and min(used) < 1:
        raise Unsound(f"{name}.expert_used_count has a layer without experts")
    limits = model.header.metadata.get(f"{name}{CLAMP}")
    if (count := model.header.counts.get(f"{name}{CLAMP}", model.layers)) != model.layers:
        raise Unsound(f"{name}{CLAMP} has {count} numbers for {model.layers} layers")
    for limit in limits if isinstance(limits, list) else [limits]:
        if limit is None or not 0 <= limit <= _MOST_CLAMP:
            raise Unsound(f"{name}{CLAMP} is {limit}, expected 0 to {_MOST_CLAMP:g}")


def _check_windows(model: Hyper, kind: str) -> None:
    """The layers that attend to a window only are like the others, and as many as the graph needs; raises Unsound."""
    values, name = model.header.metadata, model.architecture
    if kind in ("mixed", "each") and f"{name}.attention.sliding_window" not in values:
        raise Unsound(f"{name}.attention.sliding_window is missing")
    if kind == "some" and not values.get(f"{name}.attention.sliding_window"):
        return
    for key, wanted in (("key_length_swa", model.key), ("value_length_swa", model.value)):
        if (size := values.get(f"{name}.attention.{key}", wanted)) != wanted:
            raise Unsound(f"{name}.attention.{key} is {size}, expected {wanted} as in the other layers")
    rotated = values.get(f"{name}.rope.dimension_count_swa", model.rotated)
    if not 0 < rotated <= model.key or rotated % 2:
        raise Unsound(f"{name}.rope.dimension_count_swa is {rotated} for heads of {model.key}")
    key = f"{name}.attention.sliding_window_pattern"
    pattern = values.get(key, _PATTERN)
    if kind == "each" and key not in model.header.counts:
        raise Unsound(f"{key} is no array with a number for each layer")
    if (count := model.header.counts.get(key)) is not None:  # an array, whose numbers are not read if they are many
        if count != model.layers:
            raise Unsound(f"{key} has {count} numbers for {model.layers} layers")
        windows = sum(map(bool, pattern))
    else:
        windows = sum(not pattern or layer % pattern < pattern - 1 for layer in range(model.layers))
    if not windows or (kind == "mixed" and windows == model.layers):
        raise Unsound(f"{key} gives {windows} of {model.layers} layers a window, for which {name} has no graph")


def _check_dense(model: Hyper) -> None:
    """The matrices behind the pooling fit each other and the embedding; raises Unsound."""
    values, name = model.header.metadata, model.architecture
    parts = ("2_feat_in", "2_feat_out", "3_feat_in", "3_feat_out")
    sizes = {part: values.get(f"{name}.dense_{part}", 0) for part in parts}
    for part in ("2_feat_in", "3_feat_out"):
        if sizes[part] not in (0, model.embedding):
            raise Unsound(f"{name}.dense_{part} is {sizes[part]}, expected the embedding's {model.embedding}")
    tensors = model.header.tensors
    between = sizes["2_feat_out"] if "dense_2.weight" in tensors else model.embedding
    if between != (sizes["3_feat_in"] if "dense_3.weight" in tensors else model.embedding):
        fit = f"do not fit dense_2.weight and dense_3.weight behind an embedding of {model.embedding}"
        raise Unsound(f"{name}.dense_2_feat_out {sizes['2_feat_out']} and dense_3_feat_in {sizes['3_feat_in']} {fit}")


def _scale_beside(name: str, tensors: dict[str, RawTensor]) -> bool:
    """Whether a tensor is the scale of a matrix in tiles of bitnet.cpp."""
    matrix = tensors.get(name.removesuffix("_scale"))
    return name.endswith("_scale") and matrix is not None and matrix.ggml_type in _TILED_TYPES


def _check_tensor(tensor: RawTensor, shape: tuple[int, ...]) -> None:
    found = tensor.shape
    while len(found) > len(shape) and found[0] == 1:
        found = found[1:]
    if found != shape:
        raise Unsound(f"{tensor.name} has the shape {list(tensor.shape)}, expected {list(shape)} by the file's keys")
    if len(shape) == 1 and tensor.ggml_type not in (0, 1):
        raise Unsound(f"{tensor.name} has the type {tensor.ggml_type}; the engine wants float32 or float16 there")
    if tensor.ggml_type in _NO_WEIGHTS:
        raise Unsound(f"{tensor.name} has the type {_NO_WEIGHTS[tensor.ggml_type]}, which the engine does not multiply")


def _wanted(model: Hyper, family: _Family) -> Wanted:
    """(name, shape, whether it has to be there) of the tensors of a model."""
    embedding, tokens = model.embedding, model.header.counts[TOKENS]
    yield "token_embd.weight", (tokens, embedding), True
    yield "output_norm.weight", (embedding,), True
    yield "output.weight", (tokens, embedding), family.own_head
    if family.head_bias:
        yield "output.bias", (tokens,), False
    if family.classifies:
        yield "cls.output.weight", (model.classes, embedding), False
    if family.factors:
        names = ("rope_factors_long", "rope_factors_short") if model.scaling == "longrope" else ("rope_freqs",)
        for name in names:
            yield f"{name}.weight", (model.rotated // 2,), False
    if family.dense:
        size = model.header.metadata.get
        yield "dense_2.weight", (size(f"{model.architecture}.dense_2_feat_out", 0), embedding), False
        yield "dense_3.weight", (embedding, size(f"{model.architecture}.dense_3_feat_in", 0)), False
    if family.hybrid:
        yield from hybrid_layers(model)
        return
    for layer in range(model.layers):
        yield from _layer(model, family, f"blk.{layer}.")


def _layer(model: Hyper, family: _Family, block: str) -> Wanted:
    embedding, forward = model.embedding, model.forward
    queries, keys = model.heads * model.key, model.kv_heads * model.key
    tensors = model.header.tensors
    fused = family.fused and f"{block}attn_qkv.weight" in tensors
    matrices: dict[str, tuple[int, ...]] = {"attn_output": (embedding, queries)}
    if fused:
        matrices["attn_qkv"] = (queries + 2 * keys, embedding)
        yield f"{block}attn_qkv.bias", (queries + 2 * keys,), False
    else:
        matrices |= {"attn_q": (queries, embedding), "attn_k": (keys, embedding), "attn_v": (keys, embedding)}
    rows = {"attn_q": queries, "attn_k": keys, "attn_v": keys, "attn_output": embedding, "ffn_down": embedding}
    if experts := model.experts if family.mixes else 0:
        yield from _experts(block, experts, embedding, model.expert_forward or forward, family.own_head)
    else:
        matrices |= {"ffn_gate": (forward, embedding), "ffn_up": (forward, embedding), "ffn_down": (embedding, forward)}
    for name in family.biases:
        with_qkv = name in _QKV and fused and f"{block}attn_qkv.bias" in tensors
        if not (with_qkv or (experts and name in _FFN)):
            yield f"{block}{name}.bias", (rows.get(name, forward),), False
    for name, shape in matrices.items():
        yield f"{block}{name}.weight", shape, True
        yield f"{block}{name}.scale", (1,), False
        yield f"{block}{name}.input_scale", (1,), False
        yield f"{block}{name}_norm_in.weight", shape[1:], False
    for name in ("attn_norm", "ffn_norm"):
        yield f"{block}{name}.weight", (embedding,), True
    for name, dimension in family.vectors.items():
        yield f"{block}{name}.weight", (getattr(model, dimension),), True


def _experts(block: str, experts: int, embedding: int, forward: int, gated: bool) -> Wanted:
    yield f"{block}ffn_gate_inp.weight", (experts, embedding), True
    yield f"{block}ffn_gate_inp_norm_in.weight", (embedding,), False
    shapes = {"gate": (forward, embedding), "up": (forward, embedding), "down": (embedding, forward)}
    for name, shape in shapes.items():
        yield f"{block}ffn_{name}_exps.weight", (experts, *shape), gated or name != "gate"
        yield f"{block}ffn_{name}_exps.scale", (experts,), False
        yield f"{block}ffn_{name}_exps.input_scale", (experts,), False
