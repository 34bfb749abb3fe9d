# SPDX-License-Identifier: MIT
"""Look at a Hugging Face checkpoint folder, with the converter's own eyes."""

from __future__ import annotations

import math
import shlex
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES

from trit.base.errors import UserError
from trit.base.places import python_command
from trit.convert.from_checkpoint import check_names, model_card, present, rehearse
from trit.convert.matrices import fitting
from trit.convert.pooling import read_pooling
from trit.convert.ternary import Declared, check_shape, check_stored, read_ternary
from trit.convert.tokenizer import load_tokenizer
from trit.convert.vocabulary_check import check
from trit.gguf.embedding_types import default_embedding_type
from trit.gguf.types import GGMLQuantizationType
from trit.inspect.description import Description, Shares, panel_bytes
from trit.inspect.sample import counts
from trit.models.checkpoint import Checkpoint, readable
from trit.models.families import find_family
from trit.models.families.base import Family, Kind, TensorSpec

# Layers whose weights are looked at unless all are asked for.
LAYERS = 4
# Of a layer that has experts.
EXPERTS = 2
DIMENSIONS = {
    "num_hidden_layers": "layers",
    "hidden_size": "embedding",
    "intermediate_size": "feed_forward",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_dim": "head_size",
    "max_position_embeddings": "context",
}


def describe(path: Path, context: int, exact: bool) -> Description:
    """Describe a checkpoint folder; what is wrong with it becomes its verdict."""
    found = Description(str(path), "checkpoint folder")
    try:
        with readable(path):
            _describe(found, Checkpoint.open(path), context, exact)
    except UserError as error:
        found.refuse(str(error))
    return found


def _describe(found: Description, checkpoint: Checkpoint, context: int, exact: bool) -> None:
    """Everything but the path; what the readers raise leaves what is known until then."""
    for tensor in checkpoint.tensors.values():
        found.count(tensor.dtype, tensor.size, tensor.size * _item_bytes(tensor.dtype))
    found.bytes = sum(row["bytes"] for row in found.types.values())
    _config(found, checkpoint.config)
    found.kv_cache(context)
    found.memory["file"] = found.bytes
    family = find_family(checkpoint.config)
    specs = present(checkpoint, family)
    found.architecture = f"{found.architecture}, {family.gguf_architecture(checkpoint.config)} in the engine"
    check_names(checkpoint, family, specs)
    groups = _look(found, checkpoint, specs, exact)
    _check(found, checkpoint, family, specs)
    _size(found, specs)
    matrices = {spec.target: spec.shape for spec in specs if spec.kind is Kind.TERNARY}
    found.outtypes = fitting(matrices, groups, family.gguf_architecture(checkpoint.config))
    _judge(found)


def _item_bytes(dtype: str) -> int:
    """Bytes of one value of a safetensors dtype: its name ends in its bits."""
    bits = "".join(letter for letter in dtype if letter.isdigit())
    return int(bits or 8) // 8


