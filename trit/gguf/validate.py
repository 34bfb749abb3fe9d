# SPDX-License-Identifier: MIT
"""Would the engine come through with what a header says? Hyper-parameters, vocabulary, types and shapes.

The engine divides and allocates by numbers of a file, and ends itself, or hangs, where they cannot be: an assertion in
its loader is no sentence. So everything that it takes from a header is compared here first, in code that no number can
harm. Ranges are the engine's own (``llama-model.cpp``, ``llama-hparams.h``, ``llama-vocab.cpp``); a key that it has a
default for may be missing. Of the architectures whose families we convert every tensor's shape is known, too; of the
others only what they all share is compared. Standard library only.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trit.gguf.engine_names import ARCHITECTURES, PRE_TOKENIZERS
from trit.gguf.header import ARRAY, STRING, RawHeader, RawTensor
from trit.gguf.identify import Found
from trit.gguf.layouts import PLAIN, TILED

TOKENS, TOKEN_TYPES, SCORES, MERGES = (
    f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "scores", "merges")
)
# Long arrays of which not only the length is looked at.
LOOKED_AT = (TOKENS, TOKEN_TYPES, SCORES)

U32, I32, F32, BOOL = 4, 5, 6, 7
_KINDS = {U32: "a uint32", I32: "an int32", F32: "a float32", BOOL: "a bool", STRING: "a string"}
_MAX_LAYERS, _MAX_EXPERTS, _MAX_NAME = 512, 1024, 63
_MAX_WIDTH, _MAX_CONTEXT = 1 << 24, (1 << 31) - 1
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_POOLINGS = 4
_BYTE = 6  # type of a token that stands for a byte
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# Tokenizers of the engine -> its special tokens bos and eos where a file has none, and whether it puts bos in front.
_TOKENIZERS: dict[str, tuple[int | None, int | None, bool]] = {
    "llama": (1, 2, True),
    "bert": (101, None, True),
    "gpt2": (11, 11, False),
    "hybriddna": (11, 11, False),
    "whitespace": (11, 11, False),
    "gemma4": (None, None, True),
    "t5": (None, 1, False),
    "rwkv": (None, None, False),
    "plamo2": (1, 2, False),
    "test": (None, None, False),
}
# Tokens that the engine looks up, and has to find, in the vocabulary of a model whose name is one of these.
_LOOKED_UP = {("phi-3", "phi3"): ("</s>", "<unk>", "<s>", "<|endoftext|>")}
_MERGED = ("gpt2", "hybriddna", "whitespace", "gemma4")
_SCORED = ("llama", "t5", "plamo2")
# Types that hold numbers, not weights: the engine has no product with them.
_NO_WEIGHTS = {number: PLAIN[number][0] for number in (9, 15, 24, 25, 26, 27, 28)}
# Floats that stand in every graph and that no number of a trained model makes infinite.
_POSITIVE = ("rope.freq_base", "rope.freq_base_swa")
_EPSILON = "attention.layer_norm_rms_epsilon"
_NOT_NEGATIVE = (
    _EPSILON,
    "attention.layer_norm_epsilon",
    "attention.group_norm_epsilon",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_log_multiplier",
)
_FINITE = (
    "attention.scale",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
)


class Unsound(Exception):
    """What the engine cannot take: one clause that begins with the key or tensor."""


def unsound(header: RawHeader) -> str | None:
    """Why the engine would fail on a model; None if it would not.

    Args:
        header: Of the file, or of the first file of a split model with the tensors of all; read with ``LOOKED_AT``.
    """
    try:
        model = _Model.read(header)
        _check_vocabulary(header, model.architecture)
        _check_tensors(header)
        if model.architecture in _FAMILIES:
            _check_family(model)
    except Unsound as error:
        return str(error)
    return None


def misplaced(header: RawHeader, found: Iterable[Found]) -> str | None:
    """Which tensor of one file is not where the engine looks for it: behind the one before; None if all are."""
    expected = header.data_offset
    for item in found:
        if item.tensor.offset != expected:
            return (
                f"{item.tensor.name} begins at byte {item.tensor.offset:,}, but the tensor before ends at {expected:,}"
            )
        expected += -(-item.nbytes // header.alignment) * header.alignment
    return None


def broken_numbers(path: Path, found: Iterable[Found]) -> str | None:
    """Which norm, bias or scale of a file is not finite, or which scale negative; None if none is.

    Vectors and the scale behind a matrix are read, not the matrices: some megabytes of a model of billions of weights.
    """
    with path.open("rb") as file:
        for item in found:
            tensor = item.tensor
            if item.layout and item.name not in TILED and (tail := _tail(item)):
                file.seek(tensor.offset + item.nbytes - tail)
                numbers: Iterable[float] = struct.unpack("<f", file.read(4))
            elif tensor.ggml_type in (0, 1) and tensor.rows == 1:
                file.seek(tensor.offset)
                numbers = _floats(file.read(item.nbytes), "fe"[tensor.ggml_type])
            else:
                continue
            if not math.isfinite(sum(numbers)):
                return f"{tensor.name} holds a number that is not finite"
            if (item.layout or tensor.name.endswith("scale")) and min(numbers) < 0:
                return f"{tensor.name} has a scale of {min(numbers):g}"
    return None


def _tail(item: Found) -> int:
    """Bytes behind the blocks of a tensor, the first four of which are its scale; 0 if its scales are elsewhere."""
    assert item.layout is not None
    return item.layout.sizes(0, item.tensor.columns)[0]


def _floats(raw: bytes, kind: str) -> Collection[float]:
    """Numbers of a float32 ("f") or float16 ("e") tensor."""
    if kind == "f":
        values = array("f")
        if values.itemsize == 4 and struct.pack("=f", 1.0) == struct.pack("<f", 1.0):
            values.frombytes(raw)
            return values
    return struct.unpack(f"<{len(raw) // struct.calcsize(kind)}{kind}", raw)


@dataclass(frozen=True)
class _Model:
    """Hyper-parameters that the shapes of tensors come of.

    Attributes:
        rotated: Inputs of a head that the rotary embedding turns.
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

    @classmethod
    def read(cls, header: RawHeader) -> _Model:
        """Read and compare the hyper-parameters; raises Unsound."""
        keys = _Keys(header)
        architecture = keys.architecture
        context = keys.number("context_length", least=1, most=_MAX_CONTEXT)
        embedding = keys.number("embedding_length", least=1, most=_MAX_WIDTH)
        layers = keys.number("block_count", least=1, most=_MAX_LAYERS)
        keys.number("nextn_predict_layers", default=0, most=layers)
        keys.number("rope.scaling.original_context_length", default=context, most=_MAX_CONTEXT)
        keys.number("pooling_type", default=0, most=_POOLINGS)
        keys.flag("attention.causal")
        experts = _check_experts(keys, layers)
        if keys.text("rope.scaling.type", "linear") not in _ROPE_SCALINGS:
            raise keys.wrong("rope.scaling.type", f"is none of {', '.join(_ROPE_SCALINGS)}")
        keys.check_floats()
        family = _FAMILIES.get(architecture)
        least = 1 if family else 0
        heads = keys.each("attention.head_count", layers, 0, uniform=family is not None)
        kv_heads = keys.each("attention.head_count_kv", layers, heads, uniform=family is not None)
        forward = keys.each("feed_forward_length", layers, 0, uniform=family is not None)
        size = embedding // heads if heads else 0
        key = keys.number("attention.key_length", default=size, least=min(least, heads), most=_MAX_WIDTH)
        value = keys.number("attention.value_length", default=size, least=min(least, heads), most=_MAX_WIDTH)
        rotated = keys.number("rope.dimension_count", default=key, most=_MAX_WIDTH)
        if heads and rotated % 2:
            raise keys.wrong("rope.dimension_count", "is odd; the rotary embedding turns pairs")
        if family and (not heads or not kv_heads or heads % kv_heads):
            raise Unsound(f"{architecture}.attention.head_count {heads} is no multiple of head_count_kv {kv_heads}")
        if family and f"{architecture}.{_EPSILON}" not in keys.values:
            raise Unsound(f"{architecture}.{_EPSILON} is missing")
        return cls(header, architecture, layers, embedding, forward, heads, kv_heads, key, value, rotated, experts)


