# SPDX-License-Identifier: MIT
"""Do our check and the engine say the same of models that are spoiled in one place? Every key, type, number and tensor.

Example: python -m tests.fuzz.agreement --build /tmp/plain

What the engine refuses, or ends itself on, our check has to refuse; what our check refuses, the engine has to refuse
too, or the reason stands in ``STRICTER``: it would answer nonsense. POSIX only.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tests.fuzz.engine import build, refused
from tests.support.engine_models import (
    ARCHITECTURES,
    ARRAY,
    BOOL,
    EMBEDDING,
    F32,
    FORWARD,
    HEADS,
    I32,
    KV_HEADS,
    LAYERS,
    SIZE,
    STRING,
    U32,
    floats,
    model,
)  # fmt: skip
from tests.support.foreign_files import Key, Tensor, write_gguf
from trit.base.errors import EXIT_FAILED, EXIT_OK, run_main
from trit.base.flags import ArgumentParser, a_path

U16, U64, F64 = 2, 10, 12
BATCH = 50
QKV = (HEADS + 2 * KV_HEADS) * SIZE
# What our check says of files that the engine loads, and answers nonsense with, or reads beyond its memory.
STRICTER = re.compile(
    r"context_length is \d+, expected"
    r"|dimension_count(_swa)? is \d+(, expected 0 to| for heads)"
    r"|(_epsilon|freq_base|freq_base_swa|scale_linear|factor|alpha|softcapping) is \S+, expected"
    r"|token_type (holds a number that is no type|says that|does not say)"
    r"|(merges is empty|scores is missing), without which"
    r"|pooling_type is \d+, expected"
    r"|embedding_length_out is \d+, expected"
    r"|split\.no .* contradict"
    r"|general\.type (calls|is not a string)"
    r"|chat_template is not a string"
    r"|(logit|embedding|residual)_scale is \S+, expected|swiglu_clamp_exp (is|has)|dimension_sections is"
    r"|maple\.feed_forward_length (is|holds)"  # which its graph does not look at
    r"|differs between layers"
    r"|sliding_window_pattern has \d+ numbers"
    r"|which is no multiple of 32"
    r"|is all zeros|holds a number that is not finite"
    r"|full_attention_interval is|dimension_sections is"
    r"|prism\.hadamard\.version has a type|which the engine's graph does not rotate|which is not in the file"
    r"|ssm_conv1d\.weight has the type|ssm_conv1d_norm_in\.weight' is no tensor"
)
# Numbers in matrices of layers: the engine says so when it runs, `trit inspect` when it looks at the weights.
LEFT_TO_THE_ENGINE = re.compile(r"blk\.\d\.\w+\.weight~(nan|inf)")

Mutant = tuple[str, list[Key], list[Tensor]]
# Key behind the architecture's name, or whole -> type and values that it may be given.
ADDED: dict[str, tuple[int, list[object]]] = {
    ".expert_count": (U32, [1, 2, 8, 2000]),
    ".expert_used_count": (U32, [1, 9]),
    ".nextn_predict_layers": (U32, [0, 1, 2, 3]),
    ".pooling_type": (U32, [0, 1, 2, 3, 4, 5]),
    ".attention.causal": (BOOL, [True, False]),
    ".embedding_length_out": (U32, [0, 1, 64, 100, 2**31]),
    ".classifier.pooling_type": (U32, [0, 1, 9]),
    ".attention.key_length_swa": (U32, [0, 1, 16, 32, 64, 2**31]),
    ".attention.value_length_swa": (U32, [0, 1, 16, 32, 64]),
    ".rope.dimension_count_swa": (U32, [0, 1, 2, 31, 32, 34, 64, 2**31]),
    ".rope.scale_linear": (F32, [0.0, -1.0, 1e-38, 3e38, math.nan, math.inf, 8.0]),
    ".rope.scaling.factor": (F32, [0.0, -1.0, 1e-38, 3e38, math.nan, math.inf, 8.0]),
    ".rope.scaling.attn_factor": (F32, [0.0, -1.0, 1e-38, 3e38, math.nan, math.inf, 1.2]),
    ".rope.scaling.alpha": (F32, [0.0, -1.0, 3e38, math.nan, 1000.0]),
    ".rope.scaling.type": (STRING, ["none", "linear", "yarn", "longrope", "x", ""]),
    ".rope.scaling.original_context_length": (U32, [0, 1, 2**31, 2**32 - 1]),
    ".rope.scaling.finetuned": (BOOL, [True]),
    ".attention.layer_norm_epsilon": (F32, [0.0, 1e-5, -1.0, math.nan]),
    ".vocab_size": (U32, [0, 1, 999]),
    ".attention.sliding_window": (U32, [0, 1, 4, 64, 2**31, 2**32 - 1]),
    ".attention.sliding_window_pattern": (U32, [0, 1, 2, 3, 6, 2**32 - 1]),
    ".rope.freq_base_swa": (F32, [0.0, -1.0, 1e-38, math.nan, 1e6]),
    ".final_logit_softcapping": (F32, [0.0, -1.0, 1e-38, 3e38, math.nan, 30.0]),
    ".dense_2_feat_in": (U32, [0, 64, 65]),
    ".dense_2_feat_out": (U32, [0, 64]),
    ".dense_3_feat_in": (U32, [0, 64]),
    ".dense_3_feat_out": (U32, [0, 64, 65]),
    **dict.fromkeys((".logit_scale", ".embedding_scale", ".residual_scale"), (F32, [0.0, -1.0, 1e-38, math.nan, 12.0])),
    ".expert_feed_forward_length": (U32, [0, 1, 96, 2**31]),
    ".swiglu_clamp_exp": (F32, [0.0, -1.0, math.nan, math.inf, 7.0]),
    ".rope.dimension_sections": (I32, [0, 8, -1]),
    "split.count": (U16, [0, 1, 2]),
    "split.no": (U16, [0, 1]),
    "general.type": (STRING, ["model", "adapter"]),
    "general.alignment": (U32, [0, 16, 32, 64, 128, 4096]),
    "general.file_type": (U32, [40, 2**32 - 1]),
    "general.tensor_extra.name": (STRING, ["x"]),
    "tokenizer.ggml.padding_token_id": (U32, [0, 2**31, 2**32 - 1]),
    "tokenizer.ggml.eot_token_id": (U32, [0, 2**32 - 1]),
    "tokenizer.ggml.add_eos_token": (BOOL, [True]),
    "tokenizer.ggml.add_sep_token": (BOOL, [True]),
    "tokenizer.ggml.add_space_prefix": (BOOL, [True, False]),
    "tokenizer.ggml.remove_extra_whitespaces": (BOOL, [True]),
    "tokenizer.ggml.token_type_count": (U32, [0, 9]),
    "tokenizer.ggml.normalizer.lowercase": (BOOL, [True]),
    "tokenizer.chat_template": (STRING, ["x", "{{"]),
}
# Types of 32 weights: name, number, bytes.
BLOCKS = (("q8_0", 8, 34), ("q4_0", 2, 18), ("q5_1", 7, 24), ("q8_1", 9, 36), ("iq4_nl", 20, 18))
# One value of every type, and arrays.
OF_ALL_TYPES: list[tuple[int, int | None, object]] = [
    (U16, None, 1), (U32, None, 1), (I32, None, 1), (F32, None, 1.0), (BOOL, None, True), (STRING, None, "x"),
    (U64, None, 1), (F64, None, 1.0), (ARRAY, U32, [1, 1]), (ARRAY, I32, [-1, -1]), (ARRAY, BOOL, [True, False]),
    (ARRAY, F32, [1.0]), (ARRAY, F64, [1.0]), (ARRAY, STRING, ["a", "b"]),
]  # fmt: skip
# Tensors of one architecture or another -> shape, by which each is added to all.
STRANGERS: dict[str, tuple[int, ...]] = {
    "rope_freqs.weight": (SIZE // 2,),
    "rope_factors_long.weight": (SIZE // 2,),
    "output.scale": (1,),
    "cls.weight": (EMBEDDING, EMBEDDING),
    "cls.output.weight": (1, EMBEDDING),
    "cls.bias": (EMBEDDING,),
    "dense_2.weight": (EMBEDDING, EMBEDDING),
    "dense_3.weight": (EMBEDDING, EMBEDDING),
    "blk.0.attn_qkv.weight": (QKV, EMBEDDING),
    "blk.0.attn_qkv.bias": (QKV,),
    "blk.0.attn_sub_norm.weight": (EMBEDDING,),
    "blk.0.ffn_sub_norm.weight": (FORWARD,),
    "blk.0.attn_q_norm.weight": (SIZE,),
    "blk.0.post_attention_norm.weight": (EMBEDDING,),
    "blk.0.post_ffw_norm.weight": (EMBEDDING,),
    "blk.0.ffn_gate_inp.weight": (2, EMBEDDING),
    "blk.2.attn_norm.weight": (EMBEDDING,),
    "token_types.weight": (2, EMBEDDING),
    "token_embd_norm.weight": (EMBEDDING,),
    "blk.0.rope_freqs.weight": (SIZE // 2,),
    "x": (3,),
}


def mutants(architecture: str) -> Iterator[Mutant]:
    """(what is wrong, keys, tensors) of every spoiled model of an architecture."""
    keys, tensors = model(architecture)
    yield "whole", keys, tensors
    yield from _spoiled_keys(keys, tensors)
    yield from _added_keys(architecture, keys, tensors)
    yield from _spoiled_tensors(keys, tensors)
    yield from _other_tensors(architecture, keys, tensors)


def _spoiled_keys(keys: list[Key], tensors: list[Tensor]) -> Iterator[Mutant]:
    """Each key gone, of each other type, with numbers that it cannot have."""
    for i, (key, kind, element, value) in enumerate(keys):
        yield f"-{key}", keys[:i] + keys[i + 1 :], tensors
        for other, of, what in OF_ALL_TYPES:
            if (other, of) != (kind, element):
                yield f"{key}:{other},{of}", [*keys[:i], (key, other, of, what), *keys[i + 1 :]], tensors
        for n, wrong in enumerate(_values(kind, element, value)):
            named = n if kind == ARRAY else wrong
            yield f"{key}={named!a}", [*keys[:i], (key, kind, element, wrong), *keys[i + 1 :]], tensors


def _values(kind: int, element: int | None, value: object) -> Iterable[object]:
    if kind == U32:
        assert isinstance(value, int)
        ends = [0, 1, 2, 3, 7, 16, 31, 63, 65, 128, 1000, 2**20, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1]
        return [*ends, 2 * value, value + 1, max(value - 1, 0)]
    if kind == F32:
        assert isinstance(value, float)
        return [0.0, -1.0, 1e-38, 1e-20, 1.0, 3e38, math.inf, -math.inf, math.nan, 100 * value, value / 100]
    if kind == BOOL:
        return [not value]
    if kind == STRING:
        return ["", "x", f"{value}x", str(value).upper(), "\udcff", 100 * "a"]
    assert isinstance(value, list)
    odd: list[object] = ["", "\0"] if element == STRING else [9, -1]
    ends = [[*value[:-1], last] for last in (*odd, value[0])]
    return [[], value[:1], value[:-1], value + value[:1], value[::-1], *ends]


def _added_keys(architecture: str, keys: list[Key], tensors: list[Tensor]) -> Iterator[Mutant]:
    """Each key that a model may have besides, with values, and of each type."""
    for name, (kind, values) in ADDED.items():
        key = architecture + name if name.startswith(".") else name
        others = [row for row in keys if row[0] != key]
        for value in values:
            yield f"+{key}={value!a}", [*others, (key, kind, None, value)], tensors
        for other, element, value in OF_ALL_TYPES:
            if other != kind:
                yield f"+{key}:{other},{element}", [*others, (key, other, element, value)], tensors
    for name in ("feed_forward_length", "attention.head_count", "attention.head_count_kv"):
        key = f"{architecture}.{name}"
        others, old = [row for row in keys if row[0] != key], next(row[3] for row in keys if row[0] == key)
        for values in ([old] * LAYERS, [old, old + 1], [0, 0], [old] * (LAYERS + 1)):
            yield f"{key}[]={values}", [*others, (key, ARRAY, U32, values)], tensors
    extra: Key = ("general.tensor_extra.name", ARRAY, STRING, ["x"])
    for count in (0, 1, 2):
        flags: Key = ("general.tensor_extra.prec_a4", ARRAY, BOOL, [True] * count)
        yield f"extra{count}", [*keys, extra, flags], tensors


def _spoiled_tensors(keys: list[Key], tensors: list[Tensor]) -> Iterator[Mutant]:
    """Each tensor gone, renamed, twice, in other types and shapes, of numbers that are none, with others beside it."""
    random = np.random.default_rng(1)
    for i, (name, shape, kind, raw) in enumerate(tensors):
        before, behind = tensors[:i], tensors[i + 1 :]

        def put(*changed: Tensor, before: list[Tensor] = before, behind: list[Tensor] = behind) -> list[Tensor]:
            return [*before, *changed, *behind]

        yield f"-{name}", keys, put()
        yield f"{name}x", keys, put((f"{name}x", shape, kind, raw))
        yield f"{name} twice", keys, put((name, shape, kind, raw), (name, shape, kind, raw))
        yield f"{name}~layer", keys, put((name.replace("blk.", "blk.0"), shape, kind, raw))
        values = np.frombuffer(raw, "<f4")
        for what, other, data in (
            ("f16", 1, values.astype("<f2")),
            ("bf16", 30, (values.view("<u4") >> 16).astype("<u2")),
            ("i32", 26, values),
            ("f64", 28, values.astype("<f8")),
            ("i8", 24, values.astype(np.int8)),
            ("zero", 0, np.zeros_like(values)),
            ("nan", 0, np.full_like(values, math.nan)),
            ("inf", 0, np.full_like(values, math.inf)),
        ):
            yield f"{name}~{what}", keys, put((name, shape, other, data.tobytes()))
        if shape[-1] % 32 == 0:
            for what, other, size in BLOCKS:
                block = bytes([0, 0x20, *[17] * (size - 2)])
                yield f"{name}~{what}", keys, put((name, shape, other, block * (values.size // 32)))
        yield f"{name}^T", keys, put((name, shape[::-1], kind, raw))
        yield f"{name}^1", keys, put((name, (1, *shape), kind, raw))
        yield f"{name}^e", keys, put((name, (*shape, 1), kind, raw))
        yield f"{name}^half", keys, put((name, (shape[0] // 2, *shape[1:]), kind, raw[: len(raw) // 2]))
        if name.startswith("blk.1"):
            continue
        base = name.removesuffix(".weight").removesuffix(".bias")
        present = {row[0] for row in tensors}
        for suffix, size in ((".bias", shape[0]), (".bias", 1), (".scale", 1), (".scale", 2), (".input_scale", 1),
                             ("_norm_in.weight", shape[-1]), (".weight_scale", 1), ("_scale", 1)):  # fmt: skip
            if base + suffix not in present:
                yield f"+{base}{suffix}({size})", keys, [*tensors, (base + suffix, (size,), 0, floats(random, (size,)))]


def _other_tensors(architecture: str, keys: list[Key], tensors: list[Tensor]) -> Iterator[Mutant]:
    """Tensors that only some architectures have, in each; fused projections; experts."""
    random = np.random.default_rng(2)

    def new(name: str, *shape: int) -> Tensor:
        return name, shape, 0, floats(random, shape)

    present = {row[0] for row in tensors}
    tokens = next(len(row[3]) for row in keys if row[0].endswith(".tokens"))
    strangers = STRANGERS | {"output.bias": (tokens,), "output.weight": (tokens, EMBEDDING)}
    for name, shape in strangers.items():
        if name not in present:
            yield f"+{name}", keys, [*tensors, new(name, *shape)]
    long: list[Key] = [*keys, (f"{architecture}.rope.scaling.type", STRING, None, "longrope")]
    factors = [new(f"rope_factors_{which}.weight", SIZE // 2) for which in ("long", "short")]
    for more in (factors, factors[:1], [new("rope_freqs.weight", SIZE // 2)]):
        yield f"longrope+{[row[0] for row in more]}", long, [*tensors, *more]
    fused = [row for row in tensors if not re.fullmatch(r"blk\.0\.attn_[qkv]\.weight", row[0])]
    fused.append(new("blk.0.attn_qkv.weight", QKV, EMBEDDING))
    yield "fused", keys, fused
    bare = [row for row in fused if not re.fullmatch(r"blk\.0\.attn_[qkv]\.bias", row[0])]
    yield "fused, own bias", keys, [*bare, new("blk.0.attn_qkv.bias", QKV)]
    for name, size in (("qkv.bias", QKV), ("qkv.scale", 1), ("qkv_norm_in.weight", EMBEDDING), ("q.scale", 1)):
        yield f"fused+{name}", keys, [*fused, new(f"blk.0.attn_{name}", size)]
    mixed = [row for row in tensors if not re.search(r"ffn_(gate|up|down)\.", row[0])]
    for layer in range(LAYERS):
        mixed += [new(f"blk.{layer}.ffn_{name}_exps.weight", 4, FORWARD, EMBEDDING) for name in ("gate", "up")]
        mixed.append(new(f"blk.{layer}.ffn_down_exps.weight", 4, EMBEDDING, FORWARD))
        mixed.append(new(f"blk.{layer}.ffn_gate_inp.weight", 4, EMBEDDING))
    experts: list[Key] = [
        *keys, (f"{architecture}.expert_count", U32, None, 4), (f"{architecture}.expert_used_count", U32, None, 2)
    ]  # fmt: skip
    yield "experts", experts, mixed
    yield "experts, no tensors", experts, tensors
    yield "experts, no keys", keys, mixed
    for name in ("gate_exps", "down_exps", "gate_inp"):
        yield f"experts, no {name}", experts, [row for row in mixed if name not in row[0]]
    for name, size in (("up_exps.scale", 4), ("up_exps.scale", 1), ("up.bias", FORWARD), ("up_shexp.weight", FORWARD)):
        yield f"experts+{name}({size})", experts, [*mixed, new(f"blk.0.ffn_{name}", size)]


def ends(program: Path, paths: Sequence[Path]) -> list[tuple[str, str]]:
    """How the engine ended with each file, and why: ``load.cpp``."""
    listed = "\n".join(map(str, paths)) + "\n"
    done = subprocess.run(
        [str(program)], input=listed, stdout=subprocess.PIPE, text=True, errors="replace", check=True,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )  # fmt: skip
    rows = {row[0]: (row[1], row[2]) for line in done.stdout.split("\n") if len(row := line.split("\t", 2)) == 3}
    return [rows[str(path)] for path in paths]


def disagreements(program: Path, files: Iterable[Mutant], counts: Counter[str] | None = None) -> Iterator[str]:
    """What is said of files of which our check and the engine say something else, a line each."""
    counts = Counter() if counts is None else counts
    with tempfile.TemporaryDirectory() as folder:
        rows = iter(files)
        while batch := [row for row, _ in zip(rows, range(BATCH), strict=False)]:
            paths = [write_gguf(Path(folder) / f"{i}.gguf", *row[1:]) for i, row in enumerate(batch)]
            for path, (name, *_), (how, why) in zip(paths, batch, ends(program, paths), strict=True):
                reason = refused(path)
                counts[f"{'refused' if reason else 'passed'}, engine: {how}"] += 1
                if how == "loaded" and reason and not STRICTER.search(reason):
                    yield f"{name}: the engine loads it, but: {reason.replace(str(path), '')}"
                if how != "loaded" and not reason and not LEFT_TO_THE_ENGINE.fullmatch(name):
                    yield f"{name}: passes, but the engine: {how} {why[-200:]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare all; exit 1 if there is a disagreement."""
    parser = ArgumentParser(prog="python -m tests.fuzz.agreement", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--build", type=a_path, required=True, help="folder to compile the program that loads in")
    parser.add_argument("--architecture", choices=ARCHITECTURES, help="this one alone")
    args = parser.parse_args(argv)
    program, found, counts = build(args.build, plain=True), 0, Counter[str]()
    for architecture in [args.architecture] if args.architecture else ARCHITECTURES:
        for line in disagreements(program, mutants(architecture), counts):
            print(f"{architecture}: {line}", flush=True)
            found += 1
    print(f"{sum(counts.values())} models, {found} disagreements: {dict(counts)}")
    return EXIT_FAILED if found else EXIT_OK


if __name__ == "__main__":
    sys.exit(run_main(main))
