# SPDX-License-Identifier: MIT
"""The keys of a file that the engine's loader reads, and the one type that it takes each with. Standard library only.

``tests/gguf/test_engine_keys.py`` asks the engine itself about every name that it knows, with wrong types.
"""

from __future__ import annotations

from typing import Any

from trit.gguf.engine_names import ARCHITECTURES
from trit.gguf.header import ARRAY, STRING, RawHeader

U16, U32, I32, F32, BOOL = 2, 4, 5, 6, 7
KINDS = {U16: "a uint16", U32: "a uint32", I32: "an int32", F32: "a float32", BOOL: "a bool", STRING: "a string"}
TENSOR_EXTRA = "general.tensor_extra"

# Type -> keys of every model; those that begin with a dot stand behind the architecture's name.
_READ = {
    STRING: "general.architecture general.name tokenizer.ggml.model tokenizer.ggml.pre .rope.scaling.type",
    U16: "split.count",
    U32: """
        general.file_type
        .context_length .embedding_length .embedding_length_out .block_count .nextn_predict_layers
        .pooling_type .classifier.pooling_type
        .expert_count .expert_group_count .expert_group_used_count
        .attention.key_length .attention.value_length .attention.key_length_swa .attention.value_length_swa
        .rope.dimension_count .rope.dimension_count_swa .rope.scaling.original_context_length
        tokenizer.ggml.token_type_count
        tokenizer.ggml.bos_token_id tokenizer.ggml.eos_token_id tokenizer.ggml.eot_token_id
        tokenizer.ggml.eom_token_id tokenizer.ggml.unknown_token_id tokenizer.ggml.seperator_token_id
        tokenizer.ggml.padding_token_id tokenizer.ggml.mask_token_id
        tokenizer.ggml.fim_pre_token_id tokenizer.ggml.fim_suf_token_id tokenizer.ggml.fim_mid_token_id
        tokenizer.ggml.fim_pad_token_id tokenizer.ggml.fim_rep_token_id tokenizer.ggml.fim_sep_token_id
        tokenizer.ggml.prefix_token_id tokenizer.ggml.suffix_token_id tokenizer.ggml.middle_token_id
    """,
    F32: """
        .attention.layer_norm_rms_epsilon .attention.layer_norm_epsilon
        .rope.freq_base .rope.scale_linear
        .rope.scaling.factor .rope.scaling.alpha .rope.scaling.attn_factor
    """,
    BOOL: """
        .attention.causal .rope.scaling.finetuned
        tokenizer.ggml.add_bos_token tokenizer.ggml.add_eos_token tokenizer.ggml.add_sep_token
        tokenizer.ggml.add_space_prefix tokenizer.ggml.remove_extra_whitespaces
        tokenizer.ggml.normalizer.lowercase tokenizer.ggml.normalizer.strip_accents
    """,
}
# A number for all layers, or an array with one for each.
PER_LAYER = (".feed_forward_length", ".attention.head_count", ".attention.head_count_kv", ".expert_used_count")
# Of positions in pictures; one number stands for four.
SECTIONS = ".rope.dimension_sections"
_PATTERN = ".attention.sliding_window_pattern"
RECURRENT = ".attention.recurrent_layers"
EXPERT_FORWARD, CLAMP = ".expert_feed_forward_length", ".swiglu_clamp_exp"
# What only some architectures read.
_OF_SOME = (_PATTERN, SECTIONS, RECURRENT, EXPERT_FORWARD, CLAMP)
# Arrays -> types of their elements. What is no array there is not looked at by the engine, but for PER_LAYER and
# the pattern, which may be one number.
_ELEMENTS = {
    **dict.fromkeys((*PER_LAYER, _PATTERN, SECTIONS, RECURRENT, EXPERT_FORWARD), (U32, I32, BOOL)),
    CLAMP: (F32,),
    ".classifier.output_labels": (STRING,),
    f"{TENSOR_EXTRA}.name": (STRING,),
}
_GEMMA = {U32: ".attention.sliding_window", F32: ".rope.freq_base_swa"}
_OF_ARCHITECTURE = {
    "llama": {U32: ".vocab_size"},
    "gemma3": {U32: f"{_GEMMA[U32]} {_PATTERN}", F32: f"{_GEMMA[F32]} .final_logit_softcapping"},
    "qwen35": {
        U32: """
            .full_attention_interval .attention.recurrent_layers
            .ssm.conv_kernel .ssm.inner_size .ssm.state_size .ssm.time_step_rank .ssm.group_count
        """,
        I32: SECTIONS,
    },
    "gemma-embedding": {
        U32: f"{_GEMMA[U32]} {_PATTERN} .dense_2_feat_in .dense_2_feat_out .dense_3_feat_in .dense_3_feat_out",
        F32: _GEMMA[F32],
    },
    "minicpm": {F32: ".embedding_scale .residual_scale .logit_scale"},
    "hunyuan-dense": {I32: SECTIONS},
    "maple": {U32: f".attention.sliding_window {EXPERT_FORWARD}", F32: f".rope.freq_base_swa {CLAMP}"},
}
# Keys that we, ggml or the engine's programs read, but not its loader.
_READ_ELSEWHERE = {STRING: "general.type tokenizer.chat_template", U32: "general.alignment"}