class _Keys:
    """Reads the hyper-parameters of an architecture, each with the type that the engine wants."""

    def __init__(self, header: RawHeader) -> None:
        self.values, self.types, self.counts = header.metadata, header.types, header.counts
        architecture = self.typed("general.architecture", STRING)
        if architecture is None:
            raise Unsound("general.architecture is missing")
        if architecture not in ARCHITECTURES:
            raise Unsound(f"general.architecture is {architecture[:40]!a}, for which the engine has no graph")
        self.architecture = str(architecture)

    def wrong(self, name: str, reason: str) -> Unsound:
        """The error about a hyper-parameter."""
        key = f"{self.architecture}.{name}"
        return Unsound(f"{key} is {self.values[key]!a:.60}, which {reason}")

    def typed(self, key: str, kind: int) -> Any:
        """A value; None if it is missing."""
        if key not in self.values:
            return None
        if self.types[key][0] != kind:
            raise Unsound(f"{key} is not {_KINDS[kind]}")
        return self.values[key]

    def number(self, name: str, *, default: int | None = None, least: int = 0, most: int) -> int:
        """An unsigned number within its range; ``default`` if the engine has one for it."""
        key = f"{self.architecture}.{name}"
        value = self.typed(key, U32)
        if value is None:
            if default is None:
                raise Unsound(f"{key} is missing")
            return default
        if not least <= value <= most:
            raise Unsound(f"{key} is {value}, expected {least} to {most}")
        return int(value)

    def flag(self, name: str) -> None:
        """A key that has to be a bool if it is there."""
        self.typed(f"{self.architecture}.{name}", BOOL)

    def text(self, name: str, default: str) -> str:
        """A string."""
        value = self.typed(f"{self.architecture}.{name}", STRING)
        return default if value is None else str(value)

    def each(self, name: str, layers: int, default: int, uniform: bool) -> int:
        """A number for all layers, or one for each; the first layer's. ``uniform``: the graph knows only one."""
        key = f"{self.architecture}.{name}"
        if self.types.get(key, (U32, None))[0] != ARRAY:
            return self.number(name, default=default, most=_MAX_WIDTH)
        if self.types[key][1] not in (U32, I32, BOOL):
            raise Unsound(f"{key} is an array, but not of 32-bit integers")
        values = self.values[key]
        if self.counts[key] != layers or values is None:
            raise Unsound(f"{key} has {self.counts[key]} numbers for {layers} layers")
        if not all(0 <= value <= _MAX_WIDTH for value in values):
            raise Unsound(f"{key} holds {min(values)} to {max(values)}, expected 0 to {_MAX_WIDTH}")
        if uniform and len(set(values)) > 1:
            raise Unsound(f"{key} differs between layers, which {self.architecture} has no graph for")
        return int(values[0])

    def check_floats(self) -> None:
        """Compare the floats that every graph multiplies with."""
        for name in (*_POSITIVE, *_NOT_NEGATIVE, *_FINITE):
            key = f"{self.architecture}.{name}"
            value = self.typed(key, F32)
            if value is None:
                continue
            if not math.isfinite(value) or (name not in _FINITE and value < 0) or (name in _POSITIVE and value == 0):
                words = (
                    "above 0" if name in _POSITIVE else "of 0 or more" if name in _NOT_NEGATIVE else "that is finite"
                )
                raise Unsound(f"{key} is {value:g}, expected a number {words}")


