# SPDX-License-Identifier: MIT
"""Tensors and windows of each architecture; that the engine says the same is in tests/fuzz/test_agreement.py."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.support.engine_models import ARCHITECTURES, ARRAY, BOOL, EMBEDDING, F32, FORWARD, SIZE, U32, model
from tests.support.foreign_files import Key, Tensor, write_gguf
from trit.gguf.header import read_raw_header
from trit.gguf.validate import embeds, unsound

QKV = 4 * SIZE
# The hybrid's layers are not alike, and have other matrices: tests of their own.
ALIKE = tuple(name for name in ARCHITECTURES if name != "qwen35")
UNFUSED = set(ALIKE) - {"bitnet-b1.58"}
# Tensor that is optional somewhere -> its shape, and the architectures that look for it.
OPTIONAL: dict[str, tuple[tuple[int, ...], set[str]]] = {
    "rope_freqs.weight": ((SIZE // 2,), {"llama", "minicpm"}),
    "output.bias": ((259,), {"qwen2"}),
    "cls.output.weight": ((1, EMBEDDING), {"qwen3"}),
    "blk.0.attn_output.bias": ((EMBEDDING,), {"llama", "minicpm"}),
    "blk.1.ffn_down.bias": ((EMBEDDING,), {"llama", "minicpm"}),
    "blk.1.ffn_gate.bias": ((FORWARD,), {"llama", "minicpm"}),
    "blk.0.ffn_up.bias": ((FORWARD,), {"llama", "minicpm"}),
    **{f"blk.1.attn_{name}.bias": ((size * SIZE,), UNFUSED) for name, size in (("q", 2), ("k", 1), ("v", 1))},
    "blk.1.attn_q.scale": ((1,), set(ALIKE)),
    "blk.1.ffn_up.input_scale": ((1,), set(ALIKE) - {"maple"}),
    "blk.0.ffn_down_norm_in.weight": ((96,), set(ALIKE) - {"maple"}),
    "blk.0.ffn_down_exps.scale": ((4,), {"maple"}),
    "blk.0.attn_norm.scale": ((1,), set()),
    "blk.0.attn_qkv.bias": ((QKV,), set()),
    "output.scale": ((1,), set()),
    "cls.weight": ((EMBEDDING, EMBEDDING), set()),
    "blk.2.attn_norm.weight": ((EMBEDDING,), set()),
    "blk.0.attn_q.weight_scale": ((1,), set()),
}


def said(path: Path, keys: list[Key], tensors: list[Tensor], foreign: bool = False) -> str | None:
    return unsound(read_raw_header(write_gguf(path / "m.gguf", keys, tensors)), foreign=foreign)


@pytest.mark.parametrize("architecture", ALIKE)
@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_tensors_are_the_architecture_s(name: str, architecture: str, tmp_path: Path) -> None:
    keys, tensors = model(architecture)
    tensors = [row for row in tensors if row[0] != name]
    shape, looks = OPTIONAL[name]
    size = 4
    for dimension in shape:
        size *= dimension
    reason = said(tmp_path, keys, [*tensors, (name, shape, 0, bytes(size))])
    assert reason is None if architecture in looks else f"'{name}' is no tensor of a {architecture}" in str(reason)
    longer: Tensor = (name, (shape[0] + 1, *shape[1:]), 0, bytes(size // shape[0] * (shape[0] + 1)))
    assert said(tmp_path, keys, [*tensors, longer]) is not None


@pytest.mark.parametrize("architecture", ALIKE)
def test_a_fused_projection_stands_alone(architecture: str, tmp_path: Path) -> None:
    keys, tensors = model(architecture)
    fused: Tensor = ("blk.0.attn_qkv.weight", (QKV, EMBEDDING), 0, bytes(4 * QKV * EMBEDDING))
    assert "is no tensor of a" in str(said(tmp_path, keys, [*tensors, fused]))
    rest = [row for row in tensors if row[0] not in {f"blk.0.attn_{name}.weight" for name in "qkv"}]
    reason = said(tmp_path, keys, [*rest, fused])
    assert (reason is None) != architecture.startswith("bitnet"), reason


@pytest.mark.parametrize("architecture", ALIKE)
def test_graphs_of_wide_and_of_partly_turned_heads(architecture: str, tmp_path: Path) -> None:
    """Three heads of 32 inputs beside an embedding of 64, and heads of which a half is turned."""
    keys, tensors = model(architecture)
    heads, turned = f"{architecture}.attention.head_count", f"{architecture}.rope.dimension_count"
    wide = {
        "attn_q.weight": (3 * SIZE, EMBEDDING),
        "attn_output.weight": (EMBEDDING, 3 * SIZE),
        "attn_q.bias": (3 * SIZE,),
    }
    changed: list[Tensor] = []
    for name, shape, kind, raw in tensors:
        other = wide.get(name.split(".", 2)[-1], shape)
        changed.append((name, other, kind, raw if other == shape else bytes(4 * math.prod(other))))
    reason = said(tmp_path, [*(row for row in keys if row[0] != heads), (heads, U32, None, 3)], changed)
    if architecture in ("bitnet-b1.58", "qwen2"):
        assert "3 heads of 32 and 32 do not make up an embedding of 64" in str(reason)
    else:
        assert reason is None
    reason = said(tmp_path, [*(row for row in keys if row[0] != turned), (turned, U32, None, SIZE // 2)], tensors)
    if architecture in ("bitnet-b1.58", "gemma3", "gemma-embedding", "maple"):
        assert reason is None
    else:
        assert f"{turned} is 16 for heads of 32" in str(reason)


def test_keys_of_an_architecture_have_the_engine_s_types(tmp_path: Path) -> None:
    """To the others they are keys that nobody reads."""
    others = {U32: F32, F32: U32}
    for architecture in ARCHITECTURES:
        keys, tensors = model(architecture)
        gemma, embeds_texts = architecture.startswith("gemma"), architecture == "gemma-embedding"
        windows = gemma or architecture == "maple"
        for name, kind, read in (
            ("attention.sliding_window", U32, windows),
            ("attention.sliding_window_pattern", U32, gemma),
            ("rope.freq_base_swa", F32, windows),
            ("expert_feed_forward_length", U32, architecture == "maple"),
            ("final_logit_softcapping", F32, architecture == "gemma3"),
            ("vocab_size", U32, architecture == "llama"),
            ("dense_2_feat_out", U32, embeds_texts),
            ("dense_3_feat_in", U32, embeds_texts),
            ("logit_scale", F32, architecture == "minicpm"),
        ):
            key = f"{architecture}.{name}"
            if key == "maple.attention.sliding_window_pattern":  # an array alone
                continue
            rest = [row for row in keys if row[0] != key]
            reason = said(tmp_path, [*rest, (key, others[kind], None, 64)], tensors)
            assert reason == (f"{key} is not a {'uint32' if kind == U32 else 'float32'}" if read else None)


@pytest.mark.parametrize(
    ("kind", "element", "value", "words"),
    [
        (5, None, 0, None),
        (5, None, 8, "is 8, of positions in pictures"),
        (ARRAY, 5, [0, 0, 0, 0], None),
        (ARRAY, 5, [8, 8, 0, 0], "of positions in pictures"),
        (ARRAY, 5, [8, 8], "has 2 numbers, expected 4"),
    ],
)
def test_positions_in_pictures(
    kind: int, element: int | None, value: object, words: str | None, tmp_path: Path
) -> None:
    keys, tensors = model("hunyuan-dense")
    reason = said(tmp_path, [*keys, ("hunyuan-dense.rope.dimension_sections", kind, element, value)], tensors)
    assert reason is None if words is None else words in str(reason)


def test_minicpm_divides_by_its_scale_of_logits(tmp_path: Path) -> None:
    keys, tensors = model("minicpm")
    for value, passes in ((0.0, False), (16.0, True)):
        reason = said(tmp_path, [*keys, ("minicpm.logit_scale", F32, None, value)], tensors)
        assert reason is None if passes else "by which its graph divides" in str(reason)


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("expert_count", (U32, None, 0), "expert_used_count is 2 of 0 experts"),
        ("expert_used_count", (ARRAY, U32, [2, 0]), "has a layer without experts"),
        ("expert_feed_forward_length", (U32, None, 0), "expert_feed_forward_length is 0, of a mixture of experts"),
        ("expert_feed_forward_length", None, "expert_feed_forward_length is 0, of a mixture of experts"),
        ("expert_feed_forward_length", (ARRAY, U32, [96, 64]), "differs between layers"),
        ("swiglu_clamp_exp", (ARRAY, F32, [7.0]), "swiglu_clamp_exp has 1 numbers for 2 layers"),
        ("swiglu_clamp_exp", (F32, None, -1.0), "swiglu_clamp_exp is -1.0, expected 0 to"),
        ("swiglu_clamp_exp", None, "swiglu_clamp_exp is None, expected 0 to"),
        ("attention.sliding_window", None, "sliding_window is missing"),
        ("attention.sliding_window_pattern", None, "is no array with a number for each layer"),
        ("attention.sliding_window_pattern", (ARRAY, BOOL, [False, False]), "gives 0 of 2 layers a window"),
        ("expert_feed_forward_length", (ARRAY, U32, [96, 96]), None),
        ("swiglu_clamp_exp", (F32, None, 7.0), None),
    ],
)
def test_what_maple_cannot_be_without(
    name: str, row: tuple[int, int | None, object] | None, words: str | None, tmp_path: Path
) -> None:
    keys, tensors = model("maple")
    rest = [each for each in keys if each[0] != f"maple.{name}"]
    reason = said(tmp_path, [*rest, (f"maple.{name}", *row)] if row else rest, tensors)
    assert reason is None if words is None else words in str(reason)


def test_maple_has_all_experts_and_a_head_of_its_own(tmp_path: Path) -> None:
    keys, tensors = model("maple")
    for name in ("output", "blk.1.ffn_gate_exps", "blk.0.ffn_gate_inp", "blk.1.attn_q_norm"):
        lacking = [row for row in tensors if row[0] != f"{name}.weight"]
        assert said(tmp_path, keys, lacking) == f"{name}.weight is missing"


def test_experts_have_no_biases(tmp_path: Path) -> None:
    keys, tensors = model("llama")
    keys += [("llama.expert_count", U32, None, 4), ("llama.expert_used_count", U32, None, 2)]
    rest = [row for row in tensors if ".ffn_gate." not in row[0] and ".ffn_up." not in row[0]]
    rest = [row for row in rest if ".ffn_down." not in row[0]]
    shapes: dict[str, tuple[int, ...]] = {"ffn_gate_inp.weight": (4, EMBEDDING)}
    shapes |= {f"ffn_{name}_exps.weight": (4, FORWARD, EMBEDDING) for name in ("gate", "up")}
    shapes["ffn_down_exps.weight"] = (4, EMBEDDING, FORWARD)
    rest += [
        (f"blk.{i}.{name}", shape, 0, bytes(4 * math.prod(shape))) for i in (0, 1) for name, shape in shapes.items()
    ]
    assert said(tmp_path, keys, rest) is None
    # The gate alone may be missing.
    assert said(tmp_path, keys, [row for row in rest if row[0] != "blk.1.ffn_gate_exps.weight"]) is None
    for name in ("ffn_up_exps", "ffn_down_exps", "ffn_gate_inp"):
        lacking = [row for row in rest if row[0] != f"blk.1.{name}.weight"]
        assert said(tmp_path, keys, lacking) == f"blk.1.{name}.weight is missing"
    for name, size in (("gate", FORWARD), ("up", FORWARD), ("down", EMBEDDING)):
        for more, passes in ((f"ffn_{name}.bias", False), (f"ffn_{name}_exps.scale", True)):
            row: Tensor = (f"blk.0.{more}", (4 if passes else size,), 0, bytes(16 if passes else 4 * size))
            reason = said(tmp_path, keys, [*rest, row])
            assert reason is None if passes else f"'blk.0.{more}' is no tensor of a llama" in str(reason)
    assert said(tmp_path, keys, [*rest, ("blk.0.attn_output.bias", (EMBEDDING,), 0, bytes(4 * EMBEDDING))]) is None


def test_layers_that_only_predict_further_are_none_of_the_graph(tmp_path: Path) -> None:
    keys, tensors = model("llama")
    keys.append(("llama.nextn_predict_layers", U32, None, 1))
    assert "'blk.1.attn_norm.weight' is no tensor of a llama model of 1 layers" in str(said(tmp_path, keys, tensors))
    assert said(tmp_path, keys, [row for row in tensors if not row[0].startswith("blk.1")]) is None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("attention.key_length_swa", 16, "key_length_swa is 16, expected 32 as in the other layers"),
        ("attention.value_length_swa", 64, "value_length_swa is 64, expected 32"),
        ("rope.dimension_count_swa", 31, "dimension_count_swa is 31 for heads of 32"),
        ("rope.dimension_count_swa", 0, "dimension_count_swa is 0 for heads of 32"),
        ("attention.sliding_window_pattern", 1, "gives 0 of 2 layers a window"),
        ("embedding_length_out", 100, "embedding_length_out is 100, expected the embedding's 64"),
    ],
)
def test_layers_with_a_window(key: str, value: int, words: str, tmp_path: Path) -> None:
    for architecture in ("gemma3", "gemma-embedding"):
        keys, tensors = model(architecture)
        rest = [row for row in keys if row[0] != f"{architecture}.{key}"]
        assert words in str(said(tmp_path, [*rest, (f"{architecture}.{key}", U32, None, value)], tensors))


def test_a_window_for_all_layers_is_gemma_3_s_alone(tmp_path: Path) -> None:
    for architecture, passes in (("gemma3", True), ("gemma-embedding", False)):
        keys, tensors = model(architecture)
        rest = [row for row in keys if not row[0].endswith("_pattern")]
        assert (said(tmp_path, rest, tensors) is None) == passes


@pytest.mark.parametrize(("count", "passes"), [(1, False), (2, True), (3, False), (2000, False)])
def test_a_window_or_none_for_each_layer(count: int, passes: bool, tmp_path: Path) -> None:
    """Also in an array so long that its numbers are not read."""
    for architecture in ("gemma3", "gemma-embedding"):
        keys, tensors = model(architecture)
        name = f"{architecture}.attention.sliding_window_pattern"
        rest = [row for row in keys if row[0] != name]
        reason = said(
            tmp_path, [*rest, (name, ARRAY, BOOL, [True, False] * (count // 2) + [True] * (count % 2))], tensors
        )
        assert reason == (None if passes else f"{name} has {count} numbers for 2 layers")


def test_matrices_behind_the_pooling_fit(tmp_path: Path) -> None:
    keys, tensors = model("gemma-embedding")

    def fit(*sizes: int, second: bool = True, third: bool = True) -> str | None:
        """What is said of matrices [out, in] by the sizes 2_feat_in, 2_feat_out, 3_feat_in and 3_feat_out."""
        names = ("2_feat_in", "2_feat_out", "3_feat_in", "3_feat_out")
        more: list[Key] = [
            (f"gemma-embedding.dense_{name}", U32, None, size) for name, size in zip(names, sizes, strict=True)
        ]
        shapes = {"dense_2.weight": (sizes[1], EMBEDDING)} if second else {}
        shapes |= {"dense_3.weight": (EMBEDDING, sizes[2])} if third else {}
        dense: list[Tensor] = [(name, shape, 0, bytes(4 * shape[0] * shape[1])) for name, shape in shapes.items()]
        return said(tmp_path, [*keys, *more], [*tensors, *dense])

    assert fit(EMBEDDING, 96, 96, EMBEDDING) is None and fit(0, 96, 96, 0) is None
    assert "dense_2_feat_out 96 and dense_3_feat_in 80 do not fit" in str(fit(EMBEDDING, 96, 80, EMBEDDING))
    assert "dense_2_feat_in is 96, expected the embedding's 64" in str(fit(96, 96, 96, EMBEDDING))
    assert "dense_3_feat_out is 96, expected the embedding's 64" in str(fit(EMBEDDING, 96, 96, 96))
    # One alone stands between vectors of the embedding's size.
    assert fit(EMBEDDING, EMBEDDING, 96, EMBEDDING, third=False) is None
    assert "do not fit" in str(fit(EMBEDDING, 96, 96, EMBEDDING, third=False))
    assert fit(EMBEDDING, 96, EMBEDDING, EMBEDDING, second=False) is None
    assert "do not fit" in str(fit(EMBEDDING, 96, 96, EMBEDDING, second=False))


def test_the_scale_beside_tiles_is_left_to_the_converter(tmp_path: Path) -> None:
    """Of bitnet.cpp's types 38 and 39; the engine itself looks for no such tensor."""
    keys, tensors = model("bitnet-b1.58")
    scale: Tensor = ("blk.0.attn_q.weight_scale", (1,), 0, bytes(4))
    tiled = [(name, shape, 39 if name == "blk.0.attn_q.weight" else kind, raw) for name, shape, kind, raw in tensors]
    path = write_gguf(tmp_path / "m.gguf", keys, [*tiled, scale])
    assert unsound(read_raw_header(path), foreign=True) is None
    assert "is no tensor of a" in str(unsound(read_raw_header(path)))
    assert "is no tensor of a" in str(said(tmp_path, keys, [*tensors, scale], foreign=True))


def test_which_models_give_vectors(tmp_path: Path) -> None:
    def is_one(architecture: str, *more: Key) -> bool:
        keys, tensors = model(architecture)
        keys = [row for row in keys if not row[0].endswith(".pooling_type")]
        return embeds(read_raw_header(write_gguf(tmp_path / "m.gguf", [*keys, *more], tensors)))

    assert not is_one("qwen3") and is_one("gemma-embedding")
    for pooling in (0, 3):
        assert is_one("qwen3", ("qwen3.pooling_type", U32, None, pooling)) == bool(pooling)
    assert is_one("gemma3", ("gemma3.attention.causal", 7, None, False))
    assert not is_one("gemma3", ("gemma3.attention.causal", 7, None, True))
    # The pooling of a classifier's head is no pooling of vectors.
    assert not is_one("qwen3", ("qwen3.classifier.pooling_type", U32, None, 1))
