# SPDX-License-Identifier: MIT
"""Look at a GGUF file of any engine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from trit.base.errors import UserError
from trit.base.places import python_command
from trit.engine.confinement import attending_layers
from trit.gguf.identify import Found
from trit.gguf.layouts import PUBLISHED_I2_S
from trit.gguf.loadable import AGAIN, check_loadable, convert_command, no_model, why_not
from trit.gguf.order import measure_order
from trit.gguf.rotation import PREFIX
from trit.gguf.source import Source
from trit.gguf.tensor_numbers import ROWS_OF_TOKENS
from trit.gguf.validate import KNOWN_SHAPES, embeds, unsound
from trit.gguf.vocabulary import missing_bytes
from trit.inspect.description import Description, Shares, panel_bytes
from trit.inspect.sample import counts, finite, look, scale_kind

# Key behind the architecture's name -> dimension.
# What says which layers keep keys and values.
_LAYERS = ("block_count", "full_attention_interval", "nextn_predict_layers")
DIMENSIONS = {
    "block_count": "layers",
    "embedding_length": "embedding",
    "feed_forward_length": "feed_forward",
    "attention.head_count": "heads",
    "attention.head_count_kv": "kv_heads",
    "attention.key_length": "head_size",
    "context_length": "context",
}


def describe(path: Path, context: int, exact: bool) -> Description:
    """Describe a GGUF file; raises UserError if its header cannot be read."""
    source = Source.open(path)
    kind = "GGUF file" if len(source.paths) == 1 else f"GGUF model in {len(source.paths)} files"
    found = Description(str(path), kind, bytes=source.header.file_bytes)
    metadata = source.header.metadata
    found.name = _text(metadata, "general.name")
    found.architecture = _text(metadata, "general.architecture")
    _dimensions(found, metadata)
    tokens = metadata.get("tokenizer.ggml.tokens")
    found.tokenizer = {
        "model": _text(metadata, "tokenizer.ggml.model"),
        "pre": _text(metadata, "tokenizer.ggml.pre"),
        "tokens": len(tokens) if isinstance(tokens, list) else 0,
        "chat_template": bool(_text(metadata, "tokenizer.chat_template")),
    }
    if dropped := missing_bytes(source.header):
        listed = ", ".join(f"0x{byte:02x}" for byte in dropped[:8]) + (", ..." if len(dropped) > 8 else "")
        found.tokenizer["notes"] = [f"no token stands for {len(dropped)} bytes ({listed}): they are left out of a text"]
    for item in source.found.values():
        found.count(item.name, item.tensor.rows * item.tensor.columns, item.nbytes or item.tensor.span)
        if item.problem:
            found.problems.append(f"{item.tensor.name} {item.problem}")
    _weights(found, source, exact)
    _head(found, source)
    _basis(found, metadata)
    numbers = (metadata.get(f"{found.architecture}.{key}") for key in _LAYERS)
    found.kv_cache(context, attending_layers(*(value if isinstance(value, int) else 0 for value in numbers)))
    found.memory |= {"file": found.bytes, "packed": sum(map(_loaded_bytes, source.found.values()))}
    _judge(found, source)
    return found


def bytes_per_token(path: Path) -> int:
    """Bytes of weights that are read for every token: all but an embedding that only gives one row."""
    source = Source.open(path, arrays=False)
    tied = "output.weight" not in source.found
    items = [item for name, item in source.found.items() if name != "token_embd.weight" or tied]
    return sum(map(_loaded_bytes, items))


def _loaded_bytes(item: Found) -> int:
    """Bytes of a tensor in memory: ternary matrices of layers are packed, the others stay as they are."""
    if item.layout and item.tensor.name.startswith("blk."):
        return panel_bytes(item.tensor.rows, item.tensor.columns)
    return item.nbytes or item.tensor.span


def _basis(found: Description, metadata: dict[str, Any]) -> None:
    names = metadata.get(f"{PREFIX}weight_names")
    if isinstance(names, list):
        signs = "with signs" if metadata.get(f"{PREFIX}sign_mode") == "explicit" else "without signs"
        block = metadata.get(f"{PREFIX}block_size")
        found.basis = f"{len(names)} matrices are rotated by blocks of {block} inputs, {signs}; the engine follows"


def _text(metadata: dict[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) else None


def _dimensions(found: Description, metadata: dict[str, Any]) -> None:
    """The numbers that the architecture's keys give; a list (one per layer) counts with its largest."""
    for key, name in DIMENSIONS.items():
        value = metadata.get(f"{found.architecture}.{key}")
        if isinstance(value, list) and value and all(isinstance(part, int) for part in value):
            value = max(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 32:
            found.dimensions[name] = value
    known = found.dimensions
    known.setdefault("kv_heads", known.get("heads", 0))
    if "head_size" not in known and known.get("heads") and known.get("embedding"):
        known["head_size"] = known["embedding"] // known["heads"]
    found.dimensions = {name: value for name, value in known.items() if value}


def _weights(found: Description, source: Source, exact: bool) -> None:
    """Shares and scales of the ternary tensors, layer by layer; whether the others' numbers are finite."""
    for item in source.found.values():
        if item.layout is None and item.problem is None and item.tensor.rows > 1:
            if not finite(source, item, exact or item.tensor.name in ROWS_OF_TOKENS):
                found.problems.append(f"{item.tensor.name} holds a number that is not finite")
            continue
        if item.layout is None or not item.tensor.name.startswith("blk."):
            continue
        try:
            decoded = look(source, item, exact)
        except UserError as error:
            found.problems.append(str(error))
            continue
        found.layers.setdefault(item.tensor.name.split(".")[1], Shares()).add(counts(decoded.values))
        found.ternary += item.tensor.rows * item.tensor.columns
        found.looked_at += decoded.values.size
        kind = scale_kind(decoded)
        found.scales[kind] = found.scales.get(kind, 0) + 1


def _head(found: Description, source: Source) -> None:
    embedding, head = source.found.get("token_embd.weight"), source.found.get("output.weight")
    found.embedding = embedding.name if embedding else None
    if head:
        found.head = f"{head.name}, its own"
    elif embedding:
        found.head = f"{embedding.name}, the embedding (tied)"


def _judge(found: Description, source: Source) -> None:
    """What would be done with the file."""
    path = Path(found.path)
    foreign = next((item for item in source.found.values() if item.layout and not item.loads), None)
    reason = why_not(path, source.header, list(source.found.values()))
    broken = any(item.problem for item in source.found.values())
    if reason and (no_model(source.header) or broken):
        found.refuse(reason)
        return
    if wrong := unsound(source.header, foreign=True):
        found.refuse(f"{wrong}{AGAIN}")
        return
    if foreign:
        found.command = convert_command(path, foreign)
        found.verdict = f"is to be converted: {reason}"
        return
    try:
        check_loadable(path)
    except UserError as error:
        found.refuse(str(error))
        return
    if any(item.name == PUBLISHED_I2_S for item in source.found.values()):
        order = measure_order(source)
        found.order = order.scores
        if order.suggestion not in (None, "published"):
            found.command = f"{convert_command(path, _first_i2_s(source))} --i2-s-layout {order.suggestion}"
            found.verdict = (
                f"loads, but answers nonsense: its i2_s is probably in the order of --i2-s-layout {order.suggestion}; "
                "convert it"
            )
            return
    if found.problems:
        found.refuse("damaged, it holds bytes that mean nothing: download or convert it again")
        return
    found.command = f"{python_command('run_inference.py')} -m {shlex.quote(found.path)} -p ..."
    found.verdict = "loads as it is"
    if embeds(source.header):
        found.command = f"{python_command('run_inference_server.py')} -m {shlex.quote(found.path)} -- --embeddings"
        found.verdict += ", an embedding model: it gives vectors, not answers"
    if found.architecture not in KNOWN_SHAPES:
        found.verdict += f", if its tensors are those of {found.architecture}, which are not compared"
    elif not found.layers:
        found.verdict += ", but nothing in it is ternary"


def _first_i2_s(source: Source) -> Found:
    return next(item for item in source.found.values() if item.name == PUBLISHED_I2_S)