def _check_experts(keys: _Keys, layers: int) -> int:
    """Compare the numbers of experts with each other; how many there are."""
    experts = keys.number("expert_count", default=0, most=_MAX_EXPERTS)
    if keys.architecture in ("hunyuan_vl", "hunyuan-dense") and experts <= 1:
        return 0
    key = f"{keys.architecture}.expert_used_count"
    used = keys.each("expert_used_count", layers, 0, uniform=False)
    if isinstance(keys.values.get(key), list):
        used = max(keys.values[key])
    groups = keys.number("expert_group_count", default=0, most=_MAX_EXPERTS)
    used_groups = keys.number("expert_group_used_count", default=0, most=_MAX_EXPERTS)
    if used > experts or (experts and not used):
        raise Unsound(f"{key} is {used} of {experts} experts")
    if groups and (groups >= experts or (groups > 1 and (experts % groups or not 0 < used_groups < groups))):
        raise Unsound(f"{keys.architecture}.expert_group_count is {groups} of {experts} experts, {used_groups} used")
    return experts


def _check_vocabulary(header: RawHeader, architecture: str) -> None:
    """Compare the tokenizer's keys; raises Unsound."""
    keys = _Keys(header)
    name = keys.typed("tokenizer.ggml.model", STRING)
    if name in (None, "none", "no_vocab"):
        raise Unsound("it has no tokenizer (tokenizer.ggml.model), so that no text can be put into it")
    if name not in _TOKENIZERS:
        raise Unsound(f"tokenizer.ggml.model is {name[:40]!a}, which the engine does not know")
    pre = keys.typed("tokenizer.ggml.pre", STRING)
    if name in _MERGED and pre and pre not in PRE_TOKENIZERS:
        raise Unsound(f"tokenizer.ggml.pre is {pre[:40]!a}, which the engine does not know")
    tokens = _tokens(header)
    for key, kinds in ((SCORES, (F32, I32)), (TOKEN_TYPES, (I32,))):
        if key not in header.types:
            continue
        if header.types[key] not in {(ARRAY, kind) for kind in kinds}:
            raise Unsound(f"{key} is no array of {' or '.join(_KINDS[kind].split()[1] for kind in kinds)} numbers")
        if header.counts[key] < len(tokens):
            raise Unsound(f"{key} has {header.counts[key]} elements for {len(tokens)} tokens")
    if name in _SCORED and SCORES not in header.types:
        raise Unsound(f"{SCORES} is missing, without which the tokenizer {name!r} does not work")
    if any(not 1 <= kind <= _BYTE for kind in header.metadata.get(TOKEN_TYPES) or ()):
        raise Unsound(f"{TOKEN_TYPES} holds a number that is no type of a token, 1 to {_BYTE}")
    if header.metadata.get(SCORES) and math.isnan(sum(header.metadata[SCORES])):
        raise Unsound(f"{SCORES} holds a number that is not finite")
    if name in _MERGED:
        _check_merges(header)
    _check_bytes(name, tokens, header.metadata.get(TOKEN_TYPES))
    _check_special(keys, name, len(tokens))
    model = str(keys.typed("general.name", STRING) or "").lower()
    for names, wanted in _LOOKED_UP.items():
        if any(part in model for part in names) and (missing := set(wanted).difference(tokens)):
            raise Unsound(f"{TOKENS} lacks {min(missing)}, which the engine looks for in a model named {names[0]}")
    suppressed = "tokenizer.ggml.suppress_tokens"
    if header.types.get(suppressed, (ARRAY, I32)) != (ARRAY, I32):
        raise Unsound(f"{suppressed} is no array of int32 numbers")


