# SPDX-License-Identifier: MIT
"""Will it fit: the files and the GGUF made from them on the disk, the model in this machine's memory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from trit.base.errors import UserError
from trit.base.flags import called
from trit.base.host import cgroup_memory, free_memory_bytes
from trit.gguf.embedding_types import default_embedding_type
from trit.gguf.encoding_table import TABLE

# The context that run_inference.py asks for by default, and a cache of f16 keys and values.
_CONTEXT, _CACHE_BYTES = 2048, 2
# The engine itself with its buffers for a batch of 512 tokens.
_ENGINE_BYTES = 256 << 20
# Numbers of config.json from here on are nonsense, which the converter refuses.
_MOST = 1 << 31


@dataclass(frozen=True)
class Need:
    """What a model needs, in bytes.

    Attributes:
        download: still to be downloaded.
        gguf: the GGUF that is made from it; 0 if nothing is made.
        memory: to run it with the default context.
    """

    download: int
    gguf: int
    memory: int


def gguf_need(download: int, size: int, *, loads: bool) -> Need:
    """What a GGUF of ``size`` bytes needs (its cache is not known here), as it is or converted to another layout."""
    # The most that a conversion adds: ptq1_0 has 28 bytes for 128 weights, q2_0 has 36.
    made = 0 if loads else size * 9 // 7
    return Need(download, made, (made or size) + _ENGINE_BYTES)


def checkpoint_need(download: int, weights: int, config: Mapping[str, Any], encoding: str) -> Need:
    """What a checkpoint needs when it is converted to an encoding.

    Args:
        download: bytes still to be downloaded.
        weights: bytes of its weight files, the estimate where config.json does not give the shapes.
        config: config.json.
        encoding: a name of ``trit.gguf.encoding_table``.
    """
    shapes = [config.get(key) for key in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers")]
    heads = config.get("num_attention_heads")
    others = [config.get(key) or 1 for key in ("head_dim", "num_key_value_heads")]
    if not all(isinstance(value, int) and 0 < value < _MOST for value in (*shapes, heads, *others)):
        return Need(download, weights, weights + _ENGINE_BYTES)
    hidden, ffn, vocab, layers = (int(value) for value in shapes if value is not None)
    head_size = config.get("head_dim") or hidden // int(str(heads))
    queries, keys = head_size * int(str(heads)), head_size * int(config.get("num_key_value_heads") or str(heads))
    matrices = layers * hidden * (2 * queries + 2 * keys + 3 * ffn)
    row = TABLE[encoding]
    kind = GGMLQuantizationType[default_embedding_type(encoding, hidden).upper()]
    block, block_bytes = GGML_QUANT_SIZES[kind]
    embeddings = vocab * hidden * (1 if config.get("tie_word_embeddings") else 2) // block * block_bytes
    gguf = matrices * row.block_bytes // row.block + embeddings
    cache = 2 * layers * keys * _CONTEXT * _CACHE_BYTES
    return Need(download, gguf, gguf + cache + _ENGINE_BYTES)


def check_disk(repo: str, need: Need, folder: Path) -> None:
    """Refuse a download that the disk has no room for.

    Raises:
        UserError: names what is needed and what is free.
    """
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    wanted = need.download + need.gguf
    if wanted > free:
        made = f" and about {_gb(need.gguf)} for the GGUF made from it" if need.gguf else ""
        raise UserError(
            f"{repo} needs {_gb(wanted)} of disk ({_gb(need.download)} to download{made}), {existing} has {_gb(free)} "
            f"free; free {_gb(wanted - free)} or choose another folder with {called('--model-dir')}"
        )


def memory_warning(repo: str, need: Need) -> str | None:
    """A sentence if the model needs more memory than programs can get now."""
    known = [count for count in (free_memory_bytes(), cgroup_memory()) if count is not None]
    free = min(known, default=need.memory)
    if need.memory <= free:
        return None
    wanted = f"{repo} needs about {_gb(need.memory)} of memory to run"
    return f"{wanted}, this machine has {_gb(free)} free: it may be slow or fail"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 50e6 else f"{count / 1e6:.1f} MB"
