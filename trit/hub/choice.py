# SPDX-License-Identifier: MIT
"""Which files of a repository are the model: configuration, tokenizer and weights, or a ready-made GGUF."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from trit.base.errors import UserError
from trit.base.flags import called
from trit.gguf.encoding_table import DEFAULT, TERNARY
from trit.gguf.layouts import BINARY, NAMED
from trit.models.checkpoint import SIDE_FILES

# Beside modules.json: how an embedding model pools (trit.convert.pooling reads it).
_POOLING = re.compile(r"\d+_Pooling/config\.json")
# Best first. For each format: the whole model in one file, or its shards with the index that names them.
_SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
_TORCH = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_OTHER = rf"{'|'.join(NAMED)}|iq\d_\w+|q\d(?:_[01k])(?:_[sml])?|bf16|f16|f32|mxfp4"
_IN_NAME = re.compile(rf"(?:^|[-_.])({'|'.join(TERNARY)}|{_OTHER})(?=$|[-_.])")


@dataclass(frozen=True)
class ReadyModel:
    """A GGUF model in a repository.

    Attributes:
        files: the file, or its parts in their order.
        encoding: what the name says, None if it says nothing.
    """

    files: tuple[str, ...]
    encoding: str | None


def encoding_in_name(name: str) -> str | None:
    """The encoding that a GGUF file's name speaks of: ``Ternary-Bonsai-8B-Q2_0.gguf`` -> ``q2_0``."""
    found = _IN_NAME.findall(_PART.sub("", name.lower()).removesuffix(".gguf"))
    return found[-1] if found else None


def checkpoint_files(names: Iterable[str]) -> list[str]:
    """The files of a checkpoint to convert: safetensors, or torch's files if there are none; empty without weights."""
    names = list(names)
    top = [name for name in names if "/" not in name and "\\" not in name]
    pooling = {name for name in names if _POOLING.fullmatch(name)} if "modules.json" in top else set()
    for whole, shards, index in (_SAFETENSORS, _TORCH):
        # With both, the whole file decides: that is what the converter and transformers go by.
        weights = [whole] if whole in top else []
        if index in top and not weights:
            weights = [index, *[name for name in top if fnmatch(name, shards)]]
        if weights:
            return sorted({name for name in top if name in SIDE_FILES} | set(weights) | pooling)
    return []


def ready_models(names: Iterable[str], wanted: str) -> list[ReadyModel]:
    """The GGUF models that may be ternary, those with the wanted encoding in their names first.

    Files whose names speak of another encoding (q4_k_m, f16, ...) are left out; so are extras such as mmproj, and the
    parts of a split model that are not all there.
    """
    # By name and number of parts: a model may be there both split and whole.
    models: dict[tuple[str, int], list[str]] = {}
    for name in sorted(names):
        if name.endswith(".gguf") and "/" not in name and "\\" not in name and not name.startswith("mmproj"):
            part = _PART.search(name)
            models.setdefault((_PART.sub(".gguf", name), int(part[2]) if part else 0), []).append(name)
    found = [
        ReadyModel(tuple(files), encoding_in_name(name))
        for (name, parts), files in models.items()
        if len(files) == max(parts, 1)
    ]
    order = [wanted, *TERNARY, *NAMED, *BINARY]
    known = [model for model in found if model.encoding in order[1:]]
    return sorted(known, key=lambda model: order.index(str(model.encoding))) + [
        model for model in found if model.encoding is None
    ]


def prefers_gguf(repo: str) -> bool:
    """Whether a repository is there for its GGUF files: its name ends in ``-gguf``."""
    return repo.lower().endswith(("-gguf", "_gguf", ".gguf"))


def nothing_usable(repo: str, names: Sequence[str]) -> UserError:
    """Why a repository cannot be used, by what it holds instead."""
    gguf = sorted({encoding_in_name(name) or name for name in names if name.endswith(".gguf")})
    weights = [name for name in names if name.endswith((".safetensors", ".gguf"))]
    folders = sorted({name.rsplit("/", 1)[0] for name in weights if "/" in name})
    if ready_models({_PART.sub(".gguf", name) for name in names}, DEFAULT):
        holds = "only some parts of a split GGUF model"
    elif gguf:
        read = ", ".join([*TERNARY, *NAMED, *BINARY])
        holds = f"only GGUF files that are not ternary ({', '.join(gguf)}; read here: {read})"
    elif any(name.startswith("adapter_model") for name in names):
        holds = "an adapter and no model of its own"
    elif folders:
        holds = f"weights in folders only ({', '.join(folders)})"
    else:
        holds = "no weights (neither safetensors, pytorch_model.bin nor GGUF)"
    return UserError(
        f"{repo} holds {holds}; name a repository with a ternary checkpoint, {called('--list-models')} shows some"
    )