def kinds_read(architecture: str) -> dict[str, int]:
    """Key -> the type that the engine wants, of all that its loader reads for an architecture.

    A complete list for the architectures that we convert; of the others what all have in common.
    """
    rows = (_READ, {U32: " ".join(PER_LAYER)}, _OF_ARCHITECTURE.get(architecture, {}))
    found = {name: kind for row in rows for kind, names in row.items() for name in names.split()}
    return {f"{architecture}{name}" if name.startswith(".") else name: kind for name, kind in found.items()}


class Unsound(Exception):
    """What the engine cannot take: one clause that begins with the key or tensor."""


class Keys:
    """Reads the keys of a file, each of which has the type that the engine wants."""

    def __init__(self, header: RawHeader) -> None:
        """Compare the types; raises Unsound."""
        self.values, self.types, self.counts = header.metadata, header.types, header.counts
        architecture = self.typed("general.architecture", STRING)
        if architecture is None:
            raise Unsound("general.architecture is missing")
        if architecture not in ARCHITECTURES:
            raise Unsound(f"general.architecture is {architecture[:40]!a}, for which the engine has no graph")
        self.architecture = str(architecture)
        elsewhere = {name: kind for kind, names in _READ_ELSEWHERE.items() for name in names.split()}
        for key, kind in (kinds_read(self.architecture) | elsewhere).items():
            if self.types.get(key, (kind,))[0] != ARRAY or self._name(key) not in _ELEMENTS:
                self.typed(key, kind)
        for name, elements in _ELEMENTS.items():
            key = f"{self.architecture}{name}" if name.startswith(".") else name
            wrong = self.types.get(key, (U32, None))[0] == ARRAY and self.types[key][1] not in elements
            # Maple has the pattern as an array alone, which is no type of a key by itself.
            read = key in kinds_read(self.architecture) or (self.architecture, name) == ("maple", _PATTERN)
            if wrong and (name not in _OF_SOME or read):
                kinds = {STRING: "strings", F32: "float32 numbers"}.get(elements[0], "32-bit integers")
                raise Unsound(f"{key} is an array, but not of {kinds}")

    def _name(self, key: str) -> str:
        return key.removeprefix(self.architecture) if key.startswith(f"{self.architecture}.") else key

    def wrong(self, name: str, value: object, reason: str) -> Unsound:
        """The error about a hyper-parameter, which the file may leave to the engine's default."""
        key = f"{self.architecture}.{name}"
        return Unsound(f"{key} is {value!a:.60}{'' if key in self.values else ' by default'}, which {reason}")

    def typed(self, key: str, kind: int) -> Any:
        """A value; None if it is missing; raises Unsound if it has another type."""
        if key not in self.values:
            return None
        if self.types[key][0] != kind:
            raise Unsound(f"{key} is not {KINDS[kind]}")
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

    def text(self, name: str, default: str) -> str:
        """A string."""
        value = self.typed(f"{self.architecture}.{name}", STRING)
        return default if value is None else str(value)

    def each(self, name: str, layers: int, default: int, most: int, uniform: bool) -> int:
        """A number for all layers, or one for each; the first layer's. ``uniform``: the graph knows only one."""
        key = f"{self.architecture}.{name}"
        if self.types.get(key, (U32, None))[0] != ARRAY:
            return self.number(name, default=default, most=most)
        values = self.values[key]
        if self.counts[key] != layers or values is None:
            raise Unsound(f"{key} has {self.counts[key]} numbers for {layers} layers")
        if not all(0 <= value <= most for value in values):
            raise Unsound(f"{key} holds {min(values)} to {max(values)}, expected 0 to {most}")
        if uniform and len(set(values)) > 1:
            raise Unsound(f"{key} differs between layers, which {self.architecture} has no graph for")
        return int(values[0])