def _tokens(header: RawHeader) -> list[str]:
    """The tokens as the engine keeps them, no two of which may be the same; raises Unsound."""
    if header.types.get(TOKENS) != (ARRAY, STRING):
        raise Unsound(f"{TOKENS} is missing or no array of strings")
    tokens: list[str] = header.metadata[TOKENS]
    if not tokens:
        raise Unsound(f"{TOKENS} is empty")
    if "\0" in "".join(tokens):
        tokens = [token.partition("\0")[0] for token in tokens]
    known = set(tokens)
    if "" in known:
        tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
        known = set(tokens)
    if len(known) < len(tokens):
        seen: dict[str, int] = {}
        twice, number = next((token, i) for i, token in enumerate(tokens) if seen.setdefault(token, i) != i)
        raise Unsound(f"{TOKENS} has the token {twice[:40]!a} twice, as {seen[twice]} and {number}")
    return tokens


def _check_merges(header: RawHeader) -> None:
    if header.types.get(MERGES) == (ARRAY, STRING):
        return
    if MERGES not in header.types and header.metadata.get("tokenizer.ggml.pre") == "kimi-k2":
        return
    raise Unsound(f"{MERGES} is missing or no array of strings")


def _check_bytes(name: str, tokens: list[str], types: list[int] | None) -> None:
    """Text that is no token becomes tokens of its bytes: there have to be all of them; raises Unsound."""
    if name in _SCORED and types and _BYTE in types:
        for token, kind in zip(tokens, types, strict=False):
            if kind == _BYTE and not _BYTE_TOKEN.fullmatch(token):
                raise Unsound(f"{TOKEN_TYPES} says that the token {token[:40]!a} is a byte, which is written <0xNN>")
    if name in ("llama", "plamo2"):
        known = set(tokens)
        for byte in range(256):
            if f"<0x{byte:02X}>" not in known and (name == "plamo2" or byte > 127 or chr(byte) not in known):
                raise Unsound(f"{TOKENS} lacks <0x{byte:02X}>; the tokenizer {name!r} needs all bytes")
    if name == "rwkv":
        short = {_unescaped(token) for token in tokens if len(token) <= 4}
        if (missing := next((byte for byte in range(256) if bytes([byte]) not in short), None)) is not None:
            raise Unsound(f"{TOKENS} lacks the byte {missing}; the tokenizer 'rwkv' needs all bytes")


def _unescaped(token: str) -> bytes:
    """The bytes that an RWKV token stands for; b"" for what is no single character."""
    if match := re.fullmatch(r"\\x([0-9a-f]{2})", token):
        return bytes.fromhex(match[1])
    named = {"\\t": b"\t", "\\n": b"\n", "\\r": b"\r", "\\\\": b"\\", "\\'": b"'", '\\"': b'"'}
    return named.get(token, token.encode("utf-8", "surrogateescape") if len(token) == 1 else b"")