def _config(found: Description, config: dict[str, Any]) -> None:
    names = config.get("architectures")
    found.architecture = ", ".join(map(str, names)) if isinstance(names, list) else None
    for key, name in DIMENSIONS.items():
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            found.dimensions[name] = value
    known = found.dimensions
    if "heads" in known:
        known.setdefault("kv_heads", known["heads"])
        if "embedding" in known:
            known.setdefault("head_size", known["embedding"] // known["heads"])


def _look(found: Description, checkpoint: Checkpoint, specs: list[TensorSpec], exact: bool) -> set[int]:
    """Shares of the ternary weights of some layers, and how they are stored; raises UserError if they are none.

    Returns:
        How many inputs share a scale; 0: the whole matrix does.
    """
    sizes: set[int] = set()
    declared = Declared.from_config(checkpoint.config, any(spec.kind is Kind.INPUT_NORM for spec in specs))
    ternary = [spec for spec in specs if spec.kind is Kind.TERNARY]
    found.ternary = sum(math.prod(spec.shape) for spec in ternary)
    layers = list(dict.fromkeys(spec.target.split(".")[1] for spec in ternary))
    chosen = layers if exact else layers[:: max(1, len(layers) // LAYERS)][:LAYERS]
    for spec in ternary:
        if spec.target.split(".")[1] not in chosen:
            continue
        n, k = spec.shape[-2:]
        for name in spec.sources if exact else spec.sources[:EXPERTS]:
            stored, scale = checkpoint.tensors[name], checkpoint.tensors.get(f"{name}_scale")
            check_stored(stored, scale, (n, k), checkpoint.asks)
            values, scales, kind = read_ternary(stored, scale, declared)
            found.layers.setdefault(spec.target.split(".")[1], Shares()).add(counts(values))
            found.looked_at += values.size
        # A float, or an array [n, groups] once a family has them.
        groups = np.atleast_2d(scales).size // n
        sizes.add(k // groups if groups else 0)
        shared = f"one per group of {k // groups}" if groups else "one per tensor"
        found.scales[f"{shared} ({kind})"] = found.scales.get(f"{shared} ({kind})", 0) + 1
    return sizes


def _check(found: Description, checkpoint: Checkpoint, family: Family, specs: list[TensorSpec]) -> None:
    """The shapes of everything, the head, the tokenizer, and that GGUF can hold all of it; raises UserError."""
    for spec in specs:
        if spec.kind is not Kind.TERNARY:
            check_shape(checkpoint.tensors[spec.source], spec.shape, checkpoint.asks)
    embeddings = [spec for spec in specs if spec.kind is Kind.EMBEDDING]
    found.embedding = checkpoint.tensors[embeddings[0].source].dtype if embeddings else None
    own = len(embeddings) > 1
    if embeddings:
        found.head = (
            f"{checkpoint.tensors[embeddings[-1].source].dtype}, {'its own' if own else 'the embedding (tied)'}"
        )
        directory, embeds = checkpoint.directory, read_pooling(checkpoint.directory, checkpoint.config) is not None
        vocabulary = load_tokenizer(directory, checkpoint.config, embeddings[0].shape[0], embeds)
        rehearse(checkpoint, family, vocabulary, model_card(checkpoint))
        # The converter's check, so that both say the same.
        with tempfile.TemporaryDirectory(prefix="trit-inspect-") as folder:
            architecture = family.gguf_architecture(checkpoint.config)
            checked = check(directory, vocabulary, architecture, vocabulary.write, Path(folder) / "vocabulary.gguf")
        found.tokenizer = {
            "model": type(vocabulary).__name__,
            "pre": getattr(vocabulary, "pre", None),
            "tokens": len(vocabulary.tokens),
            "chat_template": "default" in vocabulary.templates,
            "notes": [*vocabulary.notes, *checked.notes, *checked.warnings],
        }


def _size(found: Description, specs: list[TensorSpec]) -> None:
    """Memory once converted by default: ternary matrices packed, embeddings in their default type, norms float32."""
    sizes = {spec.target: _converted_bytes(spec) for spec in specs}
    found.memory["packed"] = sum(sizes.values())
    own = any(spec.target == "output.weight" for spec in specs)
    found.speed["bytes_per_token"] = found.memory["packed"] - (sizes.get("token_embd.weight", 0) if own else 0)


def _converted_bytes(spec: TensorSpec) -> int:
    rows, columns = int(np.prod(spec.shape[:-1])), spec.shape[-1]
    if spec.kind is Kind.TERNARY:
        return panel_bytes(rows, columns)
    kind = default_embedding_type("i2_s", columns) if spec.kind is Kind.EMBEDDING else "f32"
    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind.upper()]]
    return int(rows * columns // block * block_bytes)


def _judge(found: Description) -> None:
    """The encoding that the matrices fit, i2_s if it can be."""
    outtype = found.outtypes[0]
    command = python_command("-m utils.convert")
    found.command = f"{command} {shlex.quote(found.path)} --outtype {outtype}"
    found.verdict = f"is to be converted to {outtype}"
