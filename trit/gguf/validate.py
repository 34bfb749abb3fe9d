# SPDX-License-Identifier: MIT
"""Would the engine come through with what a header says? Hyper-parameters, vocabulary, types and shapes.

The engine divides and allocates by numbers of a file, and ends itself, or hangs, where they cannot be: an assertion in
its loader is no sentence. So everything that it takes from a header is compared here first, in code that no number can
harm. Ranges are the engine's own (``llama-model.cpp``, ``llama-hparams.h``), those of floats a thousand times what
published models have; a key that it has a default for may be missing. Of the architectures whose families we convert
every tensor's shape is known, too; of the others only what they all share is compared. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable

from trit.gguf.engine_keys import BOOL, EXPERT_FORWARD, F32, TENSOR_EXTRA, Keys, Unsound, kinds_read
from trit.gguf.family_tensors import FAMILIES, check_tensors
from trit.gguf.header import ARRAY, RawHeader
from trit.gguf.hybrid_tensors import Hyper
from trit.gguf.identify import Found
from trit.gguf.layouts import PLAIN
from trit.gguf.rotation import SIGNS, check_rotation
from trit.gguf.vocabulary import LOOKED_AT as _VOCABULARY
from trit.gguf.vocabulary import check_vocabulary

__all__ = ["KNOWN_SHAPES", "LOOKED_AT", "embeds", "misplaced", "unsound"]

LOOKED_AT = (*_VOCABULARY, SIGNS)
_MAX_LAYERS, _MAX_EXPERTS, _MAX_NAME = 512, 1024, 63
_MAX_WIDTH, _MAX_CONTEXT = 1 << 24, (1 << 31) - 1
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_POOLINGS = 4
# ggml's TENSOR_ALIGNMENT; general.alignment may be less.
_MAPPED = 32
_EPSILON = "attention.layer_norm_rms_epsilon"
# Least and most of the floats that graphs multiply or divide by, and whether 0 stands for none of it.
_FLOATS: dict[str, tuple[float, float, bool]] = {
    **dict.fromkeys(("rope.freq_base", "rope.freq_base_swa"), (10.0, 1e13, False)),
    _EPSILON: (1e-15, 0.01, False),
    **dict.fromkeys(("attention.layer_norm_epsilon", "attention.group_norm_epsilon"), (1e-15, 0.01, True)),
    **dict.fromkeys(("rope.scaling.factor", "rope.scale_linear"), (1e-3, 1e5, True)),
    "rope.scaling.attn_factor": (1e-3, 1e3, False),
    "rope.scaling.alpha": (1e-3, 1e6, True),
    "rope.scaling.yarn_log_multiplier": (1e-4, 1e3, True),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), (0.01, 1e5, True)),
    **dict.fromkeys(("attention.clamp_kqv", "attention.max_alibi_bias"), (1e-3, 1e5, True)),
    **dict.fromkeys(("attention.scale", "logit_scale", "residual_scale", "embedding_scale"), (1e-6, 1e6, True)),
}
# Graphs that attend to what follows: their vectors are of use, not their logits.
_EMBEDS = ("gemma-embedding",)

# Architectures of which every tensor's shape is compared.
KNOWN_SHAPES = frozenset(FAMILIES)


def unsound(header: RawHeader, *, foreign: bool = False) -> str | None:
    """Why the engine would fail on a model, or answer nonsense with it; None if it would not.

    Args:
        header: Of the file, or of the first file of a split model with the tensors of all; read with ``LOOKED_AT``.
        foreign: Whether the file is to be converted: what another engine's layout has beside its matrices may be there.
    """
    try:
        keys = Keys(header)
        model = _hyper(header, keys)
        check_vocabulary(header, keys)
        _check_tensors(header)
        check_rotation(header)
        if model.architecture in FAMILIES:
            check_tensors(model, foreign)
    except Unsound as error:
        return str(error)
    return None


def embeds(header: RawHeader) -> bool:
    """Whether a sound model gives vectors instead of answers: it pools them, or its tokens see what follows."""
    name = header.metadata["general.architecture"]
    pooling, causal = header.metadata.get(f"{name}.pooling_type", 0), header.metadata.get(f"{name}.attention.causal")
    return bool(pooling) or causal is False or name in _EMBEDS


def misplaced(header: RawHeader, found: Iterable[Found]) -> str | None:
    """Which tensor of one file is not where the engine looks for it: behind the one before; None if all are."""
    expected = header.data_offset
    if expected % _MAPPED:
        return (
            f"its data begins at byte {expected:,}, which is no multiple of {_MAPPED}: the engine cannot map it there"
        )
    for item in found:
        if item.tensor.offset != expected:
            return (
                f"{item.tensor.name} begins at byte {item.tensor.offset:,}, but the tensor before ends at {expected:,}"
            )
        expected += -(-item.nbytes // header.alignment) * header.alignment
    return None


def _hyper(header: RawHeader, keys: Keys) -> Hyper:
    """Read and compare the hyper-parameters; raises Unsound."""
    architecture = keys.architecture
    context = keys.number("context_length", least=1, most=_MAX_CONTEXT)
    embedding = keys.number("embedding_length", least=1, most=_MAX_WIDTH)
    layers = keys.number("block_count", least=1, most=_MAX_LAYERS)
    further = keys.number("nextn_predict_layers", default=0, most=layers)
    keys.number("rope.scaling.original_context_length", default=context, most=_MAX_CONTEXT)
    keys.number("pooling_type", default=0, most=_POOLINGS)
    experts = _check_experts(keys, layers)
    scaling = keys.text("rope.scaling.type", "linear")
    if scaling not in _ROPE_SCALINGS:
        raise keys.wrong("rope.scaling.type", scaling, f"is none of {', '.join(_ROPE_SCALINGS)}")
    _check_floats(keys)
    _check_extra(keys)
    known = architecture in FAMILIES
    least = 1 if known else 0

    def each(name: str, default: int) -> int:
        return keys.each(name, layers, default, _MAX_WIDTH, uniform=known)

    heads = each("attention.head_count", 0)
    kv_heads = each("attention.head_count_kv", heads)
    forward = each("feed_forward_length", 0)
    size = embedding // heads if heads else 0
    key = keys.number("attention.key_length", default=size, least=min(least, heads), most=_MAX_WIDTH)
    value = keys.number("attention.value_length", default=size, least=min(least, heads), most=_MAX_WIDTH)
    rotated = keys.number("rope.dimension_count", default=key, most=_MAX_WIDTH)
    if heads and rotated % 2:
        raise keys.wrong("rope.dimension_count", rotated, "is odd; the rotary embedding turns pairs")
    if known and (not heads or not kv_heads or heads % kv_heads):
        raise Unsound(f"{architecture}.attention.head_count {heads} is no multiple of head_count_kv {kv_heads}")
    if known and f"{architecture}.{_EPSILON}" not in keys.values:
        raise Unsound(f"{architecture}.{_EPSILON} is missing")
    mixed = architecture == "maple"
    expert_forward = keys.each(EXPERT_FORWARD[1:], layers, 0, _MAX_WIDTH, uniform=True) if mixed else 0
    classes = keys.counts.get(f"{architecture}.classifier.output_labels", 1)
    return Hyper(
        header, architecture, layers - further, embedding, forward, heads, kv_heads, key, value, rotated, experts,
        classes, scaling, further, expert_forward,
    )  # fmt: skip


def _check_floats(keys: Keys) -> None:
    """Compare the floats that a graph multiplies or divides by."""
    read = kinds_read(keys.architecture)
    for name, (least, most, none) in _FLOATS.items():
        key = f"{keys.architecture}.{name}"
        if keys.architecture in FAMILIES and key not in read:
            continue
        value = keys.typed(key, F32)
        if value is None or (none and value == 0) or least <= value <= most:
            continue
        raise Unsound(f"{key} is {value:g}, expected {'0 or ' if none else ''}{least:g} to {most:g}")


def _check_extra(keys: Keys) -> None:
    """Names of tensors and a flag of each; raises Unsound."""
    name, flag = f"{TENSOR_EXTRA}.name", f"{TENSOR_EXTRA}.prec_a4"
    if keys.types.get(name, (None,))[0] != ARRAY:
        return
    if keys.types.get(flag) != (ARRAY, BOOL) or keys.counts[flag] != keys.counts[name]:
        raise Unsound(f"{flag} is no array of {keys.counts[name]} bools, one for each of {name}")


def _check_experts(keys: Keys, layers: int) -> int:
    """Compare the numbers of experts with each other; how many there are."""
    experts = keys.number("expert_count", default=0, most=_MAX_EXPERTS)
    if keys.architecture in ("hunyuan_vl", "hunyuan-dense") and experts <= 1:
        return 0
    key = f"{keys.architecture}.expert_used_count"
    used = keys.each("expert_used_count", layers, 0, _MAX_EXPERTS, uniform=False)
    if isinstance(keys.values.get(key), list):
        used = max(keys.values[key])
    groups = keys.number("expert_group_count", default=0, most=_MAX_EXPERTS)
    used_groups = keys.number("expert_group_used_count", default=0, most=_MAX_EXPERTS)
    if used > experts or (experts and not used):
        raise Unsound(f"{key} is {used} of {experts} experts")
    if groups and (groups >= experts or (groups > 1 and (experts % groups or not 0 < used_groups < groups))):
        raise Unsound(f"{keys.architecture}.expert_group_count is {groups} of {experts} experts, {used_groups} used")
    return experts


def _check_tensors(header: RawHeader) -> None:
    """What all architectures share; raises Unsound."""
    if not header.tensors:
        raise Unsound("it has no weights: only a vocabulary")
    for name, tensor in header.tensors.items():
        if len(name.encode("utf-8", "replace")) > _MAX_NAME:
            raise Unsound(f"a tensor's name has more than {_MAX_NAME} bytes ({name[:20]!a}...)")
        if len(tensor.shape) == 1 and tensor.ggml_type in PLAIN and PLAIN[tensor.ggml_type][1] > 1:
            raise Unsound(f"{name} is a vector of type {PLAIN[tensor.ggml_type][0]}; the engine wants floats there")
        if name.startswith("blk.") and not name.split(".")[1].isdigit():
            raise Unsound(f"{name[:40]!a} is in no layer")