def _check_special(keys: _Keys, name: str, tokens: int) -> None:
    """A token that is put in front of or behind every text has to be one; raises Unsound."""
    bos, eos, add_bos = _TOKENIZERS[name]
    for key, default, adds in (("bos", bos, add_bos), ("eos", eos, False)):
        wanted = keys.typed(f"tokenizer.ggml.add_{key}_token", BOOL)
        token = keys.typed(f"tokenizer.ggml.{key}_token_id", U32)
        if token is None or token >= tokens:
            token = default if default is not None and default < tokens else None
        if token is None and (adds if wanted is None else wanted):
            raise Unsound(f"tokenizer.ggml.{key}_token_id is missing or no token, but one is to be added to every text")


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


@dataclass(frozen=True)
class _Family:
    """What an architecture has besides what all of ours have.

    Attributes:
        vectors: Names of its further vectors -> which of the dimensions they have.
        square: Whether queries are as wide as the embedding.
        turns_all: Whether the rotary embedding has to turn whole heads.
    """

    vectors: dict[str, str]
    square: bool = False
    turns_all: bool = True


_SUB_NORMS = {"attn_sub_norm": "embedding", "ffn_sub_norm": "forward"}
_QK_NORMS = {"attn_q_norm": "key", "attn_k_norm": "key"}
_POST_NORMS = {"post_attention_norm": "embedding", "post_ffw_norm": "embedding"}
# Of those that only some models have, whose shapes are left to the engine.
_OPTIONAL = re.compile(
    r"(rope_freqs|rope_factors_long|rope_factors_short|output|cls|cls\.output|dense_2|dense_3)\.(weight|bias|scale)"
    r"|blk\.\d+\.(attn_qkv\.weight|attn_qkv\.bias|\w+\.input_scale|\w+\.weight_scale)"
)
_FAMILIES = {
    **dict.fromkeys(("bitnet", "bitnet-b1.58", "bitnet-25"), _Family(_SUB_NORMS, square=True, turns_all=False)),
    "llama": _Family({}),
    "qwen2": _Family({}, square=True),
    "qwen3": _Family(_QK_NORMS),
    **dict.fromkeys(("gemma3", "gemma-embedding"), _Family(_QK_NORMS | _POST_NORMS, turns_all=False)),
}

# Architectures of which every tensor's shape is compared.
KNOWN_SHAPES = frozenset(_FAMILIES)


def _check_family(model: _Model) -> None:
    """Every tensor is there and has its shape and a type that it can have; raises Unsound."""
    family = _FAMILIES[model.architecture]
    queries = model.heads * model.key
    if model.key != model.value or (family.square and queries != model.embedding):
        raise Unsound(
            f"{model.architecture}.attention: {model.heads} heads of {model.key} and {model.value} do not make up an "
            f"embedding of {model.embedding}"
        )
    if not 0 < model.rotated <= model.key or (family.turns_all and model.rotated != model.key):
        raise Unsound(f"{model.architecture}.rope.dimension_count is {model.rotated} for heads of {model.key}")
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
    stray = (name for name in tensors if name not in known and not (model.experts or _OPTIONAL.fullmatch(name)))
    if name := next(stray, ""):
        raise Unsound(f"{name[:60]!a} is no tensor of a {model.architecture} model of {model.layers} layers")


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


def _wanted(model: _Model, family: _Family) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """(name, shape, whether it has to be there) of the tensors of a model."""
    embedding, forward = model.embedding, model.forward
    queries, keys = model.heads * model.key, model.kv_heads * model.key
    tokens = model.header.counts[TOKENS]
    yield "token_embd.weight", (tokens, embedding), True
    yield "output_norm.weight", (embedding,), True
    yield "output.weight", (tokens, embedding), False
    matrices = {
        "attn_q": (queries, embedding),
        "attn_k": (keys, embedding),
        "attn_v": (keys, embedding),
        "attn_output": (embedding, queries),
        "ffn_gate": (forward, embedding),
        "ffn_up": (forward, embedding),
        "ffn_down": (embedding, forward),
    }
    for layer in range(model.layers):
        block = f"blk.{layer}."
        fused = f"{block}attn_qkv.weight" in model.header.tensors
        for name, shape in matrices.items():
            optional = (fused and name in ("attn_q", "attn_k", "attn_v")) or (model.experts and name.startswith("ffn"))
            yield f"{block}{name}.weight", shape, not optional
            yield f"{block}{name}.bias", shape[:1], False
            yield f"{block}{name}.scale", (1,), False
            yield f"{block}{name}_norm_in.weight", shape[1:], False
        for name in ("attn_norm", "ffn_norm"):
            yield f"{block}{name}.weight", (embedding,), True
        for name, dimension in family.vectors.items():
            yield f"{block}{name}.weight", (getattr(model, dimension),), True
